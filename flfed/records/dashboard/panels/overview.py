"""Panels of the page of one run.

They are in plain words for clinicians and risk officers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from flfed.errors import counted
from flfed.records.dashboard.refresh import Opened, Shown
from flfed.records.dashboard.sections import bullets, table
from flfed.records.objects import figure_of, run_of
from flfed.records.reports import report
from flfed.records.reports.faults import (
    STATUS_WORDS,
    holdout_in_words,
    leak_lines,
    leaks_in_words,
    missing_in_words,
    refused_sites,
    set_aside_lines,
    site_facts,
    updates_set_aside,
)
from flfed.records.reports.narrative import (
    apart,
    doubts,
    glossary_of,
    interval_name,
    is_measured,
    joining_in_words,
    least_gain,
    stands_out,
    story,
    tally,
    under,
)
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    GAIN_NOT_RELEASED,
    METRICS,
    OWN_UNDER_NOISE,
    SLOPE,
    is_uncompared,
    noised_scores,
    own_under_noise,
    wording,
)
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.own_models import pooled_in_words
from flfed.records.statistics.verdict import describe_interval, metric_name, number, sentence_case, size_and_span
from flfed.records.store.entries import RunEntry
from flfed.records.text import escape, moment, with_code

GOES_ON = {
    "interrupted": "Go on from the last round that was kept",
    "stopped": "Once the cause is put right, go on with",
    "failed": "Once the cause is put right, go on with",
}
STATUS_COLOURS: dict[str, Literal["gray", "blue", "orange", "red"]] = {
    "completed": "gray",
    "running": "blue",
    "stopped": "orange",
}
NO_MODEL = "This study trains no model: see Overview."
"""On pages that tell of training, and of test rows."""
COMPARED = "joining is compared now, on test rows"
COUNTED = "test rows are counted by score now, with noise"
"""What follows the last round, and what does where all that leaves is charged."""
NOISED_CARDS = ("roc_auc_score", "brier_score_loss")
"""Figures with a card where a gain has one, too: the table below has the others."""
CARD_PIXELS = 172
"""Five cards side by side beside the margin of a screen of 1,280 pixels, two on one of 390; the others go on below."""


def no_runs() -> None:
    """Say what to do in an empty store."""
    st.info("There is no run yet. Start one with `flfed demo`, or `flfed study run NAME`; it shows up here.")


def head(title: str, runs: Sequence[RunEntry], name: str, *, only: str | None = None, after: str = COMPARED) -> None:
    """Show a page's title and its run's status.

    The title has the study's name. Below stand why the run is so, and when it started.

    How to go on with it is not told to `only`, one site's people, who cannot. `after` is what follows the last round.
    """
    run = run_of(report.head(runs, name))
    status = run.status
    study = f"{title}: {run.study}" if title else run.study
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(escape(study), width="content", anchor=False)
        st.badge(STATUS_WORDS[status], color=STATUS_COLOURS.get(status, "red"))
    repeats = f", {len(runs)} repeats" if len(runs) > 1 else ""
    st.caption(f"Run {run.run}, {moment(runs[0].started)} UTC{_took(run.seconds)}{repeats}")
    if run.reason:
        go_on = how_to_go_on(runs)
        # The reason may tell how to go on by itself.
        if only or go_on.rpartition(": ")[2].strip("`") in run.reason:
            go_on = ""
        reason = f"Why it is {status}: {run.reason.rstrip('.')}. "
        st.warning(with_code(reason) + go_on)
    elif status == "running":
        progress(runs, after)


def _took(seconds: float | None) -> str:
    """Return a run's time in words; where none is recorded none is shown, and a very short one not in figures."""
    if seconds is None:
        return ""
    if seconds < 1:
        return ", under a second"
    digits = 1 if seconds < 10 else 0
    return f", {seconds:.{digits}f} seconds"


