"""Codes of events, made from their texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from flfed.refusals import path_of, read

revision = "m0004"
down_revision = "m0003"


def upgrade() -> None:
    """Add the column of codes.

    Events that are there already get the code that their text says; one that is no refusal keeps none.
    """
    op.add_column("event", sa.Column("code", sa.String(120), nullable=False, server_default=""))
    event = sa.table("event", sa.column("reason", sa.Text()), sa.column("code", sa.String()))
    connection = op.get_bind()
    for (reason,) in connection.execute(sa.select(event.c.reason).distinct()).all():
        found = read(reason)
        if found is not None:
            connection.execute(sa.update(event).where(event.c.reason == reason).values(code=path_of(found)))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("event", "code")
