"""Drift of a site's rows from the others', by column.

It is taken from the sums that Table 1 is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.summaries.summary import ColumnLayout, Encoder, Layout, Summary
from flfed.summaries.table_one import in_groups

SITE_SUPPRESSES = "the site does not release it: a count in it, or one that it would give away, is small"
OTHERS_KEEP_BACK = "the other sites do not release all counts"
NO_OTHERS = "there is no other site to compare with"
EMPTY = "no row has a value"
CONSTANT = "every row has the same value"
APART = "the site and the others have no value in common, so there is no spread to measure it by"
MIRRORED = 0.8
"""Least standardised difference of a share from the others' at which one is tested for being 1 minus the other. Below
it, shares are too near 0.5."""
MIRROR_WIDTH = 0.06
ALIKE_SHARES = 0.1
"""How far a share may be from 1 minus that of the others at most, and each of the others from theirs together."""
FEW_ROWS = 20
"""Fewest rows with a value, here and elsewhere, of which a difference is given. Of fewer, the spread is not known well
enough for `by_chance`."""
FEW = f"fewer than {FEW_ROWS} rows have a value at the site"
FEW_ELSEWHERE = f"fewer than {FEW_ROWS} rows have a value at the other sites"
SMALL = 0.1
LARGE = 0.25
"""Standardised differences that are usually read as small, and as large enough to be looked at: a rule of thumb.

