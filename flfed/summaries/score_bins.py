"""Bins by which sites count predictions, and counts and figures of predictions that a comparison releases.

The largest distance of an AUC of such counts from that of the rows is computed here as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 256
LIMIT = 12.0
"""Log-odds beyond which predictions share the last bin, where nobody knows where most of them lie."""
LEAST_SPREAD = 0.25
"""Log-odds: so narrow, bins are 0.003 wide at their centre. Narrower ones would reveal one row's prediction."""


@dataclass(frozen=True)
class ScoreBins:
    """Bins of log-odds, from low to high.

    The first and the last have all that is beyond, too.

    Attributes
    ----------
    centre, spread : float or None
        Where most predictions of all sites lie, in log-odds: the bins are even in the distribution function of
        Student's t with 2 degrees of freedom about it. None: even in the inverse hyperbolic sine of the log-odds
        from `-limit` to `limit`.
    limit : float
    bins : int

    Notes
    -----
    Even in the inverse hyperbolic sine, bins are 0.025 wide about even odds, where a model of the first rounds has all
    its predictions. They grow with the log-odds, so that rare events keep their resolution.

    Examples
    --------
    >>> ScoreBins().places(np.array([-20.0, 0.0, 0.1, 20.0])).tolist()
    [0, 128, 132, 255]
    >>> ScoreBins(centre=-3.0, spread=0.5).places(np.array([-20.0, -3.0, -2.9, 0.0])).tolist()
    [0, 128, 145, 252]
    """

    centre: float | None = None
    spread: float | None = None
    limit: float = LIMIT
    bins: int = BINS

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> ScoreBins:
        """Return the bins of a record's "score-histograms"."""
        return cls(payload.get("centre"), payload.get("spread"), payload["limit"], payload["bins"])

    def places(self, odds: np.ndarray) -> np.ndarray:
        """Return the bin of each of these log-odds.

        That of NaN is the first, for no bin is right for it.
        """
        if self.centre is None or self.spread is None:
            share = (1 + np.arcsinh(np.clip(odds, -self.limit, self.limit)) / np.arcsinh(self.limit)) / 2
        else:
            # Log-odds are cut to where squares stay finite.
            t = (np.clip(odds, -1e6, 1e6) - self.centre) / self.spread
            share = (1 + t / np.sqrt(2 + t * t)) / 2
        # The last bin takes what lies on its upper end.
        place = np.where(np.isnan(share), 0.0, share) * self.bins
        return np.asarray(np.minimum(place.astype(int), self.bins - 1))

    def widths(self, odds: np.ndarray) -> np.ndarray:
        """Return the width of a bin at these log-odds."""
        widths: np.ndarray
        if self.centre is None or self.spread is None:
            widths = 2 * np.arcsinh(self.limit) * np.sqrt(1 + odds**2) / self.bins
        else:
            widths = self.spread * (2 + ((odds - self.centre) / self.spread) ** 2) ** 1.5 / self.bins
        return widths

    def points(self) -> np.ndarray:
        """Return the bounds and middles of the bins.

        They are log-odds [2 * bins + 1], infinite at both ends.
        """
        # Middles lie halfway in the bins' own scale, not in log-odds.
        share = np.arange(1, 2 * self.bins) / (2 * self.bins)
        if self.centre is None or self.spread is None:
            inner = np.sinh((2 * share - 1) * np.arcsinh(self.limit))
        else:
            inner = self.centre + self.spread * (2 * share - 1) / np.sqrt(2 * share * (1 - share))
        return np.concatenate([[-np.inf], inner, [np.inf]])


