"""Kinds of runs at a site, and training of a round."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from flfed.federation.client.outbound_figures import choose_rounding, scores_of, training_stays
from flfed.federation.client.protection import draws_once
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.summed_replies import mask_round
from flfed.federation.client.training_step import TrainingStep
from flfed.refusals import NotSpent, Refusal, decline
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints.made import request_sha256
from flfed.updates.messages.train import TRAIN, Offset, TrainReply, TrainRequest

LOG = logging.getLogger("flfed.site")


Round = Generator[ComputeRequest, Any, TrainReply]
"""The answer to a round; requests are computed on the way."""


class RunKind:
    """A kind of run at a site."""

    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Return the site's reply to a round.

        Raises NotTakingPart where the kind has none.
        """
        decline("kind-of-another-study")

    def count_rows(self, session: SiteSession) -> int:
        """Return how many rows the run is about."""
        return session.table.training_rows


class Training(RunKind):
    """A run that trains a model."""

    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Score the incoming model, train from it, or both."""
        whole = own.completed(request, session)
        step = TrainingStep(original_request=request, request=whole, session=session, own=own)
        step.begin()
        request = step.request
        step.done = yield from session.train(
            request.arrays,
            request.encoder,
            round=request.round,
            rounds=request.rounds,
            lr_scale=request.lr_scale,
            fit=request.fit,
            score=request.score,
            terms=step.terms,
            correction=step.correction,
            own=step.own_gradients,
        )
        yield from step.end()
        # Before the reply leaves: a repeated round starts from the same state.
        if request.fit and step.state:
            own.state.keep(request.round, step.state)
        reply = yield from _reply(step)
        return (yield from mask_round(step, reply))


class Validation(RunKind):
    """A run that scores a model on all rows of a site, and trains nothing."""

    def count_rows(self, session: SiteSession) -> int:
        """Return how many rows are scored."""
        return session.table.holdout_rows


class PartyKind(RunKind):
    """A run over different columns of the same people."""

    def count_rows(self, session: SiteSession) -> int:
        """Return how many people the table has."""
        return session.table.training_rows + session.table.holdout_rows


class StatisticKind(RunKind):
    """A run with one request for sums over all rows, and no training."""

    def count_rows(self, session: SiteSession) -> int:
        """Return how many rows there are, held-out ones too."""
        return session.table.training_rows + len(session.table.holdout("statistic"))


def _reply(step: TrainingStep) -> Round:
    """Return the reply of a round of training."""
    request = step.request
    offset = None
    if request.offset:
        estimate = yield from step.session.offset(request.arrays, request.encoder)
        if estimate is not None:
            offset = Offset(value=estimate[0], error=estimate[1])
    reply = reply_with_figures(step, delta=step.delta, steps=step.trained.steps, extra=step.returned)
    return replace(reply, offset=offset)


def reply_with_figures(step: TrainingStep, *, delta: Arrays, steps: int, extra: Arrays) -> TrainReply:
    """Return the reply of a round, with its outbound figures.

    Parameters
    ----------
    step : TrainingStep
        Once it is computed.
    delta, extra : dict of name to array
        Of the reply.
    steps : int
        Of the training.
    """
    session = step.session
    done = step.done
    stays = training_stays(session)
    rounding = choose_rounding(session)
    loss = rounding(done.loss) if done.loss is not None and not stays else None
    scores = scores_of(done.scores, rounding, stays=stays)
    return TrainReply(delta=delta, num_examples=float(done.rows), loss=loss, steps=steps, scores=scores, extra=extra)


class LastUpdates:
    """Last updates of the sites of one process.

    The process stores no round on a disk.
    """

    def __init__(self) -> None:
        self._of_run: dict[tuple[str, str, int], tuple[int, str, Any]] = {}

    def once(
        self, request: TrainRequest, session: SiteSession, own: SiteRun, training: Generator[ComputeRequest, Any, Any]
    ) -> Generator[ComputeRequest, Any, Any]:
        """Return the last reply to a repeated request, else that of the training.

        Noise that follows from a seed is the same each time, so its replies are not stored.

        Raises
        ------
        NotSpent
            If the round was answered to another request.
        """
        if not (request.fit and draws_once(session.protection)):
            return (yield from training)
        place = (own.site, own.run, own.repeat)
        digest = request_sha256(TRAIN, request) + own.under(session)
        round, earlier_digest, last = self._of_run.get(place, (0, "", None))
        if round == request.round:
            if earlier_digest != digest:
                raise NotSpent(Refusal("round-drawn", round=round))
            return last
        reply = yield from training
        self._of_run[place] = (request.round, digest, reply)
        return reply
