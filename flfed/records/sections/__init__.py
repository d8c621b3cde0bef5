"""Sections of a report: each is made once, and app, document and terminal render it."""
