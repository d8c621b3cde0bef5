"""Oddities of a table that breaks no rule, and why a file is no table of even lines.

Each file looks for one kind: codes for "not known" among numbers (`codes`), values by the order of the rows (`order`),
dates (`dates`), and lines of a file (`uneven_lines`). `oddities` calls those that look at a table, and looks itself for
identifiers, values and rows that repeat others or are none. None of them names a cell.
"""
