"""Pause of Python's garbage collector during a run.

It runs seldom while the messages of a run are alive.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = (500_000, 50, 1000)
"""New objects between two searches, and between those that look at older objects too; Python's own are 700 and 10."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Run Python's cycle collector seldom.

    It does not search among the objects that are in memory now.

    A message is some seventy objects without a cycle, which go when nobody refers to them. While
    those of a cohort are alive, Python's search goes through all of them again and again, half as
    long as everything else that is done with a message; and one search through all imported
    modules takes a fifth of a second (measured).
    """
    before = gc.get_threshold()
    if before == RARELY:  # another run beside or around this one asked for it, and will end it
        yield
        return
    # What is imported by now lives until the end, so no search need visit it.
    gc.freeze()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
