"""Strategies whose server does more with the mean update than to add it."""
