"""A run, or a series of repeats, as one JSON object, as sentences and as a table."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from flfed.records import spread
from flfed.records.curves import curve_object
from flfed.records.entries import ComparisonRow, DifferenceRow, RunEntry
from flfed.records.faults import fault_kind, faults_of, refused_sites, updates_set_aside
from flfed.records.privacy import audit_of, privacy_of
from flfed.records.reading import RunReader
from flfed.records.recorded import Recorded
from flfed.records.verdicts import (
    ABSENT,
    ARM_NAMES,
    PAYS,
    VERDICTS,
    Difference,
    better_of,
    decimals_of,
    gain_of,
    interval,
    metric_name,
    number,
    verdict,
)

SITE_ARMS = ("global", "local-only", "personalised")
REFERENCES = ("global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "own-model-everywhere")
_ADJUSTED = {"global": "personalised", "sites-mean": "personalised-sites-mean"}
MANY_SITES = 8
"""From here on a reader is told that one interval in twenty excludes 0 by chance."""

Report = dict[str, Any]


def run_list(reader: RunReader, *, search: str = "", limit: int | None = None) -> Report:
    """Return the object of `flfed run list --json`: the runs, newest first."""
    keys = ("run", "study", "status", "engine", "started", "rounds")
    runs = reader.runs(search=search, limit=limit)
    return {"runs": [{key: getattr(run, key) for key in keys} for run in runs]}


def report(reader: RunReader, name: str) -> Report:
    """Return the object of `flfed study run --json` for a run, or for a series of repeats.

    Metrics stand in the order of importance: the study's primary one first. Under repeats:

    - a figure's `value` is the mean over repeats and `sd` their standard deviation; `low` and
      `high` are the means of the repeats' bounds, so the interval of one typical split;
    - a difference's interval, and the verdict, come from the spread of the repeats
      (`spread.resplit_interval`) where the site drew a new holdout each time; where the holdout
      stayed, from the means of the repeats' bounds, since repeating tells nothing more about it; a
      difference that less than half of the repeats have is not told;
    - `rounds` is the fewest of any repeat, `seconds` the sum, `arrays-sha256` null, and `status`
      the worst: failed, interrupted, running, stopped, completed.

    A figure that is null has a `reason` beside it. `faults` lists updates set aside and, with
    round null, what belongs to no round: sites refused, whose reason starts with "refused: ", and
    other faults, such as "no comparison: ...". `privacy` is what was promised and spent
    (`privacy.privacy_of`), `audit` what attacks on the model reached.

    Raises
    ------
    UsageError
        If there is no such run or series.
    """
    runs = reader.runs_of(name)
    recorded = Recorded.read(reader, runs)
    metrics = _metrics(recorded)
    references = {arm: _figures(recorded, None, arm, metrics) for arm in REFERENCES}
    accepted = sorted({site for _, sites in recorded.runs for site in sites if sites[site].status != "refused"})
    return head(runs, name) | {
        "global": references["global"],
        "sites-mean": references["sites-mean"],
        "personalised": references["personalised"] or None,
        "personalised-sites-mean": references["personalised-sites-mean"],
        "pooled": references["pooled"] or None,
        "own-model-everywhere": references["own-model-everywhere"] or None,
        "sites": {site: _site(recorded, site, metrics) for site in accepted},
        "learning-curve": curve_object(reader.learning_curve(runs[0].series)),
        "faults": faults_of(reader, recorded),
        "privacy": privacy_of(reader, recorded.runs),
        "audit": audit_of(reader, recorded.runs),
    }


def head(runs: Sequence[RunEntry], name: str) -> Report:
    """Return what stands before the figures: names, status, engine, time."""
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


def _metrics(recorded: Recorded) -> list[str]:
    """Return the compared metrics, the primary one first."""
    found = {metric for _, _, metric in recorded.figures}
    primary = recorded.runs[0][0].primary
    return sorted(found, key=lambda metric: (metric != primary, metric))


def _figures(recorded: Recorded, site: str | None, arm: str, metrics: Sequence[str]) -> Report:
    """Return one arm's figures by metric, over all repeats; metrics never written are left out."""
    rows = {metric: recorded.figures.get((site, arm, metric)) for metric in metrics}
    return {metric: _figure(found) for metric, found in rows.items() if found}


def _figure(rows: Sequence[ComparisonRow]) -> Report:
    values = [row.value for row in rows]
    figure: Report = {
        "value": spread.mean_of(values),
        "low": spread.mean_of([row.low for row in rows]),
        "high": spread.mean_of([row.high for row in rows]),
        "sd": spread.sd_of(values),
    }
    return figure | _why_none(figure, rows)


def _why_none(figure: Report, rows: Sequence[ComparisonRow | DifferenceRow]) -> Report:
    """Return the reason of a figure that is not there; nothing for one that is."""
    return {"reason": rows[0].method or "it is not defined"} if figure["value"] is None else {}


