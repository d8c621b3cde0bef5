"""A run that validates a model which somebody brought along: no round, and one comparison."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from flfed.errors import FlfedError
from flfed.federation.recording.pooled_figures import calibrations
from flfed.federation.recording.run_record import Outcome
from flfed.federation.recording.source_model import record_source, source_of
from flfed.federation.server.comparison import record_replies
from flfed.federation.server.server import FederatedRun
from flfed.records.statistics.left_out import VALIDATION, describe_left_out
from flfed.records.statistics.odd_sites import AUC
from flfed.records.store.tables import finite
from flfed.refusals import Refusal
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import COMPARE, CompareReplies, CompareReply, CompareRequest, Figure


def conduct_validation(run: FederatedRun) -> Outcome:
    """Request and record the figures of a study's model at every site, and return the outcome.

    Raises
    ------
    FlfedError
        If too few sites take part, or none sent usable figures.
    """
    participants, _ = run.enrol_cohort()
    source = source_of(run.study, run.recorder.series)
    if source is None:
        raise FlfedError("a validation needs a model")
    record_source(run.recorder, source, run.study, run.layout, run.repeat)
    outcome = Outcome(status="completed", arrays=source.arrays, encoder=source.encoder)
    run.write_model(outcome)
    looked_at = {"sites": len(participants)}
    run.recorder.summary("looked-at", looked_at)
    run.recorder.progress("compare", 0, 1)
    request = CompareRequest(arrays=source.arrays, encoder=source.encoder, sites=looked_at["sites"])
    with run.privacy.during(participants):
        answers = run.ask_checked(COMPARE, request, participants, CompareReply.from_record, _defect)
    replies = record_replies(run, answers)
    _record(run, replies)
    run.recorder.progress("compare", 1, 1)
    return replace(outcome, sites=tuple(replies), seconds=run.writer.seconds())


def _defect(site: str, reply: CompareReply) -> Refusal | None:
    """Return why a reply is unusable."""
    return comparison_defect(reply, trained=False)


def _record(run: FederatedRun, replies: CompareReplies) -> None:
    """Record AUC and calibration by site with their means."""
    calibration = (calibrations(replies) or {"sites": {}})["sites"]
    sites = {}
    for site, reply in replies.items():
        areas = [one for one in reply.arms if one.metric == AUC]
        if site in calibration and areas:
            sites[site] = _site(reply, areas[0], calibration[site])
    summary: dict[str, Any] = {"model-sha256": run.study.start_sha256, "sites": {}}
    if sites:
        summary |= describe_left_out(sites)
    run.recorder.summary(VALIDATION, summary)


def _site(reply: CompareReply, area: Figure, calibration: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a site as `describe_left_out` takes them."""
    logit: float | None = None
    error: float | None = None
    if 0 < area.value < 1 and area.extra > 0:
        logit = math.log(area.value / (1 - area.value))
        error = math.sqrt(area.extra) / (area.value * (1 - area.value))
    figures: dict[str, Any] = {"few-events": calibration["slope"]["few-events"]}
    for name in ("slope", "intercept"):
        one = calibration[name]
        variance = one["variance"]
        figures[name] = _with_reason(one) | {"standard-error": None if variance is None else math.sqrt(variance)}
    values = {name: finite(getattr(area, name)) for name in ("value", "low", "high")}
    return {
        "rows": reply.holdout_rows,
        AUC: _with_reason({**values, "method": area.method}) | {"logit": logit, "standard-error": error},
        "calibration": figures,
    }


def _with_reason(of: dict[str, Any]) -> dict[str, Any]:
    figure = {name: of[name] for name in ("value", "low", "high")}
    return figure if of["value"] is not None else figure | {"reason": of["method"]}
