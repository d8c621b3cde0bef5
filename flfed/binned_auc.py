"""How far an AUC made of counts by class and bin of predictions may be from that of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def auc_bound(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return how far the AUC of the rows may lie from that of their counts at most: half the pairs of one bin.

    Of two rows in one bin nobody knows which has the higher prediction: such a pair counts half, and is 0 or 1.
    Certain, and nothing less is: a bin may hold all that a strong input has to tell where the model gives it a
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


def bound_in(payload: Mapping[str, Any]) -> float:
    """Return how far the AUC of a record's "score-histograms" may be from that of the rows at most."""
    both = np.zeros((2, payload["bins"]))
    for label in ("0", "1"):
        for place, rows in payload["all"][label]:
            both[int(label), int(place)] = rows
    return auc_bound(both[0], both[1])
