"""Strategies that a few wrong updates do not move far."""
