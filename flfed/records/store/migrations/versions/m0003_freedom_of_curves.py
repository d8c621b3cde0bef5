"""Degrees of freedom of learning curve intervals.

There are none where a site's holdout stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0003"
down_revision = "m0002"


def upgrade() -> None:
    """Add the column of degrees of freedom.

    Curves that are there already get the number by which they were judged.
    """
    op.add_column("curve", sa.Column("freedom", sa.Integer(), nullable=True))
    op.execute("UPDATE curve SET freedom = draws - 1 WHERE draws > 1")


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("curve", "freedom")
