"""Arrival: files become batches of documents, each split into training rows and an eval set of its own."""
