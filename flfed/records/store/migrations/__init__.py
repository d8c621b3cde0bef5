"""How the tables of the run store came to be: one file per step, run by Alembic."""
