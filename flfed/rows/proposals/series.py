"""Series of columns by month, whose names share a stem and differ by a number or a date."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flfed.rows.proposals.column_words import split_words

LEAST_COLUMNS = 3
_YEAR = r"(?:19|20)\d\d"
_MONTH = r"0[1-9]|1[0-2]"
_PATTERNS = (
    re.compile(rf"\b(?P<year>{_YEAR}) ?(?P<month>{_MONTH})\b"),
    re.compile(rf"\b(?P<month>{_MONTH}|[1-9]) ?(?P<year>{_YEAR})\b"),
)
_INDEX = re.compile(r"\b\d{1,2}\b(?!.*\b\d{1,2}\b)")
Time = Literal["date", "month", "index"]


@dataclass(frozen=True)
class Series:
    """Columns of one stem, in the order of their numbers or months.

    Attributes
    ----------
    stem : str
        Their name without what differs.
    columns : tuple of str
    is_dated : bool
        Whether their order in time is stated, the first one being the oldest.
    """

    stem: str
    columns: tuple[str, ...]
    is_dated: bool


def find_series(names: Sequence[str], months: Mapping[str, int]) -> list[Series]:
    """Return the series among the names of columns.

    Parameters
    ----------
    names : sequence of str
    months : mapping of str to int
        Number of a month by its folded name.

    Examples
    --------
    >>> [series.columns for series in find_series(["MT_M2", "age", "MT_M1", "MT_M3"], {})]
    [('MT_M1', 'MT_M2', 'MT_M3')]
    """
    groups: dict[tuple[str, Time], dict[int, str]] = {}
    for name in names:
        time = _read_time(name, months)
        if time is not None:
            stem, kind, place = time
            groups.setdefault((stem, kind), {}).setdefault(place, name)
    return [
        Series(stem, _put_in_order(columns, kind), kind != "index")
        for (stem, kind), columns in groups.items()
        if len(columns) >= LEAST_COLUMNS and (kind != "index" or max(columns) - min(columns) <= len(columns))
    ]


def find_schema_series(descriptions: Mapping[str, str], months: Mapping[str, int]) -> list[Series]:
    """Return the series among a schema's columns: their descriptions differ by number or month only.

    Where these state months, they are in the order of time.
    """
    series_of_names = []
    for series in find_series(list(descriptions), months):
        times = {name: _read_time(descriptions[name], months) for name in series.columns}
        stems = {descriptions[name] if time is None else time[0] for name, time in times.items()}
        if len(stems) > 1:
            continue
        by_place = {time[2]: name for name, time in times.items() if time and time[1] == "date"}
        if len(by_place) == len(series.columns):
            series = Series(series.stem, _put_in_order(by_place, "date"), is_dated=True)
        series_of_names.append(series)
    return series_of_names


def _read_time(name: str, months: Mapping[str, int]) -> tuple[str, Time, int] | None:
    """Return a name's stem, the kind of its month or number, and its place; None where it has none."""
    text = " ".join(split_words(name))
    for pattern in _PATTERNS:
        if match := pattern.search(text):
            return _cut(text, match), "date", 12 * int(match["year"]) + int(match["month"])
    for match in re.finditer(rf"\b(?P<name>[a-z]+)(?: (?P<year>{_YEAR}|\d\d)\b)?", text):
        month = months.get(match["name"])
        if month is not None and match["year"]:
            return _cut(text, match), "date", 12 * (int(match["year"]) % 100) + month
        if month is not None:
            return _cut(text, match), "month", month
    if match := _INDEX.search(text):
        return _cut(text, match), "index", int(match[0])
    return None


def _cut(text: str, match: re.Match[str]) -> str:
    """Return a text without a match."""
    return " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())


def _put_in_order(columns: Mapping[int, str], kind: Time) -> tuple[str, ...]:
    """Return columns in their order; months without a year begin behind the longest gap."""
    places = sorted(columns)
    if kind == "month":
        gaps = [(place - places[number - 1]) % 12 for number, place in enumerate(places)]
        first = gaps.index(max(gaps))
        places = places[first:] + places[:first]
    return tuple(columns[place] for place in places)
