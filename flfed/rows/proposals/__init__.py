"""Proposals of schemas and mappings from tables that nobody described yet.

Read `columns.py` first: what one column is; `cells.py` counts its texts and reads them as numbers, of which it finds
codes. `tables.py` puts a schema together, `matching.py` maps a table to a schema that is there already,
`own_tables.py` opens what a person names, `texts.py` writes what is proposed as files, and `workspace.py` makes the
dataset with its sites, which keep the holdouts of packages that are written over.
"""
