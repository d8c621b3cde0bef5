"""Facts of a run on its data, its model and the model's performance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from flfed.records.dossier.record import HASHES, Finding, RunRecord, count_all
from flfed.records.objects import figure_of, read
from flfed.records.reports.faults import leaking_columns
from flfed.records.reports.report import metrics_of
from flfed.records.sections.data import TABLE_1
from flfed.records.statistics.left_out import INTERCEPT, SLOPE, VALIDATION, LeftOut, MeanLeftOut, figures_of
from flfed.records.statistics.odd_sites import AUC, Column
from flfed.records.statistics.score_curves import Subgroups, grouped_columns
from flfed.records.statistics.training_state import TrainingState
from flfed.records.statistics.verdict import metric_name, with_interval
from flfed.words import render

SITES = "Sites"
FIGURES = "Figures with 95 % CI"
FURTHER = "Further figures"
EVENT = "1"
"""Class of the rows with the outcome."""
FEW_EVENTS = 100
"""Test rows of the rarer outcome below which calibration and discrimination are imprecise (Collins and others 2016)."""
CALIBRATION = "calibration_in_the_large_error"
DISCRIMINATION = ("roc_auc_score", "concordance_index")


@dataclass(frozen=True)
class _Groups:
    """The part of a report on groups, None where the study names none."""

    subgroups: Any = None


def rows(record: RunRecord) -> Finding | None:
    """Return the rows of the sites, and those of them that no model was trained on."""
    every = count_all([site.rows for site in record.sites])
    test = count_all([site.holdout_rows for site in record.site_reports.values()])
    if every is None or test is None:
        return None
    facts = {"rows": every, "sites": len(record.sites), "test": test}
    return Finding("rows", facts, SITES, ["sites.*.rows", "report.sites.*.holdout-rows"])


def outcome(record: RunRecord) -> Finding | None:
    """Return the test rows with the outcome, where each site shares them."""
    classes = [site.holdout_classes for site in record.site_reports.values()]
    names = [column.column for column in record.columns.columns if column.outcome]
    if not classes or not all(classes) or not names:
        return None
    facts = {
        "column": names[0],
        "events": sum(counts[EVENT] for counts in classes),
        "rows": sum(sum(counts.values()) for counts in classes),
    }
    return Finding("outcome", facts, SITES, ["report.sites.*.holdout-classes", "columns.*.outcome"])


def enough_events(record: RunRecord) -> Finding | None:
    """Return whether the rarer outcome has `FEW_EVENTS` test rows."""
    counted = outcome(record)
    if counted is None:
        return None
    _, events, every = counted.facts.values()
    rarer = min(events, every - events)
    facts = {"events": rarer, "least": FEW_EVENTS}
    finding = Finding("enough-events", facts, SITES, ["report.sites.*.holdout-classes"])
    return finding if rarer >= FEW_EVENTS else finding.unmet("few-events")


def opened(record: RunRecord) -> Finding | None:
    """Return how often the record says that test rows were read."""
    times = [event for event in record.content.shown.events if event.kind == "holdout-opened"]
    if not times:
        return None
    facts = {"times": len(times), "sites": len({event.site for event in times})}
    return Finding("opened", facts, "", ["events.*.kind"])


def table_1(record: RunRecord) -> Finding | None:
    """Return the number of lines of Table 1."""
    if not record.table_lines:
        return None
    facts = {"lines": record.table_lines, "sites": len(record.sites)}
    return Finding("table-1", facts, TABLE_1, ["table-1.rows"])


def predictors(record: RunRecord) -> Finding | None:
    """Return the columns from which the model predicts."""
    names = [column.column for column in record.columns.columns if not column.outcome]
    if not names:
        return None
    return Finding("predictors", {"columns": len(names), "names": ", ".join(names)}, TABLE_1, ["columns.*.column"])


def missing(record: RunRecord) -> Finding | None:
    """Return the missing values of the columns, where a site reports them."""
    columns = [column for column in record.columns.columns if not column.outcome]
    sites = chain.from_iterable([column.sites.values() for column in columns])
    counts = [site.missing for site in sites]
    reported = [count for count in counts if count is not None]
    if not reported:
        return None
    incomplete = [column.column for column in columns if _has_gaps(column)]
    facts = {
        "missing": sum(reported),
        "incomplete": len(incomplete),
        "columns": len(columns),
        "suppressed": len(counts) - len(reported),
    }
    return Finding("missing", facts, TABLE_1, ["columns.*.sites.*.missing"])


def _has_gaps(column: Column) -> bool:
    return any(site.missing for site in column.sites.values())


def leaks(record: RunRecord) -> Finding | None:
    """Return the columns that may reveal the outcome, None where nothing was tested."""
    if record.leaks is None:
        return None
    columns = leaking_columns(record.leaks)
    if columns:
        return Finding("leaks", {"columns": columns}, SITES, ["leaks.found"])
    return Finding("no-leaks", {}, "", ["leaks.found"])


def encoding(record: RunRecord) -> Finding | None:
    """Return the hash of the encoder that all sites share."""
    if not record.encoder_sha256:
        return None
    facts = {"hash": record.encoder_sha256, "sites": len(record.sites)}
    return Finding("encoding", facts, "", ["encoder.sha256"])


def model(record: RunRecord) -> Finding | None:
    """Return the model, its strategy, and the rounds of training."""
    name = record.setting("model.name")
    if not record.run.rounds or name is None:
        return None
    facts = {
        "model": str(name),
        "strategy": str(record.setting("strategy.name")),
        "rounds": record.run.rounds,
        "planned": record.content.shown.planned,
    }
    return Finding("model", facts, render(HASHES), ["study", "report.rounds", "runs.*.rounds_planned"])


def penalty(record: RunRecord) -> Finding | None:
    """Return the penalty on coefficients, where the study sets one."""
    value = record.setting("plan.l2")
    if not value:
        return None
    return Finding("penalty", {"l2": str(value)}, render(HASHES), ["study"])


def trained_enough(record: RunRecord) -> Finding | None:
    """Return whether the shared model was trained enough, None where not known."""
    state = read(TrainingState, record.run.training)
    if state.enough is None:
        return None
    finding = Finding("trained-enough", {"rounds": record.run.rounds}, "", ["report.training.enough", "report.rounds"])
    return finding if state.enough else finding.unmet("undertrained")


def task(record: RunRecord) -> Finding:
    """Return the kind of the model's output."""
    return Finding("task", {"task": record.entry.task}, "", ["runs.*.task"])


