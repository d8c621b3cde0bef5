"""Score histograms of the sites, and pooled figures.

The sites sent the histograms with their comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from scipy.special import expit, logit

from flfed.federation.recording.pseudonyms import SharedAs
from flfed.records.statistics.intervals import NORMAL_95
from flfed.rows.evaluation.intervals import hanley_mcneil
from flfed.summaries.score_bins import EVEN_ODDS, LEAST_SPREAD, ScoreBins, auc_bound
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.train import Scores

Counts = dict[str, list[list[int]]]
"""By class, "0" and "1": pairs of a bin and its rows, for the bins that have any."""


SCORE_BINS = "score-bins"
"""Of what a checkpoint says."""
LEAST_SITES = 3
"""Of the counts of fewer sites no bins are made: of two each could tell where the other's predictions lie."""
WIDEST = 0.0025
"""How far the AUC of the last round's counts may be from that of the rows at most where holdout rows are counted in
the same bins: half of what a figure at the end may be off."""
CENTRE_STEPS = 4
"""Parts of the spread to which the centre is told."""


def score_bins(scores: Mapping[str, Scores], shared_as: SharedAs) -> ScoreBins:
    """Return the bins for counting holdout rows.

    They follow from the counts that sites sent with the last round.

    About the mean of both classes alike where the bins about even odds would leave the AUC open by more than
    `WIDEST`: where predictions are close to each other, which those of rare events often are.

    Parameters
    ----------
    scores : dict of site to Scores
        Of one kind of rows or several.
    shared_as : SharedAs
    """
    given = {site: found.histogram for site, found in scores.items() if found.histogram is not None}
    # Only counts that may be added up count here, since the bins tell of them.
    summed = [given[site] for site in shared_as.summable(given)]
    if len(summed) < LEAST_SITES:
        return EVEN_ODDS
    counts = reduce(np.add, summed)
    if not auc_bound(counts[0], counts[1]) > WIDEST:  # as little as where a class has no rows
        return EVEN_ODDS
    odds = EVEN_ODDS.points()[1::2]
    # Both classes weigh alike, so that a rare one is not lost in the mean.
    weights = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    centre = weights @ odds
    # Coarse figures: the bins are sent to all sites and shall tell little of one.
    spread = max(float(f"{math.sqrt(weights @ (odds - centre) ** 2):.1e}"), LEAST_SPREAD)
    found = ScoreBins(round(round(centre / spread * CENTRE_STEPS) * spread / CENTRE_STEPS, 6), spread)
    # A few rows far away make all bins wide: they are to be finer where the pairs are that cannot be told apart.
    pairs = counts[0] * counts[1]
    return found if pairs @ (found.widths(odds) / EVEN_ODDS.widths(odds)) < pairs.sum() else EVEN_ODDS


def score_histograms(
    replies: Mapping[str, CompareReply], shared_as: SharedAs, bins: ScoreBins = EVEN_ODDS
) -> dict[str, Any] | None:
    """Return the score histograms on holdout rows.

    They are the shared model's, by site and added up. None where no site sent one.

    Parameters
    ----------
    replies : dict of site to CompareReply
    shared_as : SharedAs
        A site that shares no figures of its own goes into the sum only, and only with another such.
    bins : ScoreBins

    Returns
    -------
    dict
        `bins`, `limit` and `scale`, and `centre` and `spread` where the bins lie about another centre (see
        `ScoreBins`), `rows` (which), `sites` (by site `Counts`), `all` (`Counts` or None),
        `in-all` and `asked`: over how many of how many sites that is. Which sites gave none is not
        told by name: it follows from who took part, and one site's people see no other's name.
    """
    given = {site: reply.histogram for site, reply in replies.items() if reply.histogram is not None}
    if not given:
        return None
    summed = [given[site] for site in shared_as.summable(given)]
    told: dict[str, Any] = {"scale": "asinh of log-odds"}
    if bins.centre is not None:
        told = {"scale": "Student's t (2) of log-odds", "centre": bins.centre, "spread": bins.spread}
    return {
        "bins": bins.bins,
        "limit": bins.limit,
        **told,
        "rows": "holdout",
        "sites": {site: _sparse(counts) for site, counts in shared_as.own(given).items()},
        "all": _sparse(reduce(np.add, summed)) if summed else None,
        "in-all": len(summed),
        "asked": len(replies),
    }


def auc_interval(counts: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a histogram's AUC.

    It is None twice where a class has no rows.

    As `rows.evaluation.intervals.compare` does of the rows themselves, each in the place of its bin: DeLong on the
    logit scale, and Hanley and McNeil where that has no variance. For rows that are independent.

    Parameters
    ----------
    counts : array [2, bins]
        Rows of each class by predicted probability, from low to high.
    """
    negative, positive = counts
    rows = float(negative.sum()), float(positive.sum())
    if not all(rows):
        return None, None
    above = (np.cumsum(negative) - negative / 2) / rows[0]  # of one positive, the share of negatives below it
    below = 1 - (np.cumsum(positive) - positive / 2) / rows[1]
    auc = float(positive @ above / rows[1])
    variance = sum(
        float(weights @ (place - auc) ** 2) / max(total - 1, 1) / total
        for weights, place, total in ((negative, below, rows[0]), (positive, above, rows[1]))
    )
    centre = auc
    # All rows ranked right, or one of a class: the empirical variance is 0 or missing.
    if min(rows) < 2 or not variance > 0:
        centre, variance = hanley_mcneil(auc, int(rows[1]), int(rows[0]))
    reach = NORMAL_95 * math.sqrt(variance) / (centre * (1 - centre))
    low, high = expit(logit(centre) + np.array([-reach, reach]))
    # The point itself stays within its interval, whatever its centre is.
    return min(float(low), auc), max(float(high), auc)


def _sparse(counts: np.ndarray) -> Counts:
    """Return the bins that have rows, by class."""
    return {str(label): [[int(i), int(row[i])] for i in np.flatnonzero(row)] for label, row in enumerate(counts)}
