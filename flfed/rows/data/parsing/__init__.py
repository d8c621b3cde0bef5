"""Parsing of cells, headers and files.

It reads numbers, dates, identifiers, separators and queries.

Each file answers one question about text as it stands in a table, and decides nothing about a study.
"""
