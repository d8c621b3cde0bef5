"""Own and pooled models that other processes fit while a run goes on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from flfed.callbacks import Jobs
from flfed.rows.training.answer import compute_one_by_one
from flfed.rows.training.requests import Compute, Request, SearchRequest
from flfed.tasks import Driver, NotShareable, Tasks, usable_jobs


class ModelsAhead:
    """Answers requests, some of which other processes have begun before.

    Parameters
    ----------
    answer : callable
        Answers all others.
    jobs : int or Cluster
        Processes; with one, nothing is begun before.
    """

    def __init__(self, answer: Compute, jobs: Jobs) -> None:
        self._answer = answer
        self._jobs = jobs
        self._tasks: Tasks | None = None
        self._outcomes: Iterator[tuple[int, Any]] = iter(())
        self._keys: list[Hashable] = []
        self._ready: dict[Hashable, Any] = {}

    @property
    def is_useful(self) -> bool:
        """Whether there are several processes."""
        return usable_jobs(self._jobs, 2) > 1

    def begin(self, requests: Sequence[Request]) -> None:
        """Begin the searches among some requests, those of most rows first."""
        searches = [request for request in requests if isinstance(request, SearchRequest)]
        searches.sort(key=lambda request: -len(request.rows))
        self._keys = [_key_of(request) for request in searches]
        try:
            self._tasks = Tasks(_answer_alone, searches, self._jobs)
        except NotShareable:
            return
        self._outcomes = iter(self._tasks)

    def __call__(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Return the result of each request, in order."""
        begun = {}
        for place, request in enumerate(requests):
            if isinstance(request, SearchRequest) and _key_of(request) in self._keys:
                begun[place] = _key_of(request)
        self._wait_for(set(begun.values()))
        begun = {place: key for place, key in begun.items() if key in self._ready}
        others = iter(self._answer([request for place, request in enumerate(requests) if place not in begun]))
        return [self._ready[begun[place]] if place in begun else next(others) for place in range(len(requests))]

    def _wait_for(self, keys: set[Hashable]) -> None:
        while keys - self._ready.keys():
            number, outcome = next(self._outcomes, (-1, None))
            if number < 0:
                return
            # A search that failed is done again where its error belongs.
            if not isinstance(outcome, Exception):
                self._ready[self._keys[number]] = outcome
            else:
                keys = keys - {self._keys[number]}

    def close(self) -> None:
        """End the processes."""
        if self._tasks is not None:
            self._tasks.__exit__(None, None, None)


def _answer_alone(request: Request, driver: Driver) -> Any:
    return compute_one_by_one([request])[0]


def _key_of(request: SearchRequest) -> Hashable:
    """Return a key by which requests are equal: what they draw, and their rows."""
    rows = request.rows
    return (type(request), str(request.source.state), rows.x.shape, float(np.nansum(rows.x)), float(np.sum(rows.y)))
