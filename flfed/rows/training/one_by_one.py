"""Sequential engine for requests.

Each request is answered as if there were no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flfed.rows.training.fit import fit, measure, score
from flfed.rows.training.requests import (
    ClientGenerator,
    FitRequest,
    Fitted,
    MeasureRequest,
    PackRequest,
    Request,
    RivalRequest,
    ScoreRequest,
    TreesRequest,
    packed,
    run_client_by,
)
from flfed.rows.training.stacked.private_fit import private_fit
from flfed.rows.training.tuning.best_model import best_alone, trees_alone
from flfed.rows.training.tuning.stacked import tune_together


def compute_one_by_one(requests: Sequence[Request]) -> list[Any]:
    """Compute the result of each request.

    An error in one of them ends all.
    """
    return [_answer_one(request) for request in requests]


def _answer_one(request: Request) -> Any:
    if isinstance(request, FitRequest):
        return fit_one(request)
    if isinstance(request, ScoreRequest):
        return score(request)
    if isinstance(request, MeasureRequest):
        return measure(request)
    if isinstance(request, PackRequest):
        return packed([request])[0]
    if isinstance(request, TreesRequest):
        return trees_alone(request.rows, request.task, request.classes, request.rng)
    if isinstance(request, RivalRequest):
        return best_alone(request.rows, request.task, request.classes, request.rng, request.columns, request.least)
    # Alone, too, a search is solved as one stack: scikit-learn's fits, one after another, take twenty times as long.
    return tune_together([request])[0]


def fit_one(request: FitRequest) -> Fitted:
    """Train as one request asks, protected or not."""
    return fit(request) if request.private is None else private_fit(request)


def run_client(handler: ClientGenerator) -> Any:
    """Run a handler, answering its requests one by one.

    Returns what the handler returns.
    """
    return run_client_by(handler, compute_one_by_one)
