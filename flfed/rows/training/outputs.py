"""Outputs and figures of many sites at once: one product where the model is the same, one sort for all areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.rows.training.fit import measure, score
from flfed.rows.training.requests import Measured, MeasureRequest, ScoreRequest


def score_together(requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
    """Return the outputs of each request, in order."""
    return [score(request) for request in requests]


def measure_together(requests: Sequence[MeasureRequest]) -> list[Measured]:
    """Return the figures of each request, in order."""
    return [measure(request) for request in requests]
