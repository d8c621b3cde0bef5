"""Report of a run or series as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from typing import Any, Self

from flfed import refusals
from flfed.records.objects import VerdictRule, figure_of, read, read_figure, run_of, site_of
from flfed.records.reports import calibration
from flfed.records.reports.audit_headlines import audit_of
from flfed.records.reports.faults import faults_of, leaking_columns
from flfed.records.reports.privacy import PrivacyReport, privacy_of, private_of
from flfed.records.reports.recorded_run import INCUMBENT, Recorded
from flfed.records.reports.round_totals import round_bytes
from flfed.records.reports.site_verdict import (
    SITE_ARMS,
    UNDERTRAINED,
    code_of_mean,
    gain_at,
    mean_gain,
    site_verdict,
    too_few,
    widened,
)
from flfed.records.reports.size_classes import KEY, Counts, size_classes
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.importances import gains_over_repeats, over_repeats
from flfed.records.statistics.left_out import KEY as LEFT_OUT
from flfed.records.statistics.left_out import VALIDATION
from flfed.records.statistics.noised_scores import NOT_COMPARED, SCORES, released
from flfed.records.statistics.odd_sites import AUC, apart, reversed_outcomes
from flfed.records.statistics.own_models import PARTIES, family_keys, without_outcome
from flfed.records.statistics.training_state import WARM_START, not_enough, started_over_repeats, training_state
from flfed.records.statistics.training_state import over_repeats as training_over_repeats
from flfed.records.statistics.verdict import Difference, worthwhile_of
from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry
from flfed.records.store.reader import RunReader, RunsReader
from flfed.study.study_text import parsed_study
from flfed.study.tables import NAIVE_FAMILIES
from flfed.words import render

STARTED = ("warm-start", "warm-start-tuned")
"""Arms of a run with a starting model: that model as it is, and adapted to a site's own rows."""
DIFFERENCE_ARMS = ("global", "personalised")
REFERENCES = (
    "global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "pooled-same", "own-model-everywhere",
)  # fmt: skip
OFTEN_ABSENT = ("personalised", "pooled", "own-model-everywhere")
"""References that are null where a run has none."""
WORST_FIRST = ("running", "failed", "interrupted", "stopped", "completed")
"""Statuses of repeats; a series has the first of them that occurs."""
CLASSES = ("0", "1")
"""Test rows without and with the outcome."""
AGAIN = "; in other repeats: "
"""Separator of the methods of a figure."""
SAME = 1e-9
"""Largest difference between repeats by rounding."""


@dataclass(frozen=True)
class OwnModels:
    """Families of the comparators of the shared model: of the pooled one, and by site."""

    pooled: str | None = None
    sites: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """Score counts of a repeat, over all sites and by site."""

    all: Any = None
    sites: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Opened:
    """Sources of a report.

    Attributes
    ----------
    metrics : list of str
        Compared ones, the primary one first.
    counted : list of dict
        Score counts, by repeat.
    class_counts : list of dict
        Test rows by site and outcome, by repeat.
    own : list of OwnModels
        By repeat.
    """

    reader: RunsReader
    runs: Sequence[RunEntry]
    recorded: Recorded
    metrics: list[str]
    rule: Report
    counted: Sequence[Report]
    class_counts: Sequence[Counts]
    own: Sequence[OwnModels]

    @classmethod
    def read(cls, reader: RunsReader, runs: Sequence[RunEntry]) -> Self:
        """Return the sources of the report of some repeats."""
        recorded = Recorded.read(reader, runs)
        primary = runs[0].primary
        names = {metric for _, _, metric in recorded.figures}
        metrics = sorted(names, key=lambda metric: (metric != primary, metric))
        rule = verdict_rule(reader, runs, metrics)
        counted = [reader.summary(run.run, "score-histograms") or {} for run in runs]
        own = [read(OwnModels, reader.summary(run.run, "own-models")) for run in runs]
        return cls(reader, runs, recorded, metrics, rule, counted, [count_classes(each) for each in counted], own)

    def of_each(self, name: str) -> list[Report | None]:
        """Return a named object of every repeat, None where it has none."""
        return [self.reader.summary(run.run, name) for run in self.runs]

    def first(self, name: str) -> Report | None:
        """Return a named object of the first repeat that has it."""
        return next(filter(None, (self.reader.summary(run.run, name) for run in self.runs)), None)

    def figures(self, site: str | None, arm: str) -> Report:
        """Return one arm's figures by metric, over all repeats."""
        rows = {metric: self.recorded.figures.get((site, arm, metric)) for metric in self.metrics}
        return {metric: _figure(comparisons) for metric, comparisons in rows.items() if comparisons}


