"""The statistic that a study asks for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

from flfed import registry
from flfed.errors import UsageError, unknown
from flfed.rows.data.schema import Schema
from flfed.rows.statistics.design import KINDS
from flfed.rows.statistics.newton import NewtonStatistic
from flfed.rows.statistics.statistic import ROWS_EACH, Statistic, VisitedStatistic
from flfed.study.kinds import absent_effects
from flfed.study.study import Study
from flfed.words import render, usage_error

ESTIMATES = ("glm", "cox", "mantel-haenszel", "odds-ratio", "survival")
"""Statistics that `flfed study new` writes."""
KINDS_BY_OPTION = {"of": KINDS, "by": ("flag", "category"), "time": ("number",), "event": ("flag",)}
"""Kinds of columns that an option of `flfed study new` may name."""


def statistic_of(study: Study) -> Statistic:
    """Return the statistic that a study names, or its analysis.

    Raises UsageError for a setting that it does not take.

    Of an analysis it has columns and shapes, and no noise yet: `NoisedAnalysis.of_study` has.
    """
    if study.analysis is not None:
        from flfed.rows.statistics.noised_analysis import NoisedAnalysis  # it needs torch

        return NoisedAnalysis.of_study(study, math.nan)
    try:
        made: Statistic = study.statistic.build("statistic")
    # All keys are known and of the right kind: some are missing.
    except TypeError:
        parameters = inspect.signature(registry.load("statistic", study.statistic.name)).parameters.values()
        needed = ", ".join(one.name for one in parameters if one.default is inspect.Parameter.empty)
        raise usage_error("study.statistic.setting", name=study.statistic.name, needed=needed) from None
    return made


def visits_in_words(study: Study, schema: Schema) -> list[str]:
    """Return how often a statistic asks its sites, what for, and which effects it lacks; nothing where it asks once."""
    statistic = statistic_of(study) if study.is_statistic else None
    if not isinstance(statistic, VisitedStatistic):
        return []
    coefficients = sum(values.size for values in statistic.first(schema).values())
    numbers = sum(math.prod(shape) for shape, _ in statistic.shapes(schema).values())
    facts = {"visits": statistic.visits, "numbers": numbers}
    visits = render("check.study.visits", **facts, coefficients=coefficients, rows=ROWS_EACH * coefficients)
    return [visits, *(absent_effects(statistic.names(schema)) if isinstance(statistic, NewtonStatistic) else [])]


def unconfirmed_columns(study: Study, schema: Schema) -> list[str]:
    """Return the columns that a study reads and nobody has confirmed."""
    columns = (*schema.features(study.dataset.features), schema.target)
    if study.analysis is not None:
        columns = statistic_of(study).columns(schema)
    return [name for name in columns if name in schema.unconfirmed]


def choose_estimate(
    name: str, schema: Schema, columns: Mapping[str, str], others: Mapping[str, object]
) -> dict[str, object]:
    """Return the settings of a new study's statistic: those that are chosen, and those that follow from the schema.

    Parameters
    ----------
    name : str
        "" where only columns are named.
    schema : Schema
    columns, others : mapping of str to str or object
        Options of `flfed study new` for a statistic, and for a study with a model; empty where not given.

    Raises
    ------
    UsageError
        For an unknown statistic, and for an option that it does not take, or lacks.
    """
    _check_statistic(name, columns, others)
    parameters = inspect.signature(registry.load("statistic", name)).parameters
    values = _chosen_columns(columns)
    for option in values:
        if option not in parameters:
            taken = ", ".join(f"--{other}" for other in columns if other in parameters)
            raise usage_error("study.estimate.option", name=name, option=option, options=taken)
    values["family"] = _family_of(schema, columns["outcome"] or schema.target)
    if schema.task == "binary":
        values.setdefault("event", schema.target)
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in values:
            raise _missing_option(name, option, schema)
    return {"name": name} | {key: values[key] for key in parameters if key in values}


def _check_statistic(name: str, columns: Mapping[str, str], others: Mapping[str, object]) -> None:
    """Refuse columns without a statistic, an unknown one, and options of a study with a model."""
    if not name:
        raise usage_error("study.estimate.alone", option=next(filter(columns.get, columns)))
    if name not in ESTIMATES:
        raise unknown("--estimate", name, ESTIMATES)
    for option, value in others.items():
        if value:
            raise usage_error("study.estimate.model", option=option)


def _chosen_columns(columns: Mapping[str, str]) -> dict[str, object]:
    """Return the columns that are given, by option."""
    chosen: dict[str, object] = {option: column for option, column in columns.items() if column}
    if columns["of"]:
        chosen["of"] = tuple(part.strip() for part in columns["of"].split(",") if part.strip())
    return chosen


def _family_of(schema: Schema, outcome: str) -> str:
    """Return the family of an outcome; whether a number is a count cannot be seen."""
    if outcome not in schema.columns:
        raise unknown("--outcome", outcome, tuple(schema.columns))
    return "gaussian" if schema.columns[outcome].is_number() else "binomial"


def _missing_option(name: str, option: str, schema: Schema) -> UsageError:
    """Return the refusal of a statistic without a column that it needs."""
    columns = []
    for column, of in schema.columns.items():
        is_pair = option != "by" or of.kind == "flag" or len(of.values) == 2
        is_time = option != "time" or (of.range or (0.0, 1.0))[0] >= 0
        if of.kind in KINDS_BY_OPTION[option] and is_pair and is_time:
            columns.append(column)
    facts = {"name": name, "option": option, "dataset": schema.name, "what": render(f"study.estimate.needs-{option}")}
    if columns:
        return usage_error("study.estimate.needed", columns=", ".join(columns), **facts)
    return usage_error("study.estimate.lacking", **facts)
