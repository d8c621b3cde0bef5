"""Requests from handlers to engines.

They say what an engine may be asked to compute, and which fits train as one stack; handlers are driven alone or
together.

A handler is a generator: it yields one request, or a list of them, and is sent the result, or
the list of results. So an engine may answer the requests of many sites at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from flfed.errors import UsageError
from flfed.rows.features.encode import SIDE_BY_SIDE, Encoded
from flfed.rows.training.functional import layers_of
from flfed.rows.training.private_noise import NoiseSource, UnitCounts
from flfed.study.plan import Plan, PrivateSteps
from flfed.summaries.summary import Arrays

if TYPE_CHECKING:
    from torch import Tensor

Term = Callable[["Tensor", "Tensor"], "Tensor"]
"""A client-side term of a strategy: gradient `(w, anchor) → g` on any leading dimension."""
Predictor = Callable[[np.ndarray], np.ndarray]
"""A function from inputs [rows, inputs] to outputs [rows, outputs]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FitRequest:
    """A request to train a model on rows.

    `model` is trained from `arrays` on `rows` by `plan`: a pure function of these fields.

    Attributes
    ----------
    model : a listed model
    task : str
    arrays : dict of name to array
        Where training starts, and the anchor of `terms`.
    rows : Encoded
    plan : Plan
    lr : float
        Learning rate of this round, after the schedule.
    rng : Generator
        Draws the order of rows.
    terms : tuple of Term
    correction : dict of name to array
        A constant that is added to the gradient of each step; empty where there is none.
    frozen : tuple of str
        Arrays that stay as they are.
    delta : bool
        Whether the result is what training changed: the trained arrays minus `arrays`.
    private : PrivateSteps or None
        Take the steps under record-level differential privacy: `plan.steps` of them, whatever the rows.
    chance : NoiseSource or None
        Where their draws come from; needed with `private`.
    units : UnitCounts or None
        What such steps are divided by, where that may not be the exact number of rows.
    """

    model: Any
    task: str
    arrays: Arrays
    rows: Encoded
    plan: Plan
    lr: float
    rng: np.random.Generator
    terms: tuple[Term, ...] = ()
    correction: Arrays = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    delta: bool = False
    private: PrivateSteps | None = None
    chance: NoiseSource | None = None
    units: UnitCounts | None = None

    @property
    def source(self) -> np.random.BitGenerator | None:
        """The generator that is drawn from.

        None where it is the operating system's.

        Requests that share one are known by it. A protected one draws from `chance` alone.
        """
        drawn = self.rng if self.chance is None else getattr(self.chance, "rng", None)
        return None if drawn is None else drawn.bit_generator

    def protected(self) -> tuple[PrivateSteps, NoiseSource]:
        """Return the protection of the steps, and where its draws come from.

        Raises UsageError where they lack.
        """
        if self.private is None or self.chance is None or not self.plan.steps:
            raise UsageError("protected training needs plan.steps, and where its draws come from")
        return self.private, self.chance


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a fit returns.

    Attributes
    ----------
    arrays : dict of name to array, of the plan's precision
        The trained ones, or what training changed.
    steps : int
    loss : float
        Mean training loss over the steps, without penalties.
    """

    arrays: Arrays
    steps: int
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreRequest:
    """A request for a model's outputs.

    They are [rows, outputs] on `x` [rows, inputs].
    """

    model: Any
    arrays: Arrays
    x: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasureRequest:
    """A request for the figures of a round.

    A model is scored on encoded rows.

    Attributes
    ----------
    model : a listed model
    task : str
    arrays : dict of name to array
    rows : Encoded
    precision : {"float64", "float32"}
        Of the plan; the outputs are computed in it.
    area : bool
        Whether the area under the ROC curve is wanted, of a binary task whose rows have both classes.
    histogram : bool
        Whether rows are counted by class and predicted probability, of a binary task.
    """

    model: Any
    task: str
    arrays: Arrays
    rows: Encoded
    precision: str
    area: bool
    histogram: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfRowsAlone:
    """A request for a model chosen by cross-validation.

    Attributes
    ----------
    rows : Encoded
    task : str
    classes : int
        Of the schema.
    rng : Generator
        Draws the folds.
    basis : float64 array [inputs, inputs], optional
        By which inputs are multiplied for a linear model, `one_hot_basis`.
    """

    rows: Encoded
    task: str
    classes: int
    rng: np.random.Generator
    basis: np.ndarray | None = None

    @property
    def source(self) -> np.random.BitGenerator:
        """The generator that is drawn from."""
        return self.rng.bit_generator


class TuneRequest(_OfRowsAlone):
    """A request for a tuned linear model of `rows`.

    Its ridge penalty is chosen by cross-validation; the result is a LinearPredictor.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class RivalRequest(_OfRowsAlone):
    """A request for the best model of `rows`.

    It is the best that these rows alone give, linear or trees; the result is a Rival.

    Attributes
    ----------
    columns : sequence of LinearPredictor
        Columns that are forecasts of a regression's target themselves.
    least : int
        Rows behind a site's last value, at least; 0 leaves it out.
    """

    columns: Sequence[Any] = ()
    least: int = 0


