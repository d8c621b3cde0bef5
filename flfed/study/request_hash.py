"""Hash of what a study asks of a site's rows, whatever its text calls it."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from flfed import registry
from flfed.study.settings import read_settings
from flfed.study.study import Study
from flfed.study.tables import Named

WORDS = ("name", "purpose", "legal_basis", "expires", "seed", "text", "expected", "sweep")
"""Fields of a study that ask nothing of a site's rows; the seed says only which chance a run has."""
AFTERWARDS = ("pooled", "union_scaler", "minimum_gain", "size_classes")
"""Fields of `[compare]` that no site behind a gate reads: they judge or rerun what left."""
_KINDS = {"privacy": "mechanism"}


@lru_cache(maxsize=256)
def asks_sha256(text: str) -> str:
    """Return the hash of what a study asks of a site's rows.

    Texts that differ in blanks, comments or the order of keys and lists have the same one. So have texts that differ in
    name, purpose, legal basis, last day, seed, expected figures or a sweep, and those where one writes a default out.

    Parameters
    ----------
    text : str
        The study's TOML.

    Raises
    ------
    UsageError
        If the text is no study.
    """
    study = Study.parse(text)
    request = {name: _plain(value) for name, value in vars(study).items() if name not in WORDS}
    for name, value in vars(study).items():
        if isinstance(value, Named):
            request[name] = _whole(value, _KINDS.get(name, name))
    request["compare"] = {name: value for name, value in request["compare"].items() if name not in AFTERWARDS}
    # A model to begin from is known by its hash: its name is the coordinator's word for it.
    request["warm_start"] = bool(study.warm_start)
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()


def _whole(named: Named, kind: str) -> dict[str, Any]:
    """Return a listed thing with all its settings, those that are left out at their defaults."""
    if named.name == "none":
        return {"name": "none"}
    made = registry.load(kind, named.name)
    every = inspect.signature(made).parameters.values()
    defaults = {one.name: one.default for one in every if one.default is not one.empty}
    return {"name": named.name, **defaults, **read_settings(made, named.settings, kind)}


def _plain(value: Any) -> Any:
    """Return a value of a table for JSON.

    The order of a list asks nothing.
    """
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (tuple, list)):
        return sorted({json.dumps(_plain(one), default=str) for one in value})
    return value
