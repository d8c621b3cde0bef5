"""Verdict on joining at a site, by the figures of a run that its gate kept.

It is the rule of the coordinator's pages, of the figures as they crossed.
"""

from __future__ import annotations

from flfed.deployment.gate.local_results import Result
from flfed.records.reports.site_verdict import DIFFERENCES, SITE_ARMS, UNDERTRAINED, as_difference, widened
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import freedom_of
from flfed.records.statistics.verdict import Difference, worthwhile_of
from flfed.records.store.bulk_insert import finite
from flfed.updates.messages.compare import Figure

PAIRS = {"difference": "global - local-only", "difference-personalised": "personalised - local-only"}
"""The differences of a kept result, by the keys that a report has them under."""


def difference_of(result: Result, one: Figure) -> Difference:
    """Return a kept difference with the interval that verdicts go by."""
    found = as_difference(widened(_entry(one), one.metric, _rule(result, one.metric)))
    return Difference(None) if found is None else found


def _rule(result: Result, metric: str) -> Report:
    """Return the rule of verdicts, of one metric."""
    worthwhile = result.worthwhile if metric == result.primary else None
    worthwhile = worthwhile_of(metric) if worthwhile is None else worthwhile
    return {"sites": result.sites or 1, "worthwhile": {metric: worthwhile}}


def site_entry(result: Result, metric: str) -> Report:
    """Return a kept result as the entry of a site in a report, of one metric."""
    rule = _rule(result, metric)
    figures = {one.arm: _entry(one) for one in result.arms if one.metric == metric}
    entry: Report = {arm: {metric: figures[arm]} if arm in figures else {} for arm in SITE_ARMS}
    differences = {one.arm: _entry(one) for one in result.differences if one.metric == metric}
    for key in DIFFERENCES:
        pair = differences.get(PAIRS[key])
        entry[key] = {} if pair is None else {metric: widened(pair, metric, rule)}
    entry["holdout-classes"] = result.classes
    entry["local-only-families"] = {} if result.own_family is None else {result.own_family: 1}
    return entry | {UNDERTRAINED: result.trained == "not-enough"}


def _entry(one: Figure) -> Report:
    """Return a figure as a report has it, with the reason where there is none."""
    value, low, high = (finite(number) for number in (one.value, one.low, one.high))
    found: Report = {"value": value, "low": low, "high": high, "freedom": freedom_of(one.method)}
    if value is None:
        return found | {"reason": one.method or "it is not defined"}
    return found if low is not None or not one.method else found | {"method": one.method}
