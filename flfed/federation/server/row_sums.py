"""Sums over rows, received site by site, or as one sum over all of them under masks.

They make the encoder; counts by cell make the cut points of trees; a study may have sums of a statistic alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flfed.errors import FlfedError, RunStopped
from flfed.federation.server.run_setting import RunSetting
from flfed.refusals import Refusal
from flfed.rows.statistics.newton import VARIANCES, fit_shapes
from flfed.rows.statistics.statistic import Shapes, Statistic, of_entries
from flfed.summaries.summary import Summary
from flfed.trees.cut_points import split_cells
from flfed.updates.aggregation.rounds import Participants
from flfed.updates.aggregation.summer import Summer, Unsummed
from flfed.updates.arrays import Arrays, entries_of, unflattened
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
from flfed.words import flfed_error, render

Request = SummariseRequest | BinsRequest | StatisticRequest
AnyReply = type[SummariseReply] | type[BinsReply] | type[StatisticReply]
CellShapes = Mapping[str, tuple[int, int]]
"""Shape of each column's counts by cell and outcome."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StatisticSums:
    """Sums of a study's statistic over the rows of all sites.

    Attributes
    ----------
    parts : list of dict of name to array
        Arrays that add up to the sums: each site's own, or one for all of them.
    sites : tuple of str
        Sites whose rows are in them.
    by_site : mapping of site to dict of name to array
        Each site's own, where the server receives them.
    summed : bool
        Whether the server receives only the sum.
    fits : mapping of site to dict of name to array
        Fits of sites to their own rows, where they send one.
    """

    parts: list[Arrays]
    sites: tuple[str, ...]
    by_site: Mapping[str, Arrays] = field(default_factory=dict)
    summed: bool = False
    fits: Mapping[str, Arrays] = field(default_factory=dict)


class NumbersRefused(FlfedError):
    """A visit at whose numbers a site sends no sums; at others it may."""


REFUSING = frozenset({"row-outweighs", "row-outweighs-first", "sums-too-large"})
"""Codes of such sites."""


def has_refused_numbers(faults: Mapping[str, Refusal]) -> bool:
    """Return whether some site refused the numbers of a visit."""
    return any(why.cause.code in REFUSING for why in faults.values())


def check_numbers(faults: Mapping[str, Refusal], needed: int) -> None:
    """Raise NumbersRefused where a site refused the numbers of a later visit."""
    if needed and has_refused_numbers(faults):
        raise NumbersRefused


@dataclass(frozen=True, eq=False)
class SiteSums:
    """Sums over rows that each site sends alone, and the server adds.

    Attributes
    ----------
    run : RunSetting
    """

    run: RunSetting

    def summary(self, participants: Participants) -> Summary | None:
        """Return the sums over all training rows, or None.

        It is None where each site sends its own.

        Raises
        ------
        FlfedError
            If there is no such sum.
        """
        return None

    def cells(self, participants: Participants, shapes: CellShapes) -> Arrays:
        """Return the rows by cell and outcome of all sites.

        Parameters
        ----------
        participants : mapping of site to Participant
        shapes : mapping of column to (cells, outcomes)
            Of each column's counts.

        Raises
        ------
        FlfedError
            If no site counted its rows.
        """

        def defect(site: str, reply: BinsReply) -> Refusal | None:
            return cells_defect(reply, participants[site].rows_high, shapes)

        answers = self.run.ask_checked(BINS, BinsRequest(), participants, BinsReply.from_record, defect)
        good = [reply.counts for reply in answers.replies.values()]
        if not good:
            raise flfed_error("run.failures.cells")
        # In the order of the sites' names, though whole numbers add up to the same in any.
        counts = {}
        for name in shapes:
            counts[name] = np.stack([own[name] for own in good]).sum(axis=0, dtype=np.int64)
        return counts

    def statistic(
        self, participants: Participants, statistic: Statistic, request: StatisticRequest, needed: int = 0
    ) -> StatisticSums:
        """Return the sums of a statistic, in the order of names.

        So the same sites give the same bits. Of a later visit as many sites are `needed` as the first one had.

        Raises
        ------
        FlfedError
            If too few sites sent any.
        """
        schema = self.run.schema
        own = fit_shapes(statistic, schema)
        replies = statistic_replies(self.run, participants, statistic.shapes(schema), request, needed, own)
        sums = {site: reply.sums for site, reply in replies.items()}
        fits = {site: reply.fit for site, reply in replies.items() if reply.fit}
        return StatisticSums(parts=list(sums.values()), sites=tuple(sums), by_site=sums, fits=fits)


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
        request = BinsRequest(total=self.sums.total if self.sums.verified else None)
        totals = self._sum(BINS, participants, request, BinsReply, sum(map(math.prod, shapes.values())))
        return split_cells(totals, shapes)

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


def row_sums(run: RunSetting) -> SiteSums:
    """Return the sums over the sites' rows, as the server receives them."""
    return SiteSums(run) if run.sums is None else SecureSiteSums(run, run.sums)


def statistic_replies(
    run: RunSetting,
    participants: Participants,
    shapes: Shapes,
    request: StatisticRequest | None = None,
    needed: int = 0,
    own: Shapes | None = None,
) -> dict[str, StatisticReply]:
    """Return each site's reply with its own sums of a statistic.

    Raises FlfedError where too few sent valid ones at the first visit; a later one needs all of them, and raises
    NumbersRefused where one refused its numbers.
    """

    def defect(site: str, reply: StatisticReply) -> Refusal | None:
        return sums_defect(reply.sums, shapes) or fit_defect(reply.fit, own or {})

    answers = run.ask(STATISTIC, request or StatisticRequest(), participants, StatisticReply.from_record)
    check_numbers(answers.faults, needed)
    answers = run.check_replies(answers, defect)
    if not needed:
        run.check_answers(answers)
    return dict(answers.replies)


def cells_defect(reply: BinsReply, rows_high: int, shapes: CellShapes) -> Refusal | None:
    """Return why a site's counts by cell are wrong, or None.

    They cannot be those of its rows then.
    """
    actual_shapes = {name: counts.shape for name, counts in reply.counts.items()}
    if actual_shapes != shapes or any(counts.dtype.kind != "u" for counts in reply.counts.values()):
        return Refusal("cells-unfit")
    totals = {int(counts.sum()) for counts in reply.counts.values()}
    return Refusal("cells-unfit") if len(totals) > 1 or max(totals, default=0) > rows_high else None


def sums_defect(sums: Arrays, shapes: Shapes) -> Refusal | None:
    """Return why arrays are no sums of these shapes, or None."""
    actual_shapes = {name: (values.shape, values.dtype) for name, values in sums.items()}
    if actual_shapes == shapes and all(np.isfinite(values).all() for values in sums.values()):
        return None
    return Refusal("statistic-unfit")


def fit_defect(fit: Arrays, shapes: Shapes) -> Refusal | None:
    """Return why arrays are no fit of these shapes, or None; a site need not have one."""
    if not fit:
        return None
    defect = sums_defect(fit, shapes)
    if defect is None and not (fit[VARIANCES] > 0).all():
        defect = Refusal("statistic-unfit")
    return defect