def progress(runs: Sequence[RunEntry], after: str = COMPARED) -> None:
    """Show how far a series is, as a bar; `after` is what follows the last round."""
    going = [run for run in runs if run.status == "running"] or runs[-1:]
    # Of repeats side by side the slowest one is told of.
    last = min(going, key=lambda run: run.rounds)
    text = f"Round {last.rounds} of {last.rounds_planned}"
    if not last.rounds_planned:
        text = "The sites are asked for what the study counts; it trains no model"
    elif last.rounds >= last.rounds_planned:
        text = f"All rounds ran; {after}"
    if len(going) > 1:
        text = f"{len(going)} of {last.repeats} repeats side by side. {text}"
    elif last.repeats > 1:
        text = f"Repeat {last.repeat + 1} of {last.repeats}. {text}"
    planned = last.rounds_planned
    if len(runs) > 1:
        planned *= last.repeats
    st.progress(min(sum(run.rounds for run in runs) / max(planned, 1), 1.0), text)


def how_to_go_on(runs: Sequence[RunEntry]) -> str:
    """Return the command that resumes a run.

    It is for the first run of some that did not end well, in Markdown. An empty text for none.

    A point of a sweep is not gone on with: the sweep is run again.

    Examples
    --------
    >>> how_to_go_on([])
    ''
    """
    ended = [run for run in runs if run.status in GOES_ON and not run.study.endswith("-sweep")]
    return f"{GOES_ON[ended[0].status]}: `flfed study resume {ended[0].run}`" if ended else ""


def not_compared(opened: Opened) -> None:
    """Say why a run was not compared, and who took no part in it."""
    run_report = opened.report
    status = run_of(run_report).status
    for line in missing_in_words(run_report):
        st.warning(escape(line))
    texts = wording(run_report)
    why = {
        "running": texts.running,
        "interrupted": texts.interrupted,
        "completed": "This run was not compared with the sites' own models.",
    }
    nothing = "Nothing was compared"
    if not opened.trains:
        why = dict.fromkeys(("running", "interrupted"), "The figures follow once the sites have answered.")
        why["completed"] = "The study trains no model: it counts rows, and nothing is compared."
        nothing = "Nothing is known"
    how = "stopped" if status == "stopped" else "failed"
    st.info(why.get(status, f"{nothing}: the run {how} before that."))


def cards(run_report: Report, metric: str, planned: int) -> None:
    """Show the five answers people look for first."""
    run = run_of(run_report)
    compared = not is_uncompared(run_report)
    short = "all that were planned" if run.rounds >= planned else "fewer than planned"
    if run.status == "running":
        short = "still running"
    with st.container(horizontal=True, gap="xsmall"):
        if noised_scores(run_report) is None:
            _exact_cards(run_report, metric)
        else:
            figures = {name: of for name, of in run.global_.items() if not compared or name in NOISED_CARDS}
            noised_cards(figures, run.noised_scores.get("all"), run.repeats)
        if compared:
            card("Largest clear gain", *_most(run_report, metric))
        card("Rounds run", f"{run.rounds} of {planned}", short)
        if noised_scores(run_report) is None:
            refused = len(refused_sites(run_report))
            sites = "1 site" if refused == 1 else f"{refused} sites"
            card("Rejected updates", str(updates_set_aside(run_report)), f"and {sites} refused")


def _exact_cards(run_report: Report, metric: str) -> None:
    """Show the shared model and the one of all rows in one place as cards."""
    run = run_of(run_report)
    shared = figure_of(run.global_, metric)
    pooled = figure_of(run.pooled, metric).value
    away = "not measured in this run"
    # The distance to pooled is measured only where both were compared.
    if pooled is not None and shared.value is not None:
        away = apart(pooled, shared.value, metric)
    what = shared.reason or ", ".join([metric_name(metric), *under(shared, run.repeats)])
    card("Shared model", number(shared.value), what)
    caption = "; ".join(filter(None, ("pooled, for reference", pooled_in_words(run_report), away)))
    card("All rows in one place", number(pooled), caption)


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
    for metric in METRICS:
        if metric in figures:
            one = figure_of(figures, metric)
            below = one.reason or ", ".join(under(one, repeats))
            card(sentence_case(metric_name(metric)), number(one.value), below)
    if counts is not None and counts["slope"] is not None:
        slope = figure_of(counts, "slope")
        first = ", of the first repeat" if repeats > 1 else ""
        card(SLOPE, number(slope.value), f"{', '.join(under(slope, 1))}{first}; 1 is calibrated")


