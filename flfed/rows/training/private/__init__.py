"""Training with record-level differential privacy.

A site samples rows, clips each row's gradient and adds noise on a grid.

Read `fit` first (the loop and its guarantee), then `sampling`, `noise` and `rounding`.
"""