def _site(recorded: Recorded, site: str, metrics: Sequence[str]) -> Report:
    entries = [sites[site] for _, sites in recorded.runs if site in sites]
    arms = {arm: _figures(recorded, site, arm, metrics) for arm in SITE_ARMS}
    result: Report = {
        "rows": next((entry.rows for entry in entries if entry.rows is not None), None),
        "holdout-rows": _whole_mean([entry.holdout_rows for entry in entries]),
        **arms,
        "difference": _differences(recorded, site, "global", metrics),
        "difference-personalised": _differences(recorded, site, "personalised", metrics),
    }
    primary = recorded.runs[0][0].primary
    return result | {"verdict": site_verdict(result, primary)[0]}


def _whole_mean(values: Sequence[int | None]) -> int | None:
    mean = spread.mean_of(values)
    return None if mean is None else round(mean)


def _differences(recorded: Recorded, site: str, arm: str, metrics: Sequence[str]) -> Report:
    """Return `arm` minus local-only by metric, over all repeats."""
    pairs = {metric: recorded.differences.get((site, arm, metric)) for metric in metrics}
    return {
        metric: _difference([row for row, _ in found], [ratio for _, ratio in found])
        for metric, found in pairs.items()
        if found
    }


def _difference(rows: Sequence[DifferenceRow], ratios: Sequence[float | None]) -> Report:
    values = [row.value for row in rows if row.value is not None]
    if 0 < 2 * len(values) < len(rows):
        # The few holdouts that have, say, both classes share the same one or two rows of the rare one.
        absent = next(row.method for row in rows if row.value is None)
        why = f"defined in {len(values)} of {len(rows)} repeats only (in others: {absent})"
        return {"value": None, "low": None, "high": None, "p": None, "reason": why}
    ratio = spread.mean_of(ratios)
    if len(values) > 1 and ratio is not None and None not in ratios:
        mean, low, high, p = spread.resplit_interval(values, ratio)
        return {"value": mean, "low": low, "high": high, "p": p}
    figure: Report = {
        "value": spread.mean_of(values),
        "low": spread.mean_of([row.low for row in rows]),
        "high": spread.mean_of([row.high for row in rows]),
        "p": rows[0].p if len(rows) == 1 else None,
    }
    return figure | _why_none(figure, rows)


def site_verdict(site: Report, metric: str) -> tuple[str, str]:
    """Return code and sentence for one entry of a report's `sites`."""
    shared, adjusted = site["difference"].get(metric), site["difference-personalised"].get(metric)
    figures = {arm: site[arm].get(metric, {}).get("value") for arm in SITE_ARMS}
    nothing = "this site shares no figures of its own"
    reasons = [entry["reason"] for entry in (shared, adjusted) if entry and "reason" in entry]
    reasons += [site[arm][metric]["reason"] for arm in SITE_ARMS if "reason" in site[arm].get(metric, {})]
    return verdict(
        _as_difference(shared),
        _as_difference(adjusted),
        better_of(metric),
        metric=metric,
        figures=figures,
        reason=(reasons or [nothing])[0],
    )


def _as_difference(entry: Report | None) -> Difference | None:
    return Difference(entry["value"], entry["low"], entry["high"]) if entry else None


def primary_of(found: Report) -> str | None:
    """Return the first, most important metric of a report, or None where nothing was compared."""
    return next(iter(found["global"]), None)


def best_gain(site: Report, metric: str) -> Difference | None:
    """Return the gain of the better arm at a site (above 0 is an improvement), or None."""
    entries = [site[key].get(metric) for key in ("difference", "difference-personalised")]
    gains = [
        gain_of(Difference(entry["value"], entry["low"], entry["high"]), better_of(metric))
        for entry in entries
        if entry and entry["value"] is not None
    ]
    return max(gains, key=lambda gain: gain.value or 0.0, default=None)


def comparison_rows(found: Report, metric: str | None = None) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the comparison as headers, rows of text and footer lines; plain text, no markup.

    Parameters
    ----------
    found : dict
        From `report`.
    metric : str
        Which one; the study's primary unless given.
    """
    metric = metric or primary_of(found)
    if metric is None:
        why = f" ({found['reason'].rstrip('.')})" if found["reason"] else ""
        kept = f"{_rounds(found['rounds'])} {'ran' if found['status'] == 'completed' else 'kept'}"
        return [], [], [f"Nothing was compared: the run is {found['status']}, with {kept}{why}."]
    headers = ["site", "holdout rows", "shared model", "own model alone", "adjusted to site"]
    headers += ["gain (+ is better), 95 %", "verdict"]
    rows = []
    for name, site in found["sites"].items():
        shown = [number(site[arm].get(metric, {}).get("value")) for arm in SITE_ARMS]
        holdout = ABSENT if site["holdout-rows"] is None else str(site["holdout-rows"])
        rows.append([name, holdout, *shown, gain_in_words(site, metric), site_verdict(site, metric)[0]])
    for arm in ("global", "sites-mean", "pooled", "own-model-everywhere"):
        entry = (found[arm] or {}).get(metric)
        if entry:
            label = "all holdouts, shared model" if arm == "global" else ARM_NAMES[arm]
            adjusted = (found[_ADJUSTED[arm]] or {}).get(metric) if arm in _ADJUSTED else None
            rows.append([label, "", number(entry["value"]), "", number(adjusted["value"]) if adjusted else "", "", ""])
    return headers, rows, story(found, metric=metric)


def gain_in_words(site: Report, metric: str) -> str:
    """Return the better arm's gain with its interval, "+.11 (+.02 to +.19)"."""
    gain = best_gain(site, metric)
    if gain is None:
        return ABSENT
    digits = decimals_of(gain.value, gain.low, gain.high)
    return f"{number(gain.value, digits, signed=True)} ({interval(gain.low, gain.high, digits, signed=True)})"


