"""Tables larger than memory, read from Parquet block by block in each pass.

`table` has the files, the sides of their rows and their sums, `session` answers a study with them.
"""
