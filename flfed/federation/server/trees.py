"""Trees at the server: they begin with cut points, and the gains of their splits are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.row_sums import row_sums
from flfed.federation.server.run_setting import RunSetting
from flfed.rows.site_trees import count_determined_outcomes
from flfed.trees.cut_points import cell_shapes, chosen_cuts
from flfed.trees.forest import forest_of, gains_by_column
from flfed.updates.aggregation.rounds import Participants
from flfed.updates.arrays import Arrays

if TYPE_CHECKING:
    # a site's half, which a coordinator does not load
    from flfed.federation.engines.pooled_reference import PooledReference


def begin_forest(run: RunSetting, participants: Participants) -> Arrays:
    """Return the first arrays of trees.

    They are no tree, and the cut points of the counts over all sites. A site without counts has no part in the cut
    points; its rows are trained on all the same.
    """
    model = run.study.model.build("model")
    least = int(run.study.strategy.settings.get("min-rows", 0))
    counts = row_sums(run).cells(participants, cell_shapes(run.layout, least))
    return {**run.first_arrays(), **chosen_cuts(run.layout, counts, model.max_bins, least)}


def record_gains(
    run: RunSetting, outcome: Outcome, grown: Arrays, tables: PooledReference | None, sites: Sequence[str]
) -> None:
    """Record the gains of columns, and the outcomes that the sums of the first trees reveal.

    `grown` are all trees: validation rows may have chosen none of them, and their sums have left all the same. The
    outcomes are counted at `sites` where this engine has the tables.
    """
    forest = forest_of(outcome.arrays)
    names = [column.name for column in run.layout.features]
    gains = gains_by_column(forest, len(names)).tolist()
    columns = [{"column": name, "gain": gain} for name, gain in zip(names, gains, strict=True)]
    run.recorder.summary("gains", {"trees": sum(map(len, forest)), "columns": columns})
    if tables is not None and not run.study.compare.is_summed:
        outcomes = count_determined_outcomes(tables.sessions(list(sites)), outcome.encoder, grown)
        run.recorder.summary("revealed-outcomes", outcomes)