class TreesRequest(_OfRowsAlone):
    """A request for tuned boosted trees of `rows`.

    The result is the function of their outputs.
    """


LEAST_ROWS = 200
"""Rows below which no trees are grown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelRequest:
    """A request for a whole model, whose own requests are answered apart from all others.

    The result is what its handler returns, which can be pickled.

    Attributes
    ----------
    rows : Encoded
    kind : str
        Of the model: two kinds of the same rows differ.
    handler : callable () → handler
        Each handler draws the same.
    """

    rows: Encoded
    kind: str
    handler: Callable[[], Asking[Any]]
    source: None = None

    def is_quick(self, linear: bool) -> bool:
        """Return whether the model takes less time than a process: of few rows, or `linear` and of the study's kind."""
        return len(self.rows) < LEAST_ROWS or (linear and self.kind == "same")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowsRequest:
    """A request to train models through all rounds, side by side and apart from all others.

    The result is the arrays of each after the last round.

    Attributes
    ----------
    rounds : sequence of sequences of FitRequest
        In each round a fit of each model; after the first it starts from the arrays of the fit before.
    """

    rounds: Sequence[Sequence[FitRequest]]
    source: None = None


Packed = Any
"""An update before it is packed, and after: arrays by name under a codec, one vector under secure sums."""
PACKED_AT_ONCE = 64
"""Sites whose updates are packed together."""


@dataclass(frozen=True, eq=False)
class PackRequest:
    """A request to pack an update for its way.

    The result is what it is packed into.

    Attributes
    ----------
    pack : callable (arrays of each site, generator of each site) → packed arrays of each site
        The same of all sites whose updates are packed alike, and then called once for all of them.
    arrays : dict of name to array, or array [entries]
    rng : Generator
        Random rounding comes from it.
    """

    pack: Callable[[Sequence[Packed], Sequence[np.random.Generator]], Sequence[Packed]]
    arrays: Packed
    rng: np.random.Generator

    @property
    def source(self) -> np.random.BitGenerator:
        """The generator that is drawn from."""
        return self.rng.bit_generator


