"""Migrations of the run store, run by Alembic, one file a step."""
