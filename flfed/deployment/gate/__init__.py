"""Gate of one institution.

It decides whose code runs there and who may start a study. Its last check of each reply is of form and bytes, and
writes the ledger. The site's policy decides which figures may leave, in the code that makes them (`flfed.rows`).
"""
