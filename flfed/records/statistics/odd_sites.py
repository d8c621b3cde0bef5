"""Columns of a run by site, and detection of sites with another unit or a reversed code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flfed.records.objects import figure_of, read, site_of, write
from flfed.records.statistics.verdict import number
from flfed.words import counted, render

FAR = 3.0
"""Standard deviations from which on a site's rows lie apart."""
NEAR = 1.0
"""The same where the spread is `SCALED` times that of the others, or less than its inverse."""
SCALED = 5.0
"""Ratio of spreads that shows another scale: a skewed amount in thousands has a mean not far away."""
ROUGH = 0.25
"""Further distance where the sums come from groups of bins, as in `flfed.summaries.drift.BINNING`."""
CHANCE = 0.5
FINE = 0.6
"""Least AUC of a site's own model that has no interval."""
AUC = "roc_auc_score"
NAMED = 3
"""Most sites, and columns of each, whose distance is described."""
LISTED = 12
"""Most further sites that are named."""


@dataclass(frozen=True)
class Apart:
    """A column in which a site's rows lie far from those of the others.

    Attributes
    ----------
    site, column : str
    difference : float or None
        In standard deviations, with sign but where a category has more than two values; None where the site and the
        others have no value in common.
    towards : str or None
        As in "columns".
    about : bool
        Whether it comes from groups of bins.
    outcome : bool
        Whether the column is the outcome.
    mirrored : bool
        Whether its share of one of two values is 1 minus that of the others.
    """

    site: str
    column: str
    difference: float | None
    towards: str | None = None
    about: bool = False
    outcome: bool = False
    mirrored: bool = False


@dataclass(frozen=True)
class Reversed:
    """AUC of a site's own model, and of the shared one there, where the outcome may be the other way round."""

    site: str
    local_only: float
    global_: float


