"""Sums over the sites' rows, as a coordinator asks for them.

`row_sums` are those of a statistic, and the counts that trees are cut by; `noised_counts` those of a study of which all
that leaves is charged; `secure_sums` asks for sums of which no site's part is seen. `server` and `comparison` use them.
"""
