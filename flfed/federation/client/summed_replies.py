"""Replies under secure aggregation: an update and its losses, and figures of a comparison, leave under masks."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from flfed.federation.client.outbound_figures import losses_of
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.training_step import TrainingStep
from flfed.refusals import NotTakingPart
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.summaries.summary import Encoder
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.train import TrainReply
from flfed.words import render

LOG = logging.getLogger("flfed.site")


def mask_round(step: TrainingStep, reply: TrainReply) -> Generator[ComputeRequest, Any, TrainReply]:
    """Return the reply of a round under masks; as it is where the site approved no sums.

    Raises
    ------
    NotTakingPart
        If the site has no keys of the run, or an entry is too large.
    """
    session, request, done = step.session, step.request, step.done
    sums = step.own.sums(session.study)
    if sums is None:
        return reply
    # No site's own loss, metric or intercept of a round leaves; mean losses stand in the sum.
    reply = replace(reply, loss=None, scores=None, offset=None)
    losses = losses_of(done.rows, done.loss if request.fit else None, done.scores, session)
    if request.fit:
        return (yield from sums.masked(step.original_request, reply, losses))
    # A model that is only scored has no update beside the losses.
    step.own.under(session)
    return replace(reply, masked=sums.masked_losses(step.original_request, losses))


def mask_figures(
    request: CompareRequest, session: SiteSession, own: SiteRun, reply: CompareReply, encoder: Encoder
) -> CompareReply:
    """Return a comparison without sums over rows, and with masked figures where the study records their sum.

    It is returned as it is where the site approved no sums; `encoder` is that of the compared model.
    """
    sums = own.sums(session.study)
    if sums is None:
        return reply
    reply = replace(reply, summary=None)
    if not session.study.compare.is_summed:
        return reply
    own.under(session)
    try:
        masked = sums.masked_figures(request, reply, FigureLayout.of(session.task, encoder))
    except NotTakingPart as error:
        # The figures do not leave, but the site's own people have them all the same.
        LOG.warning(render("gate.log.unsummed", why=error))
        return reply
    return replace(reply, masked=masked)
