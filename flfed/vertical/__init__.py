"""Different columns of the same people: both sides of a run, and what crosses between them.

`alignment` finds the rows that parties have in common, and `residuals` multiplies encrypted residuals by a party's
columns: identifiers and numbers come in, bytes go out. `party` is what each institution has of a run, `label_party` and
`column_party` are its two kinds, and `steps` their arithmetic over rows. `coordinator` passes sealed parcels on. The
messages stand with all others in `flfed.updates.messages`.
"""
