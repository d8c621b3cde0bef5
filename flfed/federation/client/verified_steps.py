"""What a site makes of verified totals step by step: trees of the sums of their levels, a statistic's next numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from flfed.federation.client.masked import SiteSums
from flfed.federation.client.verified_model import Maker, ModelMaker, Start
from flfed.refusals import decline
from flfed.rows.session import SiteSession
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import Visit, VisitedStatistic, of_entries
from flfed.trees.cut_points import cell_shapes, chosen_cuts, split_cells
from flfed.updates.checkpoints.made import Made
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.summarise import BINS, BinsRequest, StatisticRequest
from flfed.updates.messages.train import TRAIN, TrainRequest
from flfed.updates.strategies.boosted_trees import BoostedTrees

Request = TypeVar("Request", TrainRequest, CompareRequest, BinsRequest, StatisticRequest)


class TreesMaker(ModelMaker):
    """Trees, which grow of the sums of their levels."""

    def made(self, request: BinsRequest | TrainRequest | CompareRequest, last: Made | None) -> Made:
        """Return the encoder, the cut points, the trees with one level more, or the whole ones."""
        level = int(request.settings["level"]) if isinstance(request, TrainRequest) and request.fit else 0
        if isinstance(request, BinsRequest):
            return super().made(request, None)
        # The trees before a round are scored with its first level.
        if isinstance(request, TrainRequest) and request.fit and request.score != (level == 0):
            decline("round-left-out", round=request.round)
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

    def first_model(self, encoder: Any) -> dict[str, np.ndarray]:
        """Return no tree, without cut points."""
        return self.session.drawn_model()

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
        _, totals = self.sums.open_total(last.exchange, request.total)
        if last.exchange.kind == BINS:
            return replace(last, model={**last.model, **self._cuts(totals)})
        if last.exchange.kind != TRAIN:
            return self.scored(last, totals)
        last = replace(last, levels=(*last.levels, totals))
        trees = self.growing(last)
        if any(map(len, trees.growing.requested_nodes)):
            return last
        # Behind the sums of the roots stand losses of the trees before.
        roots = math.prod(self.growing(replace(last, levels=())).shape_of_level())
        last = self.scored(last, last.levels[0][roots:])
        return replace(last, model=trees.grown_forest(last.round + 1), round=last.round + 1, levels=())

    def _cuts(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the cut points of rows by cell of all sites."""
        study = self.session.study
        least = int(study.strategy.settings.get("min-rows", 0))
        counts = split_cells(totals, cell_shapes(self.session.layout, least))
        return chosen_cuts(self.session.layout, counts, study.model.build("model").max_bins, least)


class VisitMaker(Maker):
    """The numbers at which a statistic's sums are requested."""

    def made(self, request: Any, last: Made | None) -> Made:
        """Return the numbers of the next visit.

        A visit that a site refused had no sum, and the request after it brings no total.
        """
        schema = self.session.schema
        statistic = statistic_of(self.session.study)
        if not isinstance(statistic, VisitedStatistic):
            raise TypeError("a statistic of one visit has no numbers")
        if last is None:
            made = Made(exchange=self.sums.exchange(request), model=statistic.first(schema))
        else:
            sums: dict[str, Any] = {}
            if request.total is not None:
                _, totals = self.sums.open_total(last.exchange, request.total)
                sums = of_entries(statistic.at(last.model), self.sums.summer.decode_counts(totals), schema)
            visits = (*last.visits, (last.model, sums))
            following = statistic.next([Visit(*visit) for visit in visits], schema)
            if following is None:
                decline("visit-over")
            made = replace(last, model=following, visits=visits, round=last.round + 1)
        if request.round != made.round:
            decline("round-left-out", round=request.round + 1)
        return made

    def completed(self, request: Any, made: Made) -> Any:
        """Return a request with its numbers."""
        return replace(request, point=made.model)


def grow(strategy: BoostedTrees, totals: np.ndarray) -> None:
    """Add a level to a round's trees, of its sums."""
    shape = strategy.shape_of_level()
    strategy.growing.grow(totals[: math.prod(shape)].view(np.int64).reshape(shape))


def completed(request: Request, session: SiteSession, sums: SiteSums, start: Start) -> Request:
    """Return a request with what the site makes for it, of the total that it brings.

    What it made for this very request before is taken as it is.

    Raises
    ------
    NotTakingPart
        If the total is not the sum of one answer of each site to the step before, or a step is left out.
    """
    kind: type[ModelMaker | VisitMaker] = TreesMaker if session.study.grows_trees else ModelMaker
    maker = (VisitMaker if session.study.is_statistic else kind)(session, sums, start)
    # A site that lost its state of the run says so, before all else.
    sums.keys.run_key()
    exchange = sums.exchange(request)
    made = Made.read(sums.keys.state)
    if made is None or not made.is_for(exchange):
        made = replace(maker.made(request, made), exchange=exchange).with_hash()
        made.write(sums.keys.state)
    return cast(Request, maker.completed(request, made))