def card(label: str, value: str, below: str) -> None:
    """Show one figure as a card.

    Its label stands above it, in a word or three, and what it means below.
    """
    with st.container(border=True, width=CARD_PIXELS, height="stretch", gap="xxsmall"):
        st.metric(escape(label), value)
        st.caption(escape(below))


def _most(run_report: Report, metric: str) -> tuple[str, str]:
    """Return the largest clear gain and its site.

    Only sites with a clear gain count; the text states where there is none.
    """
    run = run_of(run_report)
    best = stands_out(run_report, metric)
    if best is None:
        none = f"no interval ({interval_name(run_report)}) lies above {least_gain(run_report, metric)}"
        return "none", none if is_measured(run_report, metric) else "no gain was measured"
    least = run.rule.minimum_gain[metric]
    size, _ = size_and_span(best[1], least)
    return size, f"at {best[0]} ({describe_interval(best[1], least)})"


def in_words(run_report: Report, metric: str | None, planned: int) -> None:
    """Show the run as sentences.

    The warnings stand above already.
    """
    above = [*odd_sites_in_words(run_report), GAIN_NOT_RELEASED, OWN_UNDER_NOISE]
    if metric:
        above += missing_in_words(run_report)
    lines = [line for line in story(run_report, metric=metric, planned=planned) if line not in above]
    with st.container(border=True):
        st.markdown("### In words")
        st.markdown(bullets(map(escape, lines)))


def answer(run_report: Report, metric: str, warnings: int) -> None:
    """Show whether joining improves the figure on average.

    Without a mean, show the number of sites that gain. `warnings` stand below the chart.
    """
    if is_uncompared(run_report):
        one = figure_of(run_of(run_report).global_, metric)
        figure_text = f"not known: {one.reason}" if one.value is None else f"{number(one.value)} over all sites"
        st.markdown(f"## {escape(metric_name(metric))} {escape(figure_text)}")
        st.markdown(escape(GAIN_NOT_RELEASED))
    else:
        _whether_it_pays(run_report, metric)
    if warnings:
        st.markdown(f":orange-badge[:material/warning: {counted(warnings, 'warning')} below]")


def _whether_it_pays(run_report: Report, metric: str) -> None:
    headline, _, figures = joining_in_words(run_report, metric).partition(": ")
    counted_sites = tally(run_report, metric).partition(";")[0].rstrip(".")
    first, *others = [*doubts(run_report, metric), headline or counted_sites]
    st.markdown(f"## {escape(first)}")
    for line in others:
        st.markdown(f"**{escape(line)}**")
    if figures:
        # A gain on average may be clear where it is so at no site by itself.
        st.markdown(f"**{escape(sentence_case(figures))}** {escape(counted_sites)}.")
    for line in own_under_noise(run_report):
        st.markdown(escape(line))


def warnings_of(shown: Shown) -> list[str]:
    """Return what to know before one believes the figures.

    That is which sites are missing, which columns may leak the target, and which sites seem coded otherwise.
    """
    return [*missing_in_words(shown.report), *leak_warnings(shown), *odd_sites_in_words(shown.report)]


def leak_warnings(shown: Shown) -> list[str]:
    """Return that columns may leak the target, and which page says more."""
    return [f"{line} Page Data says more." for line in leaks_in_words(shown.leaks)]


def warn(lines: Sequence[str]) -> None:
    """Show warnings as one list."""
    if lines:
        st.warning(bullets(map(escape, lines)))


