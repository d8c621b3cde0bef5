"""Panel of runs side by side.

It shows each run's figures over all sites and at each, and differences between their studies.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.charts.by_site import interval_chart
from flfed.records.dashboard.refresh import Opened, open_series
from flfed.records.dashboard.sections import figure, table
from flfed.records.objects import figure_of, run_of
from flfed.records.reports.catalogue import comparison_warnings
from flfed.records.reports.faults import STATUS_WORDS
from flfed.records.reports.privacy import name_mechanism, private_of
from flfed.records.reports.report import primary_of
from flfed.records.reports.site_answer import shared_with_verdict
from flfed.records.statistics import Report, verdict
from flfed.records.text import describe_study, escape, seconds_in_words
from flfed.study.study_text import differing_values
from flfed.words import render

MOST = 6
"""Most runs side by side; more columns cannot be read."""
Compared = dict[str, Opened]


def side_by_side(series: Sequence[str]) -> None:
    """Show some runs beside each other, and why some of them cannot be compared."""
    opened_by_title = {}
    for opened in open_series(series):
        # The end of the id distinguishes runs of one study.
        title = f"{describe_study(opened.runs[0].study)} {opened.runs[0].series[-4:]}"
        opened_by_title[title] = opened
    st.markdown("## Side by side")
    runs = [
        (name, opened.report, opened.shown.study_text, opened.shown.sites) for name, opened in opened_by_title.items()
    ]
    for line in comparison_warnings(runs):
        st.warning(escape(line))
    metric = next(filter(None, (primary_of(report) for _, report, *_ in runs)), None)
    if metric is not None:
        _figures(opened_by_title, metric)
    table(_facts(opened_by_title))
    differing = differences([(name, text) for name, _, text, _ in runs])
    st.markdown("### Differences between studies")
    if differing:
        table(differing)
    else:
        st.markdown(render("pages.compare.same"))


def _facts(opened_by_name: Compared) -> list[dict[str, str]]:
    """Return one line a fact, one column a run."""
    lines: dict[str, dict[str, str]] = {}
    for name, opened in opened_by_name.items():
        run = run_of(opened.report)
        privacy = private_of(run.privacy)
        facts = {"Run": run.run, "Status": STATUS_WORDS[run.status], "Engine": run.engine}
        facts |= {"Rounds": str(run.rounds), "Repeats": str(run.repeats)}
        facts |= {"Time": seconds_in_words(run.seconds), "Sites": str(len(run.sites))}
        facts["Privacy mechanism"] = name_mechanism(privacy.mechanism, privacy.epsilon)
        # Facts are the table's lines and runs its columns.
        for fact, value in facts.items():
            lines.setdefault(fact, {"": fact})[name] = value
    return list(lines.values())


def _figures(opened_by_name: Compared, metric: str) -> None:
    """Show one figure of every run: over all sites as a chart, and at each site as a table."""
    lines = []
    drawn: list[Report] = []
    cells: dict[str, dict[str, str]] = {}
    for name, opened in opened_by_name.items():
        run = run_of(opened.report)
        of = figure_of(run.global_, metric)
        lines.append({"Run": name, verdict.metric_name(metric): of.value, "95 % low": of.low, "95 % high": of.high})
        drawn.append({"name": name, "arm": "global", "value": of.value, "low": of.low, "high": of.high})
        for site, of_site in run.sites.items():
            cells.setdefault(site, {})[name] = shared_with_verdict(of_site, metric)
    shared = render("pages.figures.shared", metric=verdict.metric_name(metric), interval="95 % CI")
    title = f"{shared}, all sites"
    says = "; ".join(f"{line['name']}: {verdict.number(line['value'])}" for line in drawn)
    figure(st, title, interval_chart(drawn, metric), lines, key="compared", says=says)
    st.caption(render("pages.compare.overlap"))
    if cells:
        st.markdown(f"**{render('pages.compare.sites', metric=verdict.metric_name(metric))}**")
        none = dict.fromkeys(opened_by_name, "took no part")
        table([{"Site": site} | none | cells[site] for site in sorted(cells)])


def differences(studies: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    r"""Return the keys in which some studies differ, with a column for each run.

    Examples
    --------
    >>> differences([("a", "seed = 1\nname = 'x'"), ("b", "seed = 2\nname = 'x'")])
    [{'Key': 'seed', 'a': '1', 'b': '2'}]
    """
    lines = []
    for key, values in differing_values(dict(studies), "not given").items():
        # Expected figures are no settings.
        if not key.startswith("expected."):
            lines.append({"Key": key} | {name: str(value) for name, value in values.items()})
    return lines