Source: Austin 2009, "Balance diagnostics for comparing the distribution of baseline covariates", and Stuart 2010."""
BINNING = 0.25
"""How much further apart a difference from groups of bins has to be: of 204 on the sites of heart-disease,
loan-default, preterm-birth and card-fraud, groups of ten rows moved none by more than 0.26."""
NORMAL_UPPER_95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""
NORMAL_975 = 1.959963984540054
"""The 97.5th percentile: a size, without its sign, stays below it in 95 of 100 cases."""
Difference = tuple[float | None, float | None, str]
"""A difference, what chance reaches, and why there is none."""


def columns_of(layout: Layout, sites: Mapping[str, Summary]) -> list[dict[str, Any]]:
    """Return each column's missing rows and standardised differences.

    They are by site, as a record keeps them.

    Parameters
    ----------
    layout : Layout
    sites : dict of site to Summary
        Over all rows of each site whose own figures may be shown.

    Returns
    -------
    list of dict
        `column`, `unit`, `outcome` (whether it is the target), `towards` (the value of two whose share is
        compared, "" for a number, None where a difference has no direction) and `sites`: by site `rows`,
        `missing` (rows, None where suppressed),
        `difference` (site minus the other sites that give theirs together, in standard deviations; of a
        category its size), `chance` (what chance alone stays below in 95 of 100 such comparisons),
        `spread` (of a number, its standard deviation over that of the others, None where one is 0),
        `reason` where there is no difference to give, `about` (whether a mean in it comes from groups of
        bins; there is then no `chance`, which would lack their error), `compared-with` (of how
        many other sites) and, of two values, `mirrored` (see `is_mirrored`).

    Notes
    -----
    Of the row counts of all sites, the other sites together are the sum of those given here.
    """
    columns = []
    for number, column, place in layout.places():
        # Each site is held against the sum of the others, so its own part is needed apart.
        sums_by_site = {name: _read_site_sums(column, summary, number, place) for name, summary in sites.items()}
        values = column.cells[:-1]
        # A difference has a direction for a number and of two values, and none of more.
        towards: str | None = None
        if column.kind == "number":
            towards = ""
        elif len(values) == 2:
            towards = values[-1]
        by_site = {}
        for name, summary in sites.items():
            others = [of for site, of in sums_by_site.items() if site != name]
            entry = {"rows": int(summary.rows[0]), "missing": _missing(summary, place.stop - 1)}
            entry |= _compared(column, sums_by_site[name], others)
            if towards:
                entry["mirrored"] = is_mirrored(entry["difference"], sums_by_site[name], others)
            by_site[name] = entry
        head = {"column": column.name, "unit": column.unit, "outcome": column.name == layout.target.name}
        columns.append(head | {"towards": towards, "sites": by_site})
    return columns


def _missing(summary: Summary, cell: int) -> int | None:
    """Return the number of rows without a value.

    It is None where the site keeps the count back.
    """
    return int(summary.cells[cell]) if summary.cells_known[cell] == summary.sites[0] else None


@dataclass(frozen=True)
class SiteSums:
    """Sums of a column that a site gives.

    Of a number they are count, sum and squares, else the rows by value. `grouped` says whether they are of groups.
    """

    sums: list[float]
    grouped: bool = False


def _read_site_sums(column: ColumnLayout, summary: Summary, number: int, place: slice) -> SiteSums | None:
    """Return what a site gives of a column.

    It is None where the site keeps any of it back.
    """
    if column.kind == "number":
        grouped = in_groups(column, [summary], number, place)
        if summary.moments_known[number]:
            return SiteSums(summary.moments[number].tolist(), grouped)
        return None
    there = slice(place.start, place.stop - 1)
    is_complete = (summary.cells_known[there] == summary.sites[0]).all()
    return SiteSums(summary.cells[there].tolist()) if is_complete else None


def _compared(column: ColumnLayout, own: SiteSums | None, others: Sequence[SiteSums | None]) -> dict[str, Any]:
    """Return a site's comparison with the other sites.

    Only others that give their sums count. It is what a record keeps.
    """
    there = [other for other in others if other is not None]
    comparison: dict[str, Any] = dict.fromkeys(("difference", "chance", "spread"))
    comparison |= {"reason": "", "about": False, "compared-with": 0}
    if not others:
        return comparison | {"reason": NO_OTHERS}
    if own is None:
        return comparison | {"reason": SITE_SUPPRESSES}
    if not there:
        return comparison | {"reason": OTHERS_KEEP_BACK}
    # Rounded once, so that the order of sites changes nothing.
    sums = [other.sums for other in there]
    rest = list(map(math.fsum, zip(*sums)))
    compared = _numbers if column.kind == "number" else _shares
    size, chance, reason = compared(own.sums, rest)
    if size is None:
        return comparison | {"reason": reason}
    comparison |= {"difference": size, "about": any(of.grouped for of in (own, *there)), "compared-with": len(there)}
    if not comparison["about"]:
        comparison["chance"] = chance
    if column.kind == "number":
        comparison["spread"] = _spread(own.sums, rest)
    return comparison


def is_mirrored(difference: float | None, own: SiteSums | None, others: Sequence[SiteSums | None]) -> bool:
    """Return whether a site's share of a value is 1 minus that of the others, as if it were coded the other way round.

    Shares near a half look the same both ways, and two sites alone are each the other's mirror.

    Parameters
    ----------
    difference : float or None
        Of the shares, in standard deviations.
    own : SiteSums or None
        Rows with each of two values at the site.
    others : sequence of SiteSums or None
        At the other sites; all of their shares must be on one side of a half.

    Examples
    --------
    >>> sums = [SiteSums([800.0, 200.0]), SiteSums([750.0, 250.0]), SiteSums([1520.0, 480.0])]
    >>> is_mirrored(1.25, SiteSums([220.0, 780.0]), sums), is_mirrored(0.9, SiteSums([400.0, 600.0]), sums)
    (True, False)
    """
    there = [other.sums for other in others if other is not None]
    if difference is None or abs(difference) < MIRRORED or own is None or len(there) < 2:
        return False
    shares = [sums[1] / sum(sums) for sums in there if sum(sums)]
    if not (max(shares) < 0.5 or min(shares) > 0.5):
        return False
    n = sum(own.sums)
    m = sum(map(sum, there))
    share = sum(sums[1] for sums in there) / m
    error = math.sqrt(share * (1 - share) * (1 / n + 1 / m))
    # Sites differ by more than chance: half of a small difference beside it.
    near = NORMAL_975 * error + SMALL / 2 * math.sqrt(share * (1 - share))
    # Of few rows nearly any other share would do, and so it would where the others are no two alike.
    alike = max(abs(one - share) for one in shares) <= ALIKE_SHARES
    return near <= MIRROR_WIDTH and alike and abs(own.sums[1] / n - (1 - share)) <= near


def _spread(own: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the ratio of two standard deviations.

    Each comes from count, sum and squares; None where one is 0.
    """
    one, other = (max(squares / n - (total / n) ** 2, 0.0) for n, total, squares in (own, others))
    return math.sqrt(one / other) if one and other else None


def _too_few(n: float, m: float) -> str:
    """Return why rows are too few to compare.

    `n` rows have a value here, and `m` at the other sites. It is "" if they are enough.
    """
    if n < FEW_ROWS:
        return FEW if n else EMPTY
    return "" if m >= FEW_ROWS else FEW_ELSEWHERE


