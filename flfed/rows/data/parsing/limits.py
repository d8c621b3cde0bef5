"""Bounds of a table: the largest numbers of rows, columns, cells, bytes and seconds that are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from flfed.errors import UsageError
from flfed.words import render, usage_error

TEXT_GRACE = 256_000_000
XML_GRACE = 4_000_000
"""Unpacked bytes up to which any ratio is accepted, since a column of one value packs very well.

An element of XML takes far more memory than its bytes.
"""
Key = Literal["rows", "columns", "cells", "bytes", "ratio", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the table that a source reads.

    A larger one is refused, before it fills memory. No study can set them.

    Parameters
    ----------
    rows : int, >= 1
        Rows of the file or query, before `prepare` leaves any out. Example: `rows=50_000_000`.
    columns : int, >= 1
        Columns of the file or query. Example: `columns=30_000`.
    cells : int, >= 1
        Rows times columns. Example: `cells=1_000_000_000`.
    bytes : int, >= 1
        Of the file, once it is unpacked; of a query, of its cells. Example: `bytes=20_000_000_000`.
    ratio : int, >= 1
        Bytes once unpacked for each packed byte, of a text of more than 256 MB and a workbook's part of more than 4 MB.
        Example: `ratio=1_000`.
    seconds : int, >= 1
        Of reading. Example: `seconds=7_200`.

    Examples
    --------
    >>> from flfed import Csv, Limits
    >>> Csv("ward.csv", limits=Limits(rows=50_000)).limits.rows
    50000
    """

    rows: int = 10_000_000
    columns: int = 10_000
    cells: int = 300_000_000
    bytes: int = 4_000_000_000
    ratio: int = 100
    seconds: int = 1_800

    def __post_init__(self) -> None:
        """Refuse a bound that is not a positive whole number."""
        for one in fields(self):
            bound = getattr(self, one.name)
            if not isinstance(bound, int) or bound < 1:
                raise usage_error("rows.reading.bound", key=one.name, bound=bound)


class Reading:
    """One reading of a table, within its limits.

    Each check raises UsageError, which names the table, the bound and its key.

    Parameters
    ----------
    name : str
        Of the table, for people: a path.
    limits : Limits
        The seconds count from now on.
    """

    def __init__(self, name: object, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self._end = time.monotonic() + limits.seconds

    def refusal(self, key: Key) -> UsageError:
        """Return the error of a table that exceeds a bound."""
        reason = render(f"rows.exceeded.{key}", bound=getattr(self.limits, key))
        return usage_error("rows.reading.refusal", name=self.name, reason=reason, key=key)

    def check(self, key: Key, count: int) -> None:
        """Refuse more than the bound."""
        if count > getattr(self.limits, key):
            raise self.refusal(key)

    def check_shape(self, rows: int, columns: int) -> None:
        """Refuse too many rows, columns or cells."""
        self.check("columns", columns)
        self.check("rows", rows)
        self.check("cells", rows * columns)

    def check_unpacked(self, size: int, packed: int, grace: int) -> None:
        """Refuse too many unpacked bytes, in total or for each packed byte."""
        self.check("bytes", size)
        if size > max(grace, packed * self.limits.ratio):
            raise self.refusal("ratio")

    def seconds_left(self) -> float:
        """Return the remaining seconds, negative after the end."""
        return self._end - time.monotonic()

    def within_time(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Yield the parts of a table while there is time."""
        for part in parts:
            self.check_time()
            yield part

    def check_time(self) -> None:
        """Refuse a reading that takes too long."""
        if self.seconds_left() < 0:
            raise self.refusal("seconds")