def report(reader: RunReader, name: str) -> Report:
    """Return the report of a run, or of a series of repeats, as JSON has it.

    `RunReport`, `SiteReport` and `FigureReport` describe its keys. It is the object of `flfed study run --json`, but
    for keys of models in a statistic (`statistic_object`).

    Raises
    ------
    UsageError
        If there is no such run or series.
    """
    opened = _Opened.read(reader, reader.runs_of(name))
    privacy = privacy_of(reader, opened.recorded.runs)
    over_all = {arm: opened.figures(None, arm) for arm in REFERENCES}
    over_all["global"] = _with_bound(opened, over_all["global"])
    training = _training(opened, over_all, private_of(privacy))
    sites = _sites(opened, private_of(privacy), training)
    mean_calibration = _put_calibration(opened, sites)
    return {
        **head(opened.runs, name),
        **{arm: over_all[arm] for arm in REFERENCES if arm != "pooled-same"},
        # Models that not every run has are null where absent.
        **{arm: over_all[arm] or None for arm in OFTEN_ABSENT},
        "share": parsed_study(reader.series(opened.runs[0].series).study_text).get("compare", {}).get("share", "named"),
        "sites": sites,
        "verdict-rule": opened.rule,
        "training": training,
        "leaking-columns": leaking_columns(opened.first("leaks")),
        "mean-gain": _mean_gains(opened, sites, private_of(privacy), training),
        **_size_classes(opened, sites, private_of(privacy)),
        **mean_calibration,
        **_mean_over_incumbent(opened, sites, private_of(privacy), training),
        "faults": faults_of(reader, opened.recorded),
        "privacy": privacy,
        "audit": audit_of(reader, opened.recorded.runs),
        "apart": apart(opened.first("columns")),
        "outcome-reversed": reversed_outcomes({site: of for site, of in sites.items() if too_few(of) is None}),
        **_read_optional_objects(opened),
        "round-bytes": round_bytes(reader, [run.run for run in opened.runs]),
        **family_keys("pooled", [repeat.pooled for repeat in opened.own], other=over_all["pooled-same"] or None),
    }


CONCLUSION_OBJECTS = ("score-histograms", "training", "own-models", "privacy", "looked-at", "secure-sums", PARTIES)
"""Named objects that a conclusion rests on."""


@dataclass(frozen=True)
class Conclusion:
    """Answer of a run or series in the figures of its primary metric.

    Attributes
    ----------
    verdict : str or None
        Code; None where nothing is compared.
    gain : Difference
        Above 0 where joining is better: the mean over sites.
    minimum_gain : float
    privacy : PrivacyReport
    undertrained : bool
        Whether the shared model was not trained enough, which turns a loss into "inconclusive".
    """

    verdict: str | None
    gain: Difference
    minimum_gain: float
    privacy: PrivacyReport
    undertrained: bool = False


