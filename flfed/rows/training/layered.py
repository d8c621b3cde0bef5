"""Former place of `flfed.rows.training.functional`.

It was here up to version 0.1; read it from `flfed`. Goes with version 0.3.
"""

from __future__ import annotations

from typing import Any

from flfed.moved import moved


def __getattr__(name: str) -> Any:
    """Return a moved name, with a warning."""
    return moved("flfed.rows.training.layered", "flfed.rows.training.functional", name)