EVEN_ODDS = ScoreBins()
"""The bins about even odds, of every count before the last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowScores:
    """Scores of a model on some rows.

    They are one site's, and what may not leave is left out.

    Attributes
    ----------
    rows : {"training", "validation", "holdout"}
    num_examples : int
    metrics, variances : dict of name to float
        "loss" is the training loss without penalties; others are listed metrics.
    histogram : array [2, bins] or None
        Counts, float64 or whole: a sum of those of several sites is to be of float64.
    loss : float or None
        What a site adds to a secure sum of losses: over the cell minimum of rows at least, whatever their classes.
    """

    rows: str
    num_examples: int
    metrics: dict[str, float]
    variances: dict[str, float] = field(default_factory=dict)
    histogram: np.ndarray | None = None
    loss: float | None = None


def auc_bound(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the largest error of a binned AUC.

    It is against the AUC of the rows: half the pairs of one bin.

    Of two rows in one bin nobody knows which has the higher prediction: such a pair counts half, and is 0 or 1.
    Certain, and no smaller bound is. A bin may have all the information of a strong input where the model gives it a
    small weight, so no slope over all bins says how the rows of one bin are ordered.

    Parameters
    ----------
    negative, positive : array [bins]
        Rows without and with the outcome.

    Returns
    -------
    float
        NaN where a class has no rows.

    Examples
    --------
    >>> auc_bound(np.array([2.0, 2.0]), np.array([0.0, 3.0]))  # 6 of 12 pairs are in one bin
    0.25
    """
    pairs = negative.sum() * positive.sum()
    return float(negative @ positive / 2 / pairs) if pairs else float("nan")


def auc_of_histogram(counts: np.ndarray) -> float:
    """Return the AUC of class-wise counts.

    Ties within a bin count half.

    Parameters
    ----------
    counts : array [2, bins]
        Summed over sites.

    Examples
    --------
    >>> auc_of_histogram(np.array([[2.0, 0.0], [0.0, 3.0]]))
    1.0
    """
    negatives, positives = counts
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")


def auc_between(counts: np.ndarray) -> tuple[float, float | None, float | None]:
    """Return the AUC of counts and its bounds.

    The AUC of the rows lies between the bounds.

    Parameters
    ----------
    counts : array [2, bins]
        Summed over sites.
    """
    value = auc_of_histogram(counts)
    reach = auc_bound(counts[0], counts[1])
    # Without rows of both classes there is nothing to rank.
    if np.isnan(value):
        return value, None, None
    return value, max(value - reach, 0.0), min(value + reach, 1.0)


def dense(counts: Mapping[str, Any], bins: int) -> np.ndarray:
    """Return a record's counts as an array [2, bins].

    A record has them by class, as pairs of a bin and its rows.
    """
    both = np.zeros((2, bins))
    for label in ("0", "1"):
        for place, rows in counts[label]:
            both[int(label), int(place)] = rows
    return both


def bound_in(payload: Mapping[str, Any]) -> float:
    """Return the largest error of a record's AUC.

    The AUC of its "score-histograms" is at most so far from that of the rows.
    """
    return auc_bound(*dense(payload["all"], payload["bins"]))


@dataclass(frozen=True, kw_only=True)
class PointCounts:
    """Confusion table at one operating point.

    It crosses only where the study names false positive rates.

    Attributes
    ----------
    rate : float
        Rows are flagged from the threshold on that flags this share of the site's training rows without the outcome.
    tp, fp, fn, tn : int
        Holdout rows flagged with and without the outcome, and not flagged with and without it; -1 where they stay.
    method : str
        Why they stay, or "".

    Reveals: the exact number of holdout rows that the shared model flags, by class, at each false positive rate of the
    study. The threshold stays at the site. Under disclosure "institution", the counts never leave. They have no noise:
    a study that protects rows or sites by a mechanism has none.
    """

    rate: float
    tp: int
    fp: int
    fn: int
    tn: int
    method: str

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """All four counts."""
        return self.tp, self.fp, self.fn, self.tn


@dataclass(frozen=True, kw_only=True)
class GroupFigure:
    """Area under the ROC curve within one group.

    It crosses only where the study names columns to look at group by group.

    Attributes
    ----------
    column, group : str
        Their names, which follow from study and schema.
    value, low, high : float
        The area and its 95 % interval; NaN where undefined or withheld.
    method : str
        "DeLong", "bootstrap", or why the figure is undefined or stays.

    Reveals: how well the shared model ranks holdout rows of each group that the study names. Under disclosure
    "institution", a figure is over at least the cell minimum of rows, of as many persons, of each class. The site's
    rows outside all these groups of the column, if there are any, must be as many. The figure has three digits. Figures
    of a row leave in one run alone. No number of rows of a group crosses. A withheld figure shows
    that the group, or the rest, has few rows of a class.
    """

    column: str
    group: str
    value: float
    low: float
    high: float
    method: str
