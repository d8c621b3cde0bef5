"""Noise that covers all that leaves a site."""

from __future__ import annotations

from flfed.study.coverage import covers_model
from flfed.updates.parts.part import Exclusion, Part, StudyFacts


class CoveringNoise(Part):
    """A privacy budget to which every release is charged."""

    title = "[privacy] covers = 'study'"
    exclusions = (
        Exclusion(
            other="an outcome that is not yes or no",
            applies=lambda facts: facts.task != "binary",
            sentence="[privacy]: covers = 'study' is for outcomes that are yes or no, by which scores are counted; the "
            "task of the dataset is {task}",
        ),
        Exclusion(
            other="a strategy with a part of the model at each site",
            applies=lambda facts: bool(facts.extra.own_part),
            sentence="[strategy] {strategy}: a part of the model is each site's own, and [privacy] covers = 'study' "
            "scores the shared one: leave one of them out",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study is covered."""
        return covers_model(facts.study)
