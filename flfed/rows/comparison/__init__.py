"""Comparisons at a site.

They are of shared against own model, and of attacks on both.
"""
