"""A site's replies for trees.

They are rows by cell, and sums of gradients in place of an update.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from flfed.federation.client.masked import SiteSums
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.summed_replies import mask_round
from flfed.federation.client.training import Round, Training, reply_with_figures
from flfed.federation.client.training_step import TrainingStep
from flfed.refusals import decline
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import Level, cells_of_rows, grown
from flfed.rows.training.requests import ComputeRequest
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.summarise import BinsReply, BinsRequest
from flfed.updates.messages.train import LAST, MARKS, SUMS, TREE, TREES_MISSING, TrainRequest


class Trees(Training):
    """A run that grows trees.

    Sums of gradients of a level stand in place of an update, and have no noise.
    """

    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Return the sums of a level, or the scores of trees.

        Scores are of all trees, once they are grown.
        """
        if request.fit:
            return grow(request, session, own)
        return super().answer(request, session, own)


def count_cells(request: BinsRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, BinsReply]:
    """Return the training rows by cell of a column."""
    sums = _sums_of(session, own)
    counts = cells_of_rows(session, least_rows(session))
    if sums is None:
        return BinsReply(counts=counts)
    own.completed(request, session)
    return BinsReply(masked=sums.masked_cells(request, counts))
    yield


def _sums_of(session: SiteSession, own: SiteRun) -> SiteSums | None:
    """Return the site's half of a run's secure sums, or None.

    It is None where its sums cross in the clear; raises NotTakingPart.
    """
    sums = own.sums(session.study)
    if sums is not None:
        own.under(session)
        return sums
    # A study may request sums without an approval.
    if not session.site.policy.is_open:
        decline("trees-single-rows")
    return None


def grow(request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
    """Return the sums of gradients of the requested nodes.

    Raises
    ------
    NotTakingPart
        If they may not cross in the clear, and there is no secure sum.
    MalformedMessage
        If the site lacks the earlier trees.
    """
    _sums_of(session, own)
    original_request, request = request, own.completed(request, session)
    level = Level(
        round=request.round,
        score=request.score,
        forest=request.arrays,
        sha256=request.trees_sha256,
        last=request.extra[LAST],
        tree=request.extra[TREE],
        node_marks=request.extra[MARKS],
    )
    done = yield from grown(session, request.encoder, level, counted=least_rows(session) > 0)
    if done is None:
        raise MalformedMessage(TREES_MISSING)
    step = TrainingStep(original_request=original_request, request=request, session=session, own=own)
    step.done = done
    reply = reply_with_figures(step, delta={}, steps=1, extra={SUMS: done.sums})
    return (yield from mask_round(step, reply))


def least_rows(session: SiteSession) -> int:
    """Return the fewest rows of a code and of a leaf in the study."""
    return int(session.study.strategy.settings.get("min-rows", 0))
