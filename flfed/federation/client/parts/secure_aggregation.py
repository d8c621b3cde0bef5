"""Secure aggregation at a site: a model is opened where it came as a sum of ciphertexts, and replies leave masked."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Self

from flfed.federation.client.parts.step import Leaving, PartReply, SitePart, SiteStep, TrainingStep
from flfed.federation.client.redaction import losses_of
from flfed.federation.client.secure_sums import SiteSums, masked_losses
from flfed.refusals import NotTakingPart
from flfed.rows.training.requests import ComputeRequest
from flfed.study.study import Study
from flfed.updates.arrays import flattened
from flfed.updates.masking.figure_sums import FigureLayout
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply
from flfed.updates.messages.train import TrainReply

LOG = logging.getLogger("flfed.site")


@dataclass(frozen=True)
class SecureAggregation(SitePart):
    """Secure sums of a study, where its sites approved them."""

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where updates cross as they are."""
        return cls() if study.aggregation.sums_updates else None

    def before(self, step: TrainingStep) -> None:
        """Open the model; raises NotTakingPart where it is none of the run."""
        opened = step.own.opened(step.request, step.session.study)
        step.request = replace(step.request, arrays=opened)
        step.model = opened

    def reply(self, step: SiteStep, reply: PartReply) -> Leaving:
        """Return the reply under masks; the reply itself where the site approved no sums.

        Raises
        ------
        NotTakingPart
            If the site has no keys of the run, or an entry is too large.
        """
        if isinstance(reply, CompareReply):
            return _with_figures(step, reply)
        sums = step.own.sums(step.session.study)
        if sums is None:
            return reply
        if isinstance(reply, SummariseReply):
            return _summary(step, sums, reply)
        return (yield from _update(step, sums, reply))


def _update(step: SiteStep, sums: SiteSums, reply: TrainReply) -> Generator[ComputeRequest, Any, TrainReply]:
    """Return an update under masks, or the losses alone where the model is only scored."""
    if not isinstance(step, TrainingStep):
        raise TypeError("an update leaves from a step of training")
    request = step.request
    done = step.figures
    loss = done.loss if request.fit else None
    losses = losses_of(done.rows, loss, done.scores, step.session)
    seed = step.session.seed
    if not request.fit:
        step.own.under(step.session)
        return replace(reply, masked=masked_losses(sums, step.asked, losses, seed))
    return (yield from sums.masked(step.asked, reply, losses, seed, model=request.arrays))


def _summary(step: SiteStep, sums: SiteSums, reply: SummariseReply) -> SummariseReply:
    """Return sums over rows under masks where one site shares figures in sums only.

    Where one does, those of all sites leave in their sum only: what is left of it would tell.
    """
    if not sums.keys.rows_leave_masked() or reply.summary is None:
        return reply
    step.own.under(step.session)
    numbers = flattened(reply.summary.arrays())
    return SummariseReply(masked=sums.masked_numbers(SUMMARISE, numbers, step.session.seed))


def _with_figures(step: SiteStep, reply: CompareReply) -> CompareReply:
    """Return a comparison with its figures under masks, too, where sites that share none add theirs up."""
    session = step.session
    sums = step.own.figures(session.study)
    if sums is None or not isinstance(step.asked, CompareRequest):
        return reply
    step.own.under(session)
    layout = FigureLayout.of(session.task, session.study.compare.points, step.asked.encoder)
    try:
        asked = sums.asked(step.asked)
        cohort = sums.cohort()
        ring = layout.ring(len(cohort.sites), cohort.most_rows)
        rng = sums.rng(asked, session.seed)
        masked = sums.once(asked, "masked-figures", lambda: layout.encode(reply, ring, rng))
    except NotTakingPart as error:
        # They stay, and the site's own people have them all the same.
        LOG.warning("the figures of the comparison are in no sum: %s", error)
        return reply
    return replace(reply, masked=masked)
