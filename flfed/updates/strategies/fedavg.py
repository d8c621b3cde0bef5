"""Federated averaging, on which every other strategy builds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Result
from pydantic import Field

from flfed.callbacks import Clock
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.study.settings import check_ranges
from flfed.updates.aggregation.guard import GuardResult, guard, guard_scores, weighted_mean
from flfed.updates.aggregation.rounds import Round, RunContext, Send, rarely_collected, why_unsummed
from flfed.updates.aggregation.selection import Selection, check_selection
from flfed.updates.arrays import Arrays, Shapes, entries_of, shapes_of
from flfed.updates.extra import ExtraArrays, ExtraShapes, LocalUpdate, SiteArrays, client_terms
from flfed.updates.messages.in_memory import array_record, immutable
from flfed.updates.messages.train import EVALUATE, NO_ENCODER, TRAIN, Offset, Replies, TrainReply, TrainRequest
from flfed.words import render, usage_error

MOMENT = "moment-"
"""Begins the names of a strategy's moments in a checkpoint."""
Term = Callable[[Any, Any], Any]
"""A client-side term: gradient `(w, anchor) → g` of tensors with any leading dimension."""


# One round, as `start` runs it:
#
#   cohort ──► configure_train ──► send_and_receive ──► Round.receive: read, guard ──► enough good updates?
#                    ▲                                                                  │ no, the first time
#                    └─────────────── asked once more, all of them ◄────────────────────┤
#                                                                                       │ no, the second: `stopped`
#                                                                                       ▼ yes
#                                      observer ◄── combine ◄── the mechanism's noise ◄─┘
#
# A site whose privacy budget is spent is not asked again. A retry computes the same bits: seeds name the round.
@dataclass(kw_only=True, eq=False, repr=False)
class FedAvg(FlowerFedAvg):
    """Plain averaging: the mean of the sites' models, weighted by their rows.

    Parameters
    ----------
    fraction : float in (0, 1]
        Share of sites asked each round, drawn by name from the seed; at least one. Example: `fraction = 0.5`.
    weights : {"rows", "equal", "capped"}
        What an update counts: its rows, one, or its rows up to `cap`.
    cap : int, > 0
        Largest weight under "capped". Example: `cap = 500`.
    server_lr : float, > 0
        How much of the mean delta is taken; 1.0 gives plain averaging. Example: `server-lr = 0.5`.
    quorum : float in (0, 1]
        Share of the asked sites whose update must be good. Else the round is asked once more, and then the run stops
        with its last good model. Example: `quorum = 1.0`.
    deadline : float in (0, 2592000]
        Seconds a round, 30 days at most; what comes later is not used. Example: `deadline = 120.0`.
    wait : float in (0, 2592000]
        Seconds that a round under secure aggregation waits, once it was asked again, for sites that are away: without
        one of them there is no sum, and the run stops. Example: `wait = 3600.0`.
    select : {"last", "best"}
        Which round's model is the result; "best" reads validation rows only.
    patience : int, >= 0
        Rounds without a better validation loss before the run ends early; 0 never. Example: `patience = 10`.
    flag_norm, refuse_norm : float
        The guard's bounds, in medians of the cohort's norms. Examples: `flag-norm = 5.0`, `refuse-norm = 20.0`.

    Notes
    -----
    Sites send deltas; the sum is in float64 and in site-name order, so neither the order of
    replies nor node ids change a bit of it.

    A subclass may override `combine`, `weight`, `cohort`, `client_settings` and `client_terms`, and add to `check`,
    `state` and `restore`. It may read `run`, `selection` and `round`, and keep arrays from round to round in `moments`,
    by the name of a moment and then by that of an array: `self.moments["velocity"] = {"weight": array}`. One with a
    `combine` of its own that takes the weighted mean in place of the sites' updates sets `sums = True`: under secure
    aggregation there is only the mean, and others are refused. One that weighs updates by the steps that sites say they
    took sets `by_steps = True`: the guard refuses other steps than the plan's. One whose sites are sent arrays beside
    the model, send some back or keep some names them in `extra_shapes` and makes them in `client_arrays` and
    `client_extra`. What came back is `round.result.accepted[site].extra`.

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from
    decentralized data", algorithm 1.

    Examples
    --------
    >>> from flfed import FedAvg
    >>> FedAvg(fraction=0.5, weights="equal").fraction
    0.5
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    weights: Literal["rows", "equal", "capped"] = "rows"
    cap: Annotated[int, Field(gt=0)] = 1000
    server_lr: Annotated[float, Field(gt=0), "> 0; 1.0 gives plain averaging"] = 1.0
    quorum: Annotated[float, Field(gt=0, le=1)] = 0.75
    deadline: Annotated[float, Field(gt=0, le=2_592_000), "in (0, 2592000] seconds"] = 600.0
    wait: Annotated[float, Field(gt=0, le=2_592_000), "in (0, 2592000] seconds"] = 86_400.0
    select: Literal["last", "best"] = "last"
    patience: Annotated[int, Field(ge=0), ">= 0; 0 never stops early"] = 0
    flag_norm: float = 3.0
    refuse_norm: float = 10.0
    sums: ClassVar[bool] = True
    by_steps: ClassVar[bool] = False
    clock: Clock = field(default=time.monotonic, init=False)
    run: RunContext = field(init=False)
    selection: Selection = field(init=False)
    round: Round = field(default_factory=Round, init=False)
    moments: dict[str, Arrays] = field(default_factory=dict, init=False)
    offsets: dict[str, Offset] = field(default_factory=dict, init=False)
    stopped: str = field(default="", init=False)
    rounds_done: int = field(default=0, init=False)
    best_round: int = field(default=0, init=False)

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Take a class for one that needs the sites' own updates where it combines them, and says nothing else."""
        super().__init_subclass__(**keywords)
        if "combine" in vars(cls) and "sums" not in vars(cls):
            cls.sums = False

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        check_ranges(self, "[strategy]")
        if not self.refuse_norm >= self.flag_norm > 0:
            raise usage_error("study.strategies.norms", norm=self.refuse_norm)
        super().__init__(fraction_train=self.fraction, fraction_evaluate=1.0)

    def assign(self, run: RunContext) -> None:
        """Bind the strategy to a run, whose plan it checks."""
        self.check(run.plan)
        self.run = run
        self.selection = Selection(run.plan)

    def check(self, plan: Plan) -> None:
        """Refuse a plan that does not go with the settings, by a UsageError."""
        check_selection(plan, select=self.select, patience=self.patience, fraction=self.fraction)

    @rarely_collected()
    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds and return the selected model.

        Flower's own loop neither retries, stops nor survives a bad reply, so this one replaces it behind the same
        signature. `timeout` is the strategy's `deadline`. A round that misses the quorum twice, or gives no model, ends
        the run: `stopped` says why, and the result is the last good model. After `restore` it goes on from the round
        that follows. The observer is called with each round.
        """
        arrays = initial_arrays
        config = ConfigRecord(dict(train_config or {}))
        result = Result(arrays=initial_arrays)
        for number in range(self.rounds_done + 1, num_rounds + 1):
            # The scores that decide came with the round before.
            if self.round.ends_run or self.selection.ends(number, self.patience):
                break
            updated = _trained(self, number, arrays, config, grid)
            if updated is None:
                return _taken_back(self, result)
            result.arrays = arrays = updated
            self.rounds_done = self.best_round = number
        if not self.run.scored:
            return result
        return _selected(self, result, ConfigRecord(dict(evaluate_config or {})), grid)

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return what later rounds need besides the model: arrays by name, and plain facts.

        A strategy keeps arrays from round to round in `moments`; counters of its own it adds, and takes them back in
        `restore`.
        """
        arrays, facts = self.selection.state()
        for name, moment in self.moments.items():
            if not isinstance(moment, Mapping):
                raise usage_error("study.strategies.moments", strategy=type(self).__name__, name=name)
            arrays[f"{MOMENT}{name}"] = moment
        return arrays, facts

    def restore(self, round: int, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Resume after `round` rounds with the state of then."""
        self.rounds_done = self.best_round = round
        self.selection.restore(arrays, facts)
        self.moments = {
            name.removeprefix(MOMENT): dict(moment) for name, moment in arrays.items() if name.startswith(MOMENT)
        }

    def _observe(self, number: int, arrays: ArrayRecord) -> None:
        self.round.ends_run = bool(self.run.observer(self.round.record(number, to_arrays(arrays), self.clock())))

    def needed(self, asked: int) -> int:
        """Return the number of good updates needed, at least one."""
        # Less a little: 0.55 of 20 is 11, which in floating point is a bit more.
        return max(1, math.ceil(self.quorum * asked - 1e-9))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each cohort site, `config` unchanged."""
        return messages_of(self, TRAIN, server_round, arrays, self.cohort(server_round))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message for each site to score the model."""
        return messages_of(self, EVALUATE, server_round, arrays, sorted(self.run.participants))

    def cohort(self, server_round: int) -> list[str]:
        """Return the sites asked in a round, in name order."""
        run = self.run
        sites = sorted(run.participants)
        size = max(1, round(self.fraction * len(sites)))
        rng = generator(run.seed, site="", purpose="cohort", number=server_round)
        if size == len(sites):
            return sites
        return [sites[index] for index in sorted(rng.choice(len(sites), size=size, replace=False))]

    def client_settings(self) -> Mapping[str, float]:
        """Return the client half's numbers, of which FedAvg has none."""
        return {}

    @classmethod
    def client_terms(cls, settings: Mapping[str, float]) -> tuple[Term | Arrays, ...]:
        """Return gradients that sites add, of which FedAvg has none.

        They are made of what `client_settings` gave, as it crossed. A strategy with arrays takes them, `SiteArrays`, as
        a second argument. In place of a function it may return a constant gradient, by the names of the model's arrays.
        """
        return ()

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return the arrays that cross beside the model, or stay at a site, of which FedAvg has none."""
        return ExtraShapes()

    def client_arrays(self) -> Arrays:
        """Return the arrays that go to the sites with the model, which is `round.incoming`."""
        return {}

    @classmethod
    def client_extra(cls, settings: Mapping[str, float], arrays: SiteArrays, update: LocalUpdate) -> ExtraArrays:
        """Return, at a site, the arrays that go to the server with its update, and those that it keeps."""
        return ExtraArrays()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the new global arrays, None without enough good updates."""
        now = self.round
        good = now.receive(replies, self._guard)
        needed = self.needed(len(now.asked))
        if len(good) < needed:
            return None, None
        merged = self.run.merged(now, good)
        if now.unsummed is not None:
            self.stopped = why_unsummed(server_round, now.unsummed, now.result.refused) if now.is_final else ""
            return None, None
        combined, loss = combine_all(self, good, merged)
        # Once a round, however often it was asked: patience counts rounds.
        self.see_scores(server_round, good)
        # No site is at fault for what the strategy makes of good updates, and asking again would give the same.
        if defect := combined_defect(combined, now.incoming):
            self.stopped = f"round {server_round}: strategy {type(self).__name__} returned {defect}"
            now.result = GuardResult(accepted={})
            return None, None
        return to_record(combined), loss

    def _guard(self, replies: dict[str, TrainReply]) -> GuardResult:
        """Sort a round's updates, with bounds in medians of the cohort's norms."""
        run = self.run
        incoming = self.round.incoming
        rows = run.rows_high()
        model = shapes_of(incoming)
        if run.sums is not None:
            return run.sums.guard(replies, rows, updates=entries_of(model))
        # A mechanism may forbid to refuse by norm, as one site's norm would decide on another.
        refuse = self.refuse_norm
        if run.mechanism is not None and not run.mechanism.refuses_by_norm:
            refuse = math.inf
        steps = run.plan.steps_a_round if self.by_steps else None
        return guard(
            replies,
            incoming,
            rows,
            flag=self.flag_norm,
            refuse=refuse,
            extra=self.extra_shapes(model).returned,
            steps=steps,
        )

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Record the sites' scores of the final model."""
        run = self.run
        now = self.round
        offset_sites = run.offset_sites()
        good = now.receive(replies, lambda readable: guard_scores(readable, run.rows_high(), run.outputs))
        if run.sums is not None:
            self.stopped = run.evaluated(now, server_round, good)
        self.offsets = {s: reply.offset for s, reply in good.items() if reply.offset is not None and s in offset_sites}
        self.see_scores(server_round, good)
        return None

    def see_scores(self, server_round: int, good: Replies) -> None:
        """Show the selection the incoming model's scores, where rows are kept for them."""
        scores = {site: reply.scores for site, reply in good.items()}
        now = self.round
        self.selection.score(server_round - 1, now.incoming, scores, now.losses)

    def weight(self, reply: TrainReply) -> float:
        """Return the weight of an update."""
        if self.weights == "equal":
            return 1.0
        counted = reply.num_examples
        if self.weights == "capped":
            counted = min(counted, self.cap)
        return float(counted)

    def relative_weight(self, reply: TrainReply, most_rows: float) -> float:
        """Return the weight of an update, as a share of that of a site with `most_rows` rows."""
        return self.weight(reply) / self.weight(replace(reply, num_examples=most_rows))

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * sum(w_k delta_k) / sum(w_k)` in its dtypes."""
        mean = mean_update(deltas, weights)
        return moved_by({name: self.server_lr * value for name, value in mean.items()}, incoming)


def needs_updates(strategy: FedAvg) -> bool:
    """Return whether a strategy looks at the sites' own updates."""
    kind = type(strategy)
    return not (kind.sums and kind.aggregate_train is FedAvg.aggregate_train)


def _trained(
    strategy: FedAvg, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
) -> ArrayRecord | None:
    """Return the model after one round, None after two failures."""
    clock = strategy.clock
    now = strategy.round = Round(began=clock())
    # A site that restarts stops no run: the second time an engine of institutions waits for it.
    longest = strategy.deadline if strategy.run.sums is None else strategy.wait
    for ask, timeout in ((grid.send_and_receive, strategy.deadline), (waiting(grid), longest)):
        messages = list(strategy.configure_train(number, arrays, config, grid))
        _check_terms(strategy)
        updated, _ = strategy.aggregate_train(number, now.exchange(ask, messages, timeout, clock))
        if updated is not None or strategy.stopped:
            model = arrays if updated is None else updated
            strategy._observe(number, model)
            return updated
        if now.failed() < (needed := strategy.needed(len(now.asked))):
            break  # the others would train, and spend, for nothing
    # The last good model is the result, and `stopped` says why the run ended.
    strategy._observe(number, arrays)
    strategy.stopped = now.why_stopped(needed)
    return None


def waiting(grid: Grid) -> Send:
    """Return what asks sites over a grid and waits for those that are away."""
    send: Send = getattr(grid, "send_and_wait", grid.send_and_receive)
    return send


def _selected(strategy: FedAvg, result: Result, config: ConfigRecord, grid: Grid) -> Result:
    """Return the result of a run with the selected model, once the last one is scored, which no round has done yet."""
    last = strategy.rounds_done + 1
    now = strategy.round = Round(began=strategy.clock())
    asks: list[tuple[Send, float]] = [(grid.send_and_receive, strategy.deadline)]
    sums = strategy.run.sums
    # Sites make the compared model of this sum, too.
    if sums is not None and sums.verified:
        asks.append((waiting(grid), strategy.wait))
    for ask, timeout in asks:
        messages = list(strategy.configure_evaluate(last, result.arrays, config, grid))
        # A run that goes on has its losses: sites that have compared since would not answer.
        if sums is not None and sums.is_evaluated(last):
            messages = []
        strategy.aggregate_evaluate(last, now.exchange(ask, messages, timeout, strategy.clock))
        if now.unsummed is None:
            break
    strategy._observe(last, result.arrays)
    if strategy.stopped:
        return _taken_back(strategy, result)
    if strategy.select == "best" and strategy.selection.best_arrays is not None:
        strategy.best_round = strategy.selection.best_round
        result.arrays = to_record(strategy.selection.best_arrays)
    return result


def _taken_back(strategy: FedAvg, result: Result) -> Result:
    """Return the result of a run that stopped: without its last model, where that one's loss was wrong."""
    sums = strategy.run.sums
    if sums is not None and sums.check.spoilt:
        result.arrays = to_record(sums.check.before)
        strategy.rounds_done = strategy.best_round = strategy.rounds_done - 1
    return result


def mean_update(deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
    """Return `sum(w_k delta_k) / sum(w_k)` in float64, in the order of the sites' names."""
    sites = sorted(deltas)
    shares = np.array([weights[site] for site in sites])
    shares = shares / math.fsum(shares)
    updates = [deltas[site] for site in sites]
    return {name: weighted_mean(updates, name, shares) for name in updates[0]}


def moved_by(update: Mapping[str, np.ndarray], incoming: Arrays) -> Arrays:
    """Return `incoming + update`, in the dtypes of `incoming`."""
    return {name: (value.astype(np.float64) + update[name]).astype(value.dtype) for name, value in incoming.items()}


def messages_of(strategy: FedAvg, kind: str, server_round: int, arrays: ArrayRecord, sites: list[str]) -> list[Message]:
    """Return a round's message to each of some sites."""
    run = strategy.run
    now = strategy.round
    now.kind = kind
    now.incoming = to_arrays(arrays)
    now.asked = {site: run.participants[site].node_id for site in sites}
    if run.sums is not None and run.sums.verified:
        whole = TrainRequest(
            arrays={},
            encoder=NO_ENCODER,
            round=server_round,
            rounds=run.rounds,
            fit=kind == TRAIN,
            score=run.scored,
            total=run.sums.total,
        )
        return now.messages(whole, run)
    settings = {name: float(value) for name, value in strategy.client_settings().items()}
    extra = strategy.client_arrays() if kind == TRAIN else {}
    offsets = run.offset_sites() if kind == EVALUATE else ()
    request = TrainRequest(
        arrays=immutable(now.incoming),
        encoder=run.encoder,
        round=server_round,
        rounds=run.rounds,
        lr_scale=strategy.selection.lr_scale,
        fit=kind == TRAIN,
        score=run.scored,
        settings=settings,
        extra=immutable(extra),
    )
    return now.messages(request, run, offsets)


def _check_terms(strategy: FedAvg) -> None:
    """Refuse gradients of other names or shapes than the model's: sites would broadcast them; raises UsageError."""
    incoming = strategy.round.incoming
    arrays = SiteArrays(received=strategy.client_arrays())
    terms, constant = client_terms(type(strategy), strategy.client_settings(), arrays)
    gradients = [{**incoming, **constant}] if constant else []
    for term in terms:
        import torch  # a strategy without functions does without

        tensors = {name: torch.tensor(value) for name, value in incoming.items()}
        gradients.append({name: term(w, w) for name, w in tensors.items()})
    for gradient in gradients:
        if defect := combined_defect(gradient, incoming):
            raise usage_error("study.strategies.terms", strategy=type(strategy).__name__, defect=defect)


def combine_all(strategy: FedAvg, good: Replies, merged: Arrays | None) -> tuple[Arrays, MetricRecord]:
    """Return a strategy's new model, and the sites' mean training loss.

    The model is made of good updates, or of the one that the run's mechanism or a secure sum made of them.
    """
    weights = {site: strategy.weight(reply) for site, reply in good.items()}
    loss = mean_loss(good, weights)
    if merged is None:
        deltas = {site: reply.delta for site, reply in good.items()}
    else:
        # One update stands for all of them, so that it has all the weight.
        deltas = {"": merged}
        weights = {"": 1.0}
    return strategy.combine(strategy.round.incoming, deltas, weights), loss


def combined_defect(combined: object, incoming: Arrays) -> str:
    """Return the defect of a strategy's new model, "" where it has none.

    Parameters
    ----------
    combined : object
        What `combine` returned.
    incoming : dict of name to array
        Of the model before.
    """
    if not isinstance(combined, Mapping) or combined.keys() != incoming.keys():
        return render("study.strategies.names", names=", ".join(incoming))
    for name, value in incoming.items():
        array = np.asarray(combined[name])
        if array.shape != value.shape:
            return render("study.strategies.shape", name=name, shape=array.shape, expected=value.shape)
        if array.dtype != value.dtype:
            return render("study.strategies.dtype", name=name, dtype=array.dtype, expected=value.dtype)
        if not np.isfinite(array).all():
            return render("study.strategies.finite", name=name)
    return ""


def mean_loss(replies: Replies, weights: Mapping[str, float]) -> MetricRecord:
    """Return the sites' mean training loss, for Flower."""
    # A site may withhold its loss: the mean is over those that send it.
    losses = {site: reply.loss for site, reply in replies.items() if reply.loss is not None}
    mean = MetricRecord()
    if losses:
        total = math.fsum(weights[site] for site in losses)
        mean["loss"] = math.fsum(weights[site] * loss for site, loss in losses.items()) / total
    return mean


def to_arrays(record: ArrayRecord) -> Arrays:
    """Return a record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Mapping[str, Any]) -> ArrayRecord:
    """Return named arrays as a record."""
    # Of copies: a strategy may go on writing into arrays that it gave as the model.
    return array_record(immutable({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
