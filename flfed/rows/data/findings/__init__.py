"""Oddities of a table that breaks no rule, and why a file is no table of even lines.

`columns` looks at one column: for codes for "not known" among numbers, for odd dates, and at values by the order of the
rows. `uneven_lines` looks at the lines of a file. `oddities` calls those that look at a table, and looks itself for
identifiers, values and rows that repeat others or are none. None of them names a cell.
"""
