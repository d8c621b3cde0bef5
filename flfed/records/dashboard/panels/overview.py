"""Panels on one run as a whole: status, verdict, figures, refusals, and the report as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import bullets, table
from flfed.records.objects import figure_of, run_of
from flfed.records.reports import faults, narrative, report
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.sections import answer as answers
from flfed.records.statistics import Report
from flfed.records.statistics import noised_scores as noised
from flfed.records.statistics.verdict import metric_name, number, sentence_case
from flfed.records.store.entries import RunEntry
from flfed.records.text import describe_study, escape, moment, seconds_in_words, size_in_words, with_code
from flfed.words import counted, render

STATUS_COLOURS: dict[str, Literal["gray", "blue", "orange", "red"]] = {
    "completed": "gray",
    "running": "blue",
    "stopped": "orange",
}


def head(title: str, runs: Sequence[RunEntry], name: str, *, noised: bool = False) -> None:
    """Show a page's title with the study's name, the run's status and its reason, and its start.

    `noised` is whether the privacy budget is for everything a site releases.
    """
    run = run_of(report.head(runs, name))
    status = run.status
    study = describe_study(run.study)
    if title:
        study = f"{title}: {study}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(escape(study), width="content", anchor=False)
        st.badge(faults.STATUS_WORDS[status], color=STATUS_COLOURS.get(status, "red"))
    parts = [f"Run {run.run}", f"{moment(runs[0].started)} UTC", seconds_in_words(run.seconds)]
    if len(runs) > 1:
        parts.append(f"{len(runs)} repeats")
    st.caption(", ".join(filter(None, parts)))
    if run.reason:
        resume = how_to_go_on(runs)
        # The reason may have the command already.
        if resume.rpartition(": ")[2].strip("`") in run.reason:
            resume = ""
        st.warning(with_code(f"Why it is {status}: {run.reason.rstrip('.')}. ") + resume)
    elif status == "running":
        progress(runs, noised=noised)


def progress(runs: Sequence[RunEntry], *, noised: bool = False) -> None:
    """Show the progress of a series as a bar; `noised` is as for `head`."""
    going = [run for run in runs if run.status == "running"] or runs[-1:]
    # Of repeats side by side the slowest one is shown.
    last = min(going, key=lambda run: run.rounds)
    text = f"Round {last.rounds} of {last.rounds_planned}"
    if not last.rounds_planned:
        text = render("pages.progress.statistic")
    elif last.rounds >= last.rounds_planned:
        text = render("pages.progress.counted" if noised else "pages.progress.compared")
    if len(going) > 1:
        text = render("pages.progress.parallel", running=len(going), repeats=last.repeats, progress=text)
    elif last.repeats > 1:
        text = f"Repeat {last.repeat + 1} of {last.repeats}. {text}"
    planned = last.rounds_planned
    if len(runs) > 1:
        planned *= last.repeats
    st.progress(min(sum(run.rounds for run in runs) / max(planned, 1), 1.0), text)


def how_to_go_on(runs: Sequence[RunEntry]) -> str:
    """Return how to resume the first run that was interrupted, stopped or failed, in Markdown; "" of none.

    Examples
    --------
    >>> how_to_go_on([])
    ''
    """
    for run in runs:
        if faults.can_resume(run.status, run.study, run.reason):
            key = "resume" if run.status == "interrupted" else "fixed"
            return render(f"pages.resuming.{key}", run=run.run)
    return ""


def not_compared(opened: Opened) -> None:
    """Show why a run was not compared, and which sites are missing from it."""
    run_report = opened.report
    status = run_of(run_report).status
    for line in faults.missing_in_words(run_report):
        st.warning(escape(line))
    texts = noised.wording(run_report)
    how = "stopped" if status == "stopped" else "failed"
    if opened.trains:
        why = {
            "running": texts.running,
            "interrupted": texts.interrupted,
            "completed": render("pages.uncompared.model"),
        }
        ended = render("pages.uncompared.ended", how=how)
    else:
        why = dict.fromkeys(("running", "interrupted"), render("pages.uncompared.waiting"))
        why["completed"] = render("pages.uncompared.statistic")
        ended = render("pages.uncompared.unknown", how=how)
    st.info(why.get(status, ended))


def in_words(opened: Opened, metric: str | None) -> None:
    """Show the run as sentences, without those that stand elsewhere on the page."""
    if lines := answers.words(opened.shown, metric):
        with st.container(border=True):
            st.markdown("### In words")
            st.markdown(bullets(map(escape, lines)))


def answer(run_report: Report, metric: str, warnings: int) -> None:
    """Show whether joining improves the figure on average, else at how many sites; `warnings` stand below the chart."""
    if noised.is_uncompared(run_report):
        one = figure_of(run_of(run_report).global_, metric)
        figure_text = f"not known: {one.reason}"
        if one.value is not None:
            figure_text = number(one.value) + " over all sites"
        st.markdown(f"## {escape(metric_name(metric))} {escape(figure_text)}")
        st.markdown(escape(noised.uncompared_in_words(run_report)))
    else:
        headline, _, figures = narrative.joining_in_words(run_report, metric).partition(": ")
        counted_sites = narrative.tally(run_report, metric).partition(";")[0].rstrip(".")
        first, *others = [*narrative.doubts(run_report, metric), headline or counted_sites]
        st.markdown(f"## {escape(first)}")
        for line in others:
            st.markdown(f"**{escape(line)}**")
        if figures:
            beside = f"{counted_sites}. {narrative.describe_mean_beside_sites(run_report, metric)}".rstrip()
            st.markdown(f"**{escape(sentence_case(figures))}** {escape(beside)}")
    if warnings:
        st.markdown(f":orange-badge[:material/warning: {counted(warnings, 'warning')} below]")


def warn(lines: Sequence[str]) -> None:
    """Show warnings as one list."""
    if lines:
        st.warning(bullets(map(escape, lines)))


def trains_nothing(opened: Opened) -> bool:
    """Return whether a study has no model, and show so where it has none."""
    if not opened.trains:
        st.info(render("pages.uncompared.elsewhere"))
    return not opened.trains


def who_takes_part(opened: Opened) -> None:
    """Show which sites take part, and which refused."""
    if opened.shown.sites:
        st.markdown("## Who takes part")
        table(facts_of_sites(opened))


def facts_of_sites(opened: Opened) -> list[dict[str, Any]]:
    """Return each site's facts in the record, for a table."""
    return [faults.site_facts(site, opened.report) for site in opened.shown.sites]


