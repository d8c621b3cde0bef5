"""Sums over the sites' rows, as a coordinator asks for them.

`row_sums` are those that each site sends by itself; `noised_counts` those of a study of which all that leaves is
charged; `secure_sums` gives sites the keys of sums of which no site's part is seen, `summed_answers` asks for them.
"""
