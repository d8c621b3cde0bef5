"""The privacy mechanism of a study."""

from __future__ import annotations

from flfed.updates.parts.part import Exclusion, Part, StudyFacts


class PrivacyMechanism(Part):
    """The mechanism's own check of the study."""

    title = "a privacy mechanism"

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study has one."""
        return facts.mechanism is not None

    def check(self, facts: StudyFacts) -> None:
        """Refuse a study that the mechanism cannot protect; raises UsageError."""
        if facts.mechanism is not None:
            facts.mechanism.check(facts.study)


class NoiseOnRows(Part):
    """Noise that protects rows while they are trained on."""

    title = "noise on each row (record-dp)"
    exclusions = (
        Exclusion(
            other="a model whose rows may see each other",
            # Nobody knows whether one row's output in a module depends on the rows beside it.
            applies=lambda facts: not getattr(facts.model, "rows_apart", True),
            sentence="[privacy]: {mechanism} needs a model whose rows do not see each other; a torch.nn.Module is not "
            "looked through for that: use a listed model, or a model's class",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether the mechanism protects rows."""
        return facts.protects_rows
