"""A site's ledger: one line for each thing that left the building, chained by hashes.

`line` is the format, `ledger` appends and reads, `totals` adds up, `verify` finds what was changed.
"""
