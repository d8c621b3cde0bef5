"""Pairs won by the shared model minus a site's own, as numbers that may leave with noise.

They protect persons of the holdout, and them alone. A site's own model moves with each of its training rows: one moves
the scores of many holdout rows at once, and nothing bounds by how much. So the numbers may leave only of an own model
that was trained privately, whose training is charged to the persons of the training rows; of an ordinary one exact
figures stay at the site and are shown there.
"""

from __future__ import annotations

import math

import numpy as np

from flfed.rows.statistics.private.gaussian import STEP, GaussianQuery, person_weights
from flfed.summaries.noised_pairs import MOST_DIFFERENCE, SQUARES_WEIGHT, pair_scale

SENSITIVITIES = (1 + STEP, SQUARES_WEIGHT + STEP)
"""Most that one holdout person moves either number of `pair_numbers`."""
SENSITIVITY = math.hypot(*SENSITIVITIES)
"""Most that one holdout person moves both together, in L2."""


def pair_query(noise: float) -> GaussianQuery:
    """Return the query whose answer is `pair_numbers` with normal noise.

    Parameters
    ----------
    noise : float, > 0
        Noise multiplier: deviation of the noise in sensitivities.

    Examples
    --------
    >>> round(pair_query(2.0).deviation, 2)
    2.24
    """
    return GaussianQuery(sensitivity=SENSITIVITY, noise=noise, step=STEP)


def pair_numbers(
    outcomes: np.ndarray, shared: np.ndarray, own: np.ndarray, *, persons: np.ndarray | None = None
) -> np.ndarray:
    """Return two exact numbers, float64 [2]: scaled pairs won, and squares for their variance.

    A pair is an event and a row without it; a model wins it by the higher score for the event, and half of it by equal
    ones. With weights w of rows, n1 and n0 their sums by class and n = n1 + n0, L and S the larger and smaller of n1
    and n0: a row's part g is the weight of the other class that it is paired with and won by the shared model, minus
    that by the own one. Then

    - `pairs = D (1/L - S^2 / (5 L^3))`, D the sum of w g over events, cut to ± n1 n0 / 2 (`MOST_DIFFERENCE`): D / (n1
      n0) is the AUC of the shared model minus the own model's;
    - `squares = SQUARES_WEIGHT · N / n^2`, N the sum of w g^2 over all rows: N - D^2 (1/n1 + 1/n0) is DeLong's
      variance of D.

    Both are rounded down to multiples of `STEP`.

    Parameters
    ----------
    outcomes : array [rows] of 0 or 1
        Of the holdout.
    shared, own : float array [rows]
        Scores of either model, larger for 1; one that is not a number is lower than all that are.
    persons : int array [rows], optional
        Code of each row's person; without it each row is another one's. A person's rows weigh at most 1 together, each
        the same (`person_weights`). N is then at least what it would be with each person's parts added up before they
        are squared, so that the variance is not too small where a person's rows are alike.

    Notes
    -----
    Guarantee: with and without one person of the holdout, given both models, `pairs` moves by at most 1 and `squares`
    by `SQUARES_WEIGHT`, each by `STEP` more for rounding (of up to 10^8 rows); both together by at most `SENSITIVITY`
    in L2. No class size is told or capped for it, and nothing is taken out of δ. It is assumed that a row's scores do
    not depend, in their last bits, on the rows beside it.

    Proof: a person comes in as weight that grows from 0, one row after the other, to at most 1 together, and no number
    moves faster than that weight at any place of the way. Let the weight of a row of one class grow by dt.

    - D moves by its part g, at most by the size of the other class, and the cut moves by half of that. The scale is
      f = 1/L - S^2 / (5 L^3), and |D| is at most L S / 2. With r = S/L in [0, 1]: where S grows, `pairs` moves by at
      most `L f + (L S / 2) |df/dS| = 1 - r^2/5 + r^2/5 = 1`; where L grows, by at most
      `S f + (L S / 2) |df/dL| = r - r^3/5 + r/2 - 3 r^3/10 = (3 r - r^3) / 2 <= 1`.
    - N moves by g^2 of the row itself, at most n0^2 if it is an event, and by 2 g times at most 1 of each row of the
      other class, in all by at most 2 n1 n0; N is at most n1 n0 n. With x = n0 / n: `N / n^2` rises by at most
      `x^2 + 2 x (1 - x) = 1 - (1 - x)^2 <= 1`, and falls by at most `2 x (1 - x) + 2 N / n^3 = 4 x (1 - x) <= 1`. Of a
      row without the event x is n1 / n.

    Raises
    ------
    ValueError
        If the arrays have different numbers of rows.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", for the variance.

    Examples
    --------
    >>> outcomes = np.array([1, 0, 0, 0, 0])
    >>> shared, own = np.array([0.9, 0.1, 0.2, 0.3, 0.4]), np.array([0.3, 0.1, 0.2, 0.3, 0.4])
    >>> pair_numbers(outcomes, shared, own).round(4).tolist()  # 1.5 of 4 pairs: 1.5 (1/4 - 1/320), (2.25 + 1.25) / 50
    [0.3703, 0.07]
    """
    if not len(outcomes) == len(shared) == len(own):
        raise ValueError("outcomes and scores must have as many rows")
    events = np.asarray(outcomes) == 1
    weights = person_weights(persons, len(outcomes))
    first = float(weights[events].sum())
    second = float(weights[~events].sum())
    if not first + second:
        return np.zeros(2)
    parts = _pairs_won(shared, events, weights) - _pairs_won(own, events, weights)
    most = MOST_DIFFERENCE * first * second
    pairs = np.clip((weights * parts)[events].sum(), -most, most) * pair_scale(first, second)
    squares = SQUARES_WEIGHT * (weights * parts**2).sum() / (first + second) ** 2
    return np.asarray(np.floor(np.array([pairs, squares]) / STEP) * STEP)


def _pairs_won(scores: np.ndarray, events: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight of the other class with which each row is ordered rightly.

    It is float64 [rows]; a row of an equal score counts half. Sums of weights are exact, in any order.
    """
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    below = np.empty(len(scores))
    for rows, others in ((events, ~events), (~events, events)):
        order = np.argsort(ranked[others])
        sums = np.concatenate([[0.0], np.cumsum(weights[others][order])])
        ends = [np.searchsorted(ranked[others][order], ranked[rows], side) for side in ("left", "right")]
        below[rows] = (sums[ends[0]] + sums[ends[1]]) / 2
    return np.asarray(np.where(events, below, weights[events].sum() - below))
