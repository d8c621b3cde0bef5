"""An index of what crossed by run and round, in place of one by run: a page reads the newest rounds of a long run."""

from __future__ import annotations

from alembic import op

revision = "m0002"
down_revision = "m0001"


def upgrade() -> None:
    """Make the index by run and round, and drop the one by run that it replaces."""
    op.create_index("ix_sent_run_id_round", "sent", ["run_id", "round"])
    op.drop_index("ix_sent_run_id", "sent")


def downgrade() -> None:
    """Go back to the index by run."""
    op.create_index("ix_sent_run_id", "sent", ["run_id"])
    op.drop_index("ix_sent_run_id_round", "sent")
