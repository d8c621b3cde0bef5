"""Snapshots of a site's rows, and protection against differencing.

`snapshot` writes and reads the rows; `opt_outs` leaves people out; `people` finds snapshots that differ by few people,
and chooses whose rows are withheld with those of people who opted out.
"""
