"""A statistic, or an analysis, in place of a model: the kind of run with one exchange."""

from __future__ import annotations

from flfed.study.statistic import is_statistic
from flfed.updates.messages.countersign import SEAL, SEALED
from flfed.updates.messages.kinds import ENROL, STATISTIC
from flfed.updates.parts.border import Border, Exchanges, Wanted
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
