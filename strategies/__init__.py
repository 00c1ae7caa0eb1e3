"""Strategies train and measure: a light half (settings, plans; pure) and a heavy half (torch). No SQL."""
