"""Different columns of the same people: rows are aligned, and partial scores and residuals cross between parties."""

from __future__ import annotations

from collections.abc import Callable

from flfed.study.kinds import is_vertical
from flfed.updates.parts.part import Exclusion, Part, StudyFacts

MODELS = ("logistic", "linear")
_LEFT_OUT: dict[str, Callable[[StudyFacts], bool]] = {
    "[privacy]: name": lambda facts: facts.study.privacy.name != "none",
    "[privacy]: secure-aggregation": lambda facts: facts.study.aggregation.sums_updates,
    "[codec]": lambda facts: facts.packs,
    "[dataset]: partition": lambda facts: facts.study.dataset.partition is not None,
    "[split]": lambda facts: bool(facts.study.split.fixed),
    "[model]: warm-start": lambda facts: bool(facts.study.warm_start),
    "[model]: frozen-layers": lambda facts: facts.study.frozen_layers > 0,
    "[encode]: scaler": lambda facts: facts.study.encode.scaler != "global",
    "[encode]: rows": lambda facts: facts.study.encode.rows != "all",
    "[compare]: incumbent": lambda facts: facts.study.compare.incumbent is not None,
    "[compare]: site-columns": lambda facts: facts.study.compare.site_columns,
    "[compare]: pooled": lambda facts: facts.study.compare.pooled is not None,
    "[compare]: importance": lambda facts: bool(facts.study.compare.importance),
    "[compare]: own-rows": lambda facts: facts.study.compare.own_rows is not None,
    "[compare]: false-positive-rates": lambda facts: bool(facts.study.compare.false_positive_rates),
}
"""Keys of a study that have no place where parties have different columns."""


class Vertical(Part):
    """A linear model whose columns stand at several parties."""

    title = "strategy 'vertical'"
    exclusions = (
        *(Exclusion("vertical-without", other, applies) for other, applies in _LEFT_OUT.items()),
        Exclusion("vertical-model", "another model", lambda facts: facts.study.model.name not in MODELS),
        Exclusion("vertical-task", "several classes", lambda facts: facts.task == "multi-class"),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether the strategy is of parties with different columns."""
        return is_vertical(facts.study)
