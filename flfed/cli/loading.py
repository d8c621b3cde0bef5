"""Loading what a command needs: torch, Flower and pandas, more than a second of it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import in a `with` block without a look for garbage after every few hundred new objects.

    Modules are kept for good, so there is nothing to find; looking takes a sixth of a short run's
    seconds (measured). What was loaded is left out of later looks too.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
