"""Score counts of rows, and the rows of score counts, as tests make them."""

import numpy as np

from flfed.records.statistics.score_curves import ScoreCounts
from flfed.rows.evaluation.scoring import histogram
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins


def sparse(counts: np.ndarray) -> dict[str, list[list[int]]]:
    """Return counts by class and bin as a record has them."""
    return {str(c): [[int(i), int(row[i])] for i in np.flatnonzero(row)] for c, row in enumerate(counts)}


def counted(y: np.ndarray, score: np.ndarray, bins: ScoreBins = EVEN_ODDS) -> ScoreCounts:
    """Return the counts of some rows."""
    return ScoreCounts.read(sparse(histogram(y, score, bins)), bins)


def rows_of(counts: ScoreCounts, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every row again, with a place of its bin as its score."""
    both = zip(counts.negative, counts.positive, strict=True)
    y = [np.repeat([0, 1], [int(negative), int(positive)]) for negative, positive in both]
    return np.concatenate(y), np.repeat(place, (counts.negative + counts.positive).astype(int))
