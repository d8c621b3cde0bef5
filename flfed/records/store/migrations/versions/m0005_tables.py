"""The first revision: a new store has its tables as they are declared, and is stamped with the newest revision.

A later table or column needs a step of its own after this one, for earlier stores.
"""

from __future__ import annotations

revision = "m0005"
down_revision = None


def upgrade() -> None:
    """Leave the tables as they are."""
