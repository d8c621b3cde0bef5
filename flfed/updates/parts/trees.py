"""Gradient-boosted trees, whose sums are of gradients by cell and not of models."""

from __future__ import annotations

from typing import Any

from flfed.study.exchanges import refits
from flfed.study.tables import TREES
from flfed.updates.parts.part import Exclusion, Part, StudyFacts


def _is_model_alone(facts: StudyFacts) -> bool:
    return _are_trees(facts.model) != (facts.study.strategy.name == TREES)


def _are_trees(model: Any) -> bool:
    return bool(getattr(model, "plain", False))


def _left_out(other: str) -> str:
    return f"{other} does not go with {TREES}: leave it out"


class Trees(Part):
    """Trees, which are a model and a strategy."""

    title = "trees"
    exclusions = (
        Exclusion(
            other="another model or strategy",
            applies=_is_model_alone,
            sentence=f"[model] {{model}} and [strategy] {{strategy}}: {TREES} is a model and a strategy: name it under "
            "both, or under neither",
            alone=True,
        ),
        Exclusion(
            other="[model]: warm-start",
            applies=lambda facts: bool(facts.study.warm_start),
            sentence=_left_out("[model]: warm-start"),
        ),
        Exclusion(
            other="[codec]: name",
            applies=lambda facts: facts.study.codec.name != "none",
            sentence=_left_out("[codec]: name"),
        ),
        Exclusion(
            other="[codec]: download",
            applies=lambda facts: facts.study.download != "none",
            sentence=_left_out("[codec]: download"),
        ),
        Exclusion(
            other="[encode]: missing-indicator",
            applies=lambda facts: bool(facts.study.encode.missing_indicator),
            sentence=_left_out("[encode]: missing-indicator"),
        ),
        Exclusion(
            other="[compare]: pooled",
            applies=lambda facts: facts.study.compare.pooled is not None,
            sentence=_left_out("[compare]: pooled"),
        ),
        Exclusion(
            other="[privacy]: name",
            applies=lambda facts: facts.study.privacy.name != "none",
            sentence=f"[privacy]: {{mechanism}} does not go with {TREES}: what its noise leaves of trees is worse than "
            "a perceptron with the same promise (on taiwan-credit an AUC of .75 to .77 at epsilon 3, untuned, against "
            ".766): take model 'mlp'",
        ),
        Exclusion(
            other="[strategy]: refit with secure-aggregation",
            applies=lambda facts: refits(facts.study) and facts.study.secure_aggregation != "off",
            sentence="[strategy]: refit grows the first trees twice, without the validation rows and with them, and "
            "the difference is of these rows alone: it is for open data, and does not go with [privacy] "
            "secure-aggregation: leave one of them out",
        ),
        Exclusion(
            other="[privacy]: secure-aggregation = 'ckks'",
            applies=lambda facts: facts.study.secure_aggregation == "ckks",
            sentence=f"[privacy]: secure-aggregation='ckks' is of models; the sums of {TREES} are masked: set 'on'",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether the model or the strategy is of trees."""
        return _are_trees(facts.model) or facts.study.strategy.name == TREES
