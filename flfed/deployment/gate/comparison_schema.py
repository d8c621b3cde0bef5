"""Expected sections of a comparison: figures of each model, and what only some studies ask for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from flfed.refusals import LONGEST
from flfed.rows.comparison.compare import OWN_SAME, PAIRS, STARTED
from flfed.rows.comparison.own_columns import ARM as OWN_COLUMNS
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.evaluation.scoring import metrics_asked
from flfed.study.tables import NAIVE_FAMILIES, OWN_FAMILIES, POINT_KINDS
from flfed.summaries.score_bins import LEAST_SPREAD
from flfed.updates.messages.compare import MOST_SITES, TRAINED
from flfed.updates.parts.border import histogram_section
from flfed.updates.sections import (
    SENTENCE,
    WORDS,
    Columns,
    Field,
    Plain,
    Sections,
    arrays,
    config,
    equal,
    float_of,
    number,
    one_of,
    text,
    whole,
)

if TYPE_CHECKING:
    from flfed.rows.data.policy import Policy
    from flfed.rows.data.schema import Schema
    from flfed.study.study import Study
    from flfed.summaries.summary import Layout
    from flfed.updates.codec import Shapes
    from flfed.updates.parts.border import Border


def choices(study: Study, schema: Schema) -> tuple[dict[str, Field], dict[str, Field]]:
    """Return the fields that a request always has, and those that it may have.

    These are the adjustment of intercepts, and the bins where the task is binary.
    """
    always = {"sites": whole(1, MOST_SITES), "trained": one_of(TRAINED)}
    optional = {"offset-deviation": number(0)} if study.adjusts_intercept() else {}
    if schema.task == "binary":
        optional["odds-centre"] = number()
        optional["odds-spread"] = number(LEAST_SPREAD)
    return always, optional


def comparison(border: Border, schema: Schema, policy: Policy, sums: Shapes) -> Sections:
    """Return the sections of a comparison; `sums` are those over rows."""
    study = border.study
    metrics = sorted(metrics_asked(schema.task, study.compare))
    family: Sections = {}
    if study.compare.own == "best":
        family = {"own-model": Plain(fields={"family": one_of(OWN_FAMILIES)}, needed=False)}
    plain = {"num-examples": whole(1), "holdout-rows": whole(), "note": text(WORDS, LONGEST)}
    return {
        "config": config(plain),
        "arms": _figures(metrics, sorted(_arms(study, schema))),
        "differences": _figures(metrics, [f"{a} - {b}" for a, b in PAIRS]),
        "summary": arrays(sums, needed=False),
        **histogram_section(border, "histogram"),
        **family,
        **points(study, schema, policy),
        **groups(study, schema),
        **importance(study, border.layout),
    }


def without_figures() -> Sections:
    """Return the sections of a comparison whose figures stay, or leave in a sum over several sites only."""
    return {"config": config({"num-examples": whole(1), "holdout-rows": whole(), "note": equal("")})}


def _arms(study: Study, schema: Schema) -> set[str]:
    """Return the models that may be compared."""
    arms = {arm for pair in PAIRS for arm in pair}
    if study.compare.own == "best":
        arms.add(OWN_SAME)
        if schema.task == "regression":
            arms |= set(NAIVE_FAMILIES)
    if study.warm_start:
        arms |= set(STARTED)
    if study.compare.declared_columns:
        arms.add(OWN_COLUMNS)
    return arms


def _figures(metrics: Collection[str], arms: Collection[str]) -> Columns:
    plain = {name: number(nan=True) for name in ("value", "low", "high", "extra")}
    fields = {"metric": one_of(metrics), "arm": one_of(arms), **plain, "method": text(WORDS, SENTENCE)}
    return Columns(fields=fields, longest=len(metrics) * len(arms))


def points(study: Study, schema: Schema, policy: Policy) -> Sections:
    """Return the section of exact counts, none where the study asks for none.

    A count is large enough for the policy, or is not there.
    """
    points = study.compare.points
    if not points or schema.task != "binary":
        return {}
    least = policy.least_rows()
    count = whole(0 if least == 1 else least, beside=-1)
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), count)
    at = float_of({at for _, at in points})
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
