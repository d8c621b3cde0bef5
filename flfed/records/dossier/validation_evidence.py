"""Facts of a run that validates a model which somebody brought along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flfed.records.dossier import model_evidence
from flfed.records.dossier.model_evidence import SITES
from flfed.records.dossier.record import HASHES, Finding, RunRecord, count_all
from flfed.records.objects import read
from flfed.records.sections.validation import DECIMALS, SiteUpdates, due_update
from flfed.records.statistics.left_out import INTERCEPT, SLOPE, VALIDATION, LeftOut, MeanLeftOut, figures_of
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.training_state import TRAINED_TEST_ROWS, TrainedTestRows
from flfed.records.statistics.verdict import interval, metric_name, number
from flfed.words import render


@dataclass(frozen=True)
class _Validated:
    """The part of a validation that pins its model."""

    model_sha256: str = ""


def rows(record: RunRecord) -> Finding | None:
    """Return the scored rows."""
    scored = count_all([site.holdout_rows for site in record.site_reports.values()])
    if scored is None:
        return None
    facts = {"rows": scored, "sites": len(record.site_reports)}
    return Finding("validated-rows", facts, SITES, ["report.sites.*.holdout-rows"])


def arrays(record: RunRecord) -> Finding:
    """Return the hash of the model, which pins arrays, encoder and columns."""
    facts = {"hash": read(_Validated, record.content.shown.report[VALIDATION]).model_sha256}
    return Finding("validated-model", facts, render(HASHES), [f"report.{VALIDATION}.model-sha256"])


def calibration(record: RunRecord) -> Finding | None:
    """Return the mean calibration slope and intercept over sites."""
    means = _means(record)
    if means is None or means[SLOPE].value is None or means[INTERCEPT].value is None:
        return None
    facts = {SLOPE: _in_words(means[SLOPE]), INTERCEPT: _in_words(means[INTERCEPT], signed=True)}
    return Finding("validated-calibration", facts, _title(), [f"report.{VALIDATION}.mean.calibration"])


def differences(record: RunRecord) -> Finding | None:
    """Return how far the model's discrimination differs between sites."""
    means = _means(record)
    if means is None:
        return None
    mean = means[AUC]
    if mean.value is None or mean.i2 is None:
        return None
    facts = {"metric": metric_name(AUC), "figure": _in_words(mean), "sites": mean.sites, "share": round(100 * mean.i2)}
    return Finding("validated-differences", facts, _title(), [f"report.{VALIDATION}.mean.{AUC}"])


def updates(record: RunRecord) -> Finding | None:
    """Return at how many sites a new intercept or slope is due."""
    due = []
    for payload in _figures(record).sites.values():
        tried = [update for update in read(SiteUpdates, payload).updates if not update.method]
        if tried:
            due.append(due_update(tried) is not None)
    if not due:
        return None
    facts = {"due": sum(due), "sites": len(due)}
    title = render("report.validation.advice-title")
    return Finding("updates", facts, title, [f"report.{VALIDATION}.sites.*.updates"])


def _reworded(evidence: Callable[[RunRecord], Finding | None]) -> Callable[[RunRecord], Finding | None]:
    """Return evidence of a shared model as that of the model which was brought along.

    It is unmet where the model was trained on some of the scored rows.
    """

    def reworded(record: RunRecord) -> Finding | None:
        finding = evidence(record)
        if finding is None:
            return None
        payload = record.content.shown.report.get(TRAINED_TEST_ROWS)
        trained = read(TrainedTestRows, payload).rows if payload else None
        if not trained:
            return replace(finding, key=f"validated-{finding.key}")
        facts = {**finding.facts, "trained": trained}
        finding = replace(finding, facts=facts, record=[*finding.record, f"report.{TRAINED_TEST_ROWS}.rows"])
        return finding.unmet(f"trained-{finding.key}")

    return reworded


def _figures(record: RunRecord) -> LeftOut:
    return read(LeftOut, record.content.shown.report[VALIDATION])


def _means(record: RunRecord) -> dict[str, MeanLeftOut] | None:
    """Return the means over sites by name, None of an outcome that is not yes or no."""
    mean: Any = _figures(record).mean
    if not mean:
        return None
    return {name: read(MeanLeftOut, of) for name, of in figures_of(mean).items()}


def _in_words(mean: MeanLeftOut, *, signed: bool = False) -> str:
    ends = interval(mean.low, mean.high, DECIMALS, signed=signed)
    return f"{number(mean.value, DECIMALS, signed=signed)} ({ends})"


def _title() -> str:
    return render("report.validation.title")


EVIDENCE = {
    "rows": rows,
    "arrays": arrays,
    "performance": _reworded(model_evidence.performance),
    "discrimination": _reworded(model_evidence.discrimination),
    "at-sites": _reworded(model_evidence.at_sites),
    "calibration": calibration,
    "mean-gain": differences,
    "updates": updates,
}
"""Evidence by the name that a sheet gives it, where it differs from that of a trained model."""
