"""Report of a run or series as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flfed.records.reports.audit_headlines import audit_of
from flfed.records.reports.faults import faults_of
from flfed.records.reports.privacy import privacy_of
from flfed.records.reports.recorded_run import Recorded
from flfed.records.reports.round_totals import round_bytes
from flfed.records.reports.site_verdict import SITE_ARMS, UNDERTRAINED, site_verdict, too_few, widened
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.importances import gains_over_repeats, over_repeats
from flfed.records.statistics.listed.noised_scores import (
    COMPARISON,
    COVERS,
    NO_PAIRS,
    NOT_COMPARED,
    SCORES,
    WHY_NOT_COMPARED,
    is_covered,
)
from flfed.records.statistics.listed.trained_rows import TRAINED_TEST_ROWS, trained_over_repeats
from flfed.records.statistics.mean_gain import mean_gain
from flfed.records.statistics.odd_sites import AUC, apart, reversed_outcomes
from flfed.records.statistics.own_models import family_keys
from flfed.records.statistics.training_state import not_enough, training_state
from flfed.records.statistics.training_state import over_repeats as training_over_repeats
from flfed.records.statistics.verdict import worthwhile_of
from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study
from flfed.refusals import read
from flfed.study.tables import NAIVE_FAMILIES

STARTED = ("warm-start", "warm-start-tuned")
"""Arms of a run that began with an earlier model: that model as it is, and pulled towards it on a site's own rows."""
OWN_COLUMNS = "local-only-own-columns"
"""The arm of a site's own model that has the site's own columns too."""
DIFFERENCE_ARMS = ("global", "personalised")
REFERENCES = (
    "global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "pooled-same", "own-model-everywhere",
)  # fmt: skip
AGAIN = "; in other repeats: "
"""Separator of the ways in which a figure came about."""
SAME = 1e-9
"""Largest difference between repeats that is rounding."""


