"""Checks of a study before a table is read."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial

from flfed.errors import UsageError, nearest
from flfed.rows.comparison.incumbent import check_incumbent
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.data.site import start_refusal
from flfed.rows.evaluation.scoring import check_metrics, primary_of
from flfed.rows.statistics.of_study import statistic_of, unconfirmed_columns
from flfed.rows.study_model import model_shapes
from flfed.rows.training.functional import layers_of
from flfed.study.study import Study
from flfed.updates.mechanism import acting_mechanism
from flfed.updates.parts.every_part import PARTS
from flfed.updates.parts.part import StudyFacts, check_each
from flfed.vertical.alignment import require_vertical
from flfed.words import usage_error


def check(study: Study) -> dict[str, str]:
    """Check a study against everything that is listed, without reading a table.

    Returns
    -------
    facts : dict with "schema" (its hash), "task" and "primary"

    Raises
    ------
    UsageError
        With every defect, as far as one can be checked without another.
    """
    dataset = datasets.load(study.dataset.name)
    dataset.schema.features(study.dataset.features)
    if study.is_statistic:
        _check_statistic(study, dataset)
        _check_expired(study)
        return {"schema": dataset.schema.sha256(), "task": dataset.schema.task, "primary": ""}
    model = study.model.build("model")
    if dataset.schema.task not in model.tasks:
        raise usage_error(
            "run.check.model", name=study.model.title, tasks=" and ".join(model.tasks), task=dataset.schema.task
        )
    schema = dataset.schema
    facts = StudyFacts(
        study=study,
        task=schema.task,
        model=model,
        layers=len(layers_of(model)),
        shapes=model_shapes(study, schema),
    )
    checks: list[Callable[[], object]] = [partial(_check_plan, study, dataset)]
    checks += [partial(part.check, facts) for part in PARTS]
    if facts.protects_rows:
        checks.append(partial(_check_confirmed, study, dataset))
    checks += [
        partial(check_metrics, schema.task, study.compare),
        partial(_check_points, study, dataset),
        partial(groupings, study.compare.subgroups, schema),
        partial(_check_calibration, study, schema.task),
        partial(check_incumbent, study, schema),
        partial(_check_naive, study, dataset),
        partial(_check_expired, study),
    ]
    check_each(checks)
    primary = primary_of(schema.task, study.compare.primary, study.compare.alert_budget)
    return {"schema": schema.sha256(), "task": schema.task, "primary": primary}


def check_vertical(study: Study, engine: str, repeats: int) -> None:
    """Refuse a run that parties with different columns cannot make; raises UsageError."""
    if not study.is_vertical:
        return
    require_vertical()
    if engine == "ray":
        raise usage_error("run.vertical.engine", engine=engine)
    if engine == "deployment" and not study.dataset.sites:
        raise usage_error("run.vertical.sites")
    if repeats > 1:
        raise usage_error("run.vertical.repeats")
    if not datasets.load(study.dataset.name).schema.group:
        raise usage_error("run.vertical.group", dataset=study.dataset.name)


def _check_plan(study: Study, dataset: datasets.Dataset) -> None:
    """Refuse class weights of a numeric outcome.

    A start that is no model of this study is refused, too.
    """
    if study.plan.class_weight == "balanced" and dataset.schema.task == "regression":
        raise usage_error("run.check.weights")
    if refused := start_refusal(study):
        raise UsageError(f"[model]: warm-start={study.warm_start!r}: {refused}")


def _check_confirmed(study: Study, dataset: datasets.Dataset) -> None:
    """Refuse unconfirmed ranges that were read off rows, where noise protects rows."""
    unconfirmed = unconfirmed_columns(study, dataset.schema)
    # Such a range reveals the rows, and so does everything that is scaled by it, or counted within it.
    if unconfirmed:
        file = dataset.folder / "schema.toml"
        raise usage_error("run.check.unconfirmed", columns=", ".join(unconfirmed), file=file)


def _check_statistic(study: Study, dataset: datasets.Dataset) -> None:
    """Refuse columns that a statistic does not take."""
    statistic_of(study).columns(dataset.schema)
    if study.analysis is not None:
        _check_confirmed(study, dataset)
    acting_mechanism(study).check(study)


def _check_points(study: Study, dataset: datasets.Dataset) -> None:
    """Refuse counts of flagged rows where no row is flagged."""
    if study.compare.false_positive_rates and dataset.schema.task != "binary":
        raise usage_error("run.check.rates", task=dataset.schema.task)


def _check_calibration(study: Study, task: str) -> None:
    """Refuse calibration of an outcome that is not yes or no."""
    if study.compare.calibration and task != "binary":
        raise usage_error("run.check.calibration", task=task)


def _check_expired(study: Study) -> None:
    if study.expires is not None and datetime.date.today() > study.expires:
        raise usage_error("run.check.expired", day=study.expires.isoformat())


def _check_naive(study: Study, dataset: datasets.Dataset) -> None:
    """Refuse forecasts of a target that is no number.

    A column that is no feature of the study, or has another unit or transform than the target, is refused, too.
    """
    schema = dataset.schema
    names = study.compare.naive_forecasts
    target = schema.columns[schema.target]
    if names and schema.task != "regression":
        raise usage_error("study.compare.naive-forecasts", task=schema.task)
    features = schema.features(study.dataset.features)
    for name in names:
        if name not in features:
            raise usage_error("study.compare.feature", name=name, close=nearest(name, features))
        column = schema.columns[name]
        if (column.kind, column.unit, column.transform) != ("number", target.unit, target.transform):
            raise usage_error("study.compare.unit", name=name, target=schema.target)
