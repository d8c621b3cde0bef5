"""Names that keys of a study had before version 0.5.0.

A new text with one of them is refused; a recorded one is read. Hashes on ledgers, and seeded noise, go by them still.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from flfed.errors import UsageError
from flfed.parsers import parse_toml
from flfed.words import sentences

STATISTIC = "statistic"
SUMMARY = "summary"
ANALYSIS = "analysis"
"""The table and the name that stand in place of the former table `[analysis]`."""
NAMES = sentences("names", "former-keys")
"""Names of now, by the former keys with their tables; after "=", a key's value."""
ONLY_OF = {
    "model.codes": "boosted-trees",
    "strategy.least-hessian": "boosted-trees",
    "statistic.of": "covariance",
    "statistic.within": SUMMARY,
}
"""Former keys of one listed thing: another one may have a key of that name."""
LAST = re.compile(r"(.*[.=])(.*)")


def rename(tables: Mapping[str, Any], names: Mapping[str, str], place: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return nested tables with some names changed, in the same order, and which these were.

    Parameters
    ----------
    tables : mapping
    names : mapping of a key with its tables to its other name
        As `NAMES`.
    place : str
        The tables around these ones, with a dot after each.

    Examples
    --------
    >>> rename({"compare": {"own": "same"}, "own": 1}, NAMES)
    ({'compare': {'site-model': 'same'}, 'own': 1}, ['compare.own'])
    """
    made = {}
    changed = list[str]()
    for key, value in tables.items():
        path = f"{place}{key}"
        if isinstance(value, dict):
            inner = "expected.*." if place == "expected." else f"{path}."
            value, within = rename(value, names, inner)
            changed += within
        changed += [one for one in (path, f"{path}={value}") if one in names]
        made[names.get(path, key)] = names.get(f"{path}={value}", value)
    return made, changed


def current_names(tables: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a study's tables under the names of now, and a sentence for each former name that was there.

    Examples
    --------
    >>> current_names({"analysis": {"bins": 8}, "compare": {"draws": 200}})[0]
    {'statistic': {'name': 'summary', 'bins': 8}, 'compare': {'resamples': 200}}
    >>> current_names({"dataset": {"partition": {"least-rows": 3}}})[1]
    ['[dataset] partition.least-rows is now min-rows']
    """
    sentences = []
    made = {STATISTIC if key == ANALYSIS else key: value for key, value in tables.items()}
    if ANALYSIS in tables:
        sentences.append(f'[{ANALYSIS}] is now [{STATISTIC}] with name = "{SUMMARY}"')
        if isinstance(made[STATISTIC], dict):
            made[STATISTIC] = {"name": SUMMARY, **made[STATISTIC]}
    made, changed = rename(made, _names_in(made))
    for path in changed:
        table, _, key = path.replace("*.", "").partition(".")
        sentences.append(f"[{table}] {key} is now {NAMES[path]}")
    return made, sentences


# Several parts of a page read one study, and many runs of a list have the same.
@lru_cache(maxsize=2048)
def parsed_study(text: str) -> Mapping[str, Any]:
    """Return a recorded study's tables under the names of now, none of a text that is not TOML."""
    try:
        tables, _ = current_names(parse_toml(text, "the study"))
    except UsageError:
        return {}
    return tables


def study_values(text: str) -> dict[str, Any]:
    """Return a recorded study's values by their whole keys of now, such as "privacy.epsilon"."""
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


def refuse_former(tables: Mapping[str, Any]) -> None:
    """Refuse a study's tables with a former name; raises UsageError with the names of now."""
    _, sentences = current_names(tables)
    if sentences:
        raise UsageError(", ".join(sentences))


def former_names(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's tables under the names from before 0.5.0, by which seeded noise goes.

    Examples
    --------
    >>> former_names({"statistic": {"name": "summary", "bounds": {}}, "compare": {"resamples": 200}})
    {'analysis': {'within': {}}, 'compare': {'draws': 200}}
    """
    names = {LAST.sub(rf"\g<1>{now}", path): LAST.sub(r"\2", path) for path, now in _names_in(tables).items()}
    made, _ = rename(tables, names)
    if _name_in(made, STATISTIC) == SUMMARY:
        made = {ANALYSIS if key == STATISTIC else key: value for key, value in made.items()}
        del made[ANALYSIS]["name"]
    return made


def _names_in(tables: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of `NAMES` that concern a study's tables."""
    return {path: now for path, now in NAMES.items() if ONLY_OF.get(path) in (None, _name_in(tables, path))}


def bare_name(key: str) -> str:
    """Return a former key, which has no table, as its table and the key of now; "" where it is none.

    Examples
    --------
    >>> bare_name("draws"), bare_name("rounds")
    ('compare.resamples', '')
    """
    for path, now in NAMES.items():
        place, _, before = path.rpartition(".")
        if before == key and "*" not in place:
            return f"{place}.{now}"
    return ""


def _name_in(tables: Mapping[str, Any], path: str) -> object:
    """Return the name that a key's table has."""
    table = tables.get(path.partition(".")[0])
    return table.get("name") if isinstance(table, dict) else None
