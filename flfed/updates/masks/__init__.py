"""Sums over the sites of a fixed cohort, which nobody sees the parts of: all approved sites, or no sum.

To be read in this order: `ring` (whole numbers that can be added), `pairs` (keys of a run, and masks that cancel),
`verify` (tags by which a site recognises the sum).
"""
