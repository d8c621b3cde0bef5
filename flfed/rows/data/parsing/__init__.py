"""Parsing of cells, headers and files: numbers, dates, identifiers, separators and queries.

Each file covers one kind of text in a table, and decides nothing about a study.
"""