def report(reader: RunReader, name: str) -> Report:
    """Return the object of `flfed study run --json`, which of a statistic lacks keys of models (`statistic_object`).

    It is of one run, or of a series of repeats.

    Metrics stand in the order of importance: the study's primary one first. Under repeats:

    - a figure's `value` is the mean over repeats and `sd` their standard deviation; `low` and
      `high` are the means of the repeats' bounds, so the interval of one typical split;
    - a difference's interval, and the verdict, come from the spread of the repeats
      (`spread.resplit_interval`) where the site drew a new holdout each time; where the holdout
      stayed, from the means of the repeats' bounds, since repeating tells nothing more about it; a
      difference that less than half of the repeats have is not told;
    - `rounds` is the fewest of any repeat, `seconds` the sum, `arrays-sha256` null, and `status`
      the worst: failed, interrupted, running, stopped, completed.

    An AUC over all sites that was made of counts by bin has a `bound`: that of the rows lies so far away at
    most, which is certain. A figure that is null has a `reason` beside
    it, and so has a difference whose interval is null, for it would be all of -1 to +1; one without an interval a
    `method` where it is known how it came about. A difference's `freedom` are the degrees of freedom of Student's
    t behind its interval, null for a normal one. `holdout-rows` is their mean over repeats, `holdout-rows-range` the
    fewest and most of any repeat. `site-mean`, `last-value` and `named-column` of a site are forecasts without a model,
    of a regression where later rows are held out. `holdout-classes` are the test rows without and with the outcome,
    of a site that gave score counts; where fewer than `LEAST_OF_A_CLASS` are of either class, the verdict is
    that it cannot be told. `verdict-rule` is the one rule behind every verdict (`verdicts.code_of`): a
    difference's `widened-low` and `widened-high` are its interval widened for `sites` looked at (Bonferroni), and
    it is held against `worthwhile`. `training` says whether the shared model was trained enough to be judged
    (`training_state.training_state`), null under noise: where it was not, no verdict is "do not use it here".
    `mean-gain` is the mean over sites of what the shared model gains on their own
    models (`mean_gain.mean_gain`; above 0 is better). `apart` and `outcome-reversed` are the sites that look as if
    they were coded otherwise (`odd_sites`). `local-only` and `pooled` are what joining is held against: their
    `-family` says what was taken most often ("same": a model of the shared one's own kind), `-families` in how many
    repeats which, and `-same` are the figures of one of the shared one's own kind where another was taken. `faults`
    lists rejected updates and, with round null, what belongs to no round: sites refused, whose reason starts with
    "refused: ", and other faults, such as "no comparison: ...". `privacy` is what was promised and spent
    (`privacy.privacy_of`), `audit` what attacks on the model reached. `operating-points` is there where the study
    names thresholds or alert budgets: the exact counts at them. So is `subgroups`, where it names columns to look
    at group by group, and `importances`, where it asks for permutations (`importances.over_repeats`). Of trees
    `gains` are what each column's splits gain (`importances.gains_over_repeats`).
    `sums-only` has the figures of three or more sites that share none of their own, over all of these sites together,
    where they came in one sum. `noised-scores` is there where all that leaves a site is charged to one ε: counts by
    score, with their noise. Then `rows` of a site is about how many it trains on; one that is not held against its own
    model has `not-compared`, why, and where none is `mean-gain` is empty. `own-parts` is there where a part of the
    model is each site's own: its `arrays`, and whether they are a model `beside` the shared one. `round-bytes` is what
    crosses in a round of training (`round_totals.round_bytes`). `trained-test-rows` is there where the run began with
    an earlier model: by site, how many test rows that was trained on, over all repeats, or `why` that is not known.

    Raises
    ------
    UsageError
        If there is no such run or series.
    """
    runs = reader.runs_of(name)
    recorded = Recorded.read(reader, runs)
    metrics = _metrics(recorded)
    counted = [reader.summary(run.run, "score-histograms") or {} for run in runs]
    references = {arm: _figures(recorded, None, arm, metrics) for arm in REFERENCES}
    references["global"] = _with_bound(recorded, references["global"], counted)
    # A refused site has no figures, and stands among the faults alone.
    accepted = sorted({site for _, sites in recorded.runs for site in sites if sites[site].status != "refused"})
    rule = verdict_rule(reader, runs, metrics)
    own = [reader.summary(run.run, "own-models") or {} for run in runs]
    privacy = privacy_of(reader, recorded.runs)
    sites = {site: _site(recorded, site, metrics, _classes(counted, site), rule, own) for site in accepted}
    if COVERS in privacy:
        why = NO_PAIRS if COMPARISON in privacy else WHY_NOT_COMPARED
        sites = {site: of if of["difference"] else of | {NOT_COMPARED: why} for site, of in sites.items()}
    uncompared = COVERS in privacy and COMPARISON not in privacy
    training = training_over_repeats([reader.summary(run.run, "training") for run in runs])
    if training is None and metrics and privacy["mechanism"] in (None, "none"):
        training = _training(references, metrics[0], own)
    if not_enough(training):
        sites = {site: _undertrained(of, metrics) for site, of in sites.items()}
    return head(runs, name) | {
        "global": references["global"],
        "sites-mean": references["sites-mean"],
        "personalised": references["personalised"] or None,
        "personalised-sites-mean": references["personalised-sites-mean"],
        "pooled": references["pooled"] or None,
        "own-model-everywhere": references["own-model-everywhere"] or None,
        "sites": sites,
        "verdict-rule": rule,
        "training": training,
        "leaking-columns": _leaking(reader, runs),
        "mean-gain": {}
        if uncompared
        else mean_gains(recorded, sites, metrics, rule, undertrained=not_enough(training)),
        "faults": faults_of(reader, recorded),
        "privacy": privacy,
        "audit": audit_of(reader, recorded.runs),
        "apart": apart(next(filter(None, (reader.summary(run.run, "columns") for run in runs)), None)),
        "outcome-reversed": reversed_outcomes({site: of for site, of in sites.items() if too_few(of) is None}),
        **_where_asked(reader, runs),
        "round-bytes": round_bytes(reader, [run.run for run in runs]),
        **family_keys("pooled", [told.get("pooled") for told in own], other=references["pooled-same"] or None),
    }


