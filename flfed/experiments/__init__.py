"""What is made of several runs: audits by attack, sweeps, comparisons, published tables verified."""
