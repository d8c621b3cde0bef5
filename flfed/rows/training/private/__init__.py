"""Record-level differential privacy at a site: sampling, clipping a row, noise on a grid.

Read `fit` first (the loop and its guarantee), then `sampling`, `per_row_gradients`, `noise` and `rounding`.
"""
