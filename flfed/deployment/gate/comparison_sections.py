"""Allowed sections of a comparison, its request's choices among them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import get_args

from flfed.refusals import LONGEST
from flfed.registry import kebab
from flfed.rows.comparison.arms import OWN_SAME, PAIRS, STARTED
from flfed.rows.comparison.incumbent import ARM as INCUMBENT
from flfed.rows.comparison.incumbent import PAIR as INCUMBENT_PAIR
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data.schema import Schema
from flfed.rows.evaluation.scoring import metrics_of
from flfed.study.study import Study
from flfed.study.tables import NAIVE_FAMILIES, OWN_FAMILIES
from flfed.summaries.score_bins import LEAST_SPREAD
from flfed.updates.messages.compare import MOST_SITES, TRAINED, CalibrationName, least_rows
from flfed.updates.parts.part import Border, histogram_section
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


def choices(study: Study, task: str) -> tuple[dict[str, Field], dict[str, Field]]:
    """Return the fields that a request always has, and the optional ones.

    These are the adjustment of intercepts, and the bins where the task is binary.
    """
    always = {"sites": whole(1, MOST_SITES), "trained": one_of(TRAINED)}
    optional = {"offset-deviation": number(0)} if study.adjusts_intercept() else {}
    if task == "binary":
        optional["odds-centre"] = number()
        optional["odds-spread"] = number(LEAST_SPREAD)
    return always, optional


def comparison(border: Border, schema: Schema, least: int) -> Sections:
    """Return the sections of a comparison.

    Parameters
    ----------
    border : Border
    schema : Schema
    least : int
        Fewest rows of a count that leaves, by the site's policy.
    """
    study = border.study
    rows = {kebab(name): whole(fewest) for name, fewest in least_rows(trained=study.train).items()}
    metrics = sorted(metrics_of(border.task, study.compare.alert_budget))
    family: Sections = {}
    if study.compare.site_model == "best":
        family = {"own-model": Plain(fields={"family": one_of(OWN_FAMILIES)}, needed=False)}
    return {
        "config": config({**rows, "note": text(WORDS, LONGEST)}),
        "arms": _figures(metrics, sorted(_arms(study, border.task))),
        **_differences(metrics, study),
        "summary": arrays(border.sums, needed=False),
        **histogram_section(border, "histogram"),
        **family,
        **points(border, least),
        **groups(study, schema),
        **importance(border),
        **calibration(study),
    }


def without_figures() -> Sections:
    """Return the sections of a comparison whose figures leave in a sum only."""
    return {"config": config({**dict.fromkeys(("num-examples", "holdout-rows"), equal(0)), "note": equal("")})}


def _arms(study: Study, task: str) -> set[str]:
    """Return the names of the compared models."""
    if not study.train:
        return {"global"}
    arms = set(chain.from_iterable(PAIRS))
    if study.compare.site_model == "best":
        arms.add(OWN_SAME)
        if task == "regression":
            arms |= set(NAIVE_FAMILIES)
    if study.warm_start:
        arms |= set(STARTED)
    if study.compare.incumbent is not None:
        arms.add(INCUMBENT)
    return arms


def _pairs(study: Study) -> list[tuple[str, str]]:
    """Return the pairs of compared models."""
    if not study.train:
        return []
    if study.compare.incumbent is None:
        return [*PAIRS]
    return [*PAIRS, INCUMBENT_PAIR]


def _figures(metrics: Collection[str], arms: Collection[str]) -> Columns:
    plain = {name: number(nan=True) for name in ("value", "low", "high", "extra")}
    fields = {"metric": one_of(metrics), "arm": one_of(arms), **plain, "method": text(WORDS, SENTENCE)}
    return Columns(fields=fields, longest=len(metrics) * len(arms))


def _differences(metrics: Collection[str], study: Study) -> Sections:
    """Return the section of differences between models; none where there is one model."""
    pairs = _pairs(study)
    return {"differences": _figures(metrics, [" - ".join(pair) for pair in pairs])} if pairs else {}


def points(border: Border, least: int) -> Sections:
    """Return the section of counts at false positive rates, none where the study has none.

    Those of an institution are missing.
    """
    rates = border.study.compare.false_positive_rates
    if not rates or border.task != "binary":
        return {}
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), whole(0, beside=-1) if least == 1 else equal(-1))
    fields = {"rate": float_of(set(rates)), **counts, "method": text(WORDS, SENTENCE)}
    return {"points": Columns(fields=fields, longest=len(rates))}


def groups(study: Study, schema: Schema) -> Sections:
    """Return the section of figures by group.

    There is none where the study names no column.
    """
    group_columns = groupings(study.compare.subgroups, schema)
    if not group_columns:
        return {}
    labels = list(chain.from_iterable(one.labels for one in group_columns))
    named = {"column": one_of([one.column for one in group_columns]), "group": one_of(labels)}
    figures = {name: number(nan=True) for name in ("value", "low", "high")}
    return {"groups": Columns(fields={**named, **figures, "method": text(WORDS, SENTENCE)}, longest=len(labels))}


def calibration(study: Study) -> Sections:
    """Return the section of slope and intercept.

    There is none where the study does not ask for calibration.
    """
    if not study.compare.calibration:
        return {}
    names = get_args(CalibrationName)
    figures = {name: number(nan=True) for name in ("value", "low", "high", "variance")}
    fields = {"name": one_of(names), **figures, "method": text(WORDS, SENTENCE)}
    return {"calibration": Columns(fields=fields, longest=len(names), distinct="name")}


def importance(border: Border) -> Sections:
    """Return the sections of feature importances.

    There are none where the study has no permutations.
    """
    if not border.study.compare.importance:
        return {}
    names = [column.name for column in border.layout.features]
    figures = {"column": one_of(names), "increase": number()}
    reasons = {"column": one_of(names), "method": text(WORDS, SENTENCE)}
    return {
        "importance": Columns(fields=figures, longest=len(names), distinct="column"),
        "withheld": Columns(fields=reasons, longest=len(names), distinct="column"),
    }