def _numbers(own: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the standardised difference of two means.

    They are of a number, after its transform.
    """
    if few := _too_few(own[0], others[0]):
        return None, None, few
    parts = []
    for count, total, squares in (own, others):
        mean = total / count
        parts += [mean, max(squares / count - mean**2, 0.0), count]
    return mean_difference(*parts)


def _shares(own: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the standardised difference of two sets of shares.

    They are of the rows that have a value.
    """
    if few := _too_few(sum(own), sum(others)):
        return None, None, few
    return share_difference(np.array(own), np.array(others))


def mean_difference(
    mean: float, variance: float, n: float, other_mean: float, other_variance: float, m: float
) -> Difference:
    """Return two means' difference in standard deviations.

    It is `(mean - other_mean) / sqrt((variance + other_variance) / 2)`, with what chance reaches, and why there is
    none.

    Parameters
    ----------
    mean, variance, n : float
        Of one site; `n` rows.
    other_mean, other_variance, m : float
        Of the others.

    Notes
    -----
    What chance reaches is 1.96 times the larger of two standard errors without a difference: with one spread,
    `sqrt(1/n + 1/m)`, and with two, `sqrt((variance/n + other_variance/m) / ((variance + other_variance)/2))`.
    The latter is larger where the smaller group spreads more: of 25 normal rows that spread twice as much as 1,000
    others, 6 to 7 of 100 differences are above it, and 13 above the former. Alone it would be too small where few
    skewed rows happen to spread little: of a share of 5 %, 20 rows have no case, and no spread, in 36 of 100.
    Where the smaller group does spread less, fewer than 5 of 100 are above.

    Source: Austin 2009, equation 1; the standard error with one spread: Hedges & Olkin 1985; with two: Welch 1938.

    Examples
    --------
    >>> mean_difference(54.0, 81.0, 100, 49.5, 81.0, 400)[0]
    0.5
    """
    # Without any spread the two groups are equal, or cannot be compared.
    spread = math.sqrt((variance + other_variance) / 2)
    if not spread:
        why = CONSTANT if math.isclose(mean, other_mean, rel_tol=1e-9) else APART
        return None, None, why
    two_spreads = NORMAL_975 * math.sqrt(variance / n + other_variance / m) / spread
    return float((mean - other_mean) / spread), max(by_chance(n, m, 1), two_spreads), ""


def share_difference(counts: np.ndarray, other: np.ndarray) -> Difference:
    """Return the distance of two sets of shares.

    It is in standard deviations, with what chance reaches, and why there is none.

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
    >>> round(apart, 4)  # (0.5 - 0.2) / sqrt((0.25 + 0.16) / 2)
    0.6626
    """
    n = float(counts.sum())
    m = float(other.sum())
    if not n or not m:
        return None, None, EMPTY
    # Values that nobody has, and the first one, follow from the rest and would make the covariance singular.
    there = (counts + other) > 0
    t = (counts / n)[there][1:]
    c = (other / m)[there][1:]
    if not len(t):
        return None, None, CONSTANT
    covariance = (np.diag(t) - np.outer(t, t) + np.diag(c) - np.outer(c, c)) / 2
    gap = t - c
    scaled = np.linalg.pinv(covariance, hermitian=True) @ gap
    # A gap outside the covariance's range has no finite distance.
    if not np.allclose(covariance @ scaled, gap, atol=1e-9):
        return None, None, APART
    squared = float(gap @ scaled)
    sign = -1.0 if len(t) == 1 and gap[0] < 0 else 1.0
    return sign * math.sqrt(max(squared, 0.0)), by_chance(n, m, len(t)), ""


def by_chance(n: float, m: float, freedom: int) -> float:
    """Return the difference that chance alone seldom exceeds.

    In 95 of 100 cases, a standardised difference of groups that spread alike stays below it.

    With no difference to find: `sqrt(q (1/n + 1/m))`, with q the 95th percentile of chi-squared with `freedom`
    degrees of freedom: exact for one, by Wilson and Hilferty's cube root for more (off by less than 1 %). The rows are
    taken to be independent: of several visits of a patient, chance brings about more.

    Parameters
    ----------
    n, m : float
        Rows of the two groups.
    freedom : int

    Examples
    --------
    >>> round(by_chance(50, 50, 1), 3), round(by_chance(50, 50, 2) ** 2 * 25, 2)  # 1.96 / 5; 5.99
    (0.392, 5.94)
    """
    ninth = 2 / (9 * freedom)
    q = NORMAL_975**2 if freedom == 1 else freedom * (1 - ninth + NORMAL_UPPER_95 * math.sqrt(ninth)) ** 3
    return math.sqrt(q * (1 / n + 1 / m))


def encoder_moved(layout: Layout, used: Encoder, exact: Encoder) -> dict[str, float]:
    """Return how far each column's centre is off.

    It is held against exact sums, in standard deviations.

    Of a flag or category the value that moved most.
    """
    moved = {}
    for number, column, place in layout.places():
        if column.kind == "number":
            moved[column.name] = float(abs(used.center[number] - exact.center[number]) / exact.scale[number])
        else:
            shares = np.abs(used.frequency[place] - exact.frequency[place]) / exact.spread[place]
            moved[column.name] = float(shares.max())
    return moved
