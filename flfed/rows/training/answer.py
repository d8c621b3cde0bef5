"""Engines that answer requests: one by one, or those of many sites at once.

Stacked, equal requests are computed together, and the rest one by one; other processes may begin some before.
Parameters of a stack are [sites, ...], products are batched, and masks stand for missing rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from flfed.callbacks import OWN_MODELS, Progress, no_progress
from flfed.rows.training.batches import BLOCK_BYTES, CACHE_BYTES, BatchPlan, BufferPool, PackCache, Unpacked, gathered
from flfed.rows.training.best_model import best_alone, trees_alone
from flfed.rows.training.fit import fit
from flfed.rows.training.inference import measure_stacked, score_stacked
from flfed.rows.training.private_fit import fit_private_stack, private_fit
from flfed.rows.training.requests import (
    ClientGenerator,
    Compute,
    Failed,
    FitRequest,
    Fitted,
    MeasureRequest,
    ModelRequest,
    PackRequest,
    Request,
    RivalRequest,
    ScoreRequest,
    SearchRequest,
    ShadowsRequest,
    TreesRequest,
    TuneRequest,
    packed,
    program_of,
    run_client_by,
    together,
)
from flfed.rows.training.stack import Stack
from flfed.rows.training.tuned_stacked import tune_together
from flfed.summaries.summary import Arrays
from flfed.tasks import Driver, NotShareable, Tasks, open_tasks, usable_jobs

TOGETHER: dict[type, Callable[[Any], Sequence[Any]]] = {
    ScoreRequest: score_stacked,
    MeasureRequest: measure_stacked,
    TuneRequest: tune_together,
    PackRequest: packed,
}
"""Requests that are computed together, one or many.

Searches of scikit-learn's fits, one after another, would take far longer than one stack."""


def compute_one_by_one(requests: Sequence[Request], progress: Progress = no_progress) -> list[Any]:
    """Compute the result of each request, and show the progress of searches for models.

    An error in one of them ends all.
    """
    results = list[Any]()
    for request in requests:
        progress(OWN_MODELS, len(results), len(requests))
        results.append(_answer_one(request))
    progress(OWN_MODELS, len(results), len(results))
    return results


def _answer_one(request: Request) -> Any:
    if isinstance(request, FitRequest):
        return fit_one(request)
    if isinstance(request, TreesRequest):
        return trees_alone(request)
    if isinstance(request, RivalRequest):
        return best_alone(request)
    if isinstance(request, ModelRequest):
        return run_client(request.handler())
    if isinstance(request, ShadowsRequest):
        return _train_shadows(request, compute_one_by_one)
    return TOGETHER[type(request)]([request])[0]


def fit_one(request: FitRequest) -> Fitted:
    """Train as one request asks, protected or not."""
    return fit(request) if request.private is None else private_fit(request)


def run_client(handler: ClientGenerator) -> Any:
    """Run a handler, answering its requests one by one.

    Returns what the handler returns.
    """
    return run_client_by(handler, compute_one_by_one)


def stacked_compute(jobs: int = 1, progress: Progress = no_progress) -> Compute:
    """Return `compute_stacked` with a cache of its own.

    A site's rows are then packed once, and not in every round. Shadow models are trained in `jobs` processes.
    """
    return partial(compute_stacked, cache=PackCache(), jobs=jobs, progress=progress)


