"""Survival by group from counts of events and censored rows, and the log-rank test of the groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc

from flfed.rows.statistics.listed.odds_ratio import cells_of, values_of
from flfed.rows.statistics.statistic import REAL, WHOLE, Shapes, Sums, added, column_of
from flfed.summaries.drift import NORMAL_975
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

MOST_CELLS = 50_000
"""Counts of a site, at most: twice the steps of all groups."""
EVERYBODY = "all rows"
"""Name of the only group where a study names no column of groups."""
ALMOST = 1e-9
"""A time this little below the end of a step counts as the end: 0.3 / 0.1 is below 3."""
KAPLAN_MEIER = "kaplan-meier"
LIFE_TABLE = "life-table"


class Survival:
    """Share of rows without the event over time, by group, and the log-rank test of the groups.

    Parameters
    ----------
    time : str
        Number of the schema: time until the event, or until the row was last seen without it. Example: `time = "days"`.
    event : str
        Flag, or the outcome of two classes: whether the event happened. Example: `event = "died"`.
    by : str, default ""
        Flag or category whose values are compared; "" for all rows together. Example: `by = "arm"`.
    step : float, > 0, default 1
        Length of a step, in the time's unit. Example: `step = 30`.

    Reveals: of each group and step, how many rows have the event in it and how many are last seen in it, exactly. With
    steps as short as a day these are single rows. Besides, the terms of the log-rank test over the site's exact times.

    Notes
    -----
    Where all times are whole numbers and `step` is 1, the curve is Kaplan and Meier's. Else it is a life table: of rows
    last seen in a step, half count as at risk in it. Intervals of 95 % have Greenwood's variance on the scale of
    log(-log S). The median is the first time with S ≤ 0.5, its interval that of the same times of the curve's ends.
    In the log-rank test each site is a stratum, of its exact times whatever the step. Source: E. L. Kaplan and P. Meier
    1958, "Nonparametric estimation from incomplete observations"; J. D. Kalbfleisch and R. L. Prentice, "The
    Statistical Analysis of Failure Time Data", 2nd edition, sections 1.4 and 1.5.
    """

    label = "survival by group over time"

    def __init__(self, *, time: str, event: str, by: str = "", step: float = 1.0) -> None:
        if not 0 < step < math.inf:
            raise usage_error("study.statistic.length")
        self.time = time
        self.event = event
        self.by = by
        self.step = step

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return time, event and group.

        Raises UsageError where a time may be below 0, an event has other than two values, or steps are too many.
        """
        time = column_of(self.time, schema, where="time", kinds=("number",))
        low, _ = schema.columns[time].range or (0.0, 1.0)
        if low < 0:
            raise usage_error("study.statistic.times", name=time)
        kinds = ("flag", "target") if schema.task == "binary" else ("flag",)
        event = column_of(self.event, schema, where="event", kinds=kinds)
        if 2 * self._steps(schema) > MOST_CELLS:
            raise usage_error("study.statistic.bins", step=self.step, most=MOST_CELLS // 2)
        if not self.by:
            return time, event
        group = column_of(self.by, schema, where="by", kinds=("flag", "category"))
        if 2 * self._steps(schema) * len(self._groups(schema)) > MOST_CELLS:
            raise usage_error("study.statistic.bins", step=self.step, most=MOST_CELLS // 2)
        return time, event, group

    def shapes(self, schema: Schema) -> Shapes:
        """Return events and censored rows [group, step], other counts, and the terms of the test."""
        groups = len(self._groups(schema))
        cells = (groups, self._steps(schema))
        return {
            "events": (cells, WHOLE),
            "censored": (cells, WHOLE),
            "fractions": ((1,), WHOLE),
            "missing": ((1,), WHOLE),
            "difference": ((groups,), REAL),
            "variance": ((groups, groups), REAL),
        }

    def largest(self, schema: Schema) -> Sums:
        """Return 1: no term of the test is larger than the number of rows."""
        groups = len(self._groups(schema))
        return {"difference": np.ones(groups), "variance": np.ones((groups, groups))}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return the counts of a site, and its terms of the test."""
        rows = table.dropna(subset=[*self.columns(schema)])
        groups = self._groups(schema)
        times = rows[self.time].to_numpy(dtype=float)
        # A flag is 0 or 1 in a mapped table.
        happened = 1 if schema.columns[self.event].kind == "flag" else schema.classes[-1]
        events = (rows[self.event] == happened).to_numpy()
        group = np.zeros(len(rows), dtype=int)
        if self.by:
            places_by_cell = {cell: place for place, cell in enumerate(cells_of(schema, self.by))}
            group = rows[self.by].map(places_by_cell).to_numpy(dtype=int)
        steps = self._steps(schema)
        places = group * steps + np.floor(times / self.step + ALMOST).astype(int)
        counts = {}
        for name, chosen in (("events", events), ("censored", ~events)):
            counted = np.bincount(places[chosen], minlength=len(groups) * steps)
            counts[name] = counted.reshape(len(groups), steps).astype(np.uint64)
        difference, variance = log_rank_terms(times, events, group, len(groups))
        return counts | {
            "fractions": np.array([(times % 1 != 0).sum()], dtype=np.uint64),
            "missing": np.array([len(table) - len(rows)], dtype=np.uint64),
            "difference": difference,
            "variance": variance,
        }

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return each group's rows, events, median and curve, and the log-rank test."""
        sums = added(sites)
        # One method for all sites and each: that of all rows.
        is_exact = self.step == 1 and not of_all["fractions"][0]
        groups = []
        for place, name in enumerate(self._groups(schema)):
            events = sums["events"][place].astype(float)
            censored = sums["censored"][place].astype(float)
            figures = self._figures_of_group(events, censored, is_exact=is_exact)
            groups.append({"group": name, **figures})
        method = KAPLAN_MEIER if is_exact else LIFE_TABLE
        whole: dict[str, Any] = {
            "time": self.time,
            "unit": schema.columns[self.time].unit,
            "by": self.by,
            "step": float(self.step),
            "method": method,
            "groups": groups,
            "rows-left-out": int(sums["missing"][0]),
        }
        test = log_rank_test(sums["difference"], sums["variance"])
        return whole if test is None else whole | {"log-rank": test}

    def _figures_of_group(self, events: np.ndarray, censored: np.ndarray, *, is_exact: bool) -> dict[str, Any]:
        """Return rows, events, median and curve of a group, of its counts by step."""
        at_risk = np.cumsum((events + censored)[::-1])[::-1]
        # Kaplan and Meier's curve falls at the times of events; a life table has every step that rows reach.
        shown = events > 0 if is_exact else at_risk > 0
        exposed = at_risk if is_exact else at_risk - censored / 2
        survival, low, high = survival_of(events[shown], exposed[shown])
        times = np.flatnonzero(shown) * float(self.step)
        if not is_exact:
            times += self.step
        curve = {"time": times, "survival": survival, "low": low, "high": high}
        median = {"value": survival, "low": low, "high": high}
        return {
            "rows": int(at_risk[0]),
            "events": int(events.sum()),
            "followed-until": float(np.flatnonzero(at_risk > 0).max(initial=0) * self.step),
            "median": {end: _first_half(times, values) for end, values in median.items()},
            "curve": {
                **{name: _plain(values) for name, values in curve.items()},
                "at-risk": at_risk[shown].astype(int).tolist(),
                "events": events[shown].astype(int).tolist(),
            },
        }

    def _groups(self, schema: Schema) -> tuple[str, ...]:
        return values_of(schema, self.by) if self.by else (EVERYBODY,)

    def _steps(self, schema: Schema) -> int:
        _, high = schema.columns[self.time].range or (0.0, 1.0)
        return math.floor(high / self.step + ALMOST) + 1


def survival_of(events: np.ndarray, exposed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share without the event after each step, and the ends of its 95 % interval.

    Parameters
    ----------
    events : float array [steps]
    exposed : float array [steps], > 0
        Rows at risk.

    Returns
    -------
    survival, low, high : float64 arrays [steps]
        The ends are NaN where the share is 0 or 1.
    """
    survival = np.cumprod(1 - events / exposed)
    low = np.full(len(events), np.nan)
    high = np.full(len(events), np.nan)
    inside = (survival > 0) & (survival < 1)
    lasting = exposed > events
    terms = np.zeros(len(events))
    terms[lasting] = events[lasting] / (exposed[lasting] * (exposed[lasting] - events[lasting]))
    log = np.log(survival[inside])
    reach = NORMAL_975 * np.sqrt(np.cumsum(terms)[inside]) / -log
    low[inside] = np.exp(log * np.exp(reach))
    high[inside] = np.exp(log * np.exp(-reach))
    return survival, low, high


def log_rank_terms(
    times: np.ndarray, events: np.ndarray, group: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return events less those expected by group [groups], and their covariance [groups, groups].

    Parameters
    ----------
    times : float array [rows]
    events : bool array [rows]
    group : int array [rows]
        Places of the rows' groups, from 0.
    groups : int
    """
    at = np.unique(times[events])
    at_risk = np.zeros((groups, len(at)))
    with_event = np.zeros((groups, len(at)))
    for place in range(groups):
        own = group == place
        at_risk[place] = own.sum() - np.searchsorted(np.sort(times[own]), at)
        with_event[place] = np.bincount(np.searchsorted(at, times[own & events]), minlength=len(at))
    rows = at_risk.sum(axis=0)
    total = with_event.sum(axis=0)
    share = at_risk / rows
    # The last row at risk has no variance.
    factor = total * (rows - total) / np.maximum(rows - 1, 1)
    difference = (with_event - total * share).sum(axis=1)
    return difference, np.diag(share @ factor) - (share * factor) @ share.T


def log_rank_test(difference: np.ndarray, variance: np.ndarray) -> dict[str, Any] | None:
    """Return χ², degrees of freedom and p of the terms of all sites; None where nothing can be compared."""
    # Groups that no site has beside another one are not compared.
    compared = np.flatnonzero(np.diag(variance) > 0)[1:]
    if not compared.size:
        return None
    inner = variance[np.ix_(compared, compared)]
    freedom = int(np.linalg.matrix_rank(inner, hermitian=True))
    chi2 = float(difference[compared] @ np.linalg.pinv(inner, hermitian=True) @ difference[compared])
    p = float(chdtrc(freedom, chi2))
    return {"chi2": {"value": chi2}, "degrees-of-freedom": freedom, "p": {"value": p}}


def _first_half(times: np.ndarray, shares: np.ndarray) -> float | None:
    """Return the first time at which a share is a half or less, None where it stays above."""
    reached = np.flatnonzero(shares <= 0.5)
    return float(times[reached[0]]) if reached.size else None


def _plain(values: np.ndarray) -> list[float | None]:
    """Return numbers for the record, None for NaN."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return list(plain)
