"""Experiments over several runs: audits by attack, sweeps, comparisons, verification of published figures."""
