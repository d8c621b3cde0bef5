"""Gate of one institution.

It decides whose code runs there, who may start a study, and what leaves.
"""
