"""Proposals of schemas and mappings for tables without a description.

Read `columns.py` first, on one column; `cells.py` counts its texts, reads them as numbers and detects codes.
`tables.py` composes a schema, `own_tables.py` opens a person's tables, `texts.py` writes proposals to files, and
`workspace.py` creates the dataset with its sites. These keep the holdouts of packages that they replace.

`matching.py` maps a table to an existing schema: by names, which `column_words.py` reads with `column_names.toml`, and
by values, whose fit is in `fits.py`, with units by `quantities.toml`. `dialogue.py` asks a person about the rest.
"""
