"""Sums over the sites' rows: counts by cell for the cut points of trees, and those of a statistic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import FlfedError
from flfed.federation.client.statistic import asked_statistic, noise_of_sum
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.fan_out import ask, check_enough, deadline_of, log_bytes, nodes_of
from flfed.federation.server.sums.secure_sums import summed_cells, summed_statistic
from flfed.refusals import Refusal
from flfed.rows.statistics.private.analysis import NoisedAnalysis
from flfed.rows.statistics.statistic import Shapes, added, of_entries
from flfed.study.statistic import ANALYSIS
from flfed.summaries.summary import Layout, schema_encoder
from flfed.trees.cut_points import cells_of, chosen_cuts, counted_columns
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.checkpoints.sum_file import kept_cohort
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.summarise import (
    BINS,
    STATISTIC,
    BinsReply,
    BinsRequest,
    StatisticReply,
    StatisticRequest,
)

if TYPE_CHECKING:
    from flfed.federation.server.server import FederatedRun


def begun_forest(run: FederatedRun, participants: Mapping[str, Participant]) -> Arrays:
    """Return the arrays that trees begin with: no tree, and the cut points of the counts over all sites.

    What a site did not count has no part in the cut points; its rows are trained on all the same.
    """
    model, least = run.study.model.build("model"), int(run.study.strategy.settings.get("min-rows", 0))
    if run.sums is None:
        counts = _counted(run, participants, least)
    else:
        counts = summed_cells(run, run.sums, participants, _shapes(run.layout, least))
    return {**run.first_arrays(), **chosen_cuts(run.layout, counts, model.codes, least)}


def _counted(run: FederatedRun, participants: Mapping[str, Participant], least: int) -> Arrays:
    """Return the rows by cell of all sites that count them."""
    nodes, timeout = nodes_of(participants), deadline_of(run.study)
    answers = ask(run.grid, BINS, BinsRequest(), nodes, BinsReply.from_record, timeout=timeout)
    log_bytes(run.recorder, BINS, answers)
    defect = partial(cells_defect, layout=run.layout, least=least)
    defects = {site: defect(reply, participants[site].rows_high) for site, reply in answers.replies.items()}
    run.recorder.events("fault", {**answers.faults, **{site: why for site, why in defects.items() if why}})
    good = [reply.counts for site, reply in answers.replies.items() if not defects[site]]
    if not good:
        raise FlfedError("no site counted its rows by cell, so that trees have no cut points")
    # In the order of the sites' names, though whole numbers add up to the same in any.
    names = _shapes(run.layout, least)
    return {name: np.stack([own[name] for own in good]).sum(axis=0, dtype=np.int64) for name in names}


def _shapes(layout: Layout, least: int) -> dict[str, tuple[int, int]]:
    """Return the shape of each column's counts."""
    classes = len(layout.target.cells) - 1 if least and layout.task != "regression" else 1
    return {column.name: (cells_of(column), classes) for column in counted_columns(layout, least)}


def cells_defect(reply: BinsReply, rows_high: int, *, layout: Layout, least: int) -> Refusal | None:
    """Return why a site's counts by cell cannot be those of its rows, None where they can."""
    if {name: counts.shape for name, counts in reply.counts.items()} != _shapes(layout, least):
        return Refusal("cells-unfit")
    if any(counts.dtype.kind != "u" for counts in reply.counts.values()):
        return Refusal("cells-unfit")
    totals = {int(counts.sum()) for counts in reply.counts.values()}
    return Refusal("cells-unfit") if len(totals) > 1 or max(totals, default=0) > rows_high else None


def conduct_statistic(run: FederatedRun) -> Outcome:
    """Ask the sites for the sums of the study's statistic, record its figures, and return the outcome.

    There is no model: the outcome has no arrays, and no encoder was fitted to rows.
    """
    # A run that goes on asks the sites that had each other's keys: to others the sum would be another one.
    participants, _ = run.whole(kept_cohort(run.recorder.writer.run))
    statistic = asked_statistic(run.study)
    with run.privacy.during(participants):
        if run.sums is None:
            good = _sums_of_sites(run, participants, statistic.shapes(run.schema))
            sites, names = list(good.values()), tuple(good)
            run.privacy.answered(names)
            if run.study.analysis is not None:
                rows = {site: statistic.figures([own], run.schema, own)["rows"]["value"] for site, own in good.items()}
                run.privacy.counted(rows)
        else:
            count = sum(math.prod(shape) for shape, _ in statistic.shapes(run.schema).values())
            numbers, names = summed_statistic(run, run.sums, participants, count)
            sites, good = [of_entries(statistic, numbers, run.schema)], {}
            run.privacy.answered(names)
            if isinstance(statistic, NoisedAnalysis):
                # One answer stands for all sites of the list, with the noise of each.
                own = noise_of_sum(statistic, run.sums.least)
                statistic = replace(own, noise=own.noise * math.sqrt(len(names)))
    of_all = added(sites)
    by_site = {site: statistic.figures([own], run.schema, of_all) for site, own in good.items()}
    found = {
        "name": run.study.statistic.name if run.study.analysis is None else ANALYSIS,
        "sites": len(names),
        **statistic.figures(sites, run.schema, of_all),
        "by-site": run.recorder.shared_as.own(by_site),
    }
    run.recorder.writer.summary("statistics", found, durable=False)
    return Outcome(
        status="completed",
        reason="",
        arrays={},
        encoder=schema_encoder(run.layout),
        rounds=0,
        best_round=0,
        sites=names,
        seconds=run.writer.seconds(),
    )


def _sums_of_sites(run: FederatedRun, participants: Mapping[str, Participant], shapes: Shapes) -> dict[str, Arrays]:
    """Return the sums of each site that sent some, in the order of names, so that the same sites give the same bits."""
    nodes, timeout = nodes_of(participants), deadline_of(run.study)
    answers = ask(run.grid, STATISTIC, StatisticRequest(), nodes, StatisticReply.from_record, timeout=timeout)
    log_bytes(run.recorder, STATISTIC, answers)
    good = {site: reply.sums for site, reply in answers.replies.items() if are_sums(reply.sums, shapes)}
    unfit = {site: Refusal("statistic-unfit") for site in answers.replies if site not in good}
    run.recorder.events("fault", {**answers.faults, **unfit})
    reasons = [f"{site}: {why}" for site, why in {**answers.faults, **unfit}.items()]
    check_enough(good, reasons, run.recorder.shared_as)
    return good


def are_sums(sums: Arrays, shapes: Shapes) -> bool:
    """Tell whether a site's sums have a statistic's names, shapes and types, and are finite."""
    found = {name: (values.shape, values.dtype) for name, values in sums.items()}
    return found == shapes and all(np.isfinite(values).all() for values in sums.values())
