"""Bounds of a table: so many rows, columns, cells, bytes and seconds are read, and no more."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Literal

from flfed.errors import UsageError

TEXT_GRACE = 256_000_000
XML_GRACE = 4_000_000
"""Bytes once unpacked up to which any ratio is fine, as a column of one value packs very well; an element of XML takes
fifty times its bytes in memory."""
Key = Literal["rows", "columns", "cells", "bytes", "ratio", "seconds"]
_EXCEEDS: dict[Key, str] = {
    "rows": "it has more than {} rows",
    "columns": "it has more than {} columns",
    "cells": "it has more than {} cells",
    "bytes": "it has more than {} bytes once unpacked",
    "ratio": "it has more than {} bytes for each packed one",
    "seconds": "reading it takes more than {} seconds",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the table that a source reads.

    A larger one is refused, before it fills memory. No study can set them.

    Parameters
    ----------
    rows : int, >= 1
        Rows of the file or query, before `where` leaves any out. Example: `rows=50_000_000`.
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
    """

    rows: int = 10_000_000
    columns: int = 10_000
    cells: int = 300_000_000
    bytes: int = 4_000_000_000
    ratio: int = 100
    seconds: int = 1_800

    def __post_init__(self) -> None:
        """Refuse what bounds nothing."""
        for one in fields(self):
            bound = getattr(self, one.name)
            if not isinstance(bound, int) or bound < 1:
                raise UsageError(f"Limits: {one.name}={bound!r} must be a whole number of 1 or more")


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
        bound = getattr(self.limits, key)
        return UsageError(
            f"{self.name}: {_EXCEEDS[key].format(f'{bound:,}')}, its bound; for a larger table set "
            f"limits=Limits({key}=...) at its source in the site's package"
        )

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
        """Refuse too many bytes once unpacked, in all or for each packed byte."""
        self.check("bytes", size)
        if size > max(grace, packed * self.limits.ratio):
            raise self.refusal("ratio")

    def seconds_left(self) -> float:
        """Return the seconds that are left, negative after the end."""
        return self._end - time.monotonic()

    def check_time(self) -> None:
        """Refuse a reading that takes too long."""
        if self.seconds_left() < 0:
            raise self.refusal("seconds")
