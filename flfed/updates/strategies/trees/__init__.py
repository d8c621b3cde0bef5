"""Strategies whose rounds grow trees."""
