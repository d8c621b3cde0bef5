"""Checks of a study before a table is read."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flfed import registry
from flfed.errors import UsageError, require_extra
from flfed.federation.server.codecs import UNREADABLE
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
from flfed.rows.training.tuning.naive import check_naive
from flfed.study.coverage import covers_model
from flfed.study.exchanges import refits
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.study.tables import TREES
from flfed.updates.codec import codec_of, download_of, entries_of
from flfed.updates.extra import check_extra, extra_shapes
from flfed.updates.masking.ckks import MOST_ENTRIES, range_refusal
from flfed.updates.masking.encrypted_model import vector_entries
from flfed.updates.masking.rules import LEAST
from flfed.updates.mechanism import Mechanism, mechanism_of
from flfed.updates.strategies.fedavg import FedAvg


def check(study: Study) -> dict[str, str]:
    """Check a study without reading a table.

    It is held against everything that is listed.

    Returns
    -------
    facts : dict with "schema" (its hash), "task" and "primary"

    Raises
    ------
    UsageError
        For the first thing that does not fit.
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
    if study.plan.class_weight == "balanced" and dataset.schema.task == "regression":
        raise UsageError("[plan]: class-weight='balanced' needs classes; the dataset's task is 'regression'")
    if refused := start_refusal(study):
        raise UsageError(f"[model]: warm-start={study.warm_start!r}: {refused}")
    _check_trees(study, model)
    _check_frozen(study, model)
    _check_widths(study, model)
    # Strategy and mechanism know best which plans they can run.
    study.strategy.build("strategy").check(study.plan)
    mechanism = mechanism_of(study)
    if mechanism is not None:
        mechanism.check(study)
    codec_of(study)
    _check_sums(study)
    if study.secure_aggregation == "ckks":
        _check_encrypted(study, dataset.schema)
    by_row = mechanism is not None and mechanism.private_steps(study.plan, study.rounds) is not None
    check_extra(study, model_shapes(study, dataset.schema), by_row=by_row)
    # Nobody knows whether one row's output in a module depends on the rows beside it.
    if by_row and not getattr(model, "rows_apart", True):
        raise UsageError(
            f"[privacy]: {study.privacy.name} needs a model whose rows do not see each other; a torch.nn.Module is not "
            "looked through for that: use a listed model, or a model's class"
        )
    unconfirmed = dataset.schema.unconfirmed_features(study.dataset.features)
    # A range that was read off rows tells of them, and so does whatever is scaled by it.
    if by_row and unconfirmed:
        raise UsageError(unconfirmed_in_words(unconfirmed, dataset))
    if covers_model(study):
        _check_covered(study, dataset.schema)
    _check_points(study, dataset.schema)
    _check_steps(study, dataset.schema)
    groupings(study.compare.by, dataset.schema)
    check_own_columns(study, dataset.schema)
    check_naive(study, dataset.schema)
    primary = primary_of(dataset.schema.task, study.compare.primary, study.compare.alert_budget)
    _check_expired(study)
    return {"schema": dataset.schema.sha256(), "task": dataset.schema.task, "primary": primary}


def unconfirmed_in_words(columns: Sequence[str], dataset: datasets.Dataset) -> str:
    """Return why columns that nobody has confirmed are not used under a guarantee."""
    return (
        f"[privacy]: nobody has confirmed the ranges or values of {', '.join(columns)} in "
        f"{dataset.folder / 'schema.toml'}, which were read off rows: correct them from public knowledge and take the "
        "names out of unconfirmed"
    )


