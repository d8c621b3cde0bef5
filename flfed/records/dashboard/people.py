"""Who looks at the pages: everybody on this machine, or who logged in."""

from __future__ import annotations

from flfed.records.seen import Viewer


def viewer() -> Viewer:
    """Return who looks; without a login it is a person on this machine, who may see all of the store."""
    return Viewer()