def set_aside(opened: Opened) -> None:
    """Show what was set aside, refused or flagged, of one site or of all; where there was nothing, that is said."""
    run_report = opened.report
    events = opened.shown.events
    st.markdown("## Rejected, refused, odd")
    if not run_of(run_report).faults:
        none = "No update was rejected and no site was refused." if opened.trains else "No site was refused."
        if opened.only is not None:
            none = f"Nothing of {escape(opened.only)} was rejected or refused."
        st.markdown(none)
    if lines := set_aside_lines(run_report, events):
        table(lines)
    if sentences := holdout_in_words(events):
        st.caption(with_code(" ".join(sentences)))


def trains_nothing(opened: Opened) -> bool:
    """Tell whether a study has no model, and say so where it has none."""
    if not opened.trains:
        st.info(NO_MODEL)
    return not opened.trains


def who_takes_part(shown: Shown) -> None:
    """Show which sites take part, and who refused."""
    if shown.sites:
        st.markdown("## Who takes part")
        table(facts_of_sites(shown))


def facts_of_sites(shown: Shown) -> list[dict[str, Any]]:
    """Return what the record has of each site, for a table."""
    return [site_facts(site, shown.report) for site in shown.sites]


def leaks(opened: Opened) -> None:
    """Show which columns may leak the target; one site's people are told none."""
    st.markdown("## Columns that may give the answer away")
    payload = opened.shown.leaks
    if opened.only is not None:
        st.caption("Looked for in the rows of all sites together, of which one site's people are shown nothing.")
        return
    if reasons := leak_lines(opened.shown.events, payload):
        warn(reasons)
    elif payload is None:
        st.caption("This run was not checked for leaks.")
    else:
        st.markdown("None was found: no column, and no gap in one, gives the target away by itself.")
    if untested := (payload or {}).get("untested", ()):
        listed = ", ".join(map(str, untested))
        st.caption(escape(f"Too few rows have a gap, or none, to test whether gaps tell the target: {listed}."))


def words(opened: Opened) -> None:
    """Show the glossary, folded away."""
    terms = glossary_of(opened.report, trains=opened.trains)
    with st.expander("What the words mean"):
        st.markdown(bullets(f"*{escape(term)}*: {escape(meaning)}" for term, meaning in terms.items()))


def report_file(opened: Opened) -> None:
    """Show a button for the run's report as a file, folded away.

    The people of one site get that of their site. It is made once it is unfolded, and by the roles of that moment.
    """
    folded = st.expander("A report to print or hand on", key="report", on_change="rerun")
    if not folded.open:
        return
    with folded:
        whose = f", with the figures of {opened.only} only" if opened.only else ""
        st.caption(escape(f"One file that opens without a network, and prints on A4{whose}."))
        text = opened.document()
        file = f"{opened.name}.html"
        st.download_button("Download the report", text, file, "text/html", on_click="ignore", key="report.html")


def facts(opened: Opened) -> None:
    """Show sites, bytes and the study, folded away; to the coordinator, also what program and machine made the run."""
    made_by = opened.viewer.role == "coordinator"
    title = "Sites, versions, hashes and the study" if made_by else "Sites and the study"
    folded = st.expander(title, key="facts", on_change="rerun")
    # Nothing is read from the store for a part that nobody unfolds.
    if not folded.open:
        return
    with folded:
        table(facts_of_sites(opened.shown))
        if sent := opened.bytes_sent():
            ways = (f"{count / 1e6:.2f} MB {way.replace('-', ' ')}" for way, count in sorted(sent.items()))
            each = bytes_in_words(opened.report["round-bytes"])
            st.markdown(" ".join(filter(None, [f"Crossed in all: {', '.join(ways)}.", each])))
        if made_by:
            run = opened.runs[0]
            facts = {"engine": run.engine, "path": run.path, "seed": run.seed, "arrays-sha256": run.arrays_sha256}
            st.json({**facts, "versions": dict(run.versions), "hashes": dict(run.hashes)}, expanded=2)
        if opened.only:
            st.caption("The study, without its comments, names of other sites and the figures that it expects:")
        st.code(opened.shown.study_text, language="toml")
