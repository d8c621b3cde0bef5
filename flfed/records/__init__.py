"""What a run wrote down: the run store, its reports and its pages. Sees no rows and no arrays."""