def _check_covered(study: Study, schema: Schema) -> None:
    """Refuse a study of which all that leaves would be charged, where its scores cannot be counted by class."""
    if schema.task != "binary":
        raise UsageError(
            "[privacy]: covers = 'study' is for outcomes that are yes or no, by which scores are counted; the task of "
            f"the dataset is {schema.task!r}"
        )
    if extra_shapes(study, model_shapes(study, schema)).own_part:
        raise UsageError(
            f"[strategy] {study.strategy.name}: a part of the model is each site's own, and [privacy] covers = 'study' "
            "scores the shared one: leave one of them out"
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
    if study.secure_aggregation != "off" and not statistic.adds_up:
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


def _check_trees(study: Study, model: Any) -> None:
    """Refuse trees with another strategy, the strategy of trees with another model, and what does not go with them."""
    plain = getattr(model, "plain", False)
    if not plain and study.strategy.name != TREES:
        return
    if not plain or study.strategy.name != TREES:
        raise UsageError(
            f"[model] {study.model.name} and [strategy] {study.strategy.name}: {TREES} is a model and a strategy: name "
            "it under both, or under neither"
        )
    asked = {
        "[model]: warm-start": study.warm_start,
        "[codec]: name": study.codec.name != "none",
        "[codec]: download": study.download != "none",
        "[encode]: missing-indicator": study.encode.missing_indicator,
        "[compare]: pooled": study.compare.pooled is not None,
    }
    if found := [key for key, given in asked.items() if given]:
        raise UsageError(f"{found[0]} does not go with {TREES}: leave it out")
    if study.privacy.name != "none":
        raise UsageError(
            f"[privacy]: {study.privacy.name} does not go with {TREES}: what its noise leaves of trees is worse than a "
            "perceptron with the same promise (on taiwan-credit an AUC of .75 to .77 at epsilon 3, untuned, against "
            ".766): take model 'mlp'"
        )
    if refits(study) and study.secure_aggregation != "off":
        raise UsageError(
            "[strategy]: refit grows the first trees twice, without the validation rows and with them, and the "
            "difference is of these rows alone: it is for open data, and does not go with [privacy] "
            "secure-aggregation: leave one of them out"
        )
    if study.secure_aggregation == "ckks":
        raise UsageError(f"[privacy]: secure-aggregation='ckks' is of models; the sums of {TREES} are masked: set 'on'")


def _check_frozen(study: Study, model: Any) -> None:
    """Refuse frozen layers of a model that has no other, or under noise."""
    if not study.frozen:
        return
    if study.frozen >= len(layers_of(model)):
        raise UsageError(
            f"[model] {study.model.name}: frozen={study.frozen} leaves no layer to train; it has "
            f"{len(layers_of(model)) or 'none that it names'}"
        )
    if study.privacy.name == "record-dp":
        raise UsageError("[model]: frozen does not go with record-dp, whose noise falls on every layer: leave one out")


def _check_widths(study: Study, model: Any) -> None:
    """Refuse a partition whose sites train a part of the model, with what needs all of it."""
    partition = study.dataset.partition
    if partition is None or model.linear or all(width == 1 for width in partition.widths):
        return
    whole = ""
    if study.warm_start:
        whole = "warm-start under [model] begins with all of them"
    elif not layers_of(model):
        whole = f"which they are of model {study.model.name!r} is not known: it names no layers"
    elif not getattr(registry.load("strategy", study.strategy.name), "parts", True):
        whole = f"strategy {study.strategy.name!r} needs updates of the whole model"
    if whole:
        raise UsageError(
            f"[dataset] partition: widths={list(partition.widths)} lets sites train a part of the hidden units, and "
            f"{whole}: leave one of them out"
        )


def _check_sums(study: Study) -> None:
    """Refuse secure aggregation with what needs the sites' own updates."""
    # Trees have sums of their own.
    if study.secure_aggregation == "off" or study.strategy.name == TREES:
        return
    kind = type(study.strategy.build("strategy"))
    if not (kind.sums and kind.aggregate_train is FedAvg.aggregate_train):
        raise UsageError(
            f"[strategy] {study.strategy.name}: looks at the sites' own updates, of which the server has none under "
            "[privacy] secure-aggregation: leave one of them out"
        )
    name, mechanism = study.privacy.name, type(mechanism_of(study) or Mechanism())
    if mechanism.merged is Mechanism.merged:
        return
    # At the server such a mechanism needs each site's update.
    if mechanism.site_noise is Mechanism.site_noise:
        raise UsageError(
            f"[privacy] {name}: changes the sites' own updates at the server, which has none of them under "
            "secure-aggregation: leave one of them out"
        )
    if study.secure_aggregation == "ckks":
        raise UsageError(
            f"[privacy]: sites add the noise of {name} under secure-aggregation='on' only, not under 'ckks'"
        )
    if study.secure_aggregation == "auto":
        raise UsageError(
            f"[privacy]: secure-aggregation='auto' leaves open who adds the noise of {name}, and with it what it "
            "promises: set 'on' (the sites, and the server need not be trusted) or 'off' (the server)"
        )


def _check_encrypted(study: Study, schema: Schema) -> None:
    """Refuse what a server cannot do with models that stand encrypted."""
    require_extra("tenseal", "secure-aggregation = 'ckks'", "he")
    asked = "[privacy] secure-aggregation='ckks'"
    if type(study.strategy.build("strategy")).combine is not FedAvg.combine:
        raise UsageError(
            f"[strategy] {study.strategy.name}: makes the next model of the one before and the mean update, and under "
            f"{asked} the server has neither: take one that averages"
        )
    if download_of(study) is not None:
        raise UsageError(f"[codec]: download packs a model, and under {asked} it is encrypted: leave one of them out")
    if study.compare.share_metrics == "aggregate-only":
        raise UsageError(f"[compare]: share-metrics='aggregate-only' needs sums under masks, and {asked} has none")
    if vector_entries(entries := entries_of(model_shapes(study, schema))) > MOST_ENTRIES:
        raise UsageError(f"[model]: {entries} parameters are too many under {asked}: at most 199,999 are encrypted")
    if why := range_refusal(LEAST, study.largest_entry):
        raise UsageError(f"[privacy]: largest-entry: {why}")


def check_cohort(sites: Collection[str], refused: Mapping[str, Refusal], study: Study) -> None:
    """Refuse a run with sums that too few sites take part in, or that an earlier flfed was asked to take part in.

    Parameters
    ----------
    sites : collection of str
        That enrolled.
    refused : mapping of site to Refusal
        By whose gate.
    study : Study

    Raises
    ------
    UsageError
        Which names the sites and says what to do.
    """
    asked = study.secure_aggregation
    old = sorted(site for site, why in refused.items() if why.cause.code in UNREADABLE)
    too_few = asked != "auto" and refused and len(sites) < LEAST
    if asked == "off" or not (old or too_few):
        return
    few = f"secure aggregation needs {LEAST} sites, and {len(sites)} take part"
    whom = f"{', '.join(old)} cannot read a study with sums" if old else few
    said = "; ".join(f"{site}: {refused[site]}" for site in old or sorted(refused))
    raise UsageError(
        f"[privacy]: {whom} ({said}); flfed before 0.4 "
        "knows no sums: install today's there and let the site approve the study, or begin the run without it (--site)"
    )


def check_losses(study: Study, keeping: Collection[str]) -> None:
    """Refuse a choice by losses that sites keep, and that no sum tells the server."""
    settings = study.strategy.settings
    chosen = ["select = 'best'"] if settings.get("select") == "best" else []
    chosen += ["patience"] if settings.get("patience") else []
    chosen += ["schedule = 'plateau'"] if study.plan.schedule == "plateau" else []
    if chosen and keeping:
        raise UsageError(
            f"{chosen[0]} goes by losses, which {', '.join(keeping)} keep in each round, and under [privacy] "
            "secure-aggregation='ckks' no sum of them is opened: leave it out, or set secure-aggregation='on'"
        )
