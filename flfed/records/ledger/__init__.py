"""Hash-chained ledger of all that left a site.

It has one line for each thing that left.

`line` is the format and adds lines up, `ledger` appends and reads, `verify` finds what was changed.
"""
