"""Sections of a report, which app, document and terminal render."""
