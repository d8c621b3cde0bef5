"""Secure aggregation at a site.

The model is made of the total that came, and replies leave masked.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Self

from flfed.federation.client.masked import SiteSums
from flfed.federation.client.outbound_figures import losses_of
from flfed.federation.client.parts.step import Leaving, PartReply, SitePart, SiteStep, TrainingStep
from flfed.refusals import NotTakingPart
from flfed.study.study import Study
from flfed.updates.arrays import flattened
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply
from flfed.words import render

LOG = logging.getLogger("flfed.site")


@dataclass(frozen=True)
class SecureAggregation(SitePart):
    """Secure sums of a study, where its sites approved them."""

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where updates cross in the clear."""
        return cls() if study.aggregation.sums_updates else None

    def before(self, step: TrainingStep) -> None:
        """Make the model; raises NotTakingPart where it is none of the run."""
        step.request = step.own.completed(step.request, step.session)
        step.model = step.request.arrays

    def reply(self, step: SiteStep, reply: PartReply) -> Leaving:
        """Return the reply under masks.

        It is the reply itself where the site approved no sums.

        Raises
        ------
        NotTakingPart
            If the site has no keys of the run, or an entry is too large.
        """
        session = step.session
        sums = step.own.sums(session.study)
        if sums is None:
            return reply
        if isinstance(reply, CompareReply):
            return _with_figures(step, reply, sums)
        if isinstance(reply, SummariseReply):
            if reply.summary is None:
                return reply
            step.own.under(session)
            return SummariseReply(masked=sums.masked_counts(flattened(reply.summary.arrays()), SUMMARISE))
        if not isinstance(step, TrainingStep):
            raise TypeError("an update leaves from a step of training")
        request = step.request
        done = step.done
        # No site's own loss, metric or intercept of a round leaves; mean losses stand in the sum.
        reply = replace(reply, loss=None, scores=None, offset=None)
        if request.fit:
            losses = losses_of(done.rows, done.loss, done.scores, session)
            return (yield from sums.masked(step.original_request, reply, losses))
        # A model that is only scored has no update beside the losses.
        losses = losses_of(done.rows, None, done.scores, session)
        step.own.under(session)
        return replace(reply, masked=sums.masked_losses(step.original_request, losses))


def _with_figures(step: SiteStep, reply: CompareReply, sums: SiteSums) -> CompareReply:
    """Return a comparison without sums over rows, and with masked figures where the study records their sum."""
    session = step.session
    request = step.original_request
    reply = replace(reply, summary=None)
    if not session.study.compare.is_summed or not isinstance(request, CompareRequest) or step.encoder is None:
        return reply
    step.own.under(session)
    try:
        masked = sums.masked_figures(request, reply, FigureLayout.of(session.task, step.encoder))
    except NotTakingPart as error:
        # The figures do not leave, but the site's own people have them all the same.
        LOG.warning(render("gate.log.unsummed", why=error))
        return reply
    return replace(reply, masked=masked)
