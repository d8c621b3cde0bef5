"""Secure aggregation: the server gets sums of the sites' vectors, and no vector of one site.

Read `rules` first: who may add what to what. Then `ring` (numbers that can be added under a mask), `keys`
(what two sites share) and `protocol` (a secret of which a threshold of sites is needed, and the two halves of a sum).
`ckks` is the other way: ciphertexts that a server adds, where all sites have one key and the server none.
"""
