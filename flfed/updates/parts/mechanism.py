"""The privacy mechanism of a study, and noise that covers all releases of a site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flfed.summaries.noised_scores import BINS, COUNTS, FARTHEST
from flfed.updates.messages.kinds import COMPARE, ENROL, EVALUATE, SCORES, STATISTIC, SUMMARISE, TRAIN
from flfed.updates.messages.train import OFFSET
from flfed.updates.parts.part import (
    Border,
    Exchanges,
    Exclusion,
    Part,
    Place,
    Release,
    Releases,
    StudyFacts,
    Text,
    Wanted,
)
from flfed.updates.sections import Plain, Sections, arrays, config, number


class PrivacyMechanism(Part):
    """The mechanism's own check of the study."""

    title = "a privacy mechanism"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study has one."""
        return facts.study.privacy.name != "none"

    def check(self, facts: StudyFacts) -> None:
        """Refuse a study that the mechanism cannot protect; raises UsageError."""
        facts.mechanism.check(facts.study)


class NoiseOnRows(Part):
    """Noise that protects rows while they are trained on."""

    title = "noise on each row (record-dp)"
    exclusions = (
        Exclusion(
            "rows-apart",
            "a torch.nn.Module",
            # In a module one row's output may depend on the rows beside it.
            lambda facts: not getattr(facts.model, "rows_apart", True),
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether the mechanism protects rows."""
        return facts.protects_rows


class CoveringNoise(Part):
    """A privacy budget to which every release is charged."""

    title = "[privacy] covers = 'study'"
    exclusions = (
        Exclusion(
            "covers-task",
            "other outcomes than binary",
            lambda facts: facts.task != "binary",
        ),
        Exclusion(
            "covers-own-part",
            "a site-specific strategy",
            lambda facts: bool(facts.extra.own_part),
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study is covered."""
        return facts.study.covers_model

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return a request for noised scores: of a model, in bins about a base rate."""
        if kind != SCORES:
            return sections
        return {**sections, "config": config({"centre": number(-FARTHEST, FARTHEST)})}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return noised counts alone: no loss, no score and no intercept of a round leaves."""
        if wanted.kind == SCORES:
            return {"config": config({}), "scores": arrays({"counts": ((2, BINS), np.dtype(np.float64))})}
        if not border.study.covers_model:
            return sections
        if wanted.kind == STATISTIC:
            return {"config": config({}), "sums": arrays({COUNTS: ((2,), np.dtype(np.float64))})}
        if wanted.kind in (TRAIN, EVALUATE):
            return _without_figures(sections)
        return sections

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Replace sums over rows and the comparison by noised counts."""
        if not border.study.covers_model:
            return without
        others = [kind for kind in without.once if kind not in (SUMMARISE, EVALUATE, COMPARE)]
        return replace(without, once=(*others, STATISTIC, SCORES))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Replace all releases by those with noise."""
        study = border.study
        if not study.covers_model:
            return without
        rounds = Text("rounds", {"rounds": study.rounds})
        releases = [
            Release(Place.ENROLMENT, Text("covered-enrolment"), ENROL),
            Release(Place.BEFORE_ROUNDS, Text("covered-counts"), STATISTIC),
            Release(Place.ROUND, Text("covered-update", {"rounds": rounds}), TRAIN),
            Release(Place.END, Text("covered-scores"), SCORES),
        ]
        return tuple(releases)


def _without_figures(sections: Sections) -> Sections:
    """Return the sections of an update alone."""
    left = {name: section for name, section in sections.items() if name != OFFSET and not name.startswith("scores")}
    metrics = left["metrics"]
    if isinstance(metrics, Plain):
        left["metrics"] = replace(metrics, fields={name: of for name, of in metrics.fields.items() if name != "loss"})
    return left