def conclusion(reader: RunsReader, runs: Sequence[RunEntry]) -> Conclusion:
    """Return the verdict and gain of some repeats, as their report has them."""
    opened = _Opened.read(reader, runs)
    metric = runs[0].primary
    privacy = private_of(privacy_of(reader, opened.recorded.runs))
    none = Conclusion(None, Difference(None), 0.0, privacy)
    if metric not in opened.metrics or not privacy.is_compared:
        return none
    over_all = {arm: opened.figures(None, arm) for arm in ("global", "pooled", "pooled-same")}
    training = _training(opened, over_all, privacy)
    facts = (read(VerdictRule, opened.rule).minimum_gain[metric], privacy, not_enough(training))
    # Parties with different columns are compared at one of them alone.
    if opened.first(PARTIES) is not None:
        own = next(iter(_sites(opened, privacy, training).values()), None)
        if own is None:
            return none
        gain = read_figure(gain_at(own, metric))
        return Conclusion(site_verdict(own, metric)[0], Difference.of(gain), *facts)
    sites = {name: {"holdout-classes": _classes(opened.class_counts, name)} for name in _accepted(opened)}
    mean = figure_of(_mean_gains(opened, sites, privacy, training), metric)
    return Conclusion(code_of_mean(mean, facts[0]), Difference.of(mean), *facts)


def _accepted(opened: _Opened) -> list[str]:
    """Return the sites that took part in any repeat, by name; a refused site is among the faults only."""
    every = chain.from_iterable(entries.items() for _, entries in opened.recorded.runs)
    absent = without_outcome({PARTIES: opened.first(PARTIES)})
    return sorted({site for site, entry in every if entry.status != "refused"} - absent)


def _sites(opened: _Opened, privacy: PrivacyReport, training: Report | None) -> Report:
    """Return the sites' entries by name."""
    sites = {site: _site(opened, site) for site in _accepted(opened)}
    for site in sites.values():
        if privacy.why_not_compared and not site_of(site).difference:
            site[NOT_COMPARED] = privacy.why_not_compared
        if not_enough(training):
            site[UNDERTRAINED] = True
            if opened.metrics:
                site["verdict"] = site_verdict(site, opened.metrics[0])[0]
    return sites


def _training(opened: _Opened, over_all: Mapping[str, Report], privacy: PrivacyReport) -> Report | None:
    """Return whether the shared model was trained enough, None under noise or where not known.

    Without a record, the model of the shared one's kind on all rows decides.
    """
    state = training_over_repeats(opened.of_each("training"))
    if state is not None or not opened.metrics or privacy.mechanism not in (None, "none"):
        return state
    metric = opened.metrics[0]
    kind = over_all["pooled-same"]
    if not kind and not any(own.pooled for own in opened.own):
        kind = over_all["pooled"]
    shared = over_all["global"].get(metric)
    if metric not in kind or shared is None:
        return None
    ends = {end: shared[end] for end in ("value", "low", "high")}
    least = read(VerdictRule, opened.rule).minimum_gain
    return training_state(None, [(metric, ends, figure_of(kind, metric).value)], least=least)


def _read_optional_objects(opened: _Opened) -> Report:
    """Return the objects that not every run has: flagged rows, groups, importances, gains, sums, own parts.

    They are of the first repeat that has them: other repeats look at the same rows, which an institution counts once.
    """
    names = (
        "operating-points",
        "subgroups",
        "summed-figures",
        "own-parts",
        "revealed-outcomes",
        "statistics",
        PARTIES,
        SCORES,
        LEFT_OUT,
        VALIDATION,
    )
    payloads = {name: opened.first(name) for name in names}
    payloads["importances"] = over_repeats(opened.of_each("importances"))
    payloads[WARM_START] = started_over_repeats(opened.of_each(WARM_START))
    payloads["gains"] = gains_over_repeats(opened.of_each("gains"))
    return {name: payload for name, payload in payloads.items() if payload is not None}


def is_of_model(run_report: Mapping[str, Any], runs: Sequence[RunEntry]) -> bool:
    """Return whether a report is of a model, which was trained or validated, and not of a statistic."""
    return runs[0].rounds_planned > 0 or run_of(run_report).is_validation


def head(runs: Sequence[RunEntry], name: str) -> Report:
    """Return a report's head: names, status, engine and time."""
    first = runs[0]
    several = len(runs) > 1
    # A series is running while any of its repeats is.
    worst = min(runs, key=lambda run: WORST_FIRST.index(run.status))
    reason = worst.reason
    if several and reason:
        reason = f"repeat {worst.repeat + 1}: {reason}"
    seconds = [run.seconds for run in runs if run.seconds is not None]
    heading: Report = {
        "run": first.run,
        "study": first.study,
        "status": worst.status,
        "reason": reason,
        "engine": first.engine,
        "path": first.path,
        "rounds": min(run.rounds for run in runs),
        "seconds": sum(seconds) if seconds else None,
        "repeats": len(runs),
        "arrays-sha256": first.arrays_sha256,
    }
    if several:
        heading |= {"arrays-sha256": None}
    if several or name == first.series:
        heading |= {"run": first.series}
    if any(run.path != first.path for run in runs):
        heading |= {"path": "mixed"}
    return heading


