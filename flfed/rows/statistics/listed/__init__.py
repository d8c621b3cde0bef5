"""Listing of the statistics that a study may ask for in place of a model.

One file holds one statistic: what a site adds up over all its rows, and the figures that follow from the sums of all.
"""
