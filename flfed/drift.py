"""How far the rows of one site lie from those of the others, by column, from the sums that Table 1 is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flfed.summary import ColumnLayout, Layout, Summary, merge

SUPPRESSED = "suppressed: a cell of fewer rows than the site's policy lets leave"
NO_OTHERS = "there is no other site to compare with"
EMPTY = "no row has a value"
CONSTANT = "every row has the same value"
APART = "the site and the others have no value in common, so there is no spread to measure it by"
SMALL, LARGE = 0.1, 0.25
"""Standardised differences that are usually read as small, and as large enough to be looked at: a rule of thumb.

Source: Austin 2009, "Balance diagnostics for comparing the distribution of baseline covariates", and Stuart 2010."""
NORMAL_95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""


def columns_of(layout: Layout, sites: Mapping[str, Summary]) -> list[dict[str, Any]]:
    """Return each column's missing rows and standardised difference, by site, as a record keeps them.

    Parameters
    ----------
    layout : Layout
    sites : dict of site to Summary
        Over all rows of each site that may be told of by itself.

    Returns
    -------
    list of dict
        `column`, `unit`, `towards` (the value of two whose share is compared, "" for a number, None where
        a difference has no direction) and `sites`: by site `rows`, `missing` (rows, None where suppressed),
        `difference` (site minus the other sites together, in standard deviations; of a category its
        size), `chance` (what chance alone stays below in 95 of 100 such comparisons) and `reason`
        where there is no difference to give.

    Notes
    -----
    Of the row counts of all sites, the other sites together are the sum of those given here.
    """
    found = []
    for number, (column, place) in enumerate(zip(layout.columns, layout.slices().values(), strict=True)):
        by_site: dict[str, dict[str, Any]] = {}
        for name, summary in sites.items():
            others = [other for site, other in sites.items() if site != name]
            entry = {"rows": int(summary.rows[0]), "missing": _missing(summary, place.stop - 1)}
            difference: Any = (None, None, NO_OTHERS)
            if others:
                compared = _numbers if column.kind == "number" else _shares
                difference = compared(column, summary, merge(others), number, place)
            by_site[name] = entry | dict(zip(("difference", "chance", "reason"), difference, strict=True))
        values = column.cells[:-1]
        towards = "" if column.kind == "number" else values[-1] if len(values) == 2 else None
        found.append({"column": column.name, "unit": column.unit, "towards": towards, "sites": by_site})
    return found


def _missing(summary: Summary, cell: int) -> int | None:
    """Return the rows without a value; None where the site keeps the count back."""
    return int(summary.cells[cell]) if summary.cells_known[cell] == summary.sites[0] else None


def _numbers(
    column: ColumnLayout, own: Summary, others: Summary, number: int, place: slice
) -> tuple[float | None, float | None, str]:
    """Return the difference of two means in standard deviations, of a number (after its transform)."""
    parts = []
    for summary in (own, others):
        if not summary.moments_known[number]:
            return None, None, SUPPRESSED
        count, total, squares = summary.moments[number]
        if count <= 0:
            return None, None, EMPTY
        mean = total / count
        parts.append((count, mean, max(squares / count - mean**2, 0.0)))
    (n, mean, variance), (m, other_mean, other_variance) = parts
    return mean_difference(mean, variance, n, other_mean, other_variance, m)


def mean_difference(
    mean: float, variance: float, n: float, other_mean: float, other_variance: float, m: float
) -> tuple[float | None, float | None, str]:
    """Return `(mean - other_mean) / sqrt((variance + other_variance) / 2)`, what chance reaches, and why there is none.

    Parameters
    ----------
    mean, variance, n : float
        Of one site; `n` rows.
    other_mean, other_variance, m : float
        Of the others.

    Source: Austin 2009, equation 1; its standard error without a difference, `sqrt(1/n + 1/m)`: Hedges & Olkin 1985.

    Examples
    --------
    >>> mean_difference(54.0, 81.0, 100, 49.5, 81.0, 400)[0]
    0.5
    """
    spread = math.sqrt((variance + other_variance) / 2)
    if not spread:
        return None, None, CONSTANT
    return float((mean - other_mean) / spread), by_chance(n, m, 1), ""


def _shares(
    column: ColumnLayout, own: Summary, others: Summary, number: int, place: slice
) -> tuple[float | None, float | None, str]:
    """Return the difference of two sets of shares, of the rows that have a value."""
    there = slice(place.start, place.stop - 1)
    for summary in (own, others):
        if (summary.cells_known[there] < summary.sites[0]).any():
            return None, None, SUPPRESSED
    return share_difference(own.cells[there], others.cells[there])


def share_difference(counts: np.ndarray, other: np.ndarray) -> tuple[float | None, float | None, str]:
    """Return how far two sets of shares are apart in standard deviations, what chance reaches, and why there is none.

    Two values: the signed difference of the share of the last one. More: `sqrt((t - c)' S^-1 (t - c))`,
    without a sign, with S the mean covariance of the two.

    Parameters
    ----------
    counts, other : array [values]
        Rows with each value, at one site and at the others.

    Source: Yang & Dalton 2012, "A unified approach to measuring the effect size between two groups", equations 1 and 2.

    Examples
    --------
    >>> apart = share_difference(np.array([50.0, 50.0]), np.array([80.0, 20.0]))[0]
    >>> round(apart, 4)  # (.5 - .2) / sqrt((.25 + .16) / 2)
    0.6626
    """
    n, m = float(counts.sum()), float(other.sum())
    if not n or not m:
        return None, None, EMPTY
    there = (counts + other) > 0
    t, c = (counts / n)[there][1:], (other / m)[there][1:]
    if not len(t):
        return None, None, CONSTANT
    covariance = (np.diag(t) - np.outer(t, t) + np.diag(c) - np.outer(c, c)) / 2
    gap = t - c
    scaled = np.linalg.pinv(covariance, hermitian=True) @ gap
    if not np.allclose(covariance @ scaled, gap, atol=1e-9):
        return None, None, APART
    squared = float(gap @ scaled)
    sign = -1.0 if len(t) == 1 and gap[0] < 0 else 1.0
    return sign * math.sqrt(max(squared, 0.0)), by_chance(n, m, len(t)), ""


def by_chance(n: float, m: float, freedom: int) -> float:
    """Return the size that a standardised difference stays below in 95 of 100 cases where there is none.

    `sqrt(q (1/n + 1/m))`, with q the 95th percentile of chi-squared with `freedom` degrees of freedom:
    exact for one, by Wilson and Hilferty's cube root for more (off by less than 1 %).

    Examples
    --------
    >>> round(by_chance(50, 50, 1), 3), round(by_chance(50, 50, 2) ** 2 * 25, 2)  # 1.96 / 5; 5.99
    (0.392, 5.94)
    """
    ninth = 2 / (9 * freedom)
    q = 1.959963984540054**2 if freedom == 1 else freedom * (1 - ninth + NORMAL_95 * math.sqrt(ninth)) ** 3
    return math.sqrt(q * (1 / n + 1 / m))
