"""Oddities of a table that breaks no rule, and reasons why a file is no table of even lines.

`columns` examines one column: codes for "not known" among numbers, odd dates, and values by the order of the rows.
`parsing/text_files` examines the lines of a file. `oddities` calls the functions that examine a table. It also reports
identifiers, values and rows that repeat others, and rows that hold no data. No finding names a cell.
"""
