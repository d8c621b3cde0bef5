"""Metrics, one file each.

A file is named as the function of `sklearn.metrics` whose value it equals.
"""
