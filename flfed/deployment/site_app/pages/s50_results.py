"""Page of the site's own results."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result
from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened
from flfed.records.charts.by_site import ENDS, interval_chart
from flfed.records.dashboard.sections import contained, figure, table
from flfed.records.reports import site_verdict as verdicts
from flfed.records.statistics import Report, verdict
from flfed.records.statistics.intervals import freedom_of
from flfed.records.store.tables import finite
from flfed.records.text import escape, moment
from flfed.updates.messages.compare import Figure
from flfed.words import render

PAIRS = dict(zip(("global - local-only", "personalised - local-only"), verdicts.DIFFERENCES, strict=True))
"""Keys in a report by the arms of a stored difference."""


def difference_of(result: Result, one: Figure) -> verdict.Difference:
    """Return a stored difference with the interval that decides verdicts."""
    entry = verdicts.widened(_entry(one), one.metric, _rule(result, one.metric))
    return verdicts.as_difference(entry) or verdict.Difference(None)


def _rule(result: Result, metric: str) -> Report:
    """Return the rule of verdicts for one metric."""
    worthwhile = verdict.worthwhile_of(metric)
    if metric == result.primary and result.worthwhile is not None:
        worthwhile = result.worthwhile
    return {"sites": result.sites or 1, "minimum-gain": {metric: worthwhile}}


def site_entry(result: Result, metric: str) -> Report:
    """Return a stored result as the entry of a site in a report, for one metric."""
    rule = _rule(result, metric)
    entry: Report = {key: {} for key in (*verdicts.SITE_ARMS, *verdicts.DIFFERENCES, "local-only-families")}
    for one in result.arms:
        if one.metric == metric and one.arm in verdicts.SITE_ARMS:
            entry[one.arm] = {metric: _entry(one)}
    for one in result.differences:
        if one.metric == metric and one.arm in PAIRS:
            entry[PAIRS[one.arm]] = {metric: verdicts.widened(_entry(one), metric, rule)}
    if result.own_family is not None:
        entry["local-only-families"] = {result.own_family: 1}
    return entry | {"holdout-classes": result.classes, verdicts.UNDERTRAINED: result.trained == "not-enough"}


def _entry(one: Figure) -> Report:
    """Return a figure as in a report, or with the reason for its absence."""
    report: Report = _ends(one) | {"freedom": freedom_of(one.method)}
    if report["value"] is None:
        report["reason"] = one.method or "not defined"
    elif report["low"] is None and one.method:
        report["method"] = one.method
    return report


def _ends(one: Figure) -> Report:
    """Return a figure and its interval, None where not known."""
    return {end: finite(getattr(one, end)) for end in ENDS}


def parts(opened: Opened) -> None:
    """Show the runs with a comparison here, one of them in full."""
    results, problems = reads.results(opened.name, opened.mark)
    page_frame.warn(problems)
    if not results:
        st.info(render("site_app.results.none"))
        return
    contained(chosen, opened, results)
    with st.container():
        st.markdown(f"### {render('site_app.results.runs')}")
        table([in_a_line(result) for result in results])


def chosen(opened: Opened, results: Sequence[Result]) -> None:
    """Show the run that the reader picked, in full."""
    choice = st.container(horizontal=True, vertical_alignment="bottom")
    names = {result.run: f"{result.study}, {moment(result.at)} ({result.run})" for result in results}
    run = choice.selectbox("Run", list(names), format_func=names.__getitem__, key="result-run", width=460)
    result = next(one for one in results if one.run == run)
    suppressed_here = run in reads.ledger(opened.name, opened.mark).suppressed_runs
    if suppressed_here:
        st.info(render("site_app.results.suppressed"))
    metrics = metrics_of(result)
    # A policy may suppress all figures, which is no error.
    if not metrics:
        why = render("site_app.results.nothing")
        if result.note:
            why = render("site_app.results.why", reason=escape(result.note))
        st.info(why)
        return
    metric = choice.radio("Figure", metrics, format_func=verdict.metric_name, horizontal=True, key=f"metric-{run}")
    contained(against_our_own, result, str(metric), suppressed_here=suppressed_here)


def in_a_line(result: Result) -> dict[str, Any]:
    """Return a run as one line of a table, with the verdict on its first figure."""
    metrics = metrics_of(result)
    conclusion = "no figure"
    if metrics:
        conclusion = verdict.describe_verdict(judged(result, metrics[0])[0], metrics[0])
    where = {"Study": result.study, "Run": result.run, "When (UTC)": moment(result.at)}
    return where | {"Training rows": result.rows, "Test rows": result.holdout_rows, "Verdict": conclusion}


def against_our_own(result: Result, metric: str, *, suppressed_here: bool = False) -> None:
    """Show the verdict, its figures with intervals, and their basis.

    The record has no verdict where figures were `suppressed_here`.
    """
    code, sentence = judged(result, metric)
    there = of_metric(result, metric)
    with st.container(border=True):
        st.markdown(f"### {render('site_app.results.question')}")
        if result.trained == "not-enough":
            headline = verdict.sentence_case(render("report.training.short"))
            st.markdown(f"**{escape(headline)}.**")
        elif result.trained == "not-known" and result.sites is not None:
            st.caption(render("site_app.results.unknown"))
        st.markdown(f"**{escape(verdict.sentence_case(verdict.describe_verdict(code, metric)))}.** {escape(sentence)}")
    name = verdict.metric_name(metric)
    # The table has the chart's numbers for readers who cannot see it.
    titles = {"name": "Model", "value": name, "low": "95 % low", "high": "95 % high", "method": "Method"}
    lines = [{title: line[key] for key, title in titles.items()} for line in there]
    says = f"{sentence} " + "; ".join(f"{line['name']} {verdict.number(line['value'])}" for line in there)
    drawn = interval_chart(there, metric)
    figure(st, render("site_app.results.chart", metric=name), drawn, lines, key="own-result", says=says)
    arms = {line["arm"] for line in there}
    rests_on(result, metric, arms, suppressed_here=suppressed_here)
    table(differences_of(result, metric, arms))


def rests_on(result: Result, metric: str, arms: Set[str], *, suppressed_here: bool) -> None:
    """Show the basis of the figures of these models, and why some are missing."""
    facts = {"rows": result.holdout_rows, "better": verdict.better_of(metric), "metric": verdict.metric_name(metric)}
    sentences = [render("site_app.results.basis", **facts)]
    if result.sites is None and not suppressed_here:
        sentences.append(render("site_app.results.alone"))
    st.caption(" ".join(sentences))
    # A figure that is left out needs its reason.
    if "personalised" not in arms:
        st.caption(render("site_app.results.same", metric=verdict.metric_name(metric)))
    if result.note:
        st.caption(escape(render("site_app.results.missing", reason=result.note)))


def differences_of(result: Result, metric: str, arms: Set[str]) -> list[dict[str, Any]]:
    """Return the differences between these models, a line of a table each."""
    column = f"{verdict.metric_name(metric)} ({verdict.name_interval(result.sites or 1)})"
    rows = []
    for one in result.differences:
        a, _, b = one.arm.partition(" - ")
        if one.metric == metric and {a, b} <= arms:
            name = one.arm.replace(a, verdict.ARM_NAMES[a], 1).replace(f"- {b}", f"minus {verdict.ARM_NAMES[b]}")
            rows.append({"Difference": name, column: verdict.gain_in_brackets(difference_of(result, one))})
    return rows


def metrics_of(result: Result) -> list[str]:
    """Return the metrics of a result, the study's main one first."""
    there = sorted({one.metric for one in result.arms if finite(one.value) is not None})
    return sorted(there, key=lambda metric: metric != result.primary)


def of_metric(result: Result, metric: str) -> list[dict[str, Any]]:
    """Return every model's figure of a metric: arm, name, value, low, high and method.

    The adjusted model is left out where its figure equals the shared model's, as an intercept changes no ranks.
    """
    figures_by_arm: dict[str, dict[str, Any]] = {}
    for one in result.arms:
        if one.metric == metric:
            name = verdict.ARM_NAMES.get(one.arm, one.arm)
            figures_by_arm[one.arm] = {"arm": one.arm, "name": name, "method": one.method, **_ends(one)}
    values = [figures_by_arm[arm]["value"] for arm in ("global", "personalised") if arm in figures_by_arm]
    if len(values) == 2 and values[0] == values[1] is not None:
        del figures_by_arm["personalised"]
    return list(figures_by_arm.values())


def judged(result: Result, metric: str) -> tuple[str, str]:
    """Return the verdict on joining at this site: a code, and one sentence with the numbers."""
    return verdicts.site_verdict(site_entry(result, metric), metric)


if __name__ == "__main__":
    page_frame.show("Our own results", parts)
