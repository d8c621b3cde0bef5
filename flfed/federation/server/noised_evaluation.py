"""Encoder and figures of a run whose ε covers everything that a site releases: both are made of noised counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.federation.client.released.noised_answer import cells_of, releases_of
from flfed.federation.server.row_sums import statistic_replies, sums_defect
from flfed.federation.server.run_setting import RunSetting
from flfed.records.store.entries import ComparisonRow, SiteRow
from flfed.refusals import Refusal
from flfed.rows.statistics.noised_counts import shapes_of_cells
from flfed.summaries.analysis import record_interval
from flfed.summaries.noised_scores import (
    FIRST,
    GRID,
    METHOD,
    METRICS,
    SCORES,
    ScoreCounts,
    choose_edges,
    number_of_bins,
)
from flfed.summaries.private_scaling import NoisedCells, noised_rows, private_encoder
from flfed.summaries.summary import Arrays, Encoder
from flfed.updates.aggregation.rounds import Participant, Participants
from flfed.updates.messages.summarise import SCORES as SCORES_KIND
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest

LOST = "the test rows are lost in the noise"
SUMMARY = "noised-scores"


def begin_noised(run: RunSetting, participants: Participants) -> tuple[dict[str, Participant], Encoder]:
    """Return the sites with noised counts of training rows, and the encoder that these make.

    Raises
    ------
    FlfedError
        If too few sites did.
    """
    replies = statistic_replies(run, participants, shapes_of_cells(run.layout))
    cells = {site: cells_of(run.study, run.layout, reply.sums) for site, reply in replies.items()}
    rows = {site: noised_rows(run.layout, own)[0] for site, own in cells.items()}
    run.privacy.counted(rows)
    run.recorder.writer.sites(SiteRow(site, rows=max(0, round(count))) for site, count in rows.items())
    merged = NoisedCells.merged([cells[site] for site in sorted(cells)])
    encoder = run.schema_encoder()
    if run.study.encode.scaler == "private":
        encoder = private_encoder(run.layout, merged)
    return {site: participants[site] for site in replies}, encoder


def score_noised(run: RunSetting, participants: Participants, arrays: Arrays, encoder: Encoder) -> None:
    """Record the figures of the final model under noise.

    They are made of noised counts of holdout rows by class and score. First by cell without classes, to choose the
    bins, then by class and bin.
    """
    releases = releases_of(run.study)
    request = ScoresRequest(arrays=arrays, encoder=encoder)
    first_noise = releases[FIRST].noise
    noise = releases[SCORES].noise
    first = _request_counts(run, participants, request, (GRID.bins,))
    if not first:
        return _record(run, {}, None, "no site sent counts of its scores")
    of_all = np.sum(list(first.values()), axis=0)
    root = math.sqrt(len(first))
    edges = choose_edges(of_all, first_noise * root, number_of_bins(float(of_all.sum()), noise * root))
    if edges is None:
        return _record(run, {}, None, LOST)
    receivers = {site: participants[site] for site in first}
    counted = _request_counts(run, receivers, replace(request, edges=edges), (2, len(edges) - 1))

    def counts(sites: list[str]) -> ScoreCounts:
        scale = math.sqrt(len(sites))
        return ScoreCounts(
            counts=np.sum([counted[site] for site in sites], axis=0),
            deviation=noise * scale,
            edges=edges,
            first=np.sum([first[site] for site in sites], axis=0),
            first_deviation=first_noise * scale,
        )

    by_site = {site: counts([site]) for site in sorted(counted)}
    whole = counts(sorted(counted)) if counted else None
    return _record(run, by_site, whole, "")


def _request_counts(
    run: RunSetting, participants: Participants, request: ScoresRequest, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return the noised counts of sites that sent this shape, in name order."""
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {"counts": (shape, np.dtype(np.float64))}

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
        "edges": counts.edges.tolist(),
        "deviation": counts.deviation,
        "slope": record_interval(counts.calibration_slope()),
    }
