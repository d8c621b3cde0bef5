"""Strategies with an own part: each site keeps arrays of the model that are its own."""