def arrays(record: RunRecord) -> Finding | None:
    """Return the hash of the trained arrays."""
    if not record.run.rounds or not record.entry.arrays_sha256:
        return None
    facts = {"hash": record.entry.arrays_sha256, "run": record.entry.run}
    return Finding("arrays", facts, render(HASHES), ["runs.*.arrays_sha256"])


def compared_by(record: RunRecord) -> Finding | None:
    """Return the metrics that the run compares models by."""
    names = [metric_name(metric) for metric in metrics_of(record.content.shown.report)]
    if not names:
        return None
    return Finding("compared-by", {"primary": names[0], "names": ", ".join(names)}, FIGURES, ["report.global"])


def performance(record: RunRecord) -> Finding | None:
    """Return the primary metric of the shared model over all test rows, with its interval."""
    return _over_all(record, record.content.shown.metric)


def discrimination(record: RunRecord) -> Finding | None:
    """Return the shared model's discrimination over all test rows."""
    metrics = [metric for metric in DISCRIMINATION if figure_of(record.run.global_, metric).value is not None]
    return _over_all(record, next(iter(metrics), None))


def calibration(record: RunRecord) -> Finding | None:
    """Return the shared model's error of calibration-in-the-large over all test rows."""
    return _over_all(record, CALIBRATION)


def _over_all(record: RunRecord, metric: str | None) -> Finding | None:
    if metric is None:
        return None
    figure = figure_of(record.run.global_, metric)
    if figure.value is None or figure.low is None:
        return None
    section = FIGURES if metric == record.content.shown.metric else FURTHER
    facts = {"metric": metric_name(metric), "figure": with_interval(figure)}
    return Finding("performance", facts, section, [f"report.global.{metric}"])


def at_sites(record: RunRecord) -> Finding | None:
    """Return the range of the shared model's primary metric over sites."""
    metric = record.content.shown.metric
    if metric is None:
        return None
    figures = [figure_of(site.global_, metric).value for site in record.site_reports.values()]
    values = [value for value in figures if value is not None]
    if len(values) < 2:
        return None
    facts = {
        "metric": metric_name(metric),
        "sites": len(values),
        "all": len(figures),
        "low": min(values),
        "high": max(values),
    }
    return Finding("at-sites", facts, FIGURES, [f"report.sites.*.global.{metric}"])


def mean_gain(record: RunRecord) -> Finding | None:
    """Return the mean gain over sites with its interval."""
    metric = record.content.shown.metric
    figure = figure_of(record.run.mean_gain, metric or "")
    if metric is None or figure.value is None or figure.low is None:
        return None
    gain = with_interval(figure, signed=True)
    facts = {"metric": metric_name(metric), "figure": gain, "sites": figure.sites}
    return Finding("mean-gain", facts, "Forest plot: gains by joining", [f"report.mean-gain.{metric}"])


