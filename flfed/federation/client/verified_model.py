"""What a site makes itself of a run's verified totals: its encoder, and the model that a request is about.

Under secure aggregation no model crosses. A request brings the total of the step before, and the site computes from it
what the coordinator computes: with the same functions, to the same bits. The masks of the step are bound to the hash of
what it made (`Exchange.state_sha256`), so that sites which made something else have no sum.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from flfed.refusals import decline
from flfed.rows.own_parts import nested_start
from flfed.rows.session import SiteSession
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import Visit, VisitedStatistic, of_entries
from flfed.rows.study_model import first_model, first_sha256
from flfed.signatures import canonical
from flfed.summaries.summary import Encoder, Summary, arrays_sha256, fit_encoder
from flfed.trees.cut_points import cell_shapes, chosen_cuts
from flfed.updates.aggregation.losses import ENTRIES as LOSSES
from flfed.updates.aggregation.losses import LossCheck
from flfed.updates.aggregation.rounds import Round, RunContext
from flfed.updates.aggregation.summer import Summer
from flfed.updates.arrays import Arrays, byte_array, unflattened, with_prefix, without_prefix
from flfed.updates.checkpoints.site_state import OF_RUN, RunState
from flfed.updates.masks.pairs import Exchange
from flfed.updates.mechanism import largest_entry
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.kinds import BINS, SUMMARISE, TRAIN
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.summarise import BinsRequest, StatisticRequest
from flfed.updates.messages.train import NO_ENCODER, TrainRequest
from flfed.updates.strategies.boosted_trees import BoostedTrees
from flfed.updates.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flfed.federation.client.site_run import SiteRun

MADE = f"{OF_RUN}made"
"""Name in a site's state of what it made for the step that it answers, or answered last."""
Request = TypeVar("Request", TrainRequest, CompareRequest, BinsRequest, StatisticRequest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What a site made for one exchange.

    Attributes
    ----------
    exchange : Exchange
        With the hash of what was made.
    round : int
        After how many rounds of training the model came, or how many visits a statistic had.
    encoder : Encoder
    model : dict of name to array
        The numbers of a statistic's visit, where there is no model.
    state : mapping of name to dict of name to array
        What the strategy keeps from round to round, the best model among it.
    facts : mapping
        The strategy's counters.
    levels : tuple of uint64 array
        Sums of the levels of the trees that grow, with losses behind those of the first.
    visits : tuple of Visit
        Of a statistic, before the one that was made.
    """

    exchange: Exchange
    round: int = 0
    encoder: Encoder = NO_ENCODER
    model: Arrays = field(default_factory=dict)
    state: Mapping[str, Arrays] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[np.ndarray, ...] = ()
    visits: tuple[Visit, ...] = ()

    @classmethod
    def read(cls, state: RunState) -> Made | None:
        """Return what a site made last in its run, None where it made nothing yet."""
        stored = state.read(MADE)
        if stored is None:
            return None
        facts = json.loads(stored["facts"].tobytes())

        def parts(name: str) -> list[Arrays]:
            return [without_prefix(f"{name}-{number}/", stored) for number in range(facts[name])]

        return cls(
            exchange=Exchange(*facts["exchange"]),
            round=facts["round"],
            encoder=Encoder(**without_prefix("encoder/", stored)),
            model=without_prefix("model/", stored),
            state=dict(zip(facts["names"], parts("state"), strict=True)),
            facts=facts["strategy"],
            levels=tuple(part["sums"] for part in parts("levels")),
            visits=tuple(map(Visit, parts("points"), parts("sums"))),
        )

    def write(self, state: RunState) -> None:
        """Write it into the site's state of the run; raises StorageError."""
        facts = {
            "exchange": astuple(self.exchange),
            "round": self.round,
            "names": list(self.state),
            "strategy": self.facts,
        }
        arrays = with_prefix("encoder/", self.encoder.arrays()) | with_prefix("model/", self.model)
        for name, parts in self._parts().items():
            facts[name] = len(parts)
            for number, part in enumerate(parts):
                arrays |= with_prefix(f"{name}-{number}/", part)
        state.write(MADE, {"facts": byte_array(json.dumps(facts).encode()), **arrays})

    def _parts(self) -> dict[str, list[Arrays]]:
        """Return all arrays besides encoder and model."""
        return {
            "state": list(self.state.values()),
            "levels": [{"sums": sums} for sums in self.levels],
            "points": [visit.point for visit in self.visits],
            "sums": [visit.sums for visit in self.visits],
        }

    def is_for(self, exchange: Exchange) -> bool:
        """Return whether it was made for this very request."""
        return replace(self.exchange, state_sha256="") == exchange

    def with_hash(self) -> Made:
        """Return it with the hash of all that was made in its exchange."""
        parts = {name: [arrays_sha256(part) for part in parts] for name, parts in self._parts().items()}
        made = [self.round, self.encoder.sha256(), arrays_sha256(self.model), parts, dict(self.facts)]
        sha256 = hashlib.sha256(canonical(made)).hexdigest()
        return replace(self, exchange=replace(self.exchange, state_sha256=sha256))


def completed(request: Request, session: SiteSession, own: SiteRun) -> Request:
    """Return a request with what the site makes for it, of the total that it brings.

    What it made for this very request before is taken as it is.

    Raises
    ------
    NotTakingPart
        If the total is not the sum of one answer of each site to the step before, or a step is left out.
    """
    maker = _maker(session, own)
    sums = own.secure_sums(session.study)
    # A site that lost its state of the run says so, before all else.
    sums.keys.run_key()
    exchange = sums.exchange(request)
    made = Made.read(sums.keys.state)
    if made is None or not made.is_for(exchange):
        if not sums.is_answered(exchange):
            sums.check_unused(exchange)
        made = replace(maker.made(request, made), exchange=exchange).with_hash()
        made.write(sums.keys.state)
    return cast(Request, maker.completed(request, made))


def _maker(session: SiteSession, own: SiteRun) -> Maker:
    if session.study.is_statistic:
        return VisitMaker(session, own)
    return TreesMaker(session, own) if session.study.grows_trees else ModelMaker(session, own)


@dataclass(frozen=True, eq=False)
class Maker(ABC):
    """What a site makes in the run of one kind of study."""

    session: SiteSession
    own: SiteRun

    @abstractmethod
    def made(self, request: Any, last: Made | None) -> Made:
        """Return what follows from the total of a request, and from what was made for the step before."""

    @abstractmethod
    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with what was made for it."""

    def open(self, last: Exchange, total: Masked | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of an exchange, which a total brings; raises NotTakingPart."""
        if total is None:
            decline("total-missing")
        return self.own.secure_sums(self.session.study).open_total(last, total)

    @property
    def summer(self) -> Summer:
        """A reader of totals: it has no history, as the coordinator checks norms and losses."""
        study = self.session.study
        cohort = self.own.secure_sums(study).keys.cohort()
        return Summer(
            cohort=cohort.sites,
            largest_entry=largest_entry(study, len(cohort.sites)),
            most_rows=cohort.most_rows,
            check=LossCheck(scored="validation" if study.plan.validation else "training"),
        )


class ModelMaker(Maker):
    """The model of averaging strategies."""

    def made(self, request: BinsRequest | TrainRequest | CompareRequest, last: Made | None) -> Made:
        """Return encoder and first model, the next model, or what is known of the last one."""
        # A tree's round has several steps, and its model follows with the next one.
        following = 1 if last is None else last.round + 1 + (last.exchange.kind == TRAIN)
        before = following - self.session.study.grows_trees
        if isinstance(request, TrainRequest) and not before <= request.round <= following:
            decline("round-left-out", round=request.round)
        return self._first(request.total) if last is None else self._next(request, last)

    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with the model and the strategy's numbers that belong to it.

        Compared is the last model, or the best one where the study says so.
        """
        strategy = self.strategy(made)
        if isinstance(request, CompareRequest):
            best = strategy.selection.best_arrays if strategy.select == "best" else None
            return replace(request, arrays=made.model if best is None else best, encoder=made.encoder)
        return replace(
            request,
            arrays=made.model,
            encoder=made.encoder,
            lr_scale=strategy.selection.lr_scale,
            settings={name: float(value) for name, value in strategy.client_settings().items()},
        )

    def _first(self, total: Masked | None) -> Made:
        sums = self.own.secure_sums(self.session.study)
        asked = sums.exchange(None, SUMMARISE)
        approval = sums.keys.approval
        # From two sums over different sites of one model an update of a site that came or left would follow.
        if approval is not None and approval.trained_elsewhere(self.first_sha256):
            decline("start-trained-before")
        encoder = self.encoder(self.open(asked, total)[1])
        made = Made(exchange=asked, encoder=encoder, model=self.first_model(encoder))
        return with_state(made, self.strategy(made))

    def encoder(self, total: np.ndarray) -> Encoder:
        """Return the encoder of the total of sums over rows."""
        layout = self.session.layout
        shapes = {name: (shape, np.dtype(np.float64)) for name, shape in layout.shapes().items()}
        merged = Summary(**unflattened(self.summer.decode_counts(total), shapes))
        return fit_encoder(layout, merged, self.session.study.encode.scaler)

    @property
    def first_sha256(self) -> str:
        """What tells the first model from others; "" of trees, which all begin with none."""
        study = self.session.study
        return "" if study.grows_trees else first_sha256(study, self.session.schema, self.session.seed - study.seed)

    def first_model(self, encoder: Encoder) -> Arrays:
        """Return the approved model that the run begins from, or one of drawn numbers."""
        study = self.session.study
        start = self.own.start(self.session, encoder)
        if start is not None:
            return start
        drawn = first_model(study, self.session.schema, self.session.seed - study.seed)
        widths = self.own.secure_sums(study).keys.cohort().widths
        return nested_start(study.model.build("model"), drawn, widths)

    def _next(self, request: Any, last: Made) -> Made:
        updates, totals = self.open(last.exchange, request.total)
        strategy = self.strategy(last)
        if last.exchange.kind != TRAIN:
            strategy.score_summed(last.round + 1, self.summer.losses(totals, last.model))
            return with_state(last, strategy)
        mean, losses = self.summer.decode_mean(updates, totals, last.model)
        model = strategy.combine_summed(last.round + 1, mean, losses)
        return with_state(replace(last, model=model, round=last.round + 1), strategy)

    def strategy(self, made: Made) -> FedAvg:
        """Return the study's strategy as it was when something was made."""
        study = self.session.study
        strategy: FedAvg = study.strategy.build("strategy")
        seed = self.session.seed
        strategy.assign(
            RunContext(participants={}, encoder=made.encoder, plan=study.plan, rounds=study.rounds, seed=seed)
        )
        if made.facts:
            strategy.restore(made.round, made.state, made.facts)
        strategy.round = Round(incoming=made.model)
        return strategy


class TreesMaker(ModelMaker):
    """Trees, which grow of the sums of their levels."""

    def made(self, request: BinsRequest | TrainRequest | CompareRequest, last: Made | None) -> Made:
        """Return the encoder, the cut points, the trees with one level more, or the whole ones.

        A coordinator that was killed asks for the levels of its last tree again.
        """
        level = int(request.settings["level"]) if isinstance(request, TrainRequest) and request.fit else 0
        if isinstance(request, BinsRequest):
            return super().made(request, None)
        if isinstance(request, TrainRequest) and last is not None and last.exchange.kind == TRAIN:
            if request.fit and request.round == last.round + 1 and level <= len(last.levels):
                return replace(last, levels=last.levels[:level])
        made = super().made(request, last)
        is_next = not isinstance(request, TrainRequest) or request.round == made.round + 1
        if level != len(made.levels) or not is_next:
            decline("round-left-out", round=made.round + 1)
        return made

    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with the trees before the round, and with those that grow."""
        if isinstance(request, BinsRequest):
            return request
        whole = super().completed(request, made)
        if not (isinstance(request, TrainRequest) and request.fit):
            return whole
        strategy = self.growing(made)
        return replace(whole, settings=request.settings, **strategy.level(request.round))

    def first_model(self, encoder: Encoder) -> Arrays:
        """Return no tree, without cut points."""
        study = self.session.study
        return first_model(study, self.session.schema, self.session.seed - study.seed)

    def growing(self, made: Made) -> BoostedTrees:
        """Return the strategy with the trees of a round as far as they are grown."""
        strategy = self.strategy(made)
        if not isinstance(strategy, BoostedTrees):
            raise TypeError("trees grow by their own strategy")
        strategy.begin_growing()
        for totals in made.levels:
            grow(strategy, totals)
        return strategy

    def _next(self, request: Any, last: Made) -> Made:
        _, totals = self.open(last.exchange, request.total)
        if last.exchange.kind == BINS:
            return replace(last, model={**last.model, **self._cuts(totals)})
        if last.exchange.kind != TRAIN:
            strategy = self.strategy(last)
            strategy.score_summed(last.round + 1, self.summer.losses(totals, last.model))
            return with_state(last, strategy)
        last = replace(last, levels=(*last.levels, totals))
        trees = self.growing(last)
        if any(map(len, trees.growing.requested_nodes)):
            return last
        # As many nodes as a round begins with: behind their sums stand losses.
        beside = last.levels[0][-LOSSES:]
        trees.score_summed(last.round + 1, self.summer.losses(beside, last.model))
        whole = replace(last, model=trees.grown_forest(last.round + 1), round=last.round + 1, levels=())
        return with_state(whole, trees)

    def _cuts(self, totals: np.ndarray) -> Arrays:
        """Return the cut points of rows by cell of all sites."""
        study = self.session.study
        least = int(study.strategy.settings.get("min-rows", 0))
        shapes = cell_shapes(self.session.layout, least)
        parts = np.split(totals, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
        counts = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return chosen_cuts(self.session.layout, counts, study.model.build("model").max_bins, least)


class VisitMaker(Maker):
    """The numbers at which a statistic's sums are requested."""

    def made(self, request: StatisticRequest, last: Made | None) -> Made:
        """Return the numbers of the next visit.

        A visit that a site refused had no sum, and the request after it brings no total.
        """
        study = self.session.study
        schema = self.session.schema
        statistic = statistic_of(study)
        if not isinstance(statistic, VisitedStatistic):
            raise TypeError("a statistic of one visit has no numbers")
        if last is not None and request.round <= last.round:
            # A coordinator that was killed begins with the first visit.
            number = request.round
            points = [*(visit.point for visit in last.visits), last.model]
            return replace(last, model=points[number], visits=last.visits[:number], round=number)
        if last is None:
            made = Made(exchange=self.own.secure_sums(study).exchange(request), model=statistic.first(schema))
        else:
            sums: Arrays = {}
            if request.total is not None:
                _, totals = self.open(last.exchange, request.total)
                sums = of_entries(statistic.at(last.model), self.summer.decode_counts(totals), schema)
            visits = (*last.visits, Visit(last.model, sums))
            following = statistic.next(visits, schema)
            if following is None:
                decline("visit-over")
            made = replace(last, model=following, visits=visits, round=last.round + 1)
        if request.round != made.round:
            decline("round-left-out", round=request.round + 1)
        return made

    def completed(self, request: StatisticRequest, made: Made) -> StatisticRequest:
        """Return a request with its numbers."""
        return replace(request, point=made.model)


def grow(strategy: BoostedTrees, totals: np.ndarray) -> None:
    """Add a level to a round's trees, of its sums."""
    shape = strategy.shape_of_level()
    strategy.growing.grow(totals[: math.prod(shape)].view(np.int64).reshape(shape))


def with_state(made: Made, strategy: FedAvg) -> Made:
    """Return what was made with the strategy's state."""
    state, facts = strategy.state()
    return replace(made, state=state, facts=facts)
