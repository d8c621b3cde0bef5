"""Estimators whose sites turn rows into sums.

Each has its other half in `flfed/updates/strategies`.
"""
