"""Oddities of a table that breaks no rule, and why a file is no table of even lines.

Each file looks for one kind: codes for "not known" among numbers (`codes`), values by the order of the rows (`order`),
dates (`dates`), identifiers (`identifiers`), rows that repeat others (`repeats`), and lines of a file (`uneven_lines`).
`oddities` calls those that look at a table. None of them names a cell.
"""
