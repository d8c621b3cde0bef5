"""Hash-chained ledger of all that left a site.

It has one line for each thing that left.

`line` is the format, `ledger` appends and reads, `totals` adds up, `verify` finds what was changed.
"""
