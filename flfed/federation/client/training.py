"""A round of training at a site, or the scoring of a model, through the parts of its study."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from flfed.federation.client.parts.step import TrainingStep
from flfed.federation.client.redaction import said_by, scores_of, training_stays
from flfed.federation.client.site_parts import leave, site_parts
from flfed.federation.client.site_run import SiteRun
from flfed.rows.comparison.single_rows import model_refusal
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.updates.messages.offset import Offset
from flfed.updates.messages.train import TrainReply, TrainRequest

LOG = logging.getLogger("flfed.site")


def train_round(asked: TrainRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, TrainReply]:
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
        step.done = step.done.without_figures()
    step.delta = step.done.delta
    for part in reversed(parts):
        yield from part.after(step)
    # Before the reply leaves: a round that is asked again starts from what there was before it.
    if request.fit and step.state:
        own.state.keep(request.round, step.state)
    reply = yield from leave(step, (yield from _reply(step, may_leave=may_leave)))
    if not isinstance(reply, TrainReply):
        raise TypeError("parts make a reply to training of one")
    return reply


def _figures_may_leave(step: TrainingStep) -> Generator[ComputeRequest, Any, bool]:
    """Tell whether figures of a round's model may leave: not where it was made to tell of single rows."""
    session = step.session
    encoder = step.request.encoder
    refused = yield from model_refusal(session, step.model, encoder, lambda: step.own.start(session, encoder))
    if refused is not None:
        LOG.warning("no figure of the model of round %d leaves: %s", step.request.round, refused)
    return refused is None


def _reply(step: TrainingStep, *, may_leave: bool) -> Generator[ComputeRequest, Any, TrainReply]:
    """Return the reply of a round with its figures as they leave."""
    request = step.request
    session = step.session
    done = step.trained
    stays = training_stays(session)
    said = said_by(session)
    loss = None
    if done.loss is not None and not stays:
        loss = said(done.loss)
    offset = None
    if request.offset and may_leave:
        offset = yield from session.offset(request.arrays, request.encoder)
    return TrainReply(
        delta=step.delta,
        num_examples=float(done.rows),
        loss=loss,
        steps=done.steps,
        scores=scores_of(done.scores, said, stays=stays),
        offset=None if offset is None else Offset(value=offset[0], error=offset[1]),
        extra=step.returned,
    )
