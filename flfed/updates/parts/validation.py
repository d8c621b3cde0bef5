"""Validation of a model that somebody brings along: no round, and one comparison over all rows of each site."""

from __future__ import annotations

from collections.abc import Callable

from flfed.summaries.recalibration import RecalibrationFigure
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.kinds import COMPARE, ENROL, SEAL, SEALED
from flfed.updates.parts.part import Border, Exchanges, Exclusion, Part, Place, Release, Releases, StudyFacts, Text
from flfed.updates.parts.run_kinds import comparison_releases

_LEFT_OUT: dict[str, Callable[[StudyFacts], bool]] = {
    "[privacy]: name": lambda facts: facts.study.privacy.name != "none",
    "[privacy]: secure-aggregation": lambda facts: facts.study.aggregation.sums_updates,
    "[codec]": lambda facts: facts.packs,
    "[plan]: validation": lambda facts: bool(facts.study.plan.validation),
    "[split]": lambda facts: bool(facts.study.split.fixed),
    "[model]: frozen-layers": lambda facts: facts.study.frozen_layers > 0,
    "[encode]: scaler": lambda facts: facts.study.encode.scaler != "global",
    "[compare]: incumbent": lambda facts: facts.study.compare.incumbent is not None,
    "[compare]: site-columns": lambda facts: facts.study.compare.site_columns,
    "[compare]: pooled": lambda facts: facts.study.compare.pooled is not None,
    "[compare]: false-positive-rates": lambda facts: bool(facts.study.compare.false_positive_rates),
}
"""Keys of a study that have no place where nothing is trained."""


class Validation(Part):
    """A model that sites score, and nobody trains."""

    title = "[model]: train = false"
    exclusions = tuple(Exclusion("validation-without", other, applies) for other, applies in _LEFT_OUT.items())

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study validates a model."""
        return not facts.study.train

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run."""
        if border.study.train:
            return without
        return Exchanges(once=(ENROL, SEAL, COMPARE, SEAL, SEALED))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the enrolment, and the figures over all rows."""
        if border.study.train:
            return without
        figures = Text("validation", {"reveals": CompareReply})
        releases = [
            Release(Place.ENROLMENT, Text("enrolment", {"reveals": EnrolReply}), ENROL),
            *comparison_releases(border, figures),
        ]
        if border.study.compare.calibration:
            releases.append(Release(Place.END, Text("recalibration", {"reveals": RecalibrationFigure})))
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own figures."""
        return without if border.study.train else "validation"
