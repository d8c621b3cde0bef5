"""Index of sent bytes by run and round.

It replaces one by run alone: a page reads the newest rounds of a long run.
"""

from __future__ import annotations

from alembic import op

revision = "m0002"
down_revision = "m0001"


def upgrade() -> None:
    """Replace the index by run with one by run and round."""
    op.create_index("ix_sent_run_id_round", "sent", ["run_id", "round"])
    op.drop_index("ix_sent_run_id", "sent")


def downgrade() -> None:
    """Go back to the index by run."""
    op.create_index("ix_sent_run_id", "sent", ["run_id"])
    op.drop_index("ix_sent_run_id_round", "sent")
