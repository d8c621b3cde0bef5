"""Sums of sites' rows, and figures made of them.

Sites release them before training, without a row.

`summary` has the layout of the sums, their merging, the shared encoder and warnings of columns that give the outcome.
`drift` and `table_one` compare sites, `stability` later rows with training rows; `score_bins` are the bins in which
sites count predictions. Rows, updates and records all import it: it holds counts and sums only.
"""
