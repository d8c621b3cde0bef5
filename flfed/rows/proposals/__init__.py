"""Proposals of schemas and mappings for tables without a description.

Read `columns.py` first, on one column; `cells.py` counts its texts, reads them as numbers and detects codes.
`tables.py` composes a schema, `matching.py` maps a table to an existing schema, `own_tables.py` opens a person's
tables, `texts.py` writes proposals to files, and `workspace.py` creates the dataset with its sites. These keep the
holdouts of packages that they replace.
"""
