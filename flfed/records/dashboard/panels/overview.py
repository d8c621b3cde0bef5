"""Panels on one run as a whole: status, verdict, figures, refusals, and the report as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from flfed.errors import counted
from flfed.records.dashboard.refresh import Opened, Shown
from flfed.records.dashboard.sections import bullets, table
from flfed.records.objects import figure_of, run_of
from flfed.records.reports import faults, narrative, report
from flfed.records.reports.privacy_tables import size_in_words
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.statistics import Report
from flfed.records.statistics import noised_scores as noised
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.own_models import pooled_in_words
from flfed.records.statistics.verdict import describe_interval, metric_name, number, sentence_case, size_and_span
from flfed.records.store.entries import RunEntry
from flfed.records.text import escape, moment, seconds_in_words, with_code
from flfed.words import render

STATUS_COLOURS: dict[str, Literal["gray", "blue", "orange", "red"]] = {
    "completed": "gray",
    "running": "blue",
    "stopped": "orange",
}
NOISED_CARDS = ("roc_auc_score", "brier_score_loss")
"""Figures with a card beside that of a gain; the table below has the others."""
CARD_PIXELS = 172
"""Width of a card: five side by side on a screen of 1,280 pixels, two on one of 390."""


def head(title: str, runs: Sequence[RunEntry], name: str, *, only: str | None = None, noised: bool = False) -> None:
    """Show a page's title with the study's name, the run's status and its reason, and its start.

    `only` is the one site whose people read it: they cannot resume a run. `noised` is whether the privacy budget
    is for everything a site releases.
    """
    run = run_of(report.head(runs, name))
    status = run.status
    study = f"{title}: {run.study}" if title else run.study
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
        if only or resume.rpartition(": ")[2].strip("`") in run.reason:
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

    A point of a sweep is not resumed: the sweep is run again.

    Examples
    --------
    >>> how_to_go_on([])
    ''
    """
    for run in runs:
        if run.status in ("interrupted", "stopped", "failed") and not run.study.endswith("-sweep"):
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


def cards(run_report: Report, metric: str, planned: int) -> None:
    """Show the main figures as cards."""
    run = run_of(run_report)
    compared = not noised.is_uncompared(run_report)
    short = "all planned rounds" if run.rounds >= planned else "fewer than planned"
    if run.status == "running":
        short = "still running"
    with st.container(horizontal=True, gap="xsmall"):
        if noised.noised_scores(run_report) is None:
            _exact_cards(run_report, metric)
        else:
            figures = {name: of for name, of in run.global_.items() if not compared or name in NOISED_CARDS}
            noised_cards(figures, run.noised_scores.get("all"), run.repeats)
        if compared:
            card("Largest clear gain", *_most(run_report, metric))
        card("Rounds run", f"{run.rounds} of {planned}", short)
        if noised.noised_scores(run_report) is None:
            refused = counted(len(faults.refused_sites(run_report)), "site")
            card("Rejected updates", str(faults.updates_set_aside(run_report)), f"and {refused} refused")


def _exact_cards(run_report: Report, metric: str) -> None:
    """Show the shared model and the pooled model as cards."""
    run = run_of(run_report)
    shared = figure_of(run.global_, metric)
    pooled = figure_of(run.pooled, metric).value
    away = "not measured"
    # The distance to pooled is measured only where both were compared.
    if pooled is not None and shared.value is not None:
        away = narrative.apart(pooled, shared.value, metric)
    below = shared.reason or ", ".join([metric_name(metric), *narrative.under(shared, run.repeats)])
    card("Shared model", number(shared.value), below)
    caption = "; ".join(filter(None, ("for reference", pooled_in_words(run_report), away)))
    card("Pooled model", number(pooled), caption)


def noised_cards(figures: Report, counts: Report | None, repeats: int) -> None:
    """Show the figures of the shared model from noised counts as cards.

    Parameters
    ----------
    figures : dict of metric to figure
        Over all sites, or at one.
    counts : dict or None
        Noised counts of the record, with the slope of calibration.
    repeats : int
    """
    for metric in noised.METRICS:
        if metric in figures:
            one = figure_of(figures, metric)
            below = one.reason or ", ".join(narrative.under(one, repeats))
            card(sentence_case(metric_name(metric)), number(one.value), below)
    if counts is not None and counts["slope"] is not None:
        slope = figure_of(counts, "slope")
        facts = narrative.under(slope, 1)
        if repeats > 1:
            facts.append("first repeat")
        card(noised.SLOPE, number(slope.value), f"{', '.join(facts)}; 1 is calibrated")


def card(label: str, value: str, below: str) -> None:
    """Show one figure as a card, a short label above it and its meaning below."""
    with st.container(border=True, width=CARD_PIXELS, height="stretch", gap="xxsmall"):
        st.metric(escape(label), value)
        st.caption(escape(below))


def _most(run_report: Report, metric: str) -> tuple[str, str]:
    """Return the largest gain of the sites with a clear gain, and its site; "none" where there is no such site."""
    best = narrative.stands_out(run_report, metric)
    if best is not None:
        least = run_of(run_report).rule.minimum_gain[metric]
        size, _ = size_and_span(best[1], least)
        return size, f"at {best[0]} ({describe_interval(best[1], least)})"
    if not narrative.is_measured(run_report, metric):
        return "none", "not measured"
    facts = {"interval": narrative.interval_name(run_report), "least": narrative.least_gain(run_report, metric)}
    return "none", render("pages.overview.unclear", **facts)


