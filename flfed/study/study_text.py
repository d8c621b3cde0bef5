"""A recorded study's text as values by whole keys, and the keys in which several studies differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from flfed.errors import UsageError
from flfed.parsers import parse_toml

SUMMARY = "summary"
"""The statistic with noise, which is an analysis."""


# Several parts of a page read one study, and many runs of a list have the same.
@lru_cache(maxsize=2048)
def parsed_study(text: str) -> Mapping[str, Any]:
    """Return a recorded study's tables, none of a text that is not TOML."""
    try:
        return parse_toml(text, "the study")
    except UsageError:
        return {}


def study_values(text: str) -> dict[str, Any]:
    """Return a recorded study's values by their whole keys, such as "privacy.epsilon"."""
    return _by_whole_keys(parsed_study(text))


def differing_values(texts: Mapping[str, str], absent: Any = None) -> dict[str, dict[str, Any]]:
    r"""Return the keys in which recorded studies differ, each with its values by a study's name.

    They are in the order of the texts, where a person looks for the keys.

    Examples
    --------
    >>> differing_values({"a": "seed = 1\nrounds = 2", "b": "seed = 3\nrounds = 2"})
    {'seed': {'a': 1, 'b': 3}}
    """
    values_by_name = {name: study_values(text) for name, text in texts.items()}
    differing = {}
    for key in dict.fromkeys(chain(*values_by_name.values())):
        values = {name: study.get(key, absent) for name, study in values_by_name.items()}
        first, *others = values.values()
        if any(value != first for value in others):
            differing[key] = values
    return differing


def _by_whole_keys(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    value_by_key: dict[str, Any] = {}
    for key, value in table.items():
        whole = f"{before}{key}"
        if isinstance(value, dict):
            value_by_key |= _by_whole_keys(value, f"{whole}.")
        else:
            value_by_key[whole] = value
    return value_by_key
