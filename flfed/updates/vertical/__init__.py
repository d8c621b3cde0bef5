"""What parties with different columns of the same people exchange: alignment, and residuals under encryption.

Nothing here knows a table: identifiers and numbers come in, bytes go out. `alignment` finds the rows that parties have
in common, `residuals` multiplies encrypted residuals by a party's columns.
"""