def verdict_rule(reader: RunsReader, runs: Sequence[RunEntry], metrics: Sequence[str]) -> Report:
    """Return the rule of every verdict: sites and worthwhile gains."""
    table = parsed_study(reader.series(runs[0].series).study_text).get("compare", {})
    worthwhile_gain = table.get("minimum-gain")
    worthwhile = {metric: worthwhile_of(metric) for metric in metrics}
    # The study's worthwhile gain is in units of its primary metric, so others have their default.
    if isinstance(worthwhile_gain, (int, float)) and runs[0].primary in worthwhile:
        worthwhile[runs[0].primary] = float(worthwhile_gain)
    # As many as the run stated to its sites; else those that share figures.
    counts = [read(_LookedAt, reader.summary(run.run, "looked-at")).sites for run in runs]
    sites = max(counts, default=0) or reader.looked_at([run.run for run in runs])
    return {"sites": max(sites, 1), "level": intervals.LEVEL, "minimum-gain": worthwhile}


@dataclass(frozen=True)
class _LookedAt:
    """Number of sites that a run stated to its sites."""

    sites: int = 0


def _with_bound(opened: _Opened, figures: Report) -> Report:
    """Return the shared model's figures, a binned AUC with its bound."""
    auc_rows = [row for row in opened.recorded.figures.get((None, "global", AUC), []) if row.value is not None]
    methods = [refusals.read(row.method) for row in auc_rows]
    if "merged-histograms" not in [method.code for method in methods if method is not None]:
        return figures
    from flfed.summaries.score_bins import bound_in  # numpy, which few reports need

    bound = intervals.mean_of([bound_in(payload) for payload in opened.counted if read(Counted, payload).all])
    return figures | {AUC: figures[AUC] | {"bound": bound}}


def _figure(rows: Sequence[ComparisonRow]) -> Report:
    values = [row.value for row in rows]
    value = intervals.mean_of(values)
    low = intervals.mean_of([row.low for row in rows])
    high = intervals.mean_of([row.high for row in rows])
    figure = {"value": value, "low": low, "high": high, "sd": intervals.sd_of(values)}
    return figure | _why_none(value, low, rows)


def _why_none(value: float | None, low: float | None, rows: Sequence[ComparisonRow | DifferenceRow]) -> Report:
    """Return why a figure, or its interval, is missing."""
    if value is None:
        return {"reason": rows[0].method or render("report.figures.undefined")}
    methods = dict.fromkeys(row.method for row in rows if row.method)
    if low is not None or not methods:
        return {}
    return {"method": AGAIN.join(methods)}


def _classes(class_counts: Sequence[Counts], site: str) -> Report | None:
    """Return a site's test rows without and with the outcome, by its score counts averaged over repeats.

    None where its policy does not name score counts.
    """
    known = [counts[site] for counts in class_counts if site in counts]
    if not known:
        return None
    return {label: _whole_mean([counts[label] for counts in known]) for label in CLASSES}


def count_classes(payload: Report) -> Counts:
    """Return the test rows by site and outcome, by a repeat's score counts."""
    return {
        site: {label: sum(count for _, count in bins.get(label, [])) for label in CLASSES}
        for site, bins in read(Counted, payload).sites.items()
    }


