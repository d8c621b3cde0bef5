"""Names at the import paths that earlier versions documented: found for one version more, with a warning."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def moved(old: str, new: str, name: str) -> Any:
    """Return `name` of module `new` for somebody who asked module `old` for it.

    Raises
    ------
    AttributeError
        If there is no such name.
    """
    if name.startswith("__"):
        raise AttributeError(f"module {old!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(new), name)
    warnings.warn(f"{old}.{name} is in {new} now; import it from flfed where flfed has it", DeprecationWarning, 3)
    return found
