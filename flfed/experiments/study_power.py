"""Gains that a study could show at its sites, before anybody trains: least, expected, and the chance of a clear one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flfed.federation.engines.engine import find_sites
from flfed.records.objects import figure_of, run_of, site_of, write
from flfed.records.reports.report import report
from flfed.records.reports.size_classes import is_within, size_ranges
from flfed.records.statistics.intervals import NORMAL_95, student_t_bound
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.power import (
    LEAST_EVENTS,
    Curve,
    Design,
    Outlook,
    Range,
    SiteRows,
    class_outlook,
    fit_curve,
    mean_outlook,
    of_one_study,
    outlook,
    site_rows,
)
from flfed.records.store.reader import RunReader
from flfed.rows.features.summarise import outcomes
from flfed.rows.study_model import study_layout, study_schema
from flfed.study.former_names import parsed_study
from flfed.study.study import Study
from flfed.words import usage_error

DEFAULT_AUC = 0.75


Counts = Mapping[str, tuple[int, int]]
"""Rows and events of each site."""


@dataclass(frozen=True, kw_only=True)
class StudyPower:
    """Gains that a study could show.

    Attributes
    ----------
    study : str
    columns : int
        Of the model.
    design : Design
    sites : dict of name to Outlook, or None
        None where a site has too few rows of an outcome.
    counts : mapping of name to (rows, events)
    mean : (Range, Range) or None
        Expected mean gain, and the chance that it is clear; None of fewer than three sites of some size.
    classes : list of ([fewest, most rows], sites, gain and chance or None)
        The same over all sites of each size class that the study names; most is None without an upper end.
    """

    study: str
    columns: int
    design: Design
    sites: dict[str, Outlook | None]
    counts: Counts
    mean: tuple[Range, Range] | None
    classes: Sequence[tuple[list[int | None], int, tuple[Range, Range] | None]]

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        sites = {}
        for name, prospect in self.sites.items():
            rows, events = self.counts[name]
            sites[name] = {"rows": rows, "events": events}
            if prospect is not None:
                sites[name] |= write(prospect)
        return {
            "study": self.study,
            "columns": self.columns,
            "auc": self.design.auc,
            "minimum-gain": self.design.worthwhile,
            "repeats": self.design.repeats,
            "sites": sites,
            "mean": _write(self.mean),
            "size-classes": [{"rows": rows, "sites": sites, "gain": _write(of)} for rows, sites, of in self.classes],
        }


def _write(outlook: tuple[Range, Range] | None) -> dict[str, Any] | None:
    return None if outlook is None else {"expected": write(outlook[0]), "power": write(outlook[1])}


def study_power(
    study: Study, *, auc: float | None = None, counts: Counts | None = None, repeats: int = 1, run: str = ""
) -> StudyPower:
    """Return the gains that a study could show at each site and on average.

    Parameters
    ----------
    study : Study
        Of a binary outcome, judged by AUC.
    auc : float in (0.5, 1), optional
        AUC that the shared model is assumed to have; default: that of the `run`, else 0.75.
    counts : dict of site to (rows, events), optional
        Default: the training rows of the study's own sites are counted.
    repeats : int, >= 1
    run : str
        A first run, whose figures set the curve in place of those of other studies; "" for none.

    Raises
    ------
    UsageError
        If the study is judged by another metric, a count or `auc` is impossible, there are no sites, or the run is of
        another dataset or has no mean gain in AUC.
    """
    schema = study_schema(study)
    if study.is_statistic or not study.train or schema.task != "binary" or study.compare.primary not in ("", AUC):
        raise usage_error("experiments.power.metric", study=study.name)
    first = _report_of(run, study) if run else None
    auc = _auc_of(first) if auc is None else auc
    if not 0.5 < auc < 1:
        raise usage_error("experiments.power.auc", auc=auc)
    counts = _count(study) if counts is None else counts
    if not counts:
        raise usage_error("experiments.power.sites", study=study.name)
    for site, (rows, events) in counts.items():
        if events > rows:
            raise usage_error("experiments.power.counts", site=site, rows=rows, events=events)
    columns = len(schema.features(study.dataset.features))
    design = Design(auc=auc, worthwhile=study.compare.least_gain(AUC, AUC), sites=len(counts), repeats=repeats)
    curve = Curve.of_columns(columns)
    if first is not None:
        curve = curve_of_run(first, curve, design.worthwhile)
    enough = {name: each for name, each in counts.items() if min(each[1], each[0] - each[1]) >= LEAST_EVENTS}
    together = of_one_study([site_rows(*each) for each in enough.values()])
    judged = dict(zip(enough, together, strict=True))
    return StudyPower(
        study=study.name,
        columns=columns,
        design=design,
        sites={name: outlook(judged[name], design, curve) if name in judged else None for name in counts},
        counts=counts,
        mean=mean_outlook(list(judged.values()), design, curve),
        classes=_classes(study, counts, judged, design, curve),
    )


def _classes(
    study: Study, counts: Counts, judged: Mapping[str, SiteRows], design: Design, curve: Curve
) -> list[tuple[list[int | None], int, tuple[Range, Range] | None]]:
    """Return the outlook of each size class that a study names."""
    bounds = study.compare.size_classes
    if not bounds:
        return []
    ranges = size_ranges(bounds)
    classes = []
    for low, most in ranges:
        inside = [rows for name, rows in judged.items() if is_within(counts[name][0], low, most)]
        classes.append(([low, most], len(inside), class_outlook(inside, len(ranges), design, curve)))
    return classes


def _report_of(name: str, study: Study) -> Mapping[str, Any]:
    """Return the report of a run, which must be of the study's dataset."""
    with RunReader.open() as reader:
        opened = report(reader, name)
        dataset = parsed_study(reader.series(opened["run"]).study_text)["dataset"]["name"]
    if dataset != study.dataset.name:
        raise usage_error("experiments.power.dataset", run=name, of_run=dataset, of_study=study.dataset.name)
    return opened


