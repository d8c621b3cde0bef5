"""Models that somebody brings along, as folders of flfed's own export.

Read `validation_study.py`, then `coefficients.py` and `trees.py`.
"""
