"""From the sites' updates to the next model: weighted mean, guard, rounds, early stopping."""
