"""Beginning of a run of trees: cut points from the sites' counts by cell."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import FlfedError
from flfed.federation.server.fan_out import ask, deadline_of, log_bytes, nodes_of
from flfed.federation.server.secure_sums import summed_cells
from flfed.refusals import Refusal
from flfed.summaries.summary import Layout
from flfed.trees.cut_points import cells_of, chosen_cuts, counted_columns
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.summarise import BINS, BinsReply, BinsRequest

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
