"""Updates between institutions: messages, strategies, the guard.

This folder knows no rows.
"""