def _training(references: Report, metric: str, own: Sequence[Report]) -> Report | None:
    """Return whether the shared model was trained enough, of a run whose record does not say so."""
    kind = references["pooled-same"]
    if not kind and not any(told.get("pooled") for told in own):
        kind = references["pooled"]
    shared = references["global"].get(metric)
    if metric not in kind or shared is None:
        return None
    ends = {end: shared[end] for end in ("value", "low", "high")}
    return training_state(None, [(metric, ends, kind[metric]["value"])])


def _leaking(reader: RunReader, runs: Sequence[RunEntry]) -> list[str]:
    """Return the columns that may give the answer away, by the sums of the first repeat that has them."""
    told = next(filter(None, (reader.summary(run.run, "leaks") for run in runs)), {})
    return list(dict.fromkeys(str(one["column"]) for one in told.get("found", ())))


def _undertrained(site: Report, metrics: Sequence[str]) -> Report:
    """Return a site's entry where the shared model was not trained enough, with the verdict that follows."""
    found = site | {UNDERTRAINED: True}
    return found | {"verdict": site_verdict(found, metrics[0])[0]} if metrics else found


def _where_asked(reader: RunReader, runs: Sequence[RunEntry]) -> Report:
    """Return what not every run has: exact counts, groups, importances, gains, figures in sums only, own parts.

    They are of the first repeat that has them: other repeats look at the same rows, at an institution counted once.
    """
    found = {
        name: next(filter(None, (reader.summary(run.run, name) for run in runs)), None)
        for name in ("operating-points", "subgroups", "sums-only", "own-parts", "told-outcomes", "statistics", SCORES)
    }
    found["importances"] = over_repeats([reader.summary(run.run, "importances") for run in runs])
    found[TRAINED_TEST_ROWS] = trained_over_repeats([reader.summary(run.run, TRAINED_TEST_ROWS) for run in runs])
    found["gains"] = gains_over_repeats([reader.summary(run.run, "gains") for run in runs])
    return {name: payload for name, payload in found.items() if payload is not None}


def head(runs: Sequence[RunEntry], name: str) -> Report:
    """Return a report's head: names, status, engine and time."""
    several = len(runs) > 1
    # A series goes on while any of its repeats does, whatever became of another.
    order = ("running", "failed", "interrupted", "stopped", "completed")
    worst = min(runs, key=lambda run: order.index(run.status))
    paths = sorted({run.path for run in runs})
    seconds = [run.seconds for run in runs if run.seconds is not None]
    prefix = f"repeat {worst.repeat + 1}: " if several and worst.reason else ""
    return {
        "run": runs[0].series if several or name == runs[0].series else runs[0].run,
        "study": runs[0].study,
        "status": worst.status,
        "reason": prefix + worst.reason,
        "engine": runs[0].engine,
        "path": paths[0] if len(paths) == 1 else "mixed",
        "rounds": min(run.rounds for run in runs),
        "seconds": sum(seconds) if seconds else None,
        "repeats": len(runs),
        "arrays-sha256": None if several else runs[0].arrays_sha256,
    }


def verdict_rule(reader: RunReader, runs: Sequence[RunEntry], metrics: Sequence[str]) -> Report:
    """Return the rule of every verdict: sites and worthwhile gains."""
    table = parsed_study(reader.series(runs[0].series).study_text).get("compare", {})
    asked = table.get("worthwhile") if isinstance(table, dict) else None
    # What the study calls worthwhile is in units of its primary metric, so others keep their default.
    given = {runs[0].primary: float(asked)} if isinstance(asked, (int, float)) else {}
    told = [(reader.summary(run.run, "looked-at") or {}).get("sites", 0) for run in runs]
    return {
        # As many as the sites were told of; of runs that told them none, those that share figures.
        "sites": max(max(told, default=0) or reader.looked_at([run.run for run in runs]), 1),
        "level": intervals.LEVEL,
        "worthwhile": {metric: given.get(metric, worthwhile_of(metric)) for metric in metrics},
    }


def _metrics(recorded: Recorded) -> list[str]:
    """Return the compared metrics, the primary one first."""
    found = {metric for _, _, metric in recorded.figures}
    primary = recorded.runs[0][0].primary
    return sorted(found, key=lambda metric: (metric != primary, metric))


