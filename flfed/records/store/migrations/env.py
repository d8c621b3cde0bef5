"""Alembic's environment for the run store; it uses the connection from `flfed.records.store.database`."""

from __future__ import annotations

from alembic import context

from flfed.records.store.tables import Base


def migrate() -> None:
    """Run the pending steps in the caller's transaction."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name under which Alembic loads this file; a plain import does nothing
    migrate()
