"""Snapshots of a site's rows, and protection against differencing.

`snapshot` writes and reads the rows; `opt_outs` leaves people out; `differencing` detects two sets that differ by
few people, and `withholding` withholds rows until no difference reveals a single person.
"""
