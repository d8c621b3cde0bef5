"""The listing of strategies: one file, one class, both halves of the algorithm."""
