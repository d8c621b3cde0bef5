"""Listing of the published splits.

One file holds one rule, which says on which rows of a site is tested.
"""
