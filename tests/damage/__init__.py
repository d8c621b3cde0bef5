"""Damaged tables: what was done to each, and what it must be told as. `python -m tests.damage` writes their page."""
