"""What a run asks of a site, by its kind; and of training a round, through the parts of its study."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import replace
from typing import Any, ClassVar

from flfed.federation.client.parts.step import TrainingStep
from flfed.federation.client.redaction import said_by, scores_of, training_stays
from flfed.federation.client.site_parts import leave, site_parts
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal
from flfed.rows.comparison.single_rows import model_refusal
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.study.coverage import is_covered
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.offset import Offset
from flfed.updates.messages.train import TrainReply, TrainRequest

LOG = logging.getLogger("flfed.site")
ANY_ROWS = (0, 2**32 - 1)
"""Band of a study whose every answer is noised: of so many rows, clipped sums are exact in a secure sum of up to 2,000
sites."""


Round = Generator[ComputeRequest, Any, TrainReply]
"""The answer to a round; requests are computed on the way."""


class RunKind(ABC):
    """A kind of run at a site.

    Attributes
    ----------
    keeps_replies : bool
        Whether the reply to a round is kept, and sent again: its noise, or mask, must not be drawn twice.
    """

    keeps_replies: ClassVar[bool] = False

    @abstractmethod
    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Return the site's reply to a round; raises NotTakingPart where it gives none."""

    def too_small(self, session: SiteSession) -> Refusal | None:
        """Return which part of the rows is too small, None where all are large enough."""
        return session.too_small()

    def count_rows(self, session: SiteSession) -> int:
        """Return how many rows the run is about."""
        return len(session.table.training)

    def rows_band(self, session: SiteSession) -> tuple[int, int]:
        """Return the power of ten in which the number of rows lies.

        Where all that leaves is charged, the number of rows is one of the noised answers, and the band is that of any
        table.
        """
        if is_covered(session.study):
            return ANY_ROWS
        low = 10 ** (len(str(self.count_rows(session))) - 1)
        return low, 10 * low - 1


class Training(RunKind):
    """A run that trains a model."""

    keeps_replies = True

    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Score the incoming model, train from it, or both."""
        return train_round(request, session, own)


def train_round(asked: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
    """Return a site's reply to a request: its update, the scores of the model that came, or both."""
    step = TrainingStep(asked=asked, request=asked, session=session, own=own)
    parts = site_parts(session.study.text)
    for part in parts:
        part.before(step)
    request = step.request
    step.done = yield from session.train(
        step.model,
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
    may_leave = yield from _figures_may_leave(step)
    if not may_leave:
        step.done = step.trained.without_figures()
    step.delta = step.trained.delta
    for part in reversed(parts):
        yield from part.after(step)
    # Before the reply leaves: a round that is asked again starts from what there was before it.
    if request.fit and step.state:
        own.state.keep(request.round, step.state)
    reply = yield from _reply(step, may_leave=may_leave)
    return (yield from leave_round(step, reply))


def leave_round(step: TrainingStep, reply: TrainReply) -> Round:
    """Return the reply of a round as it leaves the site, through all parts of its study."""
    left = yield from leave(step, reply)
    if not isinstance(left, TrainReply):
        raise TypeError("parts make a reply to training of one")
    return left


def _figures_may_leave(step: TrainingStep) -> Generator[ComputeRequest, Any, bool]:
    """Tell whether figures of a round's model may leave: not where it was made to tell of single rows."""
    session = step.session
    encoder = step.request.encoder
    refused = yield from model_refusal(session, step.model, encoder, lambda: step.own.start(session, encoder))
    if refused is not None:
        LOG.warning("no figure of the model of round %d leaves: %s", step.request.round, refused)
    return refused is None


def _reply(step: TrainingStep, *, may_leave: bool) -> Round:
    """Return the reply of a round of training."""
    request = step.request
    offset = None
    if request.offset and may_leave:
        found = yield from step.session.offset(request.arrays, request.encoder)
        if found is not None:
            offset = Offset(value=found[0], error=found[1])
    reply = reply_with_figures(step, delta=step.delta, steps=step.trained.steps, extra=step.returned)
    return replace(reply, offset=offset)


def reply_with_figures(step: TrainingStep, *, delta: Arrays, steps: int, extra: Arrays) -> TrainReply:
    """Return the reply of a round, whose figures are as they leave.

    Parameters
    ----------
    step : TrainingStep
        Once it is computed.
    delta, extra : dict of name to array
        Of the reply.
    steps : int
        That were taken.
    """
    session = step.session
    done = step.figures
    stays = training_stays(session)
    rounding = said_by(session)
    loss = None
    if done.loss is not None and not stays:
        loss = rounding(done.loss)
    scores = scores_of(done.scores, rounding, stays=stays)
    return TrainReply(
        delta=delta,
        num_examples=float(done.rows),
        loss=loss,
        steps=steps,
        scores=scores,
        extra=extra,
    )