def _auc_of(run: Mapping[str, Any] | None) -> float:
    """Return the mean AUC of a run's shared model at its sites, 0.75 without a run."""
    if run is None:
        return DEFAULT_AUC
    value = figure_of(run_of(run).sites_mean, AUC).value
    if value is None:
        raise usage_error("experiments.power.run", run=run_of(run).run)
    return float(value)


def curve_of_run(run: Mapping[str, Any], prior: Curve, worthwhile: float) -> Curve:
    """Return the curve that the figures of a run make.

    They are those that sites sent: AUCs, intervals of the gains, and test rows by outcome.

    Raises
    ------
    UsageError
        If the run has no mean gain in AUC.
    """
    opened = run_of(run)
    mean = figure_of(opened.mean_gain, AUC)
    if mean.value is None or mean.low is None or mean.high is None:
        raise usage_error("experiments.power.run", run=opened.run)
    design = Design(auc=_auc_of(run), worthwhile=worthwhile, sites=opened.rule.sites, repeats=opened.repeats)
    measured = [site for site in map(partial(_measured, design), opened.sites.values()) if site is not None]
    if not measured:
        raise usage_error("experiments.power.run", run=opened.run)
    sites, errors = zip(*measured, strict=True)
    return fit_curve(of_one_study(sites), errors, Range(mean.value, mean.low, mean.high), design, prior)


def _measured(design: Design, entry: Mapping[str, Any]) -> tuple[SiteRows, float | None] | None:
    """Return a site of a report and the error of its gain on one split; None where its rows are not counted."""
    site = site_of(entry)
    classes = site.holdout_classes
    if not classes or not site.rows or min(classes.values()) < LEAST_EVENTS:
        return None
    events = classes["1"]
    others = classes["0"]
    gain = figure_of(site.difference, AUC)
    error = None
    if gain.low is not None and gain.high is not None and gain.high > gain.low:
        quantile = NORMAL_95 if gain.freedom is None else student_t_bound(gain.freedom)
        error = (gain.high - gain.low) / (2 * quantile * design.shrinkage)
    return SiteRows(site.rows - events - others, events, others), error


def _count(study: Study) -> dict[str, tuple[int, int]]:
    """Return the rows of each of the study's own sites, and those with the outcome by the share of training rows."""
    counts = {}
    for site in find_sites(study):
        table = site.read()
        rows = table.training_rows + table.holdout_rows
        events = 0.0
        if table.training_rows:
            events = rows * float(outcomes(table.training, study_layout(study, table.schema)).mean())
        counts[site.name] = (rows, round(events))
    return counts
