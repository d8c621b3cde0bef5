"""Studies: their TOML text, tables and training plan.

Read `study` first (the text, its hash and refusals), then `tables` (one class a table of the file),
`plan` (rounds, epochs, rates) and `settings` (how keys, types and ranges are checked). Everybody may import it; it
imports nothing but files of the root.
"""
