"""Who looks at a run store, and what of it that person may see."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import tomli_w

Role = Literal["coordinator", "analyst", "site"]
"""`coordinator` sees how the consortium runs, too; `analyst` all results; `site` one institution's own."""
ANOTHER = "another site"
NO_OTHERS = "it is taken from the other sites, of which the people of one site are shown nothing"
KEPT = {
    "table-1": ("note",),
    "columns": ("note",),
    "score-histograms": ("bins", "limit", "in-all", "asked"),
    "privacy": (
        "mechanism", "unit", "epsilon", "delta", "noise", "sampling", "clip", "steps", "warnings", "uncharged"
    ),
    "leaks": ("warnings",),
}  # fmt: skip
"""By named object what no row of a site goes into, or what is a sentence: names are taken out of it."""


@dataclass(frozen=True)
class Viewer:
    """A person who looks at the pages.

    Attributes
    ----------
    role : {"coordinator", "analyst", "site"}
    site : str or None
        The one site whose figures role "site" sees, and nothing else: from a figure over all sites, or from
        those of two runs, each can take off its own, and has another's.
    name : str
        As the login has it; "" where nobody has to log in.
    """

    role: Role = "coordinator"
    site: str | None = None
    name: str = ""


def without_names(names: Iterable[str]) -> Callable[[str], str]:
    """Return what replaces the names of other sites in a sentence.

    Examples
    --------
    >>> without_names(["hungary", "hungary-2"])("hungary-2: no answer; vienna: none; hungary: none")
    'another site: no answer; vienna: none; another site: none'
    """
    words = sorted(filter(None, names), key=len, reverse=True)
    if not words:
        return str
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
    return lambda text: pattern.sub(ANOTHER, text)


def of_summary(name: str, payload: dict[str, Any], site: str, *, plain: Callable[[str], str]) -> dict[str, Any] | None:
    """Return what one site's people may see of a named object of a run; None of one that is not known here.

    Parameters
    ----------
    name : str
    payload : dict
    site : str
    plain : callable
        Takes the names of other sites out of a sentence.
    """
    if name not in KEPT:
        return None
    found = {key: without_in(payload[key], plain) for key in KEPT[name] if key in payload}
    if name == "table-1":
        rows = [row for row in payload.get("rows", ()) if site in row]
        found |= {"rows": [{key: row[key] for key in ("Characteristic", site) if key in row} for row in rows]}
    if name == "columns":
        found |= {"columns": [_own_column(column, site) for column in payload["columns"] if site in column["sites"]]}
    if name == "score-histograms":
        found |= {"all": None}
    if name in ("score-histograms", "privacy"):
        found |= {"sites": _own(payload.get("sites", {}), site)}
    return found


def _own(by_site: dict[str, Any], site: str) -> dict[str, Any]:
    return {name: found for name, found in by_site.items() if name == site}


def _own_column(column: dict[str, Any], site: str) -> dict[str, Any]:
    """Return one column of the object "columns": what counts the site's own rows, and no difference from others."""
    own = {key: column["sites"][site][key] for key in ("rows", "missing")}
    kept = {key: column.get(key) for key in ("column", "unit", "towards")}
    return kept | {"sites": {site: own | {"difference": None, "chance": None, "reason": NO_OTHERS}}}


def of_study(text: str, *, plain: Callable[[str], str]) -> str:
    r"""Return a study as one site's people may see it: without sites, expected figures and comments.

    Parameters
    ----------
    text : str
        TOML; of what is none, nothing is shown.
    plain : callable
        Takes the names of other sites out of a sentence.

    Examples
    --------
    >>> print(of_study('seed = 1 # as in Geneva\n[dataset]\nsites = ["a"]\n[expected]\nglobal = 0.9', plain=str))
    seed = 1
    <BLANKLINE>
    [dataset]
    <BLANKLINE>
    """
    found = _parsed(text)
    found.pop("expected", None)
    found.get("dataset", {}).pop("sites", None)
    return tomli_w.dumps(without_in(found, plain))


def sites_of_study(text: str) -> set[str]:
    """Return the sites that a study asks by name; those of a text that is no study are none."""
    return set(_parsed(text).get("dataset", {}).get("sites", ()))


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def without_in(found: Any, plain: Callable[[str], str]) -> Any:
    """Return an object of JSON or TOML with the names of other sites taken out of all its texts."""
    if isinstance(found, dict):
        return {key: without_in(of, plain) for key, of in found.items()}
    if isinstance(found, list):
        return [without_in(of, plain) for of in found]
    return plain(found) if isinstance(found, str) else found
