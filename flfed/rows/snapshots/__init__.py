"""The rows that a site trains on, frozen, and the differences between two such sets.

`snapshot` writes and reads the frozen rows; `opt_outs` leaves people out; `differencing` finds two sets that differ by
few people, and `withholding` keeps rows back until a difference would not tell of one; `persons` does the same for
the people behind the rows.
"""
