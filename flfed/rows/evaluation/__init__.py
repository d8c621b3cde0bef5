"""Figures of a model on holdout rows, with their intervals: scores, bootstrap, DeLong."""
