"""A site's answers where trees grow: rows by cell, and sums of gradients."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from flfed.federation.client.redaction import NotTakingPart, losses_of, said_by, scores_of, training_stays
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.tree_sums import SiteTreeSums
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import Level, cells_of_rows, grown
from flfed.rows.training.requests import ComputeRequest
from flfed.study.exchanges import refits
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.summarise import BinsReply, BinsRequest
from flfed.updates.messages.train import (
    ASKED,
    LAST,
    REFIT,
    SUMS,
    TREE,
    TREES_MISSING,
    TREES_SHA256,
    TrainReply,
    TrainRequest,
)


def count_cells(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, BinsReply]:
    """Return the rows that are trained on by cell of a column."""
    BinsRequest.from_record(message.content)
    session = open_session()
    sums, counts = _sums_of(session, own), cells_of_rows(session, least_rows(session))
    return BinsReply(counts=counts) if sums is None else BinsReply(masked=sums.masked_cells(counts))
    yield


def _sums_of(session: SiteSession, own: SiteRun) -> SiteTreeSums | None:
    """Return the site's half of a run's secure sums, None where its sums cross as they are; raises NotTakingPart."""
    sums = own.sums(session.study)
    if isinstance(sums, SiteTreeSums):
        own.under(session)
        return sums
    # A study may ask for sums that nobody approved.
    if session.site.policy.disclosure != "open":
        raise NotTakingPart(Refusal("trees-single-rows"))
    return None


def grow(request: TrainRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, TrainReply]:
    """Return the sums of gradients of the nodes that are asked for; raises MalformedMessage where trees are lost."""
    sums = _sums_of(session, own)
    before = int(request.settings.get(REFIT, 0)) if refits(session.study) else 0
    if not 0 <= before < request.round:
        raise MalformedMessage(Refusal("settings-unfit", section="settings"))
    level = Level(
        round=request.round,
        before=before,
        score=request.score,
        forest=request.arrays,
        sha256=request.trees_sha256,
        last=request.extra[LAST],
        tree=request.extra[TREE],
        asked=request.extra[ASKED],
        cuts_sha256=request.cuts_sha256,
    )
    done = yield from grown(session, request.encoder, level, counted=least_rows(session) > 0)
    if done is None:
        raise MalformedMessage(TREES_MISSING)
    said = said_by(session)
    masked = None
    if sums is not None:
        losses = losses_of(done.rows, done.loss, done.scores, session)
        masked = sums.masked_level(request, done.sums, losses, session.seed)
    return TrainReply(
        delta={},
        num_examples=float(done.rows),
        loss=None if done.loss is None or training_stays(session) else said(done.loss),
        steps=1,
        scores=scores_of(done.scores, said, stays=training_stays(session)),
        extra={SUMS: done.sums} if sums is None else {},
        masked=masked,
    )


def grows(record: RecordDict) -> bool:
    """Tell whether a request asks for the sums of a tree."""
    config = record.get("config")
    return isinstance(config, ConfigRecord) and TREES_SHA256 in config


def least_rows(session: SiteSession) -> int:
    """Return the fewest rows of a code and of a leaf that the study asks for."""
    return int(session.study.strategy.settings.get("min-rows", 0))
