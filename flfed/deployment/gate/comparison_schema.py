"""Expected sections of a comparison that only some studies ask for: exact counts, groups, importances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flfed.deployment.gate.message_sections import SENTENCE, WORDS, Columns, Field, Sections, number, one_of, text
from flfed.rows.comparison.subgroups import groupings
from flfed.study.tables import POINT_KINDS
from flfed.updates.messages.fields import LARGEST

if TYPE_CHECKING:
    from flfed.rows.data.policy import Policy
    from flfed.rows.data.schema import Schema
    from flfed.study.study import Study
    from flfed.summaries.summary import Layout


def points(study: Study, schema: Schema, policy: Policy) -> Sections:
    """Return the section of exact counts, none where the study asks for none.

    A count is large enough for the policy, or is not there.
    """
    points = study.compare.points
    if not points or schema.task != "binary":
        return {}
    known = {at for _, at in points}
    least = policy.least_rows()
    small = 0 if least == 1 else least
    at = Field(fits=lambda value: type(value) is float and value in known)
    count = Field(fits=lambda value: type(value) is int and (value == -1 or small <= value <= LARGEST))
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), count)
    fields = {"by": one_of(POINT_KINDS), "at": at, **counts, "method": text(WORDS, SENTENCE)}
    return {"points": Columns(fields=fields, longest=len(points))}


def groups(study: Study, schema: Schema) -> Sections:
    """Return the section of figures by group, none where the study names no column."""
    found = groupings(study.compare.by, schema)
    if not found:
        return {}
    labels = [label for one in found for label in one.labels]
    named = {"column": one_of([one.column for one in found]), "group": one_of(labels)}
    figures = {name: number(nan=True) for name in ("value", "low", "high")}
    return {"groups": Columns(fields={**named, **figures, "method": text(WORDS, SENTENCE)}, longest=len(labels))}


def importance(study: Study, layout: Layout) -> Sections:
    """Return the sections of columns' importances, none where the study asks for no permutations."""
    if not study.compare.importance:
        return {}
    names = [column.name for column in layout.features]
    figures = {"column": one_of(names), "increase": number()}
    reasons = {"column": one_of(names), "method": text(WORDS, SENTENCE)}
    return {
        "importance": Columns(fields=figures, longest=len(names), distinct="column"),
        "withheld": Columns(fields=reasons, longest=len(names), distinct="column"),
    }