def _figures(recorded: Recorded, site: str | None, arm: str, metrics: Sequence[str]) -> Report:
    """Return one arm's figures by metric, over all repeats."""
    rows = {metric: recorded.figures.get((site, arm, metric)) for metric in metrics}
    return {metric: _figure(found) for metric, found in rows.items() if found}


def _with_bound(recorded: Recorded, figures: Report, counted: Sequence[Report]) -> Report:
    """Return the shared model's figures, a binned AUC with its bound."""
    rows = recorded.figures.get((None, "global", AUC), [])
    methods = {found.code for row in rows if row.value is not None and (found := read(row.method)) is not None}
    if "merged-histograms" not in methods:
        return figures
    from flfed.summaries.score_bins import bound_in  # numpy, which few reports need

    bound = intervals.mean_of([bound_in(payload) for payload in counted if payload.get("all")])
    return figures | {AUC: figures[AUC] | {"bound": bound}}


def _figure(rows: Sequence[ComparisonRow]) -> Report:
    values = [row.value for row in rows]
    figure: Report = {
        "value": intervals.mean_of(values),
        "low": intervals.mean_of([row.low for row in rows]),
        "high": intervals.mean_of([row.high for row in rows]),
        "sd": intervals.sd_of(values),
    }
    return figure | _why_none(figure, rows)


def _why_none(figure: Report, rows: Sequence[ComparisonRow | DifferenceRow]) -> Report:
    """Return why a figure, or its interval, is missing."""
    if figure["value"] is None:
        return {"reason": rows[0].method or "it is not defined"}
    methods = list(dict.fromkeys(row.method for row in rows if row.method))
    return {"method": AGAIN.join(methods)} if figure["low"] is None and methods else {}


def _classes(counted: Sequence[Report], site: str) -> Report | None:
    """Return the test rows of each class at a site.

    They are without and with the outcome, by the score counts that the site gave, averaged over repeats.

    None where it gave none: its policy has to name them.
    """
    given = [found["sites"][site] for found in counted if site in found.get("sites", {})]
    if not given:
        return None
    return {label: _whole_mean([sum(rows for _, rows in one[label]) for one in given]) for label in ("0", "1")}


def _site(
    recorded: Recorded,
    site: str,
    metrics: Sequence[str],
    classes: Report | None,
    rule: Report,
    own: Sequence[Report],
) -> Report:
    entries = [sites[site] for _, sites in recorded.runs if site in sites]
    arms = {arm: _figures(recorded, site, arm, metrics) for arm in SITE_ARMS}
    result: Report = {
        "rows": next((entry.rows for entry in entries if entry.rows is not None), None),
        "holdout-rows": _whole_mean([entry.holdout_rows for entry in entries]),
        "holdout-rows-range": _range([entry.holdout_rows for entry in entries]),
        "holdout-classes": classes,
        **arms,
        "difference": _differences(recorded, site, "global", metrics, rule),
        "difference-personalised": _differences(recorded, site, "personalised", metrics, rule),
    }
    # Where another family was taken alone, the shared one's own kind is told beside it.
    same = _figures(recorded, site, "local-only-same", metrics)
    result |= {arm: found for arm in (*STARTED, *NAIVE_FAMILIES) if (found := _figures(recorded, site, arm, metrics))}
    result |= family_keys("local-only", [told.get("sites", {}).get(site) for told in own], other=same or None)
    # Only where a site has own columns: reports of other runs stay as they were.
    if own_columns := _figures(recorded, site, OWN_COLUMNS, metrics):
        result[OWN_COLUMNS] = own_columns
    primary = recorded.runs[0][0].primary
    return result | {"verdict": site_verdict(result, primary)[0]}


def _whole_mean(values: Sequence[int | None]) -> int | None:
    mean = intervals.mean_of(values)
    return None if mean is None else round(mean)


def _range(values: Sequence[int | None]) -> list[int] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None