def packed(requests: Sequence[PackRequest]) -> list[Packed]:
    """Return the packed arrays of each request.

    Requests of one codec are packed together.
    """
    replies: list[Any] = [None] * len(requests)
    alike: dict[Hashable, list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(request.pack, []).append(place)
    for places in alike.values():
        # Few at a time stay in a processor's cache.
        for start in range(0, len(places), PACKED_AT_ONCE):
            chosen = places[start : start + PACKED_AT_ONCE]
            results = requests[places[0]].pack(
                [requests[place].arrays for place in chosen], [requests[place].rng for place in chosen]
            )
            for place, result in zip(chosen, results, strict=True):
                replies[place] = result
    return replies


SearchRequest = RivalRequest | TreesRequest | ModelRequest
"""A request that takes long, and is answered for itself."""
Request = FitRequest | ScoreRequest | MeasureRequest | TuneRequest | SearchRequest | ShadowsRequest | PackRequest
ComputeRequest = Request | list[Request]
Result = TypeVar("Result")
Asking = Generator[ComputeRequest, Any, Result]
"""A handler: yields requests, is sent their results, returns a result."""
ClientGenerator = Asking[Any]
"""A client handler, which returns a reply."""
Compute = Callable[[Sequence[Request]], Sequence[Any]]
"""Answers requests, in order; `Failed` in place of a result that could not be had."""


@dataclass(frozen=True)
class Failed:
    """A failure in place of a result.

    Its error is raised in the handler that asked.
    """

    error: Exception


def run_client_by(handler: ClientGenerator, answer: Compute) -> Any:
    """Run a handler to its end.

    Its requests are answered as they come, and what it returns is returned.
    """
    try:
        request = next(handler)
        while True:
            results = answer(listed(request))
            is_list = isinstance(request, list)
            request = []  # its rows are gone before the handler encodes others
            request = send_results(handler, results, is_list=is_list)
    except StopIteration as end:
        return end.value


def together(handlers: Sequence[ClientGenerator], rows: int = 0) -> Asking[list[Any]]:
    """Drive several handlers side by side, or in turn if they encode many rows, which are then held once.

    Yields what all of them ask at a time, and returns what they return.

    Parameters
    ----------
    handlers : sequence of generators
        Each may ask as often as it likes; one that has ended waits for the others.
    rows : int
        That each may encode.
    """
    if rows > SIDE_BY_SIDE:
        results = []
        for handler in handlers:
            results.append((yield from handler))
        return results
    ended: dict[int, Any] = {}
    waiting: dict[int, ComputeRequest] = {}

    def go_on(place: int, results: Sequence[Any] | None, *, is_list: bool = False) -> None:
        handler = handlers[place]
        try:
            waiting[place] = next(handler) if results is None else send_results(handler, results, is_list=is_list)
        except StopIteration as end:
            ended[place] = end.value

    # Every handler is started before any is answered.
    for place in range(len(handlers)):
        go_on(place, None)
    while waiting:
        counts = [(place, len(listed(request)), isinstance(request, list)) for place, request in waiting.items()]
        # Whatever the handlers ask at this turn goes to the engine as one list, which may stack it.
        results = yield list(chain.from_iterable(map(listed, waiting.values())))
        waiting.clear()
        start = 0
        for place, count, is_list in counts:
            go_on(place, results[start : start + count], is_list=is_list)
            start += count
    return [ended[place] for place in range(len(handlers))]


def listed(request: ComputeRequest) -> list[Request]:
    """Return what a handler asks, as a list."""
    return request if isinstance(request, list) else [request]


def send_results(handler: ClientGenerator, results: Sequence[Any], *, is_list: bool) -> ComputeRequest:
    """Send a handler the results of a list of requests, or of one.

    Where one failed, its error is raised in the handler instead. What the handler asks next is returned.
    """
    for result in results:
        if isinstance(result, Failed):
            return handler.throw(result.error)
    result = list(results) if is_list else results[0]
    return handler.send(result)


def program_of(request: FitRequest, cache: dict[Hashable, Hashable] | None = None) -> Hashable | None:
    """Return the program that a request trains by.

    Requests of one program can train as one stack. It is None for a request that cannot be stacked.

    `cache` has results for the same arrays and plan; those must still live.
    """
    rows = request.rows
    layers = layers_of(request.model)
    if not layers or not len(rows.y) == len(rows.x) == len(rows.weight) > 0:
        return None
    if request.private is not None and not (request.chance and request.plan.steps):
        return None  # refused alone
    # Arrays and plan are mostly shared by all sites, so that they are looked at once.
    own = (layers, request.model.penalised, request.task, tuple([_term_key(term) for term in request.terms]))
    if cache is None:
        cache = {}
    key = (own, rows.x.shape[1:], id(request.arrays), id(request.plan))
    if key not in cache:
        cache[key] = _shared(request)
    settings = (request.delta, request.private, bool(request.correction), request.frozen)
    if cache[key] is None:
        return None
    return (own, cache[key], settings)


def _shared(request: FitRequest) -> Hashable | None:
    """Return the program's part of arrays and plan.

    It is None for arrays that do not fit to layers and rows.
    """
    model = request.model
    plan = request.plan
    arrays = request.arrays
    names = set(chain.from_iterable(model.layers))
    if names != arrays.keys() or not names.issuperset(model.penalised):
        return None
    shapes = tuple([(arrays[weight].shape, arrays[bias].shape) for weight, bias in model.layers])
    if not _fitting(shapes, request.rows.x.shape, request.task):
        return None
    rule = (plan.optimiser, plan.momentum, plan.weight_decay, plan.clip, plan.l1)
    return (shapes, rule, plan.l2 > 0, (plan.batch, plan.epochs, plan.steps, plan.precision))


def _fitting(shapes: tuple[Any, ...], x: tuple[int, ...], task: str) -> bool:
    """Return whether layers fit to each other.

    They must follow one another from the inputs to the outputs of a task.
    """
    width = x[-1] if len(x) == 2 else -1
    for weight, bias in shapes:
        if len(weight) != 2 or weight[0] != width or bias != weight[1:] or not weight[1]:
            return False
        width = weight[1]
    if task in ("binary", "regression"):
        return width == 1
    return task == "multi-class"


def _term_key(term: Term) -> Hashable:
    """Return a key by which terms are alike.

    Each site makes its own `partial` of the same function.
    """
    if isinstance(term, partial):
        key = (term.func, term.args, tuple(sorted(term.keywords.items())))
        if all(isinstance(value, Hashable) for value in (*term.args, *term.keywords.values())):
            return key
        return term
    return term
