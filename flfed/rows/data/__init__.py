"""Conversion of an institution's table to typed rows.

Sources, mapping, schema and holdout are each a file.

Read in the order of a row's way: `sources` (a file or query), `parsing/` (text of a cell), `mapping` (columns of the
schema), `schema` and `datasets` (columns that a study may expect), `policy` (permissions of a site), `holdout` (rows
never trained on), `site` (all of it for one institution; `site_discovery` lists sites), `table_check` and `findings/`
(reports for people).
Cells appear in this folder and nowhere further right; none of its messages names a value.
"""
