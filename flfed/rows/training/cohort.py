"""Answering the requests of a whole cohort together: what is alike is stacked, the rest is done alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flfed.rows.training.alone import answer_alone
from flfed.rows.training.outputs import measure_together, score_together
from flfed.rows.training.requests import Failed, FitRequest, MeasureRequest, Request, ScoreRequest, TuneRequest
from flfed.rows.training.stacked import fit_together
from flfed.rows.training.tuned_together import tune_together

KINDS: dict[type, Callable[[Any], Sequence[Any]]] = {
    FitRequest: fit_together,
    ScoreRequest: score_together,
    MeasureRequest: measure_together,
    TuneRequest: tune_together,
}


def answer_together(requests: Sequence[Request]) -> list[Any]:
    """Return the result of each request, or `Failed`: one site's failure is its own."""
    results: list[Any] = [None] * len(requests)
    for kind, answer in KINDS.items():
        places = [place for place, request in enumerate(requests) if type(request) is kind]
        for place, result in zip(places, _answered(answer, [requests[place] for place in places]), strict=True):
            results[place] = result
    return results


def _answered(answer: Callable[[Any], Sequence[Any]], requests: Sequence[Request]) -> Sequence[Any]:
    """Answer requests of one kind together or, where that fails, each alone, to find whose failure it is."""
    try:
        return answer(requests) if requests else []
    except Exception:  # noqa: BLE001 - done again below, where each request has its own error
        return [_alone(request) for request in requests]


def _alone(request: Request) -> Any:
    try:
        return answer_alone([request])[0]
    except Exception as error:  # noqa: BLE001 - raised again in the handler that asked
        return Failed(error)
