"""Figures of an analysis or a statistic, a line each, for a table of an exported run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from flfed.records.statistics.listed.in_words import ANALYSIS

Found = Mapping[str, Any]
FILE = "statistics.csv"


class Figure(NamedTuple):
    """Figure of a statistic.

    Attributes
    ----------
    site, group, column : str
        Whose it is; "" means all sites, all groups and no column.
    figure : str
    value, low, high : float or None
        With its 95 % interval; None where it is not told, or has none.
    """

    site: str
    group: str
    column: str
    figure: str
    value: float | None
    low: float | None = None
    high: float | None = None


def figures_of(found: Found) -> Iterator[Figure]:
    """Yield the figures of a recorded statistic, over all sites first; `found` is the object "statistics" of a run."""
    lines = _of_analysis if found["name"] == ANALYSIS else _of_statistic
    for site, own in {"": found, **found["by-site"]}.items():
        yield from (one._replace(site=site) for one in lines(own))


def _figure(group: str, column: str, figure: str, one: object) -> Figure:
    """Return a figure of the record, which is a number or has a value and its interval."""
    ends: Found = one if isinstance(one, Mapping) else {"value": one}
    return Figure("", group, column, figure, ends.get("value"), ends.get("low"), ends.get("high"))


def _of_analysis(found: Found) -> Iterator[Figure]:
    yield from _of_rows(found, "")
    groups = found.get("groups", {"of": {}, "compared": {}})
    for group, of in groups["of"].items():
        yield _figure(group, "", f"share of {found['counts-each']}s", of["share"])
        yield from _of_rows({**of, "counts-each": found["counts-each"]}, group)
    for column, compared in groups["compared"].items():
        for what, pairs in compared.items():
            of_what = what if what == "mean" else f"share of {what}"
            yield from (_figure(pair, column, f"difference of {of_what}", one) for pair, one in pairs.items())
    for crossed in found["cross"]:
        yield from _of_crossed(crossed)


def _of_crossed(crossed: Found) -> Iterator[Figure]:
    """Yield the numbers of a cross-table."""
    column = " by ".join(crossed["columns"])
    rows, across = crossed["values"]
    for row, counts in zip(rows, crossed["counts"], strict=True):
        yield from (_figure("", column, f"count of {row}, {at}", n) for at, n in zip(across, counts, strict=True))
    test = crossed["independence"] or dict.fromkeys(("chi2", "degrees-of-freedom", "p"))
    yield from (_figure("", column, name, one) for name, one in test.items())


def _of_rows(found: Found, group: str) -> Iterator[Figure]:
    """Yield the figures of all rows, or of those of a group."""
    yield _figure(group, "", f"{found['counts-each']}s", found["rows"])
    for column, of in found["columns"].items():
        yield from (_figure(group, column, name, of[name]) for name in ("missing", "mean", "sd") if name in of)
        yield from (_figure(group, column, f"quantile {at}", one) for at, one in of.get("quantiles", {}).items())
        yield from (_figure(group, column, f"share of {value}", one) for value, one in of.get("shares", {}).items())
        edges = of.get("edges", [])
        bins = [f"{low:.12g} to {high:.12g}" for low, high in pairwise(edges)]
        counts = zip(bins, of["counts"], strict=False) if edges else of["counts"].items()
        yield from (_figure(group, column, f"count of {value}", one) for value, one in counts)


def _of_statistic(found: Found, before: str = "") -> Iterator[Figure]:
    """Yield the numbers of another statistic, each by the name that it has in the record."""
    columns = found.get("columns", [])
    for name, one in found.items():
        figure = f"{before}{name}"
        if name in ("by-site", "sites", "columns") or isinstance(one, str):
            continue
        if isinstance(one, Mapping):
            # A column may be called "value", too.
            is_figure = "value" in one and not isinstance(one["value"], Mapping)
            if is_figure:
                yield _figure("", "", figure, one)
            else:
                yield from _of_parts(one, figure, columns)
        elif isinstance(one, list):
            yield from _of_list(one, figure, columns)
        elif one is not None:
            yield _figure("", "", figure, one)


def _of_parts(parts: Found, figure: str, columns: list[str]) -> Iterator[Figure]:
    """Yield figures by column, or by another part, which is then in their name."""
    for part, one in parts.items():
        if part in columns:
            yield _figure("", part, figure, one)
        else:
            yield from _of_statistic(one, f"{figure} {part} ")


def _of_list(listed: list[Any], figure: str, columns: list[str]) -> Iterator[Figure]:
    """Yield figures of groups, of columns, or of pairs of columns."""
    for place, one in enumerate(listed):
        if isinstance(one, Mapping):
            own = {name: of for name, of in one.items() if name != "group"}
            yield from (line._replace(group=one["group"]) for line in _of_statistic(own))
        elif isinstance(one, list):
            pairs = zip(columns, one, strict=True)
            yield from (_figure("", columns[place], f"{figure} with {other}", value) for other, value in pairs)
        else:
            yield _figure("", columns[place], figure, one)
