"""Experiments over several runs.

They are audits by attack, sweeps, comparisons, and the verification of published tables.
"""
