"""Attacks on a model or a site's messages.

They show how much a reader learns of a row.
"""