def story(found: Report, *, metric: str | None = None, planned: int | None = None) -> list[str]:
    """Return what a run showed, in a few sentences: the figure, who gains, the verdicts, what went wrong."""
    metric = metric or primary_of(found)
    lines = [] if metric is None else [*_reach(found, metric), *_who_gains(found, metric), tally(found, metric)]
    if metric is not None and len(found["sites"]) >= MANY_SITES:
        many = f"With {len(found['sites'])} sites compared"
        lines.append(f"{many}, about one interval in twenty excludes 0 by chance alone.")
    return [*lines, _course(found, planned)]


def _reach(found: Report, metric: str) -> list[str]:
    """Return how good the shared model is, and how far the references are."""
    entry = found["global"][metric]
    name, better = metric_name(metric), better_of(metric)
    if entry["value"] is None:
        return [f"The shared model's {name} over all sites is not known: {entry['reason']}."]
    span = "" if entry["low"] is None else f", 95 % interval {interval(entry['low'], entry['high'])}"
    over = f" (mean of {found['repeats']} repeats)" if found["repeats"] > 1 else ""
    line = f"The shared model reaches {name} {number(entry['value'])}{over}{span}"
    lines = [f"{line}, on the holdout rows of all sites together ({better} is better)."]
    for arm, start in (
        ("pooled", "Training on all rows in one place (pooled, for reference only) would reach"),
        ("own-model-everywhere", "A site's own model used at all sites would reach, on average over sites,"),
    ):
        other = (found[arm] or {}).get(metric, {}).get("value")
        if other is not None:
            lines.append(f"{start} {number(other)}: {apart(other, entry['value'], metric)}.")
    return lines


def apart(other: float, shared: float, metric: str) -> str:
    """Return how far a reference is from the shared model: ".004 better than the shared model"."""
    gain = gain_of(Difference(other - shared), better_of(metric)).value or 0.0
    if not float(f"{gain:.3f}"):
        return "the same as the shared model"
    return f"{number(abs(gain))} {'better' if gain > 0 else 'worse'} than the shared model"


def _who_gains(found: Report, metric: str) -> list[str]:
    """Return who gains most and whether that is certain."""
    gains = {name: best_gain(site, metric) for name, site in found["sites"].items()}
    known = {name: gain for name, gain in gains.items() if gain is not None}
    if not known:
        return []
    name = max(known, key=lambda site: known[site].value or 0.0)
    code, sentence = site_verdict(found["sites"][name], metric)
    if (known[name].value or 0.0) <= 0:
        return [f"No site gains; {name} comes nearest: {sentence}"]
    sure = "and the gain is certain" if code == PAYS else "but the gain is not certain"
    return [f"{name} gains most, {sure}: {sentence}"]


def tally(found: Report, metric: str) -> str:
    """Return how many sites got which verdict, with their names where they are few."""
    by_code: dict[str, list[str]] = {code: [] for code in VERDICTS}
    for name, site in found["sites"].items():
        by_code[site_verdict(site, metric)[0]].append(name)
    parts = []
    for code, names in by_code.items():
        if names or code == PAYS:
            of = f" of {len(found['sites'])} sites" if code == PAYS else ""
            listed = f" ({', '.join(names)})" if 0 < len(names) <= 6 else ""
            parts.append(f"{code.removesuffix(' here')} at {len(names)}{of}{listed}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _course(found: Report, planned: int | None) -> str:
    """Return how many rounds ran and what was set aside."""
    rounds = f"{found['rounds']} of {_rounds(planned)}" if planned else _rounds(found["rounds"])
    aside, others = updates_set_aside(found), sum(fault_kind(fault) == "fault" for fault in found["faults"])
    refused = refused_sites(found)
    line = f"{rounds} ran" + (" in every repeat" if found["repeats"] > 1 else "")
    names = f" ({', '.join(refused)})" if refused else ""
    more = f"; other faults: {others}" if others else ""
    return f"{line}; updates set aside: {aside}; sites refused: {len(refused)}{names}{more}."


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def purpose_of(study_text: str) -> str:
    """Return what a study says it is for, "" where nothing."""
    try:
        return str(tomllib.loads(study_text).get("purpose", ""))
    except tomllib.TOMLDecodeError:
        return ""
