"""Secure aggregation at the server.

The cohort keeps its keys, and sums stand in place of the sites' replies. Beside updates there are sums of replies that
cross once: sums over rows, counts by cell, a statistic, figures.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from flfed.errors import FlfedError, RunStopped
from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.row_sums import (
    CellShapes,
    SiteSums,
    StatisticSums,
    check_numbers,
    has_refused_numbers,
)
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.secure_sums import (
    check_enrolled,
    exchange_keys,
    rehearse_keys,
)
from flfed.refusals import Refusal
from flfed.rows.statistics.statistic import Statistic, of_entries
from flfed.summaries.summary import Summary
from flfed.updates.aggregation.rounds import Participants, RunContext, load_cohort
from flfed.updates.aggregation.summer import Summer, Unsummed
from flfed.updates.arrays import Arrays, entries_of, unflattened
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.messages.compare import CompareReplies, CompareRequest
from flfed.updates.messages.summarise import (
    BINS,
    STATISTIC,
    SUMMARISE,
    BinsReply,
    BinsRequest,
    StatisticReply,
    StatisticRequest,
    SummariseReply,
    SummariseRequest,
)
from flfed.words import render

BEFORE, TOTAL = "sums-before", "sums-total"
"""Keys in a checkpoint: the last model whose loss was right, and facts of the sums; the last total."""


Request = SummariseRequest | BinsRequest | StatisticRequest
AnyReply = type[SummariseReply] | type[BinsReply] | type[StatisticReply]


@dataclass(eq=False, repr=False)
class SecureAggregation(ServerPart):
    """Secure sums of a run.

    Attributes
    ----------
    sums : Summer or None
        Once the sites have each other's keys; None where they approved none, so that updates cross in the clear.
    refused : mapping of site to Refusal
        Why others did not enrol.
    """

    state_names: ClassVar[tuple[str, ...]] = (BEFORE, TOTAL)
    sums: Summer | None = field(default=None, init=False)
    refused: Mapping[str, Refusal] = field(default_factory=dict, init=False)

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether updates may be summed."""
        return run.study.aggregation.sums_updates

    def cohort(self) -> Participants:
        """Return the sites that have each other's keys already, from this run."""
        return load_cohort(self.run.name)

    def check_enrolled(self, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:
        """Refuse a run that has too few sites for sums; raises UsageError."""
        self.refused = refused
        check_enrolled(self.run, sites, refused)

    def enrolled(self, participants: Participants, back: Collection[str]) -> None:
        """Send the sites each other's keys.

        Raises
        ------
        UsageError, FlfedError
            As `exchange_keys` does.
        """
        self.sums = exchange_keys(self.run, participants, back, self.refused)

    @property
    def keeps_cohort(self) -> bool:
        """Whether masks are made for the whole cohort.

        Then an absent site is missing until it is back.
        """
        return self.sums is not None

    def row_sums(self, sums: SiteSums) -> SiteSums:
        """Return the sums over rows under masks."""
        return sums if self.sums is None else SecureSiteSums(self.run, self.sums)

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Add the secure sums to the strategy's facts.

        Raises FlfedError where a site refuses a rehearsal.
        """
        if is_recorded:
            return replace(context, sums=self.sums)
        return replace(context, sums=rehearse_keys(self.run, context.participants))

    @property
    def binds_encoder(self) -> bool:
        """Whether masks of the first round are bound to its encoder.

        A second fit might give another.
        """
        return self.sums is not None

    def state(self) -> Mapping[str, Arrays]:
        """Return the last model whose loss was right, and the last total."""
        if self.sums is None:
            return {}
        total = {} if self.sums.total is None else self.sums.total.arrays()
        return {BEFORE: self.sums.check.before, TOTAL: total}

    def facts(self) -> Mapping[str, Any]:
        """Return the facts of the rounds' sums."""
        return {} if self.sums is None else {BEFORE: self.sums.facts()}

    def facts_of_last_model(self) -> Mapping[str, Any]:
        """Return the losses of the last model.

        After the comparison the sites open no sum of them again.
        """
        if self.sums is None or self.sums.check.evaluated is None:
            return {}
        return self.facts()

    def restore(self, facts: Mapping[str, Any], state: Mapping[str, Arrays]) -> None:
        """Restore a checkpoint's facts of the sums."""
        before = facts.get(BEFORE)
        if self.sums is not None and before:
            self.sums.restore(before, state.get(BEFORE, {}), state.get(TOTAL, {}))

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Return a request with the last total, of which sites make the model."""
        if self.sums is None or not self.sums.verified:
            return request
        return request.of_total(self.sums.total)

    def received(self, model: FinalModel, replies: CompareReplies) -> CompareReplies:
        """Add up figures of a study that records their sum alone.

        Return the replies whose figures are recorded by site: none of them then.
        """
        run = self.run
        if self.sums is None or not run.study.compare.is_summed:
            return replies
        layout = FigureLayout.of(run.layout.task, model.outcome.encoder)
        fits = self.sums.fits
        vectors = {site: reply.masked for site, reply in replies.items() if fits(reply.masked, sums=layout.entries)}
        try:
            _, total = self.sums.add(vectors)
        except Unsummed as error:
            run.recorder.note(Refusal("figures-unsummed", why=error.why))
            return {}
        sites = len(self.sums.cohort)
        run.recorder.summary("summed-figures", layout.decode(total, layout.ring(sites, self.sums.most_rows), sites))
        return {}

    @property
    def masks_rows(self) -> bool:
        """Whether sums over rows leave under masks."""
        return self.sums is not None


@dataclass(frozen=True, eq=False)
class SecureSiteSums(SiteSums):
    """Sums over rows; the server receives only the sum of all sites.

    Attributes
    ----------
    sums : Summer
        Of the run.
    """

    sums: Summer

    def summary(self, participants: Participants) -> Summary | None:
        """Return the sums over all training rows; raises FlfedError if there is no such sum."""
        shapes = {name: (shape, np.dtype(np.float64)) for name, shape in self.run.layout.shapes().items()}
        totals = self._sum(SUMMARISE, participants, SummariseRequest(), SummariseReply, entries_of(shapes))
        return Summary(**unflattened(self.sums.decode_counts(totals), shapes))

    def cells(self, participants: Participants, shapes: CellShapes) -> Arrays:
        """Return the rows by cell and outcome of all sites.

        Raises FlfedError without such a sum.
        """
        # Whole numbers as they are: no ring divides them.
        sizes = [math.prod(shape) for shape in shapes.values()]
        request = BinsRequest(total=self.sums.total if self.sums.verified else None)
        totals = self._sum(BINS, participants, request, BinsReply, sum(sizes))
        parts = np.split(totals, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def statistic(
        self, participants: Participants, statistic: Statistic, request: StatisticRequest, needed: int = 0
    ) -> StatisticSums:
        """Return the sums of a statistic over all sites.

        Raises FlfedError without such a sum.
        """
        schema = self.run.schema
        entries = sum(math.prod(shape) for shape, _ in statistic.shapes(schema).values())
        if self.sums.verified:
            request = replace(request, point={}, total=self.sums.total)
            # Of a visit that a site refuses there is no total, which the next one shows.
            self.sums.total = None
        totals = self._sum(STATISTIC, participants, request, StatisticReply, entries, needed)
        whole = of_entries(statistic, self.sums.decode_counts(totals), schema)
        return StatisticSums(parts=[whole], sites=self.sums.cohort, summed=True)

    def _sum(
        self, kind: str, participants: Participants, request: Request, reply: AnyReply, entries: int, needed: int = 0
    ) -> np.ndarray:
        """Return the sum of all sites' replies to one request.

        Raises FlfedError without a sum, and RunStopped where a statistic has visits: a resumed run begins with the
        first one.
        """

        def defect(site: str, reply: Any) -> Refusal | None:
            return None if self.sums.fits(reply.masked, sums=entries) else Refusal("vector-unfit")

        answers = self.run.ask(kind, request, participants, reply.from_record)
        check_numbers(answers.faults, needed)
        answers = self.run.check_replies(answers, defect)
        replies: dict[str, Any] = dict(answers.replies)
        missing = {site: one for site, one in participants.items() if site not in replies}
        # Who gave no answer is asked once more, and waited for.
        if missing and not has_refused_numbers(answers.faults):
            late = self.run.ask(kind, request, missing, reply.from_record, wait=True)
            check_numbers(late.faults, needed)
            answers = self.run.check_replies(late, defect)
            replies |= answers.replies
        try:
            return self.sums.add({site: one.masked for site, one in replies.items()})[1]
        except Unsummed as error:
            has_visits = isinstance(request, StatisticRequest) and self.run.study.visits > 1
            raise self._error(kind, error.why, answers.faults, has_visits=has_visits) from None

    def _error(self, kind: str, why: Refusal, faults: Mapping[str, Refusal], *, has_visits: bool) -> FlfedError:
        """Return the error of a run without a sum."""
        rows = "rows" if kind == STATISTIC else "training rows"
        if has_refused_numbers(faults):
            # In a resumed run the numbers are the same, and so is a site's refusal of them.
            reasons = "; ".join(f"{site}: {fault}" for site, fault in sorted(faults.items()))
            return FlfedError(render("run.sums.none", rows=rows, why=reasons))
        error = FlfedError(render("run.sums.none", rows=rows, why=why))
        return RunStopped(str(error)) if has_visits else error
