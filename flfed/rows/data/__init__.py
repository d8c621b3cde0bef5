"""Conversion of an institution's table to typed rows.

Sources, mapping, schema and holdout are each a file.

Read in the order in which a row goes: `sources` (a file or query), `parsing/` (what a cell says), `mapping` (columns
to the schema), `schema` and `datasets` (what a study may expect), `policy` (what a site allows), `holdout` (who is
never trained on), `site` (all of it for one institution; `site_discovery` finds it), `table_check` and `findings/`
(what a person is told).
Cells appear in this folder and nowhere further right; no message of it names a value.
"""
