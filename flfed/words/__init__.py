"""Sentences for people, in templates: a file a subject, a table a place where they are shown."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def sentences(subject: str, table: str) -> Mapping[str, str]:
    """Return the sentences of a table in one file of this folder, by their keys.

    Examples
    --------
    >>> sentences("approval", "releases")["update"]
    'What leaves, in each of {rounds} ({size}): {reveals}'
    """
    found: Mapping[str, str] = tomllib.loads(_text(subject))[table]
    return found


@cache
def _text(subject: str) -> str:
    return Path(__file__).with_name(f"{subject}.toml").read_text("utf-8")
