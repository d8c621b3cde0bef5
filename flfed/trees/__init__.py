"""Boosted trees as numbers that rows and updates share.

Start with `forest.py`: trees as arrays, their growth from the sites' merged sums, and the scores that they give to
coded rows. `cut_points.py` makes the codes: it divides a number's range into fine bins that follow from the schema
alone, and chooses cut points from the sites' merged counts.
"""