def comparators(record: RunRecord) -> Finding | None:
    """Return the number of sites whose own model stands beside the shared one."""
    metric = record.content.shown.metric
    if metric is None:
        return None
    own = [site for site in record.site_reports.values() if figure_of(site.local_only, metric).value is not None]
    if not own:
        return None
    return Finding("comparators", {"sites": len(own)}, FIGURES, [f"report.sites.*.local-only.{metric}"])


def subgroups(record: RunRecord) -> Finding | None:
    """Return the columns by whose groups the model's discrimination is recorded."""
    payload = read(_Groups, record.content.shown.report).subgroups
    if payload is None:
        return None
    columns = list(grouped_columns(read(Subgroups, payload)))
    if not columns:
        return None
    return Finding("subgroups", {"columns": columns}, "", ["report.subgroups"])


EVIDENCE = {
    "rows": rows,
    "outcome": outcome,
    "enough-events": enough_events,
    "opened": opened,
    "table-1": table_1,
    "predictors": predictors,
    "missing": missing,
    "leaks": leaks,
    "encoding": encoding,
    "model": model,
    "penalty": penalty,
    "trained-enough": trained_enough,
    "task": task,
    "arrays": arrays,
    "compared-by": compared_by,
    "performance": performance,
    "discrimination": discrimination,
    "calibration": calibration,
    "at-sites": at_sites,
    "mean-gain": mean_gain,
    "comparators": comparators,
    "subgroups": subgroups,
}
"""Evidence by the name that a sheet gives it."""


@dataclass(frozen=True)
class _Validated:
    """The part of a validation that pins its model."""

    model_sha256: str = ""


def validated_rows(record: RunRecord) -> Finding | None:
    """Return the scored rows."""
    scored = count_all([site.holdout_rows for site in record.site_reports.values()])
    if scored is None:
        return None
    facts = {"rows": scored, "sites": len(record.site_reports)}
    return Finding("validated-rows", facts, SITES, ["report.sites.*.holdout-rows"])


def validated_arrays(record: RunRecord) -> Finding:
    """Return the hash of the model, which pins arrays, encoder and columns."""
    facts = {"hash": read(_Validated, record.content.shown.report[VALIDATION]).model_sha256}
    return Finding("validated-model", facts, render(HASHES), [f"report.{VALIDATION}.model-sha256"])


def validated_calibration(record: RunRecord) -> Finding | None:
    """Return the mean calibration slope and intercept over sites."""
    means = _validation_means(record)
    if means is None or means[SLOPE].value is None or means[INTERCEPT].value is None:
        return None
    slope = with_interval(means[SLOPE], 2)
    facts = {SLOPE: slope, INTERCEPT: with_interval(means[INTERCEPT], 2, signed=True)}
    return Finding("validated-calibration", facts, _validation_title(), [f"report.{VALIDATION}.mean.calibration"])


def differences(record: RunRecord) -> Finding | None:
    """Return how far the model's discrimination differs between sites."""
    means = _validation_means(record)
    if means is None:
        return None
    mean = means[AUC]
    if mean.value is None or mean.i2 is None:
        return None
    facts = {
        "metric": metric_name(AUC),
        "figure": with_interval(mean, 2),
        "sites": mean.sites,
        "share": round(100 * mean.i2),
    }
    return Finding("validated-differences", facts, _validation_title(), [f"report.{VALIDATION}.mean.{AUC}"])


def _reworded(evidence: Callable[[RunRecord], Finding | None]) -> Callable[[RunRecord], Finding | None]:
    """Return evidence of a shared model as that of the model which was brought along."""

    def reworded(record: RunRecord) -> Finding | None:
        finding = evidence(record)
        return None if finding is None else replace(finding, key=f"validated-{finding.key}")

    return reworded


def _validation_of(record: RunRecord) -> LeftOut:
    return read(LeftOut, record.content.shown.report[VALIDATION])


def _validation_means(record: RunRecord) -> dict[str, MeanLeftOut] | None:
    """Return the means over sites by name, None of an outcome that is not yes or no."""
    mean: Any = _validation_of(record).mean
    if not mean:
        return None
    return {name: read(MeanLeftOut, of) for name, of in figures_of(mean).items()}


def _validation_title() -> str:
    return render("report.validation.title")


OF_VALIDATION = {
    "rows": validated_rows,
    "arrays": validated_arrays,
    "performance": _reworded(performance),
    "discrimination": _reworded(discrimination),
    "at-sites": _reworded(at_sites),
    "calibration": validated_calibration,
    "mean-gain": differences,
}
"""Evidence by the name that a sheet gives it, where it differs from that of a trained model."""
