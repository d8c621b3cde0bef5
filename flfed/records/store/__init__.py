"""The run store in SQLite or PostgreSQL.

`tables` has the columns, `writer` and `reader` the two ways in, `takeover` says whose run it is while it goes on,
`visibility` what of it one site may see, `migrations/` how an older store becomes today's.
"""
