"""Frozen rows of a site, and differences between them.

`snapshot` writes and reads the frozen rows; `opt_outs` leaves people out; `differencing` finds two sets that differ by
few people, and `withholding` keeps rows back until a difference would not tell of one.
"""
