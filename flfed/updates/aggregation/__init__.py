"""Aggregation of updates: weighted mean, guard, rounds, early stopping."""