def in_words(run_report: Report, metric: str | None, planned: int) -> None:
    """Show the run as sentences, without the warnings that stand above."""
    above = [*odd_sites_in_words(run_report), render("report.noised.gain"), *noised.own_under_noise(run_report)]
    if metric:
        above += faults.missing_in_words(run_report)
    lines = [line for line in narrative.story(run_report, metric=metric, planned=planned) if line not in above]
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
        st.markdown(escape(render("report.noised.gain")))
    else:
        _whether_it_pays(run_report, metric)
    if warnings:
        st.markdown(f":orange-badge[:material/warning: {counted(warnings, 'warning')} below]")


def _whether_it_pays(run_report: Report, metric: str) -> None:
    headline, _, figures = narrative.joining_in_words(run_report, metric).partition(": ")
    counted_sites = narrative.tally(run_report, metric).partition(";")[0].rstrip(".")
    first, *others = [*narrative.doubts(run_report, metric), headline or counted_sites]
    st.markdown(f"## {escape(first)}")
    for line in others:
        st.markdown(f"**{escape(line)}**")
    if figures:
        beside = f"{counted_sites}. {narrative.describe_mean_beside_sites(run_report, metric)}".rstrip()
        st.markdown(f"**{escape(sentence_case(figures))}** {escape(beside)}")
    for line in noised.own_under_noise(run_report):
        st.markdown(escape(line))


def leak_warnings(shown: Shown) -> list[str]:
    """Return warnings that columns may leak the target."""
    return [render("pages.leaks.warning", finding=line) for line in faults.leaks_in_words(shown.leaks)]


def warn(lines: Sequence[str]) -> None:
    """Show warnings as one list."""
    if lines:
        st.warning(bullets(map(escape, lines)))


def set_aside(opened: Opened) -> None:
    """Show rejected updates, refusals and warnings, of one site or of all, or that there were none."""
    run_report = opened.report
    events = opened.shown.events
    st.markdown("## Rejections, refusals, warnings")
    if not run_of(run_report).faults:
        st.markdown(escape(opened.none_rejected))
    if lines := faults.set_aside_lines(run_report, events):
        table(lines)
    if sentences := faults.holdout_in_words(events):
        st.caption(with_code(" ".join(sentences)))


def trains_nothing(opened: Opened) -> bool:
    """Return whether a study has no model, and show so where it has none."""
    if not opened.trains:
        st.info(render("pages.uncompared.elsewhere"))
    return not opened.trains


def who_takes_part(shown: Shown) -> None:
    """Show which sites take part, and which refused."""
    if shown.sites:
        st.markdown("## Who takes part")
        table(facts_of_sites(shown))


def facts_of_sites(shown: Shown) -> list[dict[str, Any]]:
    """Return each site's facts in the record, for a table."""
    return [faults.site_facts(site, shown.report) for site in shown.sites]


def leaks(opened: Opened) -> None:
    """Show which columns may leak the target, but none to people of one site."""
    st.markdown(f"## {render('pages.leaks.title')}")
    payload = opened.shown.leaks
    if opened.only is not None:
        st.caption(render("pages.leaks.hidden"))
        return
    if reasons := faults.leak_lines(opened.shown.events, payload):
        warn(reasons)
    elif payload is None:
        st.caption(render("pages.leaks.unchecked"))
    else:
        st.markdown(render("pages.leaks.none"))
    if untested := (payload or {}).get("untested", ()):
        st.caption(escape(render("pages.leaks.untested", columns=", ".join(map(str, untested)))))


def words(opened: Opened) -> None:
    """Show the glossary, folded away."""
    terms = narrative.glossary_of(opened.report, trains=opened.trains)
    with st.expander("Glossary"):
        st.markdown(bullets(f"*{escape(term)}*: {escape(meaning)}" for term, meaning in terms.items()))


def report_file(opened: Opened) -> None:
    """Show a button for the run's report as a file, folded away.

    People of one site get the report of their site. The file is made when it is unfolded, by the roles of that moment.
    """
    folded = st.expander("Printable report", key="report", on_change="rerun")
    if not folded.open:
        return
    with folded:
        st.caption(render("pages.overview.printed"))
        if opened.only:
            st.caption(escape(render("pages.overview.single", site=opened.only)))
        text = opened.document()
        file = f"{opened.name}.html"
        st.download_button("Download the report", text, file, "text/html", on_click="ignore", key="report.html")


def facts(opened: Opened) -> None:
    """Show sites, bytes and the study, folded away; to the coordinator, also versions and hashes."""
    made_by = opened.viewer.role == "coordinator"
    title = "Sites, study, versions" if made_by else "Sites and study"
    folded = st.expander(title, key="facts", on_change="rerun")
    # A folded part reads nothing from the store.
    if not folded.open:
        return
    with folded:
        table(facts_of_sites(opened.shown))
        if sent := opened.bytes_sent():
            to_sites, from_sites = (size_in_words(sent.get(way, 0)) for way in ("to-site", "to-server"))
            in_all = render("pages.overview.bytes", to_sites=to_sites, from_sites=from_sites)
            st.markdown(" ".join(filter(None, [in_all, bytes_in_words(opened.report["round-bytes"])])))
        if made_by:
            run = opened.runs[0]
            facts = {"engine": run.engine, "path": run.path, "seed": run.seed, "arrays-sha256": run.arrays_sha256}
            st.json({**facts, "versions": dict(run.versions), "hashes": dict(run.hashes)}, expanded=2)
        if opened.only:
            st.caption(render("pages.overview.redacted"))
        st.code(opened.shown.study_text, language="toml")
