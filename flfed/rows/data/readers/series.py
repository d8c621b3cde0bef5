"""The reader of time series: steps of time, one series a site, and windows over each series' own past."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flfed.rows.data.parsing.cells import refuse_cells
from flfed.rows.data.parsing.text_files import cells_of, numbers_of
from flfed.rows.data.sources import Folders, find_file
from flfed.words import render, usage_error

STEPS = {"hour": "h", "day": "D", "week": "W-SAT", "month": "M"}
"""Lengths of a step, as pandas names its periods; a week ends on a Saturday, as the CDC counts weeks."""
WHAT = ("lag", "mean", "sum", "lead", "quantile")
CALENDAR = ("hour", "weekday", "month", "year_sine", "year_cosine")
"""Columns of a step's time: 0 to 23, 0 (Monday) to 6, 1 to 12, sine and cosine of its day's place in the year."""


@dataclass(kw_only=True)
class Series:
    """Table of time series from a CSV file.

    Rows of one series and step become one. A step has no row where it has no value, or where its windows reach before
    the first value, after the last, or over a gap.

    Parameters
    ----------
    file : str
        One of the dataset's files.
    time : str
        Its column of times; in the table it is the day on which the step begins (of a week: ends).
    format : str
        Format of times, as `strptime` takes it.
    step : {"hour", "day", "week", "month"}
    by : str
        Column of the series' names; with `wide`, the name of the new column.
    wide : mapping of a series to its column
        Columns of series that have one each: they become rows, under `value`.
    value : str
        Name of the values from `wide`.
    mean, sum : sequence of str
        Columns whose values within a step are averaged, or added.
    last : sequence of str
        Columns of which the last value within a step counts, as of prices.
    zero : sequence of str
        Those of them that are 0 in a step without a value, between a series' first and last: a month without a
        delivery. Other steps without a value have no row.
    logarithm : sequence of str
        Those of them that are replaced, before windows, by the logarithm of the value and one.
    calendar : sequence of {"hour", "weekday", "month", "year_sine", "year_cosine"}
        Columns of the step's time.
    windows : mapping of a name to a `_Window`
    member : str
        Where `file` is a zip or a wheel: the file in it, which may be compressed by gzip (`.gz`).

    Raises
    ------
    UsageError
        If a setting is not one of these.
    """

    file: str
    time: str
    step: str
    by: str
    format: str = "%Y-%m-%d"
    wide: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    mean: Sequence[str] = ()
    sum: Sequence[str] = ()
    last: Sequence[str] = ()
    zero: Sequence[str] = ()
    logarithm: Sequence[str] = ()
    calendar: Sequence[str] = ()
    windows: Mapping[str, Any] = field(default_factory=dict)
    member: str = ""

    def __post_init__(self) -> None:
        """Refuse settings with an unknown name."""
        if self.step not in STEPS:
            raise usage_error("rows.reader.step", step=self.step, steps=", ".join(STEPS))
        if unknown := [name for name in self.calendar if name not in CALENDAR]:
            raise usage_error("rows.reader.calendar", name=unknown[0], columns=", ".join(CALENDAR))
        self.how: dict[str, Any] = {}
        for kind in ("mean", "sum", "last"):
            self.how |= dict.fromkeys(getattr(self, kind), kind)
        if unknown := [name for name in (*self.zero, *self.logarithm) if name not in self.how]:
            raise usage_error("rows.reader.values", name=unknown[0], columns=", ".join(self.how))
        self.windows = {name: _window_of(name, window, self.how) for name, window in self.windows.items()}

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the table, sorted by series and time.

        Raises
        ------
        TableError
            If a time or a value cannot be read; with column, rule and count.
        UsageError
            If the file or a column is not there.
        """
        raw = self._long(cells_of(find_file(self.file, folders), self.member))
        times = pd.to_datetime(raw[self.time], format=self.format, errors="coerce")
        refuse_cells(self.time, render("rows.reader.times", format=self.format), times.isna())
        raw = raw.assign(**{self.time: times.dt.to_period(STEPS[self.step])}).iloc[times.argsort(kind="stable")]
        for name in self.how:
            raw[name] = numbers_of(raw, name)
        kinds: dict[str, Any] = dict(self.how)
        for name, how in self.how.items():
            if how == "sum":
                kinds[name] = _added
        steps = raw.groupby([self.by, self.time], sort=True).agg(kinds).reset_index(level=0)
        parts = [self._one(str(name), part.drop(columns=self.by)) for name, part in steps.groupby(self.by, sort=True)]
        return pd.concat(parts, ignore_index=True)

    def _long(self, raw: pd.DataFrame) -> pd.DataFrame:
        """Return the cells with a row for each series."""
        wanted = [self.time, *(self.wide.values() or [self.by]), *(name for name in self.how if name != self.value)]
        if absent := [name for name in wanted if name not in raw]:
            raise usage_error("rows.reader.column", file=self.file, column=absent[0])
        if not self.wide:
            return raw
        others = raw.drop(columns=[*self.wide.values()])
        parts = list[pd.DataFrame]()
        for name, column in self.wide.items():
            added: dict[str, Any] = {self.by: name, self.value: raw[column]}
            parts.append(others.assign(**added))
        return pd.concat(parts, ignore_index=True)

    def _one(self, name: str, part: pd.DataFrame) -> pd.DataFrame:
        """Return one series' rows with their windows."""
        # Every step between the first and the last has a place, so that no lag jumps over a gap.
        steps = pd.period_range(part.index.min(), part.index.max(), freq=STEPS[self.step], name=self.time)
        whole = part.reindex(steps)
        for column in self.zero:
            span = slice(whole[column].first_valid_index(), whole[column].last_valid_index())
            whole.loc[span, column] = whole.loc[span, column].fillna(0.0)
        for column in self.logarithm:
            refuse_cells(column, render("rows.reader.logarithm"), whole[column] < 0)
            whole[column] = np.log1p(whole[column])
        whole.insert(0, self.by, name)
        for label, window in self.windows.items():
            for count in window.steps:
                whole[label.replace("{steps}", str(count))] = window.values(count, whole[window.of])
        whole = whole.dropna().reset_index()
        steps = whole[self.time].dt
        times = steps.end_time if self.step == "week" else steps.start_time
        at = times.dt
        turn = 2 * np.pi * at.day_of_year / 365.25
        for label in self.calendar:
            whole[label] = _ROUND[label](turn) if label in _ROUND else getattr(at, label)
        return whole.assign(**{self.time: at.strftime("%Y-%m-%d")})


