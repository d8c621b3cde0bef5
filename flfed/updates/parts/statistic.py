"""A statistic, or an analysis, in place of a model: the kind of run with one exchange."""

from __future__ import annotations

from flfed import registry
from flfed.study.statistic import is_statistic
from flfed.updates.messages.countersign import SEAL, SEALED
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.kinds import ENROL, STATISTIC
from flfed.updates.messages.summarise import StatisticReply
from flfed.updates.parts.border import Border, Exchanges, Place, Release, Releases, Text, Wanted
from flfed.updates.parts.part import Part, StudyFacts
from flfed.updates.sections import Sections, arrays, config


class Statistic(Part):
    """Sums over the rows of all sites."""

    title = "[statistic]"

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study asks for one."""
        return is_statistic(facts.study)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return a request that says nothing: the study has all."""
        return {"config": config({})} if kind == STATISTIC else sections

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return the statistic's sums."""
        if wanted.kind != STATISTIC or not is_statistic(border.study):
            return sections
        return {"config": config({}), "sums": arrays(border.statistic)}

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the one exchange, and what opens its sum."""
        if not is_statistic(border.study):
            return without
        return Exchanges(once=(ENROL, SEAL, STATISTIC, SEAL, SEALED), sums=1)

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the one answer, and what opens its sum."""
        if not is_statistic(border.study):
            return without
        name = border.study.statistic.name
        statistic = border.statistic_type
        if border.study.analysis is not None:
            enrolment = Text("analysis-enrolment")
            answer = Text("analysis", {"reveals": statistic})
        else:
            enrolment = Text("statistic-enrolment", {"reveals": EnrolReply})
            label = registry.load("statistic", name).label
            facts = {"reveals": StatisticReply, "name": name, "label": label, "of_statistic": statistic}
            answer = Text("statistic", facts)
        return (
            Release(place=Place.ENROLMENT, text=enrolment),
            Release(place=Place.ROUND, text=answer, kind=STATISTIC),
        )

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own sums."""
        return "statistic" if is_statistic(border.study) else without