def compute_stacked(
    requests: Sequence[Request], cache: PackCache | None = None, jobs: int = 1, progress: Progress = no_progress
) -> list[Any]:
    """Compute the result of each request.

    One site's failure is its own: it is `Failed` in place of that result.
    """
    kinds: dict[type, Callable[[Any], Sequence[Any]]] = {
        FitRequest: partial(fit_stacked, cache=cache, alone=_alone),
        RivalRequest: partial(compute_one_by_one, progress=progress),
        TreesRequest: partial(compute_one_by_one, progress=progress),
        ModelRequest: partial(_train_models, answer=partial(compute_stacked, cache=cache)),
        ShadowsRequest: partial(train_stacks, jobs=jobs),
        **TOGETHER,
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
    drawing = [request for request in requests if not isinstance(request, (ScoreRequest, MeasureRequest))]
    sources = [request.source for request in drawing if request.source is not None]
    states = [source.state for source in sources]
    try:
        return answer(requests) if requests else []
    except Exception:  # noqa: BLE001 - done again below, where each request has its own error
        for source, state in zip(sources, states):
            source.state = state  # the same draws as if it had been done alone at once
        return [_alone(request) for request in requests]


def _alone(request: Request) -> Any:
    try:
        return compute_one_by_one([request])[0]
    except Exception as error:  # noqa: BLE001 - raised again in the handler that asked
        return Failed(error)


def _train_models(requests: Sequence[ModelRequest], answer: Compute) -> Any:
    """Return the model of each request; fits that they ask for at a time train as one stack."""
    return run_client_by(together([request.handler() for request in requests]), answer)


def train_stacks(requests: Sequence[ShadowsRequest], jobs: int = 1) -> list[Any]:
    """Train the models of each request as a stack of their own, in several processes where there are jobs."""
    tasks = open_tasks(_train_stack, requests, jobs)
    if tasks is None:
        return [_train_stack(request) for request in requests]
    results: list[Any] = [None] * len(requests)
    with tasks:
        for place, outcome in tasks:
            results[place] = Failed(outcome) if isinstance(outcome, Exception) else outcome
    return results


def _train_stack(request: ShadowsRequest, driver: Driver | None = None) -> list[Arrays]:
    return _train_shadows(request, partial(fit_stacked, cache=PackCache()))


def _train_shadows(request: ShadowsRequest, answer: Callable[[Sequence[FitRequest]], Sequence[Fitted]]) -> list[Arrays]:
    """Return the arrays of each model after all rounds."""
    models = [fit.arrays for fit in request.rounds[0]]
    for fits in request.rounds:
        models = [fitted.arrays for fitted in answer([replace(fit, arrays=a) for fit, a in zip(fits, models)])]
    return models


CHUNK = 64
"""Most sites of a stack: beyond it a step's calls are a small part of its time."""
CHUNK_BYTES = 64 * 2**20
"""Most memory of a stack's rows, and of its activations."""


def fit_stacked(
    requests: Sequence[FitRequest], cache: PackCache | None = None, *, alone: Callable[[FitRequest], Any] = fit_one
) -> list[Any]:
    """Compute the result of each fit, in order.

    Requests of one program train as one stack.

    Parameters
    ----------
    requests : sequence of FitRequest
        They may differ in arrays, rows, learning rate, size of `l2` and random numbers; protected
        ones train together where `private` is equal. One whose model names no `layers`, or that
        does not fit to them, is done by itself.
    cache : PackCache, optional
        Where packed rows stay from round to round.
    alone : callable
        Does one request by itself.

    Returns
    -------
    list of Fitted, or of what `alone` returns
        Each as `fit` returns it, but for rounding. Arrays are views of the stack's, which nobody
        writes to any more.
    """
    if cache is None:
        cache = PackCache(0)
    results = list[Any]([None] * len(requests))
    room = BufferPool()
    programs = _programs(requests)
    # All programs are trained with gradients written out, so that torch need not record anything.
    with torch.inference_mode():
        for program, places in programs.items():
            if program is None:
                continue
            for chunk in _chunks(requests, places):
                for place, fitted in zip(chunk, _fit_stack([requests[p] for p in chunk], cache, room), strict=True):
                    results[place] = fitted
    for place in programs.get(None, ()):
        results[place] = alone(requests[place])
    return results


def _programs(requests: Sequence[FitRequest]) -> dict[Hashable, list[int]]:
    """Return the places of the requests of each program, those to be computed one by one under None."""
    sources = [request.source for request in requests]
    drawing = Counter(id(source) for source in sources if source is not None)
    programs: dict[Hashable, list[int]] = {}
    cache: dict[Hashable, Hashable] = {}
    for place, (request, source) in enumerate(zip(requests, sources)):
        # Requests that draw from one generator draw in their order.
        single = source is not None and drawing[id(source)] > 1
        program = None if single else program_of(request, cache)
        programs.setdefault(program, []).append(place)
    return programs


def _chunks(requests: Sequence[FitRequest], places: list[int]) -> Iterator[list[int]]:
    """Yield the places of sites that train together.

    Those with most steps come first, with batches of similar size.

    A stack ends where its memory would be too much, or where most of a batch would be no rows.
    """
    first = requests[places[0]]
    plan = first.plan
    private = first.private
    widths = [first.rows.x.shape[1] + 1, *(2 * first.arrays[bias].shape[0] + 1 for _, bias in first.model.layers)]
    most = CHUNK_BYTES // np.dtype(plan.precision).itemsize
    chunk: list[int] = []
    total = 0
    widest = 0
    sites = []
    for place in places:
        rows = len(requests[place].rows)
        # A protected batch is of random size: its expectation is what sites are compared by.
        size = plan.batch_size(rows) if private is None else math.ceil(private.sampling * rows)
        sites.append((plan.steps_a_round(rows), rows, size, place))
    for _, rows, size, place in sorted(sites, key=lambda site: (-site[0], -site[1])):
        total = total + rows
        widest = max(widest, size)
        # Memory is that of the packed rows, or that of all activations where these are more.
        cells = max(total * widths[0], (len(chunk) + 1) * widest * sum(widths))
        if chunk and (len(chunk) == CHUNK or cells > most or 2 * size < widest):
            yield chunk
            chunk = []
            total = rows
            widest = size
        chunk.append(place)
    yield chunk


def _fit_stack(requests: list[FitRequest], cache: PackCache, room: BufferPool) -> list[Fitted]:
    """Return the result of each fit of one stack."""
    plan = requests[0].plan
    task = requests[0].task
    rows = [request.rows for request in requests]
    sizes = [len(site.y) for site in rows]
    dtype = getattr(torch, plan.precision)
    if requests[0].private is not None:
        return fit_private_stack(requests, cache.packed(rows, task, dtype), room)
    # Rows that would not be kept for the next round: a stack of so many is of one site.
    large = len(rows) == 1 and rows[0].x.size * dtype.itemsize > CACHE_BYTES
    packed = Unpacked.of(rows[0], task, dtype) if large else cache.packed(rows, task, dtype)
    course = BatchPlan(sizes, plan, [request.rng for request in requests])
    stack = Stack(requests, dtype, room)
    for block in course.blocks(BLOCK_BYTES // (packed.width * dtype.itemsize)):
        stack.train(gathered(packed, block, room))
    return stack.results([plan.steps_a_round(n) for n in sizes])


Key = tuple[Any, ...]


class ModelsAhead:
    """Answers requests, some of which other processes have begun before.

    Parameters
    ----------
    answer : callable
        Answers all others.
    jobs : int or Cluster
        Processes; with one, nothing is begun before.
    progress : callable (stage, done, of)
        Of the sites' own models that are waited for.
    """

    def __init__(self, answer: Compute, jobs: int, progress: Progress) -> None:
        self._answer = answer
        self._jobs = jobs
        self._progress = progress
        self._tasks: Tasks | None = None
        self._outcomes: Iterator[tuple[int, Any]] = iter(())
        self._keys: list[Key] = []
        self._ready: dict[Key, Any] = {}

    @property
    def is_useful(self) -> bool:
        """Whether there are several processes."""
        return usable_jobs(self._jobs, 2) > 1

    def begin(self, requests: Sequence[Request]) -> None:
        """Begin the models among some requests: sites' own first, which are needed first, and those of most rows."""
        models = [request for request in requests if isinstance(request, SearchRequest)]
        models.sort(key=lambda request: (isinstance(request, ModelRequest), -len(request.rows)))
        self._keys = [_key_of(request) for request in models]
        if not models:
            return
        import sklearn.ensemble  # noqa: F401 - once, and not again in each process that is forked

        run = partial(_answer_ahead, is_stacked=self._answer is not compute_one_by_one)
        try:
            self._tasks = Tasks(run, models, self._jobs)
        except NotShareable:
            return
        self._outcomes = iter(self._tasks)

    def __call__(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Return the result of each request, in order."""
        if not self._keys:
            return self._answer(requests)
        begun = {}
        for place, request in enumerate(requests):
            if isinstance(request, SearchRequest) and _key_of(request) in self._keys:
                begun[place] = _key_of(request)
        self._wait_for(set(begun.values()))
        begun = {place: key for place, key in begun.items() if key in self._ready}
        others = iter(self._answer([request for place, request in enumerate(requests) if place not in begun]))
        return [self._ready[begun[place]] if place in begun else next(others) for place in range(len(requests))]

    def _wait_for(self, keys: set[Key]) -> None:
        own = {key for key in keys if key[0] is not ModelRequest}
        while keys - self._ready.keys():
            if len(own) > 1:
                self._progress(OWN_MODELS, len(own & self._ready.keys()), len(own))
            number, outcome = next(self._outcomes, (-1, None))
            if number < 0:
                return
            # A failed model is trained again where its error belongs.
            if not isinstance(outcome, Exception):
                self._ready[self._keys[number]] = outcome
            else:
                keys = keys - {self._keys[number]}

    def close(self) -> None:
        """End the processes."""
        if self._tasks is not None:
            self._tasks.__exit__(None, None, None)


def _answer_ahead(request: Request, driver: Driver, *, is_stacked: bool) -> Any:
    """Return the result as the driver would have it, to the last bit."""
    compute = stacked_compute() if is_stacked else compute_one_by_one
    (result,) = compute([request])
    if isinstance(result, Failed):
        raise result.error
    return result


def _key_of(request: SearchRequest) -> Key:
    """Return a key by which requests are equal: what they draw, and their rows."""
    rows = request.rows
    draws = request.kind if isinstance(request, ModelRequest) else str(request.source.state)
    # Few rows: numpy copies what it sums without NaN.
    return (type(request), draws, rows.x.shape, float(np.nansum(rows.x[::64])), float(np.sum(rows.y)))
