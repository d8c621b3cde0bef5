"""Listing of the readers of datasets whose files are not the table yet.

One file holds one reader; `[table] loader = "reader:NAME"` in a dataset's `source.toml` names it, and the keys of
`[table.reader]` are what it takes.
"""
