"""Attacks on a run's own model, which a site runs on itself when it is asked to."""

from __future__ import annotations

from typing import get_args

from flfed import registry
from flfed.study.statistic import is_statistic
from flfed.updates.messages.audit import AUDIT, MOST_FIGURES, AuditReply, Verdict
from flfed.updates.messages.fields import METRIC
from flfed.updates.parts.border import Border, Place, Release, Releases, Text, Wanted
from flfed.updates.parts.part import Part, StudyFacts
from flfed.updates.sections import (
    SENTENCE,
    WORDS,
    Columns,
    Sections,
    config,
    number,
    one_of,
    text,
    whole,
    with_fields,
)

LONGEST = 1000
"""Characters of a sentence about an attack."""


class Audit(Part):
    """Attacks after a run, one a request."""

    title = "audits"

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell that every study may be audited; a site's policy decides."""
        return True

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Add the attack: one that flfed brings; another package's is not run when asked."""
        if kind != AUDIT:
            return sections
        others = registry.others("attack")
        attacks = [name for name in registry.names("attack") if name not in others]
        return {**sections, "config": with_fields(sections["config"], {"attack": one_of(attacks)})}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return one attack's figures: numbers, and sentences of flfed with nothing but numbers in them."""
        if wanted.kind != AUDIT:
            return sections
        plain = {name: number(nan=True) for name in ("value", "low", "high", "promise")}
        # These sentences may also have an ε, which no other text of ours has.
        says = text(f"[ε{WORDS[1:]}", LONGEST)
        words = {"metric": text(METRIC, 80), "method": text(WORDS, SENTENCE), "says": says}
        fields = {**words, **plain, "verdict": one_of(get_args(Verdict)), "rows": whole()}
        figures = Columns(fields=fields, longest=MOST_FIGURES)
        return {"config": config({"num-examples": whole(1), "holdout-rows": whole()}), "figures": figures}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add the figures of attacks, where the site's policy lets a run be audited."""
        if not border.may_audit or is_statistic(border.study):
            return without
        figures = Text("audit", {"reveals": AuditReply})
        return (*without, Release(place=Place.AUDIT, text=figures, kind=AUDIT))