def words(opened: Opened) -> None:
    """Show the glossary, folded away."""
    terms = narrative.glossary_of(opened.report, trains=opened.trains)
    with st.expander("Glossary"):
        st.markdown(bullets(f"*{escape(term)}*: {escape(meaning)}" for term, meaning in terms.items()))


def report_file(opened: Opened) -> None:
    """Show a button for the run's report as a file, folded away, which is made when it is unfolded."""
    folded = st.expander("Printable report", key="report", on_change="rerun")
    if not folded.open:
        return
    with folded:
        st.caption(render("pages.overview.printed"))
        text = opened.document()
        file = f"{opened.name}.html"
        st.download_button("Download the report", text, file, "text/html", on_click="ignore", key="report.html")


def facts(opened: Opened) -> None:
    """Show sites, bytes, versions and hashes and the study, folded away."""
    folded = st.expander("Sites, study, versions", key="facts", on_change="rerun")
    # A folded part reads nothing from the store.
    if not folded.open:
        return
    with folded:
        table(facts_of_sites(opened))
        if sent := opened.bytes_sent():
            to_sites, from_sites = (size_in_words(sent.get(way, 0)) for way in ("to-site", "to-server"))
            in_all = render("pages.overview.bytes", to_sites=to_sites, from_sites=from_sites)
            st.markdown(" ".join(filter(None, [in_all, bytes_in_words(opened.report["round-bytes"])])))
        run = opened.runs[0]
        facts = {"engine": run.engine, "path": run.path, "seed": run.seed, "arrays-sha256": run.arrays_sha256}
        st.json({**facts, "versions": dict(run.versions), "hashes": dict(run.hashes)}, expanded=2)
        st.code(opened.shown.study_text, language="toml", wrap_lines=True)
