"""Federated averaging, on which every other strategy builds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Result

from flfed.errors import UsageError
from flfed.refusals import BUDGET, Refusal, refusal_of
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.updates.aggregation.early_stopping import Selection
from flfed.updates.aggregation.gc_pause import rarely_collected
from flfed.updates.aggregation.guard import GuardResult, guard, guard_scores
from flfed.updates.aggregation.rounds import RoundRecord, RunContext, summable, why_stopped
from flfed.updates.aggregation.weighted_mean import weighted_mean
from flfed.updates.messages.fields import Arrays, MalformedMessage, reason_of
from flfed.updates.messages.in_memory import InMemoryRecord, Sizes, addressed, read
from flfed.updates.messages.in_memory_arrays import array_record, immutable
from flfed.updates.messages.offset import Offset, reads_offset
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest

Term = Callable[[Any, Any], Any]
"""A client-side term: gradient `(w, anchor) → g` of tensors with any leading dimension."""


# One round, as `start` runs it:
#
#   cohort ──► configure_train ──► send_and_receive ──► _read ──► guard ──► enough good updates?
#                    ▲                                                        │ no, the first time
#                    └────────────── asked once more, all of them ◄───────────┤
#                                                                             │ no, the second time: `stopped`
#                                                                             ▼ yes
#                            observer ◄── combine ◄── the mechanism's noise ◄─┘
#
# A site whose privacy budget is spent is not asked again. A retry computes the same bits: seeds name the round.
class FedAvg(FlowerFedAvg):
    """Mean of the sites' models, weighted by their rows.

    Parameters
    ----------
    fraction : float in (0, 1]
        Share of sites asked each round, drawn by name from the study's seed; at least one.
    weights : {"rows", "equal", "capped"}
        What an update counts: its rows, one, or its rows up to `cap`.
    cap : int, > 0
        Largest weight under "capped".
    server_lr : float, > 0
        How much of the mean delta is taken; 1.0 gives plain averaging.
    quorum : float in (0, 1]
        Share of the asked sites whose update must be good; else the round is asked once more,
        and then the run stops with its last good model.
    deadline : float, > 0
        Seconds a round; what comes later is not used.
    select : {"last", "best"}
        Which round's model is the result; "best" reads validation rows only.
    patience : int, >= 0
        Rounds without a better validation loss before the run ends early; 0 never.
    flag_norm, refuse_norm : float
        The update guard's bounds, in medians of the cohort's norms.

    Notes
    -----
    Sites send deltas; the sum is in float64 and in site-name order, so neither the order of
    replies nor node ids change a bit of it.

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from
    decentralized data", algorithm 1.
    """

    def __init__(
        self,
        *,
        fraction: float = 1.0,
        weights: Literal["rows", "equal", "capped"] = "rows",
        cap: int = 1000,
        server_lr: float = 1.0,
        quorum: float = 0.75,
        deadline: float = 600.0,
        select: Literal["last", "best"] = "last",
        patience: int = 0,
        flag_norm: float = 3.0,
        refuse_norm: float = 10.0,
    ) -> None:
        for key, value, good, rule in (
            ("fraction", fraction, 0 < fraction <= 1, "in (0, 1]"),
            ("cap", cap, cap > 0, "> 0"),
            ("server-lr", server_lr, 0 < server_lr < math.inf, "> 0; 1.0 gives plain averaging"),
            ("quorum", quorum, 0 < quorum <= 1, "in (0, 1]"),
            ("deadline", deadline, deadline > 0, "> 0 seconds"),
            ("patience", patience, patience >= 0, ">= 0; 0 never stops early"),
            ("refuse-norm", refuse_norm, refuse_norm >= flag_norm > 0, "at least flag-norm, which is > 0"),
        ):
            if not good:
                raise UsageError(f"[strategy]: {key}={value} must be {rule}")
        super().__init__(fraction_train=fraction, fraction_evaluate=1.0)
        self.fraction = fraction
        self.weights = weights
        self.cap = cap
        self.server_lr = server_lr
        self.quorum = quorum
        self.deadline = deadline
        self.select = select
        self.patience = patience
        self.flag_norm, self.refuse_norm = flag_norm, refuse_norm
        self.clock: Callable[[], float] = time.monotonic
        self._incoming: Arrays = {}
        self._asked: dict[str, int] = {}
        self._verdicts = GuardResult(accepted={})
        self._began = 0.0
        self._earlier = dict[str, Refusal]()
        self._spent = dict[str, Refusal]()
        self._bytes_out, self._bytes_in = dict[str, int](), dict[str, int]()
        self.stopped = ""
        self.rounds_done = 0
        self.best_round = 0
        self._fit = True
        self._judges: frozenset[str] = frozenset()
        self.offsets: dict[str, Offset] = {}

    def assign(self, assignment: RunContext) -> None:
        """Bind the strategy to the context of a run.

        Raises
        ------
        UsageError
            As `check` does.
        """
        self.check(assignment.plan)
        self.run = assignment
        self.selection = Selection(assignment.plan, patience=self.patience)

    def check(self, plan: Plan) -> None:
        """Refuse a plan that would make the selection wrong.

        Raises
        ------
        UsageError
            If best round, early stopping or plateau is asked for without validation rows, or
            while only some sites are asked: losses of other sites cannot be compared.
        """
        asked = [f"select={self.select!r}"] if self.select == "best" else []
        asked += [f"patience={self.patience}"] if self.patience else []
        if asked and not plan.validation:
            raise UsageError(f"[strategy]: {asked[0]} reads validation rows: set [plan] validation = 0.2")
        asked += ["schedule='plateau'"] if plan.schedule == "plateau" else []
        if asked and self.fraction < 1:
            raise UsageError(
                f"[strategy]: fraction={self.fraction} does not go with {asked[0]}: "
                "losses of different sites cannot be compared"
            )

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

        The observer is told of each round.

        Flower's own loop neither retries, stops nor survives a bad reply, so this one replaces it
        behind the same signature. `timeout` is the strategy's `deadline`. A round that misses the
        quorum twice ends the run: `stopped` says why, and the result is the last good model. After
        `restore` it goes on from the round that follows.
        """
        arrays, config = initial_arrays, ConfigRecord(dict(train_config or {}))
        result = Result()
        result.arrays = arrays
        for number in range(self.rounds_done + 1, num_rounds + 1):
            # The scores that decide came with the round before.
            if self.selection.is_over():
                break
            updated = self._round(number, arrays, config, grid)
            if updated is None:
                return result
            result.arrays = arrays = updated
            self.rounds_done = self.best_round = number
        # No round has scored the last model yet.
        self._last_evaluation(self.rounds_done, arrays, ConfigRecord(dict(evaluate_config or {})), grid)
        if self.select == "best" and self.selection.best_arrays is not None:
            self.best_round = self.selection.best_round
            result.arrays = to_record(self.selection.best_arrays)
        return result

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return what later rounds need besides the model.

        It is arrays by name, and plain facts.

        A strategy with moments or counters of its own adds them, and takes them back in `restore`.
        """
        arrays, facts = self.selection.state()
        return arrays, {**facts, "judges": sorted(self._judges)}

    def restore(self, round: int, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Resume after `round` rounds with the state of then."""
        self.rounds_done = self.best_round = round
        self.selection.restore(arrays, facts)
        self._judges = frozenset(facts["judges"])

    def _round(self, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> ArrayRecord | None:
        """Return the model after one round, None after two failures."""
        self._begin()
        # A site that restarts stops no run: the second time an engine of institutions waits for it, up to the deadline.
        for ask in (grid.send_and_receive, getattr(grid, "send_and_wait", grid.send_and_receive)):
            messages = list(self.configure_train(number, arrays, config, grid))
            updated, _ = self.aggregate_train(number, ask(messages, timeout=self.deadline))
            if updated is not None:
                self._observe(number, to_arrays(updated))
                return updated
            refused, asked = self._verdicts.refused, len(self._asked)
            self._earlier |= {site: Refusal("first-attempt", why=reason) for site, reason in refused.items()}
            self._spent = {site: reason for site, reason in refused.items() if reason.code in BUDGET}
            if asked - len(self._spent) < self.needed(asked):
                break  # the others would train, and spend, for nothing
        # The last good model is the result, and `stopped` says why the run ended.
        self._observe(number, to_arrays(arrays))
        self.stopped = why_stopped(number, len(self._verdicts.accepted), asked, self.needed(asked), refused)
        return None

    def needed(self, asked: int) -> int:
        """Return the number of good updates needed, at least one."""
        # Less a little: .55 of 20 is 11, which in floating point is a bit more.
        return max(1, math.ceil(self.quorum * asked - 1e-9))

    def _last_evaluation(self, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        self._begin()
        messages = list(self.configure_evaluate(number + 1, arrays, config, grid))
        self.aggregate_evaluate(number + 1, grid.send_and_receive(messages, timeout=self.deadline))
        self._observe(number + 1, to_arrays(arrays))

    def _begin(self) -> None:
        """Start the clock and counts of a round's attempts."""
        self._began = self.clock()
        self._earlier = {}
        self._bytes_out = {}
        self._bytes_in = {}
        self._spent = {}
        self._verdicts = GuardResult(accepted={})  # else the last round's updates are held while the next are made

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each cohort site, `config` unchanged."""
        return self._messages(TRAIN, server_round, arrays, self.cohort(server_round))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message for each site to score the model."""
        return self._messages(EVALUATE, server_round, arrays, sorted(self.run.participants))

    def cohort(self, server_round: int) -> list[str]:
        """Return the sites asked in a round, in name order."""
        sites = sorted(self.run.participants)
        size = max(1, round(self.fraction * len(sites)))
        rng = generator(self.run.seed, site="", purpose="cohort", number=server_round)
        chosen = rng.choice(len(sites), size=size, replace=False) if size < len(sites) else range(size)
        return [sites[index] for index in sorted(chosen)]

    def client_settings(self) -> Mapping[str, float]:
        """Return the client half's numbers, of which FedAvg has none."""
        return {}

    @classmethod
    def client_terms(cls, settings: Mapping[str, float]) -> tuple[Term, ...]:
        """Return gradients that sites add, of which FedAvg has none.

        Parameters
        ----------
        settings : mapping of name to number
            What `client_settings` gave, as it crossed.
        """
        return ()

    def _messages(self, kind: str, server_round: int, arrays: ArrayRecord, sites: list[str]) -> list[Message]:
        self._incoming = to_arrays(arrays)
        self._asked, self._fit = {site: self.run.participants[site].node_id for site in sites}, kind == TRAIN
        request = TrainRequest(
            arrays=immutable(self._incoming),
            encoder=self.run.encoder,
            round=server_round,
            rounds=self.run.rounds,
            lr_scale=self.selection.lr_scale,
            fit=kind == TRAIN,
            settings={name: float(value) for name, value in self.client_settings().items()},
        )
        sizes = Sizes()
        # Messages differ in node and content alone, so that the others are made after the first.
        first = Message(InMemoryRecord(request), dst_node_id=0, message_type=kind, group_id=str(server_round))
        with_offset = replace(request, offset=True)
        to = {site: node for site, node in self._asked.items() if site not in self._spent}
        # A record of its own for each site: one client's edit must not reach the next.
        records = {site: InMemoryRecord(with_offset if self._says_offset(kind, site) else request) for site in to}
        for site, record in records.items():
            self._bytes_out[site] = self._bytes_out.get(site, 0) + sizes.of(record)
        return [addressed(first, node, records[site]) for site, node in to.items()]

    def _says_offset(self, kind: str, site: str) -> bool:
        """Tell whether a site is asked for its offset."""
        # This is after the last round, where the site's version knows of offsets.
        return kind == EVALUATE and self.run.outputs > 0 and reads_offset(self.run.participants[site].version)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the new global arrays, None without enough good updates."""
        found, faults = self._read(replies)
        bands = {site: self.run.participants[site].rows_high for site in found}
        mechanism, run = self.run.mechanism, self.run
        # A mechanism may forbid to refuse by norm, as one site's norm would decide on another.
        refuse = self.refuse_norm if mechanism.refuses_by_norm else math.inf
        verdicts = guard(found, self._incoming, bands, flag=self.flag_norm, refuse=refuse)
        refused = dict(sorted({**faults, **verdicts.refused}.items()))
        self._verdicts = GuardResult(accepted=verdicts.accepted, refused=refused, flagged=verdicts.flagged)
        if len(verdicts.accepted) < self.needed(len(self._asked)):
            return None, None
        # Once a round, however often it was asked: patience counts rounds.
        self._select(server_round)
        weights = {site: self.weight(reply) for site, reply in verdicts.accepted.items()}
        deltas = {site: reply.delta for site, reply in verdicts.accepted.items()}
        # A site may keep its loss: the mean is over those that tell it.
        known = {site: reply.loss for site, reply in verdicts.accepted.items() if reply.loss is not None}
        mean = MetricRecord()
        if known:
            total = math.fsum(weights[site] for site in known)
            mean["loss"] = math.fsum(weights[site] * loss for site, loss in known.items()) / total
        normals, asked = run.normals(server_round), len(self._asked)
        merged = mechanism.merged(deltas, plan=run.plan, rounds=run.rounds, asked=asked, normals=normals)
        # One update stands for all of them, so that it has all the weight.
        if merged is not None:
            deltas, weights = {"": merged}, {"": 1.0}
        return to_record(self.combine(self._incoming, deltas, weights)), mean

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Record the sites' scores of the final model."""
        found, faults = self._read(replies)
        bands = {site: self.run.participants[site].rows_high for site in found}
        verdicts = guard_scores(found, bands, self.run.outputs)
        self._verdicts = GuardResult(
            accepted=verdicts.accepted, refused=dict(sorted({**faults, **verdicts.refused}.items()))
        )
        accepted = verdicts.accepted.items()
        self.offsets = {
            site: reply.offset
            for site, reply in accepted
            if reply.offset is not None and self._says_offset(EVALUATE, site)
        }
        self._select(server_round)
        return None

    def weight(self, reply: TrainReply) -> float:
        """Return the weight of an update."""
        if self.weights == "equal":
            return 1.0
        return float(min(reply.num_examples, self.cap) if self.weights == "capped" else reply.num_examples)

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * sum(w_k delta_k) / sum(w_k)` in its dtypes."""
        sites = sorted(deltas)
        shares = np.array([weights[site] for site in sites])
        shares = shares / math.fsum(shares)
        updates = [deltas[site] for site in sites]
        return {
            name: (value.astype(np.float64) + self.server_lr * weighted_mean(updates, name, shares)).astype(value.dtype)
            for name, value in incoming.items()
        }

    def _read(self, replies: Iterable[Message]) -> tuple[dict[str, TrainReply], dict[str, Refusal]]:
        """Return readable replies by site, and the others' faults."""
        sites = {node: site for site, node in self._asked.items()}
        found: dict[str, TrainReply] = {}
        faults, sizes = dict.fromkeys(self._asked, Refusal("no-reply")) | self._spent, Sizes()
        for message in replies:
            # The first reply of a site counts: a second one must not replace it.
            site = sites.pop(message.metadata.src_node_id, None)
            if site is None:
                continue
            if message.has_error():
                faults[site] = reason_of(message, site)
                continue
            self._bytes_in[site] = self._bytes_in.get(site, 0) + sizes.of(message.content)
            try:
                found[site] = read(TrainReply, message.content)
                del faults[site]
            except MalformedMessage as error:
                faults[site] = refusal_of(error)
        return {site: found[site] for site in sorted(found)}, dict(sorted(faults.items()))

    def _select(self, server_round: int) -> None:
        """Show the selection the incoming model's validation loss."""
        scored = {site: reply.scores for site, reply in self._verdicts.accepted.items() if reply.scores is not None}
        losses = {
            site: (scores.num_examples, scores.metrics["loss"])
            for site, scores in scored.items()
            if scores.rows == "validation" and "loss" in scores.metrics
        }
        # The best loss is written down, with the checkpoint.
        sites = frozenset(summable(losses, self.run.in_sums_only))
        # A mean over other sites is another figure: an easy site alone would look like progress.
        self._judges = self._judges or sites
        if sites and sites == self._judges:
            rows = math.fsum(losses[site][0] for site in sites)
            loss = math.fsum(n * value for n, value in map(losses.__getitem__, sites)) / rows
            self.selection.see(server_round - 1, self._incoming, loss)

    def _observe(self, number: int, arrays: Arrays) -> None:
        accepted = self._verdicts.accepted
        self.run.observer(
            RoundRecord(
                round=number,
                model_round=number - 1,
                arrays=arrays,
                scores={site: reply.scores for site, reply in accepted.items() if reply.scores is not None},
                holdout={site: reply.holdout for site, reply in accepted.items() if reply.holdout is not None},
                losses={site: reply.loss for site, reply in accepted.items() if reply.steps},
                refused={**self._earlier, **self._verdicts.refused},
                flagged=self._verdicts.flagged,
                asked=tuple(self._asked),
                bytes_to_site=self._bytes_out,
                bytes_to_server=self._bytes_in,
                seconds=self.clock() - self._began,
                fit=self._fit,
            )
        )


def to_arrays(record: ArrayRecord) -> Arrays:
    """Return a record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Mapping[str, Any]) -> ArrayRecord:
    """Return named arrays as a record."""
    # Of copies: a strategy may go on writing into arrays that it gave as the model.
    return array_record(immutable({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
