"""Listing of the readers of datasets whose files are no table yet.

One file holds one reader; `[table] loader = "reader:NAME"` in a dataset's `source.toml` names it, and `[table.reader]`
has its parameters.
"""
