"""Comparisons at a site.

They are of shared against own model, of learning curves, and of attacks on both.
"""
