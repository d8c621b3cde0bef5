"""What a cell, a header or a file says: numbers, dates, identifiers, separators, queries.

Each file answers one question about text as it stands in a table, and decides nothing about a study.
"""
