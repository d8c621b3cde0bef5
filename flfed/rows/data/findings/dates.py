"""Dates that a table cannot mean: days to come, and days and months that changed places."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd

from flfed.errors import count_in_words

LEAST = 10
"""Dates whose day may be a month, from which on it is looked whether they changed places."""
CERTAIN = 0.4
"""Share of all dates at least whose day can be no month; of dates spread over months it is three fifths."""
FITS = 0.9
MISFITS = 0.25
"""So many dates would fit with day and month exchanged, and at least so many do not as they stand."""
WEEKEND = 5
"""Monday is 0."""


def odd_dates(known: pd.Series, today: date, people: pd.Series | None = None) -> Iterator[str]:
    """Yield what is odd in a column of dates, in the order of the file.

    Parameters
    ----------
    known : Series of datetime64, without gaps
    today : date
        Later dates are told, where they are fewer than half: a column of due dates has little else.
    people : Series, optional
        Who each date is of, where people have several.
    """
    later = int((known > pd.Timestamp(today)).sum())
    if 0 < 2 * later < len(known):
        yield f"{count_in_words(later)} rows have a date in the future: another century, or a code for 'not known'?"
    if many := exchanged_days(known, people):
        yield (
            f"day and month seem to be exchanged in up to {count_in_words(many)} rows, where both fit: "
            "export dates as 2026-01-31"
        )


def exchanged_days(known: pd.Series, people: pd.Series | None = None) -> int:
    """Count the dates whose day and month seem to be exchanged; 0 where nothing tells so.

    A program that reads 3.4. as the fourth of March does so where the day is no more than twelve, and leaves the
    others. Those others tell which months, which days of the week and which order the table has, and how long after one
    date of a person the next one is.

    Parameters
    ----------
    known : Series of datetime64, without gaps, in the order of the file
    people : Series, optional
        Who each date is of, with the same index.

    Examples
    --------
    >>> days = pd.Series(pd.date_range("2024-01-01", periods=90))
    >>> swapped = pd.Series([d.replace(month=d.day, day=d.month) if d.day <= 12 else d for d in days])
    >>> exchanged_days(days), exchanged_days(swapped)
    (0, 33)
    """
    days = known.dt.day.to_numpy()
    months = known.dt.month.to_numpy()
    # The same day and month read the same either way.
    either = (days <= 12) & (days != months)
    certain = days > 12
    if either.sum() < LEAST or certain.sum() < CERTAIN * len(known):
        return 0
    exchanged = known.copy()
    some = known[either]
    parts = {"year": some.dt.year, "month": some.dt.day, "day": some.dt.month}
    exchanged[either] = pd.to_datetime(pd.DataFrame(parts)).astype(known.dtype)
    looks = (_months_apart, _weekend, _out_of_order)
    found = any(look(known, exchanged, certain, either) for look in looks)
    if not found and people is not None:
        found = _far_from_each_other(known, exchanged, either, people)
    return int(either.sum()) if found else 0


def _tells(as_written: np.ndarray, exchanged: np.ndarray) -> bool:
    """Tell whether dates misfit as they are written and fit once exchanged; [dates], True where one misfits."""
    return bool(as_written.mean() >= MISFITS and 1 - exchanged.mean() >= FITS)


def _months_apart(known: pd.Series, exchanged: pd.Series, certain: np.ndarray, either: np.ndarray) -> bool:
    """Look for months in which no certain date lies."""
    there = set((known[certain].dt.year * 12 + known[certain].dt.month).unique())
    misfit = [
        ~(dates.dt.year * 12 + dates.dt.month).isin(there).to_numpy() for dates in (known[either], exchanged[either])
    ]
    return _tells(*misfit)


def _weekend(known: pd.Series, exchanged: pd.Series, certain: np.ndarray, either: np.ndarray) -> bool:
    """Look for weekends in a table of working days."""
    usual = float((known[certain].dt.day_of_week >= WEEKEND).mean())
    misfit = [(dates.dt.day_of_week >= WEEKEND).to_numpy() for dates in (known[either], exchanged[either])]
    # Two days of seven are none of work: .29 of all dates.
    return usual <= 0.05 and misfit[0].mean() >= 0.15 and misfit[1].mean() <= 0.05


def _out_of_order(known: pd.Series, exchanged: pd.Series, certain: np.ndarray, either: np.ndarray) -> bool:
    """Look for dates that lie outside of those around them, in a table that is sorted by date."""
    moments = known.to_numpy().astype("int64")
    order = moments[certain]
    if (np.diff(order) < 0).mean() > 1 - FITS:
        return False
    before = np.maximum.accumulate(np.where(certain, moments, np.iinfo(np.int64).min))
    after = np.minimum.accumulate(np.where(certain, moments, np.iinfo(np.int64).max)[::-1])[::-1]
    misfit = []
    for dates in (known, exchanged):
        at = dates.to_numpy().astype("int64")
        misfit.append(((at < before) | (at > after))[either])
    return _tells(*misfit)


PAIRS = 20
"""Pairs of dates of one person, of each kind, from which on they are looked at."""


def _far_from_each_other(known: pd.Series, exchanged: pd.Series, either: np.ndarray, people: pd.Series) -> bool:
    """Look for dates of one person that are further apart than those that are certain."""
    table = pd.DataFrame({"person": people.reindex(known.index), "known": known, "exchanged": exchanged})
    table = table.assign(either=either).dropna().sort_values(["person"], kind="stable")
    before = table.shift()
    pair = (table["person"] == before["person"]).to_numpy()
    doubtful = table["either"].to_numpy() | before["either"].eq(True).to_numpy()
    gaps = {name: (table[name] - before[name]).dt.days.to_numpy() for name in ("known", "exchanged")}
    usual = gaps["known"][pair & ~doubtful]
    if len(usual) < PAIRS or (pair & doubtful).sum() < PAIRS:
        return False
    low, high = np.quantile(usual, (0.02, 0.98))
    return _tells(*((gap[pair & doubtful] < low) | (gap[pair & doubtful] > high) for gap in gaps.values()))