def _site(opened: _Opened, site: str) -> Report:
    """Return a site's entry (`SiteReport`)."""
    entries = [sites[site] for _, sites in opened.recorded.runs if site in sites]
    test_rows = [entry.holdout_rows for entry in entries]
    result: Report = {
        "rows": next((entry.rows for entry in entries if entry.rows is not None), None),
        "holdout-rows": _whole_mean(test_rows),
        "holdout-rows-range": _range(test_rows),
        "holdout-classes": _classes(opened.class_counts, site),
        **{arm: opened.figures(site, arm) for arm in SITE_ARMS},
        "difference": _differences(opened, site, "global"),
        "difference-personalised": _differences(opened, site, "personalised"),
    }
    beside = {arm: opened.figures(site, arm) for arm in (*STARTED, *NAIVE_FAMILIES)}
    result |= {arm: figures for arm, figures in beside.items() if figures}
    incumbent = opened.figures(site, INCUMBENT)
    if incumbent:
        result |= {INCUMBENT: incumbent, "difference-incumbent": _differences(opened, site, INCUMBENT)}
    # Where the site model is of another family, a model of the shared one's kind is shown beside it.
    same = opened.figures(site, "local-only-same")
    result |= family_keys("local-only", [repeat.sites.get(site) for repeat in opened.own], other=same or None)
    return result | {"verdict": site_verdict(result, opened.runs[0].primary)[0]}


def _whole_mean(values: Sequence[int | None]) -> int | None:
    mean = intervals.mean_of(values)
    return None if mean is None else round(mean)


def _range(values: Sequence[int | None]) -> list[int] | None:
    counts = [value for value in values if value is not None]
    return [min(counts), max(counts)] if counts else None


def _differences(opened: _Opened, site: str, arm: str) -> Report:
    """Return `arm` minus local-only by metric, over all repeats."""
    difference_by_metric = {}
    for metric in opened.metrics:
        pairs = opened.recorded.differences.get((site, arm, metric))
        if pairs:
            difference_by_metric[metric] = widened(_difference(pairs), metric, opened.rule)
    return difference_by_metric


def _difference(pairs: Sequence[tuple[DifferenceRow, float | None]]) -> Report:
    """Return a difference over all repeats, given as rows with their holdout rows per training row."""
    rows = [row for row, _ in pairs]
    values = [row.value for row in rows if row.value is not None]
    if 0 < 2 * len(values) < len(rows):
        # The few holdouts with both classes share the same one or two rows of the rare one.
        absent = next(row.method for row in rows if row.value is None)
        why = render("report.figures.seldom", defined=len(values), repeats=len(rows), reason=absent)
        return {"value": None, "low": None, "high": None, "p": None, "freedom": None, "reason": why}
    ratios = [ratio for _, ratio in pairs if ratio is not None]
    # Equal repeats have no spread, which is no certainty: the interval is then that of one.
    differ = bool(values) and max(values) - min(values) > SAME
    if differ and len(ratios) == len(rows):
        return _resplit_difference(values, fmean(ratios), rows[0].metric)
    return _mean_difference(rows)


def _mean_difference(rows: Sequence[DifferenceRow]) -> Report:
    """Return the mean of the repeats' differences, with that of their bounds."""
    # Bounds of fewer than half of the repeats stand for none of them.
    bounded = [row for row in rows if row.low is not None]
    if 2 * len(bounded) < len(rows):
        bounded = []
    freedom = [intervals.freedom_of(row.method) for row in bounded]
    value = intervals.mean_of([row.value for row in rows])
    low = intervals.mean_of([row.low for row in bounded])
    high = intervals.mean_of([row.high for row in bounded])
    p = rows[0].p if len(rows) == 1 else None
    least = min((free for free in freedom if free is not None), default=None)
    return {"value": value, "low": low, "high": high, "p": p, "freedom": least} | _why_none(value, low, rows)


def _resplit_difference(values: Sequence[float], ratio: float, metric: str) -> Report:
    """Return the difference of repeats that each drew a holdout, with the interval of their spread."""
    mean, *bounds, p = intervals.resplit_interval(values, ratio)
    low, high = (intervals.possible(metric, bound, difference=True) for bound in bounds)
    difference = {"value": mean, "low": low, "high": high, "p": p, "freedom": len(values) - 1}
    # An interval that was cut at both ends is of no use.
    if low != bounds[0] and high != bounds[1]:
        return difference | {"low": None, "high": None, "reason": render("report.figures.open")}
    return difference


