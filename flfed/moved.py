"""Names at import paths of earlier versions.

They are available for one more version, with a warning.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def moved(old: str, new: str, name: str) -> Any:
    """Return a moved name from its new module.

    Somebody asked module `old` for `name`, which is in module `new`.

    Raises
    ------
    AttributeError
        If there is no such name.
    """
    # Python itself asks for such names, and must not be warned.
    if name.startswith("__"):
        raise AttributeError(f"module {old!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(new), name)
    warnings.warn(f"{old}.{name} is in {new} now; import it from flfed where flfed has it", DeprecationWarning, 3)
    return found
