"""Encoder and figures of a run whose ε covers everything that a site releases: both are made of noised counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flfed.federation.client.released.noised_answer import noise_of
from flfed.federation.server.row_sums import statistic_replies, sums_defect
from flfed.federation.server.run_setting import RunSetting
from flfed.records.store.entries import ComparisonRow, SiteRow
from flfed.refusals import Refusal
from flfed.summaries.analysis import record_interval
from flfed.summaries.noised_scores import BINS, COUNTS, METHOD, METRICS, SCORES, ScoreCounts, base_rate, bounds_of
from flfed.summaries.summary import Arrays, Encoder
from flfed.updates.aggregation.rounds import Participant, Participants
from flfed.updates.messages.summarise import SCORES as SCORES_KIND
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest

LOST = "the test rows are lost in the noise"
SUMMARY = "noised-scores"


def count_classes(run: RunSetting, participants: Participants) -> dict[str, np.ndarray]:
    """Return each site's noised counts of training rows by class; raises FlfedError if too few sites sent them."""
    replies = statistic_replies(run, participants, {COUNTS: ((2,), np.dtype(np.float64))})
    return {site: reply.sums[COUNTS] for site, reply in replies.items()}


def begin_noised(run: RunSetting, participants: Participants) -> dict[str, Participant]:
    """Return the sites that sent noised counts of training rows, and record these."""
    rows = {site: float(counts.sum()) for site, counts in count_classes(run, participants).items()}
    run.privacy.counted(rows)
    run.recorder.writer.sites(SiteRow(site, rows=max(0, round(count))) for site, count in rows.items())
    return {site: participants[site] for site in rows}


def score_noised(run: RunSetting, participants: Participants, arrays: Arrays, encoder: Encoder) -> None:
    """Record the figures of the final model, by noised counts of holdout rows by class and score.

    The bins are about the base rate: a site sends the counts by class that it drew when the run began.
    """
    centre = base_rate(np.sum([*count_classes(run, participants).values()], axis=0))
    deviation = noise_of(run.study, SCORES).deviation
    counted = _request_counts(run, participants, ScoresRequest(arrays=arrays, encoder=encoder, centre=centre))

    def counts(sites: list[str]) -> ScoreCounts:
        total = np.sum([counted[site] for site in sites], axis=0)
        return ScoreCounts(counts=total, deviation=deviation * math.sqrt(len(sites)), centre=centre)

    by_site = {site: counts([site]) for site in sorted(counted)}
    whole = counts(sorted(counted)) if counted else None
    _record(run, by_site, whole, "" if counted else "no site sent counts of its scores")


def _request_counts(run: RunSetting, participants: Participants, request: ScoresRequest) -> dict[str, np.ndarray]:
    """Return the noised counts of sites, in name order."""
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {"counts": ((2, BINS), np.dtype(np.float64))}

    def defect(site: str, reply: ScoresReply) -> Refusal | None:
        return sums_defect({"counts": reply.counts}, wanted)

    answers = run.ask_checked(SCORES_KIND, request, participants, ScoresReply.from_record, defect)
    return {site: reply.counts for site, reply in answers.replies.items()}


def _record(
    run: RunSetting,
    by_site: Mapping[str, ScoreCounts],
    whole: ScoreCounts | None,
    reason: str,
) -> None:
    """Record the figures of sites, and of all together."""
    rows: list[ComparisonRow] = []
    for site, own in by_site.items():
        rows += _rows(site, own, "")
    rows += _rows(None, whole, reason)
    run.recorder.writer.comparison(rows, [])
    of_all = None if whole is None else _describe_counts(whole)
    facts: dict[str, Any] = {"requested-sites": len(by_site), "reason": reason, "all": of_all}
    sites = {site: _describe_counts(own) for site, own in by_site.items()}
    run.recorder.summary(SUMMARY, facts | {"sites": sites})


def _rows(site: str | None, counts: ScoreCounts | None, reason: str) -> list[ComparisonRow]:
    why = reason or LOST
    if counts is not None:
        why = reason or counts.reason or LOST
    rows = []
    for name, figure in METRICS.items():
        one = None if counts is None else figure(counts)
        if one is None:
            rows.append(ComparisonRow(site, "global", name, None, method=why))
        else:
            rows.append(ComparisonRow(site, "global", name, one.value, one.low, one.high, method=METHOD))
    return rows


def _describe_counts(counts: ScoreCounts) -> Arrays | dict[str, Any]:
    """Return the record of noised counts for the page of curves.

    It has the slope of calibration.
    """
    return {
        "counts": counts.counts.tolist(),
        "edges": bounds_of(counts.centre).tolist(),
        "deviation": counts.deviation,
        "slope": record_interval(counts.calibration_slope()),
    }
