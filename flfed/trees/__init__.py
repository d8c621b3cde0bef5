"""Boosted trees as numbers that rows and updates share.

Start with `forest.py`: trees as arrays, and the scores that they give to coded rows. `cut_points.py` makes the codes:
it divides a number's range into fine bins that follow from the schema alone, and chooses cut points from the sites'
merged counts. `growth.py` makes splits of the sites' merged sums.
"""