def _mean_gains(
    opened: _Opened, sites: Report, privacy: PrivacyReport, training: Report | None, arm: str = "global"
) -> Report:
    """Return the shared model's mean gain over sites by metric, nothing where no comparison was released.

    With `arm` "incumbent" it is the gain on the score in use.
    """
    if not privacy.is_compared:
        return {}
    gains = {}
    compared_sites = [site for site, of in sites.items() if too_few(of) is None]
    more = {UNDERTRAINED: True} if not_enough(training) else {}
    for metric, worthwhile in read(VerdictRule, opened.rule).minimum_gain.items():
        pairs = {site: opened.recorded.differences.get((site, arm, metric), []) for site in compared_sites}
        gains[metric] = mean_gain(pairs, metric, len(sites)) | {"minimum-gain": worthwhile} | more
    return gains


def _mean_over_incumbent(opened: _Opened, sites: Report, privacy: PrivacyReport, training: Report | None) -> Report:
    """Return the shared model's mean gain on the score in use, under its key; nothing where the study names none."""
    metrics = {metric for _, arm, metric in opened.recorded.differences if arm == INCUMBENT}
    if not metrics:
        return {}
    gains = _mean_gains(opened, sites, privacy, training, INCUMBENT)
    return {INCUMBENT: {metric: gain for metric, gain in gains.items() if metric in metrics}}


def _size_classes(opened: _Opened, sites: Report, privacy: PrivacyReport) -> Report:
    """Return the gains by classes of sites under their key; nothing where the study names none."""
    series = opened.reader.series(opened.runs[0].series)
    bounds = parsed_study(series.study_text).get("compare", {}).get(KEY)
    least = read(VerdictRule, opened.rule).minimum_gain
    if not bounds or not least or not privacy.is_compared:
        return {}
    return {KEY: size_classes(opened.recorded, opened.class_counts, sites, bounds, least)}


def _put_calibration(opened: _Opened, sites: Report) -> Report:
    """Put slope and intercept into the sites' entries, and return their means over sites under their key.

    Nothing is returned where the study does not ask for them.
    """
    by_site, means = calibration.over_repeats(opened.of_each(calibration.KEY))
    for site, figures in by_site.items():
        sites[site][calibration.KEY] = figures
    if means is None:
        return {}
    return {calibration.KEY: means}


def metrics_of(run_report: Report) -> list[str]:
    """Return a report's metrics, primary first, else those of its sites."""
    run = run_of(run_report)
    of_sites = chain.from_iterable(site[arm] for site in run.sites.values() for arm in SITE_ARMS)
    return list(run.global_ or dict.fromkeys(of_sites))


def primary_of(run_report: Report) -> str | None:
    """Return a report's primary metric, None where nothing was compared."""
    return next(iter(metrics_of(run_report)), None)


def arms_shown(run_report: Report, metric: str) -> list[str]:
    """Return the models of a site that are shown.

    The adjusted one is not, where its figure equals the shared one's at every site. Under a budget that covers all
    releases, only the shared one is known.
    """
    if not released(run_report).is_exact:
        return ["global"]
    alike = []
    run = run_of(run_report)
    for site in run.sites.values():
        shared, adjusted = (figure_of(site[arm], metric).value for arm in DIFFERENCE_ARMS)
        if shared is not None and adjusted is not None:
            alike.append(math.isclose(shared, adjusted, rel_tol=1e-9, abs_tol=1e-12))
    # A model of parties is adjusted to nobody.
    if run.is_of_parties or (alike and all(alike)):
        return [arm for arm in SITE_ARMS if arm != "personalised"]
    return [*SITE_ARMS]


def purpose_of(study_text: str) -> str:
    """Return a study's purpose, "" where it has none."""
    return str(parsed_study(study_text).get("purpose", ""))


def purpose_in_words(study_text: str) -> str:
    """Return a study's purpose as a sentence with its end, "" where it has none."""
    purpose = purpose_of(study_text)
    if not purpose or purpose[-1] in ".?!":
        return purpose
    return f"{purpose}."
