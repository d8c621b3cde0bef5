"""No table of learning curves: each of their points is a run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0005"
down_revision = "m0004"


def upgrade() -> None:
    """Drop the table of points."""
    op.drop_table("curve")


def downgrade() -> None:
    """Make the table again, without points."""
    op.create_table(
        "curve",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("series_id", sa.String(40), sa.ForeignKey("series.id"), nullable=False, index=True),
        sa.Column("site", sa.String(120), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("draws", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(40), nullable=False),
        sa.Column("metric", sa.String(120), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("freedom", sa.Integer()),
    )
