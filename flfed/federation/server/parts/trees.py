"""Trees: they begin with cut points, and the gains of their splits are recorded."""

from __future__ import annotations

from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.row_sums import SiteSums, begun_forest
from flfed.federation.server.run_setting import RunSetting
from flfed.rows.site_trees import count_determined_outcomes
from flfed.trees.forest import forest_of, gains_by_column
from flfed.updates.aggregation.rounds import Participants
from flfed.updates.arrays import Arrays
from flfed.updates.messages.compare import CompareReplies


class Trees(ServerPart):
    """Trees made of sums of gradients."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether the model is trees."""
        return run.layout.plain

    def first_arrays(self, participants: Participants, sums: SiteSums) -> Arrays:
        """Return no tree, and the cut points.

        Raises FlfedError where no site counted its rows.
        """
        return begun_forest(self.run, participants, sums)

    def record(self, model: FinalModel, replies: CompareReplies) -> None:
        """Record the gains of columns.

        The outcomes that the sums of the first trees reveal are recorded, too.
        """
        recorder = self.run.recorder
        forest = forest_of(model.outcome.arrays)
        names = [column.name for column in self.run.layout.features]
        gains = gains_by_column(forest, len(names)).tolist()
        columns = [{"column": name, "gain": gain} for name, gain in zip(names, gains, strict=True)]
        summary = {"trees": sum(map(len, forest)), "columns": columns}
        recorder.summary("gains", summary)
        # The count is of all trees, where this engine has the tables. Validation rows may have chosen none of them, and
        # their sums have left all the same.
        if model.tables is None or self.run.study.compare.is_summed:
            return
        grown = model.strategy.round.incoming
        outcomes = count_determined_outcomes(model.tables.sessions(list(replies)), model.outcome.encoder, grown)
        recorder.summary("revealed-outcomes", outcomes)
