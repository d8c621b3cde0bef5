"""Parsing of dates and moments.

They are those that the wall clock of the place shows, in whatever way they are written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

NO_DATE = "is not a date such as 2026-01-31"
OTHER_FORMAT = "is not a date as its mapping says"
SHIFTED = "is midnight of another time zone (have the source give local dates)"
_WHOLE = re.compile(r"\d{4}(-\d{1,2}-\d{1,2}|\d{4})\D?.*", re.DOTALL)
_ZONE = re.compile(r"(.*\d[T ]\d.*?)\s*(Z|[+-]\d\d(?::?\d\d)?)$")
_UTC = ("Z", "+00:00", "+0000", "+00", "-00:00")
FEWEST = 5
"""Rows from which on it is told that all of them are midnights of another zone."""
LATEST = 14
"""Hours by which the earliest time zone is before UTC: its midnight is 10:00 of the day before."""


def wall_clock(cells: pd.Series) -> pd.Series:
    """Return moments without a time zone.

    They are datetime64 as written, for a date is that of the place; NaT where a cell is none.

    Parameters
    ----------
    cells : Series
        Text in ISO 8601, dates, or moments with or without a time zone.

    Examples
    --------
    >>> str(wall_clock(pd.Series(["2026-01-31T00:00:00+01:00"]))[0])
    '2026-01-31 00:00:00'
    """
    if cells.dtype.kind == "M":
        zoned = getattr(cells.dt, "tz", None) is not None
        return (cells.dt.tz_localize(None) if zoned else cells).astype("datetime64[ns]")
    # The zone is cut off and not applied: midnight in Berlin is no moment of the day before.
    texts = [None if cell is None or cell is pd.NaT else _ZONE.sub(r"\1", str(cell).strip()) for cell in cells]
    found = pd.to_datetime(pd.Series(texts, index=cells.index, dtype=object), format="ISO8601", errors="coerce")
    return found.astype("datetime64[ns]")


def read_dates(
    texts: Sequence[str | None], form: str = "", rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Parse dates, and report texts that are none.

    Returns the dates [texts], NaT where there is none; which texts break a rule; and which rule.

    Parameters
    ----------
    texts : sequence of str or None
    form : str
        As `Field.date`; ISO 8601 where empty, with day, month and year.
    rows : int array [texts], optional
        In how many rows each text stands; default: in one.
    """
    known = np.array([text is not None for text in texts], dtype=bool)
    if form:
        dates = pd.to_datetime(pd.Series(list(texts), dtype=object), format=form, errors="coerce")
        found = dates.astype("datetime64[ns]").to_numpy()
        return found, np.isnat(found) & known, OTHER_FORMAT
    # A year alone, or year and month, would be read as its first day: a date must name a day.
    whole = [text if text is not None and _WHOLE.fullmatch(text) else None for text in texts]
    found = wall_clock(pd.Series(whole, dtype=object)).to_numpy()
    bad = np.isnat(found) & known
    shifted = _shifted(whole, found, np.ones(len(whole)) if rows is None else rows)
    return (found, bad, NO_DATE) if bad.any() or not shifted.any() else (found, shifted, SHIFTED)


def _shifted(texts: Sequence[str | None], dates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Find local midnights that were written in UTC.

    [texts]; they are moments in UTC, where all of these are at one or two times of the late day.

    So a table looks whose dates were midnights, an hour apart in summer, east of Greenwich.
    """
    zones = [_ZONE.match(text) if text is not None else None for text in texts]
    in_utc = np.array([zone is not None and zone[2] in _UTC for zone in zones], dtype=bool) & ~np.isnat(dates)
    times = np.unique(dates[in_utc] - dates[in_utc].astype("datetime64[D]"))
    late = len(times) in (1, 2) and bool((times >= np.timedelta64(24 - LATEST, "h")).all())
    return in_utc if late and rows[in_utc].sum() >= FEWEST else np.zeros(len(texts), dtype=bool)