def _differences(recorded: Recorded, site: str, arm: str, metrics: Sequence[str], rule: Report) -> Report:
    """Return `arm` minus local-only by metric, over all repeats."""
    pairs = {metric: recorded.differences.get((site, arm, metric)) for metric in metrics}
    return {
        metric: widened(_difference([row for row, _ in found], [ratio for _, ratio in found]), metric, rule)
        for metric, found in pairs.items()
        if found
    }


def _difference(rows: Sequence[DifferenceRow], ratios: Sequence[float | None]) -> Report:
    values = [row.value for row in rows if row.value is not None]
    if 0 < 2 * len(values) < len(rows):
        # The few holdouts that have, say, both classes share the same one or two rows of the rare one.
        absent = next(row.method for row in rows if row.value is None)
        why = f"defined in {len(values)} of {len(rows)} repeats only (in others: {absent})"
        return {"value": None, "low": None, "high": None, "p": None, "freedom": None, "reason": why}
    ratio = intervals.mean_of(ratios)
    # Repeats that all say the same have no spread, which is no certainty: the interval is then that of one.
    if values and max(values) - min(values) > SAME and ratio is not None and None not in ratios:
        mean, *bounds, p = intervals.resplit_interval(values, ratio)
        low, high = (intervals.possible(rows[0].metric, bound, difference=True) for bound in bounds)
        told = {"value": mean, "low": low, "high": high, "p": p, "freedom": len(values) - 1}
        # An interval that was cut at both ends says nothing, and is not shown.
        if low != bounds[0] and high != bounds[1]:
            return told | {"low": None, "high": None, "reason": "the repeats leave all that is possible open"}
        return told
    # Bounds of fewer than half of the repeats stand for none of them.
    bounded = [row for row in rows if row.low is not None]
    if 2 * len(bounded) < len(rows):
        bounded = []
    freedom = [free for row in bounded if (free := intervals.freedom_of(row.method)) is not None]
    figure: Report = {
        "value": intervals.mean_of(values),
        "low": intervals.mean_of([row.low for row in bounded]),
        "high": intervals.mean_of([row.high for row in bounded]),
        "p": rows[0].p if len(rows) == 1 else None,
        "freedom": min(freedom, default=None),
    }
    return figure | _why_none(figure, rows)


def mean_gains(
    recorded: Recorded, sites: Report, metrics: Sequence[str], rule: Report, *, undertrained: bool
) -> Report:
    """Return the shared model's mean gain over sites.

    It is by metric. No site's people see it: they see one site.
    """
    found = {}
    for metric in metrics:
        told = {site: of_site for site, of_site in sites.items() if too_few(of_site) is None}
        pairs = {site: recorded.differences.get((site, "global", metric), []) for site in told}
        found[metric] = mean_gain(pairs, metric, len(sites)) | {"worthwhile": rule["worthwhile"][metric]}
        found[metric] |= {"undertrained": True} if undertrained else {}
    return found


def metrics_of(found: Report) -> list[str]:
    """Return a report's metrics, primary first, else those of its sites."""
    of_sites = [list(site[arm]) for site in found["sites"].values() for arm in SITE_ARMS]
    return list(found["global"]) or list(dict.fromkeys(metric for metrics in of_sites for metric in metrics))


def primary_of(found: Report) -> str | None:
    """Return a report's primary metric, None where nothing was compared."""
    return next(iter(metrics_of(found)), None)


def arms_shown(found: Report, metric: str) -> list[str]:
    """Return the models of a site that are shown.

    The adjusted one is not, where its figure is the shared one's everywhere. Where all that leaves is charged, no other
    than the shared one is known.

    A site's own intercept moves all its predictions alike: it ranks no row before another.
    """
    if is_covered(found):
        return ["global"]
    pairs = [[site[arm].get(metric, {}).get("value") for arm in DIFFERENCE_ARMS] for site in found["sites"].values()]
    known = [pair for pair in pairs if None not in pair]
    same = bool(known) and all(math.isclose(*pair, rel_tol=1e-9, abs_tol=1e-12) for pair in known)
    return [arm for arm in SITE_ARMS if arm != "personalised" or not same]


def purpose_of(study_text: str) -> str:
    """Return a study's purpose, "" where it has none."""
    return str(parsed_study(study_text).get("purpose", ""))
