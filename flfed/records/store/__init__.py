"""The run store in SQLite or PostgreSQL.

`tables` has the columns, `writer` and `reader` the access, `takeover` the ownership of a run while it goes on.
"""
