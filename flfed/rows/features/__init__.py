"""Conversion of typed rows to arrays.

Columns, the released sums and the shared encoder.

`encode` takes a table's columns as arrays once, and makes the matrix that a model sees by the encoder of all sites.
`summarise` makes the sums that a site releases (and nothing finer).
"""
