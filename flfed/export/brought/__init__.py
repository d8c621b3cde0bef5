"""Models that somebody brings along, as folders of flfed's own export.

Read `bring.py`, then `coefficients.py` and `trees.py`.
"""
