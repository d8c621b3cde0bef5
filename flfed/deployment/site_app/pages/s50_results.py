"""Page of the site's own results."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result
from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened
from flfed.records.charts.by_site import ENDS, interval_chart
from flfed.records.dashboard.panels.overview import card
from flfed.records.dashboard.sections import figure, table
from flfed.records.reports.site_verdict import (
    DIFFERENCES,
    SITE_ARMS,
    UNDERTRAINED,
    as_difference,
    site_verdict,
    widened,
)
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import freedom_of
from flfed.records.statistics.training_state import NOT_ENOUGH
from flfed.records.statistics.verdict import (
    ARM_NAMES,
    Difference,
    better_of,
    describe_verdict,
    gain_in_brackets,
    interval,
    metric_name,
    name_interval,
    number,
    sentence_case,
    worthwhile_of,
)
from flfed.records.store.tables import finite
from flfed.records.text import escape, moment
from flfed.updates.messages.compare import Figure

PAIRS = dict(zip(("global - local-only", "personalised - local-only"), DIFFERENCES, strict=True))
"""The keys that a report has the differences of a kept result under."""


def difference_of(result: Result, one: Figure) -> Difference:
    """Return a kept difference with the interval that verdicts go by."""
    return as_difference(widened(_entry(one), one.metric, _rule(result, one.metric))) or Difference(None)


def _rule(result: Result, metric: str) -> Report:
    """Return the rule of verdicts, of one metric."""
    worthwhile = worthwhile_of(metric)
    if metric == result.primary and result.worthwhile is not None:
        worthwhile = result.worthwhile
    return {"sites": result.sites or 1, "minimum-gain": {metric: worthwhile}}


def site_entry(result: Result, metric: str) -> Report:
    """Return a kept result as the entry of a site in a report, of one metric."""
    rule = _rule(result, metric)
    entry: Report = {key: {} for key in (*SITE_ARMS, *DIFFERENCES, "local-only-families")}
    for one in result.arms:
        if one.metric == metric and one.arm in SITE_ARMS:
            entry[one.arm] = {metric: _entry(one)}
    for one in result.differences:
        if one.metric == metric and one.arm in PAIRS:
            entry[PAIRS[one.arm]] = {metric: widened(_entry(one), metric, rule)}
    if result.own_family is not None:
        entry["local-only-families"] = {result.own_family: 1}
    return entry | {"holdout-classes": result.classes, UNDERTRAINED: result.trained == "not-enough"}


def _entry(one: Figure) -> Report:
    """Return a figure as a report has it, with the reason where there is none."""
    report: Report = _ends(one) | {"freedom": freedom_of(one.method)}
    if report["value"] is None:
        report["reason"] = one.method or "it is not defined"
    elif report["low"] is None and one.method:
        report["method"] = one.method
    return report


def _ends(one: Figure) -> Report:
    """Return a figure and its interval, None for what is not known."""
    return {end: finite(getattr(one, end)) for end in ENDS}


SHORT = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted to the site"}

NONE_YET = (
    "No run has compared models at this site's gate yet: that follows the last round of a study that this site "
    "approved and serves. A study that trains no model compares none: its figures are with who ran it (`flfed app`, "
    "page Overview). Where a study runs in one process or in a simulation there is no gate, and its results are with "
    "who ran it: `flfed app`"
)
ALONE = (
    "This site's result is looked at alone here: its run is of a version that does not say how many sites share "
    "figures. In the record of the run, where all sites' are looked at, intervals are wider: that verdict counts."
)

SUPPRESSED_HERE = (
    "This run's figures over test rows did not leave this site: its model was one more than the site allows. The "
    "coordinator has no verdict of this site. `flfed site approve STUDY --compared N` allows more models."
)


def parts(opened: Opened) -> None:
    """Show the runs with a comparison here.

    One of them is shown in full.
    """
    results, problems = reads.results(opened.name, opened.mark)
    page_frame.warn(problems)
    if not results:
        st.info(NONE_YET)
        return
    with st.container():
        table([in_a_line(result) for result in results])
    with st.container():
        names = {result.run: f"{result.study}, {moment(result.at)} ({result.run})" for result in results}
        run = st.selectbox("Run", list(names), format_func=names.__getitem__, key="result-run", width=460)
        result = next(one for one in results if one.run == run)
        suppressed_here = run in reads.left(opened.name, opened.mark).suppressed_runs
        if suppressed_here:
            st.info(SUPPRESSED_HERE)
        metrics = metrics_of(result)
        # A policy may have let no figure leave, which is no error.
        if not metrics:
            why = f": {escape(result.note)}" if result.note else "."
            st.info(f"No figure left this site in this run{why}")
            return
        metric = st.radio("Figure", metrics, format_func=metric_name, horizontal=True, key=f"metric-{run}")
    with st.container():
        against_our_own(result, str(metric), suppressed_here=suppressed_here)


def in_a_line(result: Result) -> dict[str, Any]:
    """Return a run as one line of a table.

    Its verdict is by its first figure.
    """
    metrics = metrics_of(result)
    verdict = "no figure"
    if metrics:
        verdict = describe_verdict(judged(result, metrics[0])[0], metrics[0])
    return {
        "Study": result.study,
        "Run": result.run,
        "When (UTC)": moment(result.at),
        "Training rows": result.rows,
        "Test rows": result.holdout_rows,
        "Verdict": verdict,
    }


def against_our_own(result: Result, metric: str, *, suppressed_here: bool = False) -> None:
    """Show the verdict and the figures behind it.

    They have intervals, and the page says what they rest on. The record has no verdict where they were
    `suppressed_here`.
    """
    code, sentence = judged(result, metric)
    there = of_metric(result, metric)
    with st.container(border=True):
        st.markdown("### The shared model against our own")
        if result.trained == "not-enough":
            st.markdown(f"**{escape(sentence_case(NOT_ENOUGH))}.**")
        elif result.trained == "not-known" and result.sites is not None:
            st.caption("Whether the shared model was trained enough is not known here.")
        st.markdown(f"**{escape(sentence_case(describe_verdict(code, metric)))}.** {escape(sentence)}")
        with st.container(horizontal=True):
            for line in there:
                span = f"95 % CI {interval(line['low'], line['high'])}"
                card(SHORT.get(line["arm"], line["name"]), number(line["value"]), span)
        arms = {line["arm"] for line in there}
        rests_on(result, metric, arms, suppressed_here=suppressed_here)
    name = metric_name(metric)
    # The table has the numbers that the chart shows, for who cannot see it.
    titles = {"name": "Model", "value": name, "low": "95 % low", "high": "95 % high", "method": "Method"}
    lines = [{title: line[key] for key, title in titles.items()} for line in there]
    says = f"{sentence} " + "; ".join(f"{line['name']} {number(line['value'])}" for line in there)
    drawn = interval_chart(there, metric)
    figure(st, f"{name} on our test rows, with 95 % CI", drawn, lines, key="own-result", says=says)
    table(differences_of(result, metric, arms))


def rests_on(result: Result, metric: str, arms: Set[str], *, suppressed_here: bool) -> None:
    """Show what the figures of these models rest on, and why some are not there."""
    beside = ALONE if result.sites is None and not suppressed_here else ""
    st.caption(
        f"Measured on {result.holdout_rows} rows of this site that no model was trained on; a {better_of(metric)} "
        f"{metric_name(metric)} is better. It does not show what the model would do next year, nor to care. "
        f"{beside}"
    )
    # A figure that is not shown must not look forgotten.
    if "personalised" not in arms:
        st.caption(
            f"{SHORT['personalised']}, the shared model has the same {metric_name(metric)} here: it is not shown apart."
        )
    if result.note:
        st.caption(escape(f"Of some figures nothing is here: {result.note}."))


def differences_of(result: Result, metric: str, arms: Set[str]) -> list[dict[str, Any]]:
    """Return the differences between these models, a line of a table each."""
    column = f"{metric_name(metric)} ({name_interval(result.sites or 1)})"
    rows = []
    for one in result.differences:
        a, _, b = one.arm.partition(" - ")
        if one.metric == metric and {a, b} <= arms:
            name = one.arm.replace(a, ARM_NAMES[a], 1).replace(f"- {b}", f"minus {ARM_NAMES[b]}")
            rows.append({"Difference": name, column: gain_in_brackets(difference_of(result, one))})
    return rows


def metrics_of(result: Result) -> list[str]:
    """Return the metrics that a result has.

    The study's main one is first.
    """
    there = sorted({one.metric for one in result.arms if finite(one.value) is not None})
    return sorted(there, key=lambda metric: metric != result.primary)


def of_metric(result: Result, metric: str) -> list[dict[str, Any]]:
    """Return every model's figure of a metric.

    Each has arm, name, value, low, high and method.

    Without the adjusted one where its figure is the shared one's: an own intercept ranks no row before another.
    """
    figures_by_arm: dict[str, dict[str, Any]] = {}
    for one in result.arms:
        if one.metric == metric:
            name = ARM_NAMES.get(one.arm, one.arm)
            figures_by_arm[one.arm] = {"arm": one.arm, "name": name, "method": one.method, **_ends(one)}
    values = [figures_by_arm[arm]["value"] for arm in ("global", "personalised") if arm in figures_by_arm]
    # An own intercept ranks no row before another, so that some figures are equal.
    if len(values) == 2 and values[0] == values[1] is not None:
        del figures_by_arm["personalised"]
    return list(figures_by_arm.values())


def judged(result: Result, metric: str) -> tuple[str, str]:
    """Return the verdict of joining at this site.

    It is a code, and one sentence with the numbers.
    """
    return site_verdict(site_entry(result, metric), metric)


if __name__ == "__main__":
    page_frame.show("Our own results", parts)
