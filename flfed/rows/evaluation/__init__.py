"""Evaluation of a model on holdout rows.

It has scores with their intervals, the bootstrap, and DeLong.
"""
