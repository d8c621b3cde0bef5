"""Where `flfed.updates.messages.fields` was up to version 0.1; read it from `flfed`. Goes with version 0.3."""

from __future__ import annotations

from typing import Any

from flfed.moved import moved


def __getattr__(name: str) -> Any:
    """Return a name from where it is now, with a warning."""
    return moved("flfed.updates.content", "flfed.updates.messages.fields", name)
