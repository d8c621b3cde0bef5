"""What every statistic of sums has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from flfed.summaries.summary import Arrays
from flfed.words import flfed_error, usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

ROWS_EACH = 10
"""Rows of all sites for each coefficient, at least, under secure sums."""
Sums = dict[str, np.ndarray]
Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Names, shapes and types of a statistic's sums."""
WHOLE = np.dtype(np.uint64)
REAL = np.dtype(float)
"""Types of the arrays of sums."""


class Statistic(Protocol):
    """Figures that follow from sums over the rows of all sites, without a model.

    Sums of several sites are added name by name; none is a mean, so that no site counts more than its rows.
    """

    label: str

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the columns that are read.

        Raises UsageError where the schema has none such.
        """
        ...

    def shapes(self, schema: Schema) -> Shapes:
        """Return what a site sends."""
        ...

    def largest(self, schema: Schema) -> Sums:
        """Return the most that one row adds to each sum of float64, in absolute value, of the sum's shape."""
        ...

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return a site's sums over all of its mapped rows."""
        ...

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return the figures of some sites' sums, for the record: of all sites, or of one.

        `of_all` has the sums of all sites, added up, for figures of one site beside those of all.
        """
        ...


class Visit(NamedTuple):
    """A visit to the sites: the requested numbers, and the sums over all of them; none where a site refused them."""

    point: Arrays
    sums: Sums


@runtime_checkable
class VisitedStatistic(Protocol):
    """What a statistic has besides that asks the sites again, each time for sums at other numbers.

    Its sums and figures are those at one visit's numbers.
    """

    visits: int
    """How often it asks, at most."""

    def first(self, schema: Schema) -> Arrays:
        """Return the numbers of the first visit."""
        ...

    def at(self, point: Arrays) -> Statistic:
        """Return the statistic at the numbers of a visit."""
        ...

    def next(self, visits: Sequence[Visit], schema: Schema) -> Arrays | None:
        """Return the numbers of the next visit, None after the last one, whose figures are those of the statistic.

        Raises UsageError where there is no answer.
        """
        ...

    def largest_share(self, table: pd.DataFrame, schema: Schema) -> float:
        """Return the largest part that one row of a site has of its sums."""
        ...


def added(sites: Sequence[Sums]) -> Sums:
    """Return the sums of several sites, added up name by name."""
    sums = {}
    for name in sites[0]:
        sums[name] = np.stack([own[name] for own in sites]).sum(axis=0)
    return sums


def entries(statistic: Statistic, sums: Sums, schema: Schema) -> np.ndarray:
    """Return a site's sums as float64 array [entries], for secure sums: no row adds more than 1 to an entry."""
    largest = statistic.largest(schema)
    parts = [np.ravel(sums[name] / largest.get(name, 1.0)) for name in statistic.shapes(schema)]
    return np.concatenate(parts).astype(float)


def of_entries(statistic: Statistic, entries: np.ndarray, schema: Schema) -> Sums:
    """Return the sums that added entries stand for.

    Raises FlfedError where a count is below 0.
    """
    sums = Sums()
    start = 0
    largest = statistic.largest(schema)
    for name, (shape, kind) in statistic.shapes(schema).items():
        part = entries[start : start + math.prod(shape)].reshape(shape)
        start += part.size
        if name not in largest and (np.rint(part) < 0).any():
            raise flfed_error("study.statistic.negative")
        sums[name] = part * largest[name] if name in largest else np.rint(part).astype(kind)
    return sums


def column_of(name: str, schema: Schema, *, where: str, kinds: tuple[str, ...]) -> str:
    """Return the name of a column of one of these kinds.

    "target" is the schema's own; raises UsageError.
    """
    column = schema.columns.get(name)
    if column is None or column.kind not in kinds:
        choices = [one for one, of in schema.columns.items() if of.kind in kinds]
        raise usage_error("study.statistic.column", where=where, name=name, choices=", ".join(choices))
    return name
