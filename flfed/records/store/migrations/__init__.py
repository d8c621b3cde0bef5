"""Migrations of the run store, run by Alembic.

There is one file a step.
"""