def apart(payload: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return where a site's rows lie far from those of the others, the furthest first, as JSON (`Apart`).

    A category of which no two sites have a value in common is left out: it names the place.

    Parameters
    ----------
    payload : dict or None
        The object "columns" of a run.
    """
    lines = []
    for column in read(Columns, payload).columns:
        lines += _far_in(column)
    return [write(line) for line in sorted(lines, key=_closeness)]


def _closeness(line: Apart) -> float:
    return -math.inf if line.difference is None else -abs(line.difference)


def _far_in(column: Column) -> list[Apart]:
    """Return the sites that lie far from the others in one column."""
    sizes = {site: _size(of) for site, of in column.sites.items()}
    if column.towards is None and len(sizes) > 2 and all(map(math.isinf, sizes.values())):
        return []  # a category that names the place, such as a region
    # One odd site shifts the sum of the others, so each of them differs a little, too.
    furthest = max(sizes.values(), default=0.0)
    lines = []
    for site, of in column.sites.items():
        mirrored = bool(of.mirrored)
        if (_is_far(of) or mirrored) and 2 * sizes[site] >= furthest:
            flags = {"about": bool(of.about), "outcome": bool(column.outcome), "mirrored": mirrored}
            lines.append(Apart(site, column.column, of.difference, column.towards, **flags))
    return lines


def _size(of: SiteDrift) -> float:
    """Return a site's distance from the others, infinite without a common value and 0 where suppressed."""
    if of.difference is None and of.reason:
        from flfed.summaries.drift import APART  # numpy, which few reports need

        return math.inf if of.reason == APART else 0.0
    return of.size


def _is_far(of: SiteDrift) -> bool:
    size = _size(of) - ROUGH * bool(of.about)
    scaled = of.spread is not None and not 1 / SCALED <= of.spread <= SCALED
    return size >= FAR or (scaled and size >= NEAR)


def reversed_outcomes(sites: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return sites whose outcome may be reversed: the own model predicts it, the shared one the contrary.

    Parameters
    ----------
    sites : dict
        The entry `sites` of a report.

    Returns
    -------
    list of dict
        As `Reversed`.
    """
    reversals = []
    for site, arms in sites.items():
        here = site_of(arms)
        own = figure_of(here.local_only, AUC)
        shared = figure_of(here.global_, AUC)
        if own.value is None or shared.value is None:
            continue
        # Without an interval, the site's own model must be clearly above chance.
        is_fine = own.value >= FINE if own.low is None else own.low > CHANCE
        is_below = shared.high is None or shared.high < (own.low or own.value)
        if is_fine and is_below and shared.value < CHANCE:
            reversals.append(write(Reversed(site, own.value, shared.value)))
    return reversals


@dataclass(frozen=True, kw_only=True)
class OddSites:
    """Sites of a report that may have another code."""

    apart: list[Apart]
    outcome_reversed: list[Reversed]


def odd_sites_in_words(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each site that may have another code or unit, at most three of a kind.

    Examples
    --------
    >>> line = {"site": "west", "column": "income", "difference": -8.21, "about": False}
    >>> line |= {"towards": "", "outcome": False}
    >>> odd_sites_in_words({"apart": [line], "outcome-reversed": []})
    ['west lies apart from the other sites in income (8.2 standard deviations below): another unit?']
    """
    odd = read(OddSites, report)
    by_site: dict[str, list[Apart]] = {}
    flags: dict[str, list[Apart]] = {}
    # An outcome of two classes that lies apart may be reversed, not in another unit.
    turned = {}
    for reversal in odd.outcome_reversed:
        figures = {"own": number(reversal.local_only), "shared": number(reversal.global_)}
        turned[reversal.site] = render("report.odd.reversed", **figures)
    for line in odd.apart:
        if line.mirrored and not line.outcome:
            flags.setdefault(line.site, []).append(line)
        elif line.outcome and line.towards:
            turned.setdefault(line.site, _reversed_share(line))
        else:
            by_site.setdefault(line.site, []).append(line)
    sentences = {site: _lies_apart(site, lines) for site, lines in by_site.items()}
    reverse = {site: render("report.odd.outcome", site=site, reason=why) for site, why in turned.items()}
    mirrored = {}
    for site, lines in flags.items():
        mirrored[site] = render("report.odd.mirrored", site=site, columns=_columns_in_words(lines))
    return [
        *_some(reverse, render("report.odd.outcomes")),
        *_some(mirrored, render("report.odd.mirrors")),
        *_some(sentences, render("report.odd.apart")),
    ]


def _some(sentences: Mapping[str, str], which: str) -> list[str]:
    """Return the first sentences, and the names of the other sites, in a sentence with `which`."""
    others = list(sentences)[NAMED:]
    first_sentences = list(sentences.values())[:NAMED]
    if not others:
        return first_sentences
    named = ", ".join(others[:LISTED])
    if len(others) > LISTED:
        named += f" and {len(others) - LISTED} others"
    more = counted(len(others), "more site")
    return [*first_sentences, render("report.odd.more", count=more, which=which, sites=named)]


def _columns_in_words(lines: Sequence[Apart]) -> str:
    """Return the first columns in which a site lies apart, and the number of others."""
    listed = ", ".join(f"{line.column} ({_far(line)})" for line in lines[:NAMED])
    if len(lines) > NAMED:
        listed += f" and {len(lines) - NAMED} more columns"
    return listed


def _lies_apart(site: str, lines: Sequence[Apart]) -> str:
    kinds = {line.towards == "" for line in lines}
    key = "unit" if True in kinds else "codes"
    if len(kinds) > 1:
        key = "both"
    return render(f"report.distances.{key}", site=site, columns=_columns_in_words(lines))


def _reversed_share(line: Apart) -> str:
    if line.difference is None:
        return render("report.odd.disjoint", column=line.column)
    return render("report.odd.far", column=line.column, distance=_far(line))


def _far(line: Apart) -> str:
    if line.difference is None:
        return "no value in common"
    way = "below" if line.difference < 0 else "above"
    if line.towards is None:
        way = "away"
    far = f"{number(abs(line.difference), 1)} standard deviations {way}"
    return "about " + far if line.about else far


@dataclass(frozen=True)
class SiteDrift:
    """One site's rows compared with those of the others, in a column (`flfed.summaries.drift`).

    Attributes
    ----------
    missing : int or None
        Rows without a value, None where suppressed.
    rows : int
    difference : float or None
        In standard deviations.
    chance : float or None
        Largest difference that chance alone explains.
    spread : float or None
        Standard deviation, as a share of that of the others.
    about : bool
        Whether it comes from groups of bins.
    reason : str
        Why there is no difference.
    compared_with : int
        Number of other sites; 0 where there is no difference.
    mirrored : bool
        Whether its share of one of two values is 1 minus that of the others.
    """

    missing: int | None = None
    rows: int = 0
    difference: float | None = None
    chance: float | None = None
    spread: float | None = None
    about: bool | None = False
    reason: str | None = None
    compared_with: int = 0
    mirrored: bool | None = False

    @property
    def size(self) -> float:
        """The difference without its sign, 0 without one."""
        return 0.0 if self.difference is None else abs(float(self.difference))

    @property
    def is_by_chance(self) -> bool:
        """Whether chance alone explains the difference; False where not known."""
        return self.difference is not None and self.chance is not None and self.size <= self.chance

    @property
    def gaps(self) -> int:
        """Rows without a value, 0 where suppressed."""
        return self.missing or 0

    @property
    def share_missing(self) -> float | None:
        """Percentage of rows without a value, None where suppressed."""
        return 100 * self.missing / self.rows if self.missing is not None and self.rows else None


@dataclass(frozen=True)
class Column:
    """A column of the object "columns" of a run.

    Attributes
    ----------
    column : str
    sites : dict of site to SiteDrift
    towards : str or None
        The value whose share is compared; "" of a number, None of a category of more than two values.
    outcome : bool
        Whether it is the outcome.
    """

    column: str
    sites: dict[str, SiteDrift]
    towards: str | None = None
    outcome: bool | None = False


@dataclass(frozen=True)
class Columns:
    """The object "columns" of a run."""

    columns: list[Column] = field(default_factory=list)
