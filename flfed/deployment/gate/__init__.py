"""Gate of one institution.

It decides whose code runs there and who may start a study, and looks a last time at what leaves: its form, its bytes,
the ledger. Which figures may leave is decided where they are made, by the site's policy (`flfed.rows`).
"""
