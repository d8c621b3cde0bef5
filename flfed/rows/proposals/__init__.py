"""Proposals of schemas and mappings from tables that nobody described yet.

Read `columns.py` first: what one column is; `cells.py` counts its texts and reads them as numbers, of which
`unknowns.py` finds codes. `tables.py` puts a schema together, `matching.py` maps a table to a schema that is there
already, `files.py` opens what a person names, `texts.py` writes what is proposed as files, and `earlier.py` keeps the
holdouts of packages that are written over.
"""
