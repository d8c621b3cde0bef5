"""Checks of a study before a table is read."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import flfed
from flfed.errors import UsageError
from flfed.refusals import Refusal
from flfed.rows.comparison.own_columns import check_own_columns
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import start_refusal
from flfed.rows.evaluation.scoring import primary_of
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.study_model import model_shapes
from flfed.rows.training.functional import layers_of
from flfed.rows.training.tuning.best_model import check_naive
from flfed.study.kinds import is_statistic
from flfed.study.study import Study
from flfed.updates.mechanism import mechanism_of
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.parts.every_part import PARTS
from flfed.updates.parts.part import StudyFacts, check_each


def check(study: Study) -> dict[str, str]:
    """Check a study without reading a table.

    It is held against everything that is listed.

    Returns
    -------
    facts : dict with "schema" (its hash), "task" and "primary"

    Raises
    ------
    UsageError
        For all that does not fit, as far as one thing can be looked at without another.
    """
    dataset = datasets.load(study.dataset.name)
    dataset.schema.features(study.dataset.features)
    if is_statistic(study):
        _check_statistic(study, dataset.schema)
        _check_expired(study)
        return {"schema": dataset.schema.sha256(), "task": dataset.schema.task, "primary": ""}
    model = study.model.build("model")
    if dataset.schema.task not in model.tasks:
        raise UsageError(
            f"[model] {study.model.name}: is for {' and '.join(model.tasks)}, "
            f"the dataset's task is {dataset.schema.task!r}"
        )
    schema = dataset.schema
    facts = StudyFacts(
        study=study,
        task=schema.task,
        model=model,
        layers=len(layers_of(model)),
        shapes=model_shapes(study, schema),
    )
    checks: list[Callable[[], object]] = [partial(_check_plan, study, schema)]
    checks += [partial(part.check, facts) for part in PARTS]
    checks += [
        partial(_check_confirmed, facts, dataset),
        partial(_check_points, study, schema),
        partial(_check_steps, study, schema),
        partial(groupings, study.compare.by, schema),
        partial(check_own_columns, study, schema),
        partial(check_naive, study, schema),
        partial(_check_expired, study),
    ]
    check_each(checks)
    primary = primary_of(schema.task, study.compare.primary, study.compare.alert_budget)
    return {"schema": schema.sha256(), "task": schema.task, "primary": primary}


def _check_plan(study: Study, schema: Schema) -> None:
    """Refuse class weights of numbers, and a start that is no model of this study."""
    if study.plan.class_weight == "balanced" and schema.task == "regression":
        raise UsageError("[plan]: class-weight='balanced' needs classes; the dataset's task is 'regression'")
    if refused := start_refusal(study):
        raise UsageError(f"[model]: warm-start={study.warm_start!r}: {refused}")


def _check_confirmed(facts: StudyFacts, dataset: datasets.Dataset) -> None:
    """Refuse ranges that were read off rows, and that nobody has confirmed, where noise protects rows."""
    unconfirmed = dataset.schema.unconfirmed_features(facts.study.dataset.features)
    # Such a range tells of the rows, and so does whatever is scaled by it.
    if facts.protects_rows and unconfirmed:
        raise UsageError(unconfirmed_in_words(unconfirmed, dataset))


def unconfirmed_in_words(columns: Sequence[str], dataset: datasets.Dataset) -> str:
    """Return why columns that nobody has confirmed are not used under a guarantee."""
    return (
        f"[privacy]: nobody has confirmed the ranges or values of {', '.join(columns)} in "
        f"{dataset.folder / 'schema.toml'}, which were read off rows: correct them from public knowledge and take the "
        "names out of unconfirmed"
    )


def _check_statistic(study: Study, schema: Schema) -> None:
    """Refuse columns that a statistic does not take, and sums in secret of one that compares sites."""
    statistic = statistic_of(study)
    columns = statistic.columns(schema)
    unconfirmed = [name for name in columns if name in schema.unconfirmed]
    # A range that was read off rows tells of them, and so does whatever is counted within it.
    if study.analysis is not None and unconfirmed:
        raise UsageError(unconfirmed_in_words(unconfirmed, datasets.load(study.dataset.name)))
    mechanism = mechanism_of(study)
    if mechanism is not None:
        mechanism.check(study)
    if study.aggregation.sums_updates and not statistic.adds_up:
        raise UsageError(
            f"[privacy]: statistic {study.statistic.name!r} holds each site's own figures against those of all, and "
            "secure-aggregation has sums of all sites alone: leave one of them out"
        )


def _check_points(study: Study, schema: Schema) -> None:
    """Refuse counts of flagged rows where nothing is flagged."""
    if study.compare.points and schema.task != "binary":
        raise UsageError(
            "[compare]: thresholds, alert-budgets and false-positive-rates are for outcomes that are yes or no; the "
            f"dataset's task is {schema.task!r}"
        )


def _check_steps(study: Study, schema: Schema) -> None:
    """Refuse a rank correlation within what is no step of time, or of what has no ranks."""
    name = study.compare.rank_within
    if not name:
        return
    if schema.task != "regression":
        raise UsageError(
            f"[compare]: rank-within is for outcomes that are numbers; the dataset's task is {schema.task!r}"
        )
    if name not in schema.columns or schema.columns[name].kind != "date":
        known = [one for one, column in schema.columns.items() if column.kind == "date"]
        raise UsageError(f"[compare]: rank-within={name!r} must be a date of the dataset: {', '.join(known) or 'none'}")


def _check_expired(study: Study) -> None:
    if study.expires is not None and datetime.date.today() > study.expires:
        raise UsageError(f"the study expired on {study.expires.isoformat()}; its sites would refuse it")


def of_own_version(reply: EnrolReply) -> EnrolReply:
    """Return an enrolment, refused where the site has another version of flfed than the coordinator."""
    if not reply.accepted or reply.version == flfed.__version__:
        return reply
    reason = Refusal("other-version", theirs=reply.version or "none", ours=flfed.__version__)
    return replace(reply, accepted=False, reason=str(reason))
