"""Answers that cross once and are in a secure sum only: sums over rows, counts by cell, a statistic, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flfed.errors import FlfedError
from flfed.federation.server.fan_out import nodes_of
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.sums.row_sums import SiteSums, StatisticSums, cell_shapes
from flfed.refusals import Refusal
from flfed.rows.statistics.statistic import Statistic, of_entries
from flfed.summaries.summary import Summary
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.aggregation.secure_sum import SecureSums, SumQuestions, Unsummed
from flfed.updates.codec import entries_of, unflattened
from flfed.updates.masking.figure_sums import FigureLayout, SummedFigures
from flfed.updates.masking.ring import ring_of_counts
from flfed.updates.masking.rules import Sites
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.secure_sum import Masked
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

Request = SummariseRequest | BinsRequest | StatisticRequest
AnyReply = type[SummariseReply] | type[BinsReply] | type[StatisticReply]


@dataclass(frozen=True, eq=False)
class SecureSiteSums(SiteSums):
    """Sums over rows of which the server sees the sum of all sites only.

    Attributes
    ----------
    sums : SecureSums
        Of the run.
    """

    sums: SecureSums

    def summary(self, participants: Mapping[str, Participant]) -> Summary | None:
        """Return the sums over all training rows, None where no site shares figures in sums only.

        Raises
        ------
        FlfedError
            If there is no such sum.
        """
        if not self.sums.in_sums_only:
            return None
        shapes = {name: (shape, np.dtype(np.float64)) for name, shape in self.run.layout.shapes().items()}
        totals, _ = self._sum(SUMMARISE, participants, SummariseRequest(), SummariseReply, entries_of(shapes))
        return Summary(**unflattened(self._decode(totals), shapes))

    def cells(self, participants: Mapping[str, Participant], least: int) -> Arrays:
        """Return the rows by cell and outcome of all sites of a list; raises FlfedError without such a sum."""
        # Whole numbers as they are: no ring divides them.
        shapes = cell_shapes(self.run.layout, least)
        sizes = [math.prod(shape) for shape in shapes.values()]
        totals, _ = self._sum(BINS, participants, BinsRequest(), BinsReply, sum(sizes))
        parts = np.split(totals, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def statistic(self, participants: Mapping[str, Participant], statistic: Statistic) -> StatisticSums:
        """Return the sums of a statistic over the sites of a list; raises FlfedError without such a sum."""
        schema = self.run.schema
        entries = sum(math.prod(shape) for shape, _ in statistic.shapes(schema).values())
        totals, listed = self._sum(STATISTIC, participants, StatisticRequest(), StatisticReply, entries)
        whole = of_entries(statistic, self._decode(totals), schema)
        return StatisticSums(parts=[whole], sites=tuple(sorted(listed)), least=self.sums.least)

    def _decode(self, totals: np.ndarray) -> np.ndarray:
        """Return the numbers that sites had put on the ring of counts."""
        found: np.ndarray = ring_of_counts(len(self.sums.cohort), self.sums.most_rows).decode(totals)
        return found

    def _sum(
        self, kind: str, participants: Mapping[str, Participant], request: Request, reply: AnyReply, entries: int
    ) -> tuple[np.ndarray, Sites]:
        """Return the sum of what sites answer once, and whose it is; raises FlfedError where there is none."""
        cohort = len(self.sums.cohort) if self.sums.masked else 0
        questions = _questions(self.run, kind, participants)
        replies = questions.answers(
            kind,
            dict.fromkeys(participants, request),
            reply,
            lambda one: _has_sums(one.masked, entries, cohort),
            self.sums.least,
        )
        vectors = {site: one.masked for site, one in replies.items() if one.masked is not None}
        totals = _totals(self.run, self.sums, questions, vectors)
        if isinstance(totals, Refusal):
            rows = "rows" if kind == STATISTIC else "training rows"
            why = f"there is no sum over the {rows} of the sites ({totals})"
            raise FlfedError(self.run.recorder.shared_as.text(why)) from None
        return totals


def summed_figures(
    run: RunSetting,
    sums: SecureSums,
    participants: Mapping[str, Participant],
    replies: Mapping[str, CompareReply],
    layout: FigureLayout,
) -> SummedFigures | Refusal | None:
    """Return the figures of all sites that share them in sums only, together.

    Parameters
    ----------
    run : FederatedRun
    participants : mapping of site to Participant
    replies : mapping of site to CompareReply
    layout : FigureLayout

    Returns
    -------
    SummedFigures, Refusal or None
        None where these sites are too few, so that none of them sent any; a refusal where there is no sum all the same.
    """
    cohort = tuple(sorted(sums.in_sums_only))
    given = {site: replies[site].masked for site in cohort if site in replies}
    if not any(given.values()):
        return None
    vectors = {
        site: one for site, one in given.items() if one is not None and _has_sums(one, layout.entries, len(cohort))
    }
    # The sum is over all of them, and each of them opens it.
    among = replace(sums, cohort=cohort, least=len(cohort), lifted={})
    totals = _totals(run, among, _questions(run, COMPARE, participants), vectors)
    if isinstance(totals, Refusal):
        return totals
    return layout.decode(totals[0], layout.ring(len(cohort), sums.most_rows), len(cohort))


def _questions(run: RunSetting, kind: str, participants: Mapping[str, Participant]) -> SumQuestions:
    """Return what is asked for a sum that a run has once."""
    return SumQuestions.over(run.grid, kind=kind, nodes=nodes_of(participants), timeout=run.deadline)


def _has_sums(masked: Masked | None, entries: int, cohort: int) -> bool:
    """Tell whether a masked answer has so many numbers of 64 bits, and a share for each of a cohort."""
    sizes = ((0,), (1 + entries,), cohort)
    return masked is not None and (masked.vector.shape, masked.sums.shape, len(masked.shares)) == sizes


def _totals(
    run: RunSetting, sums: SecureSums, asked: SumQuestions, vectors: Mapping[str, Masked]
) -> tuple[np.ndarray, Sites] | Refusal:
    """Return the sum of numbers of 64 bits and whose it is, or why there is none; what crossed for it is recorded."""
    try:
        totals, listed = sums.summed(asked, vectors)
        return totals.sums, listed
    except Unsummed as error:
        return error.why
    finally:
        for kind, crossed in asked.crossed.items():
            run.recorder.crossed(kind, *crossed)
        run.recorder.events("fault", asked.faults)
