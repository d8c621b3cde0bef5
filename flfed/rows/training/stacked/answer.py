"""Stacked engine for the requests of many sites.

What is alike is stacked, and the rest is computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flfed.rows.training.inference import measure_stacked, score_stacked
from flfed.rows.training.one_by_one import compute_one_by_one
from flfed.rows.training.requests import (
    Compute,
    Failed,
    FitRequest,
    MeasureRequest,
    Request,
    RivalRequest,
    ScoreRequest,
    TuneRequest,
)
from flfed.rows.training.stacked.batches import Kept
from flfed.rows.training.stacked.fit import fit_stacked
from flfed.rows.training.tuning.stacked import tune_together


def stacked_compute() -> Compute:
    """Return `compute_stacked` with a cache of its own.

    A site's rows are then packed once, and not in every round.
    """
    return partial(compute_stacked, kept=Kept())


def compute_stacked(requests: Sequence[Request], kept: Kept | None = None) -> list[Any]:
    """Compute the result of each request.

    One site's failure is its own: it is `Failed` in place of that result.
    """
    kinds: dict[type, Callable[[Any], Sequence[Any]]] = {
        FitRequest: partial(fit_stacked, kept=kept, alone=_alone),
        ScoreRequest: score_stacked,
        MeasureRequest: measure_stacked,
        TuneRequest: tune_together,
        RivalRequest: compute_one_by_one,
    }
    results: list[Any] = [None] * len(requests)
    for kind, answer in kinds.items():
        places = [place for place, request in enumerate(requests) if type(request) is kind]
        for place, result in zip(places, _answer_kind(answer, [requests[place] for place in places]), strict=True):
            results[place] = result
    return results


def _answer_kind(answer: Callable[[Any], Sequence[Any]], requests: Sequence[Request]) -> Sequence[Any]:
    """Answer requests of one kind together.

    Where that fails each is answered alone, to find whose failure it is.
    """
    # The state of every generator is noted first, for a failure may come after some draws.
    drawing = [request for request in requests if isinstance(request, (FitRequest, TuneRequest, RivalRequest))]
    sources = [request.source for request in drawing if request.source is not None]
    states = [source.state for source in sources]
    try:
        return answer(requests) if requests else []
    except Exception:  # noqa: BLE001 - done again below, where each request has its own error
        for source, state in zip(sources, states, strict=True):
            source.state = state  # the same draws as if it had been done alone at once
        return [_alone(request) for request in requests]


def _alone(request: Request) -> Any:
    try:
        return compute_one_by_one([request])[0]
    except Exception as error:  # noqa: BLE001 - raised again in the handler that asked
        return Failed(error)