_ROUND = {"year_sine": np.sin, "year_cosine": np.cos}


def _added(cells: pd.Series) -> float:
    """Return the sum of a step's values; NaN for none, so that the step has no row."""
    return float(cells.sum(min_count=1))


@dataclass(frozen=True)
class _Window:
    """One line of `windows`: values of the series at a row's step, besides the row.

    Attributes
    ----------
    what : {"lag", "mean", "sum", "lead", "quantile"}
        The value `steps` ago; mean or sum of the last `steps`, the row's own included; the value `steps` ahead, which
        an outcome may be and no input; or the quantile `q` of the series' values up to `until`.
    of : str
        A value's column.
    steps : tuple of int, >= 1
        One column for each, in whose name `{steps}` stands for it.
    q : float in (0, 1)
    until : str
        Last day that a quantile counts, such as 2024-08-31.
    """

    what: str
    of: str
    steps: tuple[int, ...] = (1,)
    q: float = 0.5
    until: str = ""

    def values(self, count: int, values: pd.Series) -> pd.Series | float:
        """Return the column for `count` steps; `values` has every step in order, NaN for a missing one."""
        if self.what == "lag":
            return values.shift(count)
        if self.what == "lead":
            return values.shift(-count)
        if self.what == "quantile":
            return float(values.loc[: self.until or None].quantile(self.q))
        # Added anew for each row: a running sum would carry its rounding from row to row.
        added = functools.reduce(operator.add, [values.shift(ago) for ago in range(count)])
        return added / count if self.what == "mean" else added


def _window_of(name: str, entry: Mapping[str, Any], values: Collection[str]) -> _Window:
    """Return a line of `windows`, or raise UsageError; `values` names the columns with values."""
    steps = entry.get("steps", 1)
    if not isinstance(steps, list):
        steps = [steps]
    try:
        window = _Window(**{**entry, "steps": tuple(steps)})
    except TypeError:
        raise usage_error("rows.reader.window", name=name) from None
    if window.what not in WHAT or window.of not in values:
        kinds = ", ".join(WHAT)
        raise usage_error("rows.reader.kinds", name=name, kinds=kinds, columns=", ".join(values))
    if not all(isinstance(count, int) and count >= 1 for count in window.steps):
        raise usage_error("rows.reader.steps", name=name)
    if len(window.steps) > 1 and "{steps}" not in name:
        raise usage_error("rows.reader.name", name=name, place="{steps}")
    return window
