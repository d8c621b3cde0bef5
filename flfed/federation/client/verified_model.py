"""What a site makes of the verified totals of averaging strategies: the encoder, and the model of a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flfed.federation.client.masked import SiteSums
from flfed.refusals import decline
from flfed.rows.own_parts import nested_start
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_sha256
from flfed.summaries.summary import Encoder, Summary, fit_encoder
from flfed.updates.aggregation.rounds import Round, RunContext
from flfed.updates.arrays import Arrays, entries_of, shapes_of, unflattened
from flfed.updates.checkpoints.made import Made
from flfed.updates.messages.kinds import SUMMARISE, TRAIN
from flfed.updates.messages.train import TrainRequest
from flfed.updates.strategies.fedavg import FedAvg, combine_all, to_arrays, to_record

Start = Callable[[Encoder], Arrays | None]


@dataclass(frozen=True, eq=False)
class Maker(ABC):
    """What a site makes in the run of one kind of study.

    Attributes
    ----------
    session : SiteSession
    sums : SiteSums
    start : callable (encoder) → dict of name to array or None
        The approved model that a run begins from; None where it begins with drawn numbers.
    """

    session: SiteSession
    sums: SiteSums
    start: Start

    @abstractmethod
    def made(self, request: Any, last: Made | None) -> Made:
        """Return what follows from the total of a request, and from what was made for the step before."""

    @abstractmethod
    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with what was made for it."""


class ModelMaker(Maker):
    """The model of averaging strategies."""

    def made(self, request: Any, last: Made | None) -> Made:
        """Return encoder and first model, the next model, or what is known of the last one."""
        # A tree's round has several steps, and its model follows with the next one.
        following = 1 if last is None else last.round + 1 + (last.exchange.kind == TRAIN)
        before = following - self.session.study.grows_trees
        if isinstance(request, TrainRequest) and not before <= request.round <= following:
            decline("round-left-out", round=request.round)
        # Compared is a model whose losses are known.
        if not isinstance(request, TrainRequest) and last is not None and last.exchange.kind == TRAIN:
            decline("rounds-over")
        made = self._first(request.total) if last is None else self._next(request, last)
        if isinstance(request, TrainRequest) and request.round == made.round + 1:
            self._check_goes_on(request, made)
        return made

    def _check_goes_on(self, request: TrainRequest, made: Made) -> None:
        """Refuse a round once the losses have ended the run, and the last evaluation before; raises NotTakingPart."""
        strategy = self.strategy(made)
        over = made.round >= self.session.study.most_rounds or strategy.selection.ends(request.round, strategy.patience)
        if over == request.fit:
            decline("rounds-over")

    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with the model and the strategy's numbers that belong to it.

        Compared is the last model, or the best one where the study says so.
        """
        strategy = self.strategy(made)
        if not isinstance(request, TrainRequest):
            best = strategy.selection.best_arrays if strategy.select == "best" else None
            return replace(request, arrays=made.model if best is None else best, encoder=made.encoder)
        return replace(
            request,
            arrays=made.model,
            encoder=made.encoder,
            lr_scale=strategy.selection.lr_scale,
            settings={name: float(value) for name, value in strategy.client_settings().items()},
        )

    def _first(self, total: Any) -> Made:
        asked = self.sums.exchange(None, SUMMARISE)
        approval = self.sums.keys.approval
        # From two sums over different sites of one model an update of a site that came or left would follow.
        if approval is not None and approval.trained_elsewhere(self.first_sha256):
            decline("start-trained-before")
        encoder = self.encoder(self.sums.open_total(asked, total)[1])
        made = Made(exchange=asked, encoder=encoder, model=self.first_model(encoder))
        return with_state(made, self.strategy(made))

    def encoder(self, total: np.ndarray) -> Encoder:
        """Return the encoder of the total of sums over rows."""
        layout = self.session.layout
        shapes = {name: (shape, np.dtype(np.float64)) for name, shape in layout.shapes().items()}
        merged = Summary(**unflattened(self.sums.summer.decode_counts(total), shapes))
        return fit_encoder(layout, merged, self.session.study.encode.scaler)

    @property
    def first_sha256(self) -> str:
        """What tells the first model from others; "" of trees, which all begin with none."""
        study = self.session.study
        return "" if study.grows_trees else first_sha256(study, self.session.schema, self.session.repeat)

    def first_model(self, encoder: Encoder) -> Arrays:
        """Return the approved model that the run begins from, or one of drawn numbers."""
        start = self.start(encoder)
        if start is not None:
            return start
        session = self.session
        return nested_start(session.study.model.build("model"), session.drawn_model(), self.sums.keys.cohort().widths)

    def _next(self, request: Any, last: Made) -> Made:
        updates, totals = self.sums.open_total(last.exchange, request.total)
        strategy = self.strategy(last)
        if last.exchange.kind != TRAIN:
            return self.scored(last, totals)
        # Under homomorphic encryption weights and losses have a total of their own, which only an opener takes.
        if updates.size != entries_of(shapes_of(last.model)):
            decline("total-unverified")
        mean, strategy.round.losses = self.sums.summer.decode_mean(updates, totals, last.model)
        model, _ = combine_all(strategy, {}, mean)
        strategy.see_scores(last.round + 1, {})
        # As it crosses elsewhere, to the bit.
        model = to_arrays(to_record(model))
        return with_state(replace(last, model=model, round=last.round + 1), strategy)

    def scored(self, made: Made, losses: np.ndarray) -> Made:
        """Return what was made, once the losses of its model are known."""
        strategy = self.strategy(made)
        strategy.round.losses = self.sums.summer.losses(losses, made.model)
        strategy.see_scores(made.round + 1, {})
        return with_state(made, strategy)

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


def with_state(made: Made, strategy: FedAvg) -> Made:
    """Return what was made with the strategy's state."""
    state, facts = strategy.state()
    return replace(made, state=state, facts=facts)
