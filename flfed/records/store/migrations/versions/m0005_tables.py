"""The first revision: a new store has its tables as they are declared, and is stamped with the newest revision.

What a later table or column needs is a step of its own behind this one, for the stores that were made before.
"""

from __future__ import annotations

revision = "m0005"
down_revision = None


def upgrade() -> None:
    """Leave the tables as they are."""
