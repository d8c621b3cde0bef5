"""Sites that train a part of a model's hidden units."""

from __future__ import annotations

from flfed import registry
from flfed.updates.parts.part import Exclusion, Part, StudyFacts

_SOME = "[dataset] partition: widths={widths} lets sites train a part of the hidden units, and "
_LEAVE = ": leave one of them out"


def _takes_whole_models(facts: StudyFacts) -> bool:
    strategy = registry.load("strategy", facts.study.strategy.name)
    return not getattr(strategy, "parts", True)


class PartOfUnits(Part):
    """Widths of a partition."""

    title = "a part of the hidden units"
    exclusions = (
        Exclusion(
            other="[model]: warm-start",
            applies=lambda facts: bool(facts.study.warm_start),
            sentence=f"{_SOME}warm-start under [model] begins with all of them{_LEAVE}",
        ),
        Exclusion(
            other="a model that names no layers",
            applies=lambda facts: not facts.layers,
            sentence=f"{_SOME}which they are of model '{{model}}' is not known: it names no layers{_LEAVE}",
        ),
        Exclusion(
            other="a strategy that needs whole models",
            applies=_takes_whole_models,
            sentence=f"{_SOME}strategy '{{strategy}}' needs updates of the whole model{_LEAVE}",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a site of the partition trains less than all of a network."""
        partition = facts.study.dataset.partition
        if partition is None or facts.model.linear:
            return False
        return any(width != 1 for width in partition.widths)
