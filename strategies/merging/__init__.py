"""Merging models: settings, block positions and choices are light; everything that touches a tensor imports torch."""
