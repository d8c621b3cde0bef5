"""Panels of the page Sites.

They show whether joining was worth it at one site, and how all sites did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from flfed.records.charts.by_site import forest_plot, sites_by_arm
from flfed.records.charts.chart import Line
from flfed.records.charts.intervals import ENDS, interval_chart
from flfed.records.dashboard import page_files
from flfed.records.dashboard.components.figure import figure
from flfed.records.dashboard.components.sections import show
from flfed.records.dashboard.components.tables import SITES_SHOWN, table
from flfed.records.dashboard.panels.overview import card, noised_cards, not_compared
from flfed.records.reports import site_answer
from flfed.records.reports.glossary import of_noised_scores
from flfed.records.reports.narrative import (
    doubts,
    ends_of,
    gain_in_words,
    interval_name,
    least_gain,
    tally,
    unadjusted_in_words,
    untold_in_words,
)
from flfed.records.reports.report import arms_shown, metrics_of
from flfed.records.reports.site_answer import (
    MODELS,
    left_out,
    order_of_sites,
    own_figures,
    rests_on,
    should_it_join,
    site_line,
    together,
    untold_at,
)
from flfed.records.reports.site_verdict import best_arm, best_gain, own_in_words, site_verdict, worthwhile_at
from flfed.records.sections.gains import at_the_ends
from flfed.records.sections.gains import gains as section_of_gains
from flfed.records.sections.gains import references as section_of_references
from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import (
    SCORES,
    TRAINED_ON,
    figure_lines,
    is_covered,
    is_uncompared,
    lost_in_words,
    own_under_noise,
    with_verdict,
)
from flfed.records.statistics.mean_gain import ASSUMES, COVERAGE
from flfed.records.statistics.own_models import own_parts_in_words, pooled_in_words
from flfed.records.statistics.verdict import (
    ABSENT,
    ARM_NAMES,
    DO_NOT_USE,
    MINUS,
    NO_CLEAR_GAIN,
    PAYS,
    TOO_SMALL,
    describe_interval,
    has_interval,
    interval,
    metric_name,
    number,
    sentence_case,
    size_and_span,
)
from flfed.records.store.entries import SiteEntry
from flfed.records.text import escape

FEW_SITES = 8
"""Sites on the page Overview."""
CARDS = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted to the site"}


def answer(found: Report, site: str, metric: str) -> None:
    """Show whether joining paid at one site.

    It shows the answer, its figures, and what they rest on.
    """
    of_site = found["sites"][site]
    said, sentence = should_it_join(found, site, metric), site_verdict(of_site, metric)[1]
    with st.container(border=True):
        st.markdown(f"### {escape(said)}")
        for line in doubts(found, metric):
            st.markdown(f"**{escape(line)}**")
        _models(found, site, metric)
        st.markdown(escape(sentence))
        for line in own_under_noise(found):
            st.markdown(escape(line))
        with st.container(horizontal=True, gap="xsmall"):
            if is_covered(found):
                noised_cards(of_site["global"], _counts_of(found, site), found["repeats"])
            if not is_uncompared(found):
                card("Gain by joining", *_gain(of_site, metric))
            for arm in () if is_covered(found) else arms_shown(found, metric):
                value, below = _figure(of_site[arm].get(metric, {}), metric, found["repeats"])
                family = own_in_words(of_site) if arm == "local-only" else ""
                card(CARDS[arm], value, f"{family}; {below}" if family else below)
            # The pooled model is measured on all sites, so that its card stands last.
            if found["pooled"]:
                value, below = _figure(found["pooled"].get(metric, {}), metric, found["repeats"])
                family = f"{words}; " if (words := pooled_in_words(found)) else ""
                card("All rows in one place", value, f"{family}{below}; at all sites together, for reference")
        with st.expander("What these figures rest on, and what they do not show"):
            st.markdown("\n".join(f"- {escape(line)}" for line in rests_on(found, site, metric)))


def _counts_of(found: Report, site: str) -> Report | None:
    """Return a site's noised counts of scores, None where there are none."""
    counts: dict[str, Report] = (found.get(SCORES) or {}).get("sites", {})
    return counts.get(site)


def noised_figures(found: Report, metric: str) -> None:
    """Show the figures that come from noised counts, over all sites and at each; nothing without counts."""
    if lines := figure_lines(found):
        st.markdown("**Figures from noised counts, with 95 % CI**")
        table(lines)
        for line in lost_in_words(found, metric):
            st.caption(escape(line))


def _models(found: Report, site: str, metric: str) -> None:
    """Show each model at one site as a chart."""
    lines = [
        {"name": CARDS[arm], "arm": arm, **entry}
        for arm in arms_shown(found, metric)
        if (entry := found["sites"][site][arm].get(metric))
    ]
    drawn = interval_chart(lines, metric)
    table = [{"Model": line["name"], **{end: line[end] for end in ENDS}} for line in lines]
    says = "; ".join(f"{line['name']} {number(line['value'])}" for line in lines)
    which = "the shared model" if is_covered(found) else "each model"
    figure(st, f"{metric_name(metric)} of {which}, 95 % CI", drawn, table, key="site-own-models", says=says)


def _gain(of_site: Report, metric: str) -> tuple[str, str]:
    """Return the gain that decides the verdict.

    With it comes a text that says of which model it is, with its interval.
    """
    best = best_arm(of_site, metric)
    if best is None or not has_interval(best[1]):
        return ABSENT, "it cannot be told"
    least = worthwhile_at(of_site, metric)
    size, _ = size_and_span(best[1], least)
    return size, f"by the {ARM_NAMES[best[0]]}, {describe_interval(best[1], least)}; + is better"


def _figure(entry: Report, metric: str, repeats: int) -> tuple[str, str]:
    """Return one figure and its meaning.

    The meaning is its metric and interval, or why there is none.
    """
    if entry.get("value") is None:
        return ABSENT, str(entry.get("reason", "not measured"))
    span = interval(entry["low"], entry["high"])
    of = "of one repeat 95 %" if repeats > 1 else "95 %"
    return number(entry["value"]), f"{metric_name(metric)}, " + ("no interval" if span == ABSENT else f"{of} {span}")


def why_not_told(found: Report, sites: Sequence[SiteEntry], site: str, *, trains: bool) -> None:
    """Tell one site's people why figures are missing; `trains` tells whether the study has a model."""
    why = site_answer.why_not_told(found, sites, site)
    if why:
        st.info(escape(why))
    else:
        not_compared(found, trains=trains)


def everywhere(found: Report, metric: str, sites: Sequence[SiteEntry], only: str | None = None) -> None:
    """Show gain and models of every site.

    They are shown as charts and as a table, with who is not in it. `only` is the one site to show.
    """
    own = own_figures(found, sites)
    order = [name for name in order_of_sites(found, metric) if name in own]
    if order:
        whose = "All sites" if only is None else escape(only)
        st.markdown(f"## {whose}: {metric_name(metric)} on rows nobody trained on")
        _beside(found, metric, order)
    for line in left_out(sites) if only else [*together(found, metric), *left_out(sites)]:
        st.caption(escape(line))


def _beside(found: Report, metric: str, order: Sequence[str]) -> None:
    """Show gain and models of some sites."""
    # Of many sites the ends of the order are drawn, and the table has all.
    shown = ends_of(order, SITES_SHOWN)
    if len(shown) < len(order):
        half = SITES_SHOWN // 2
        st.caption(f"The charts show the {half} sites that gain most and the {half} that gain least.")
    arms = arms_shown(found, metric)
    lines = [_line(found, name, metric, arms) for name in order]
    if is_uncompared(found):
        _shared_model(found, metric, shown, lines)
        table([site_line(found, name, metric, arms) for name in order])
        for line in lost_in_words(found, metric):
            st.caption(escape(line))
        return
    left, right = st.columns(2)
    gains, models = forest_plot(found, metric, shown), sites_by_arm(found, metric, shown)
    says = "; ".join(
        f"{line['Site']}: {line['Verdict']}, {gain_in_words(found['sites'][line['Site']], metric)}" for line in lines
    )
    title = f"Gain of each site, {interval_name(found)}"
    figure(left, title, gains, lines, key="site-gains", says=f"Gain by joining. {says}")
    words = [site_line(found, name, metric, arms) for name in order]
    names = [MODELS[arm] for arm in arms]
    by_site = (
        f"{line['Site']}: " + ", ".join(f"{name} {line[name]}" for name in names) for line in words[:SITES_SHOWN]
    )
    title = "Each model at each site, with 95 % CI"
    if arms == ["global"]:
        title = f"{metric_name(metric)} of the shared model, with 95 % CI"
    figure(right, title, models, lines, key="site-models", says=f"{title}. {'; '.join(by_site)}")
    table(words)
    if why := _untold(found, metric, order):
        st.caption(why)
    for line in unadjusted_in_words(found, metric):
        st.caption(escape(line))


def _shared_model(found: Report, metric: str, sites: Sequence[str], lines: Sequence[Line]) -> None:
    """Show the shared model's figure at some sites, the only one that leaves them."""
    title = f"{metric_name(metric)} of the shared model at each site, with 95 % CI"
    says = "; ".join(f"{site} {number(found['sites'][site]['global'].get(metric, {}).get('value'))}" for site in sites)
    if (drawn := sites_by_arm(found, metric, sites)) is not None:
        figure(st, title, drawn, lines, key="site-models", says=f"{title}. {says}")


def _line(found: Report, name: str, metric: str, arms: Sequence[str]) -> Line:
    """Return a site's line in the charts' table and its CSV file.

    Every figure and its interval stand in a cell of its own.
    """
    site = found["sites"][name]
    cells: dict[str, Any] = {"Site": name, "Rows": site["rows"], "Test rows": site["holdout-rows"]}
    if is_covered(found):
        cells = {"Site": name, TRAINED_ON.capitalize(): site["rows"]}
    for arm in arms:
        entry = site[arm].get(metric, {})
        title = ARM_NAMES[arm].capitalize()
        cells |= {title: entry.get("value"), f"{title}, low": entry.get("low"), f"{title}, high": entry.get("high")}
    gain = best_gain(site, metric)
    if gain is not None:
        ends = {"Gain, low": gain.deciding.low, "Gain, high": gain.deciding.high}
        cells |= {"Gain (+ is better)": gain.value, **ends}
    return cells if is_uncompared(found) else cells | {"Verdict": site_verdict(site, metric)[0]}


def _untold(found: Report, metric: str, sites: Sequence[str]) -> str:
    """Return a list of why it cannot be told at sites.

    It stands below the table: in it a sentence would make rows high on a narrow screen.
    """
    return "\n".join(f"- {escape(line)}" for line in untold_at(found, metric, sites))


def references(found: Report, metric: str) -> None:
    """Show the shared model beside its references."""
    show(section_of_references(found, metric), titled=False)


def who_gains(found: Report, metric: str) -> None:
    """Show the forest plot of the sites' gains, of many those at its ends."""
    order, shown = order_of_sites(found, metric), at_the_ends(found, metric, FEW_SITES)
    lines = [_line(found, site, metric, arms_shown(found, metric)) for site in order]
    if is_uncompared(found):
        _shared_model(found, metric, shown, lines)
        return
    show(section_of_gains(found, metric, shown, len(order), lines), titled=False)
    st.markdown(escape(" ".join([tally(found, metric), *untold_in_words(found, metric)])))


def links(found: Report, metric: str, name: str) -> None:
    """Show a link to each site, of many to those at the ends of the forest plot."""
    st.markdown("### One site at a time")
    with st.container(horizontal=True, gap="xsmall"):
        for site in at_the_ends(found, metric, FEW_SITES):
            st.page_link(page_files()["sites"], label=escape(site), query_params={"run": name, "site": site})


def how_to_read(found: Report, metric: str) -> None:
    """Explain the words of the charts, folded away."""
    if is_uncompared(found):
        return
    least = found["verdict-rule"]["worthwhile"][metric]
    small = f" A clear gain below {least_gain(found, metric)} is *{TOO_SMALL}*." if least else ""
    models = _models_under_noise() if is_covered(found) else _models_in_words(found)
    with st.expander("How to read this"):
        st.markdown(
            f"{models}"
            f"- **{PAYS}**: the gain's interval ({interval_name(found)}) lies above {least_gain(found, metric)}. "
            f"**{DO_NOT_USE}**: it lies below {MINUS if least else ''}{least_gain(found, metric)}. "
            f"**{NO_CLEAR_GAIN}**: neither.{small}\n"
            "- *Widened*: of many sites some seem to gain by chance alone, as one 95 % interval in twenty excludes 0. "
            "So the intervals of gains hold at all sites together (Bonferroni).\n"
            "- *On average over sites*: gains weighted by how well each is known, with room for sites that differ "
            f"(random effects, Hartung-Knapp). It holds for {ASSUMES}. {sentence_case(COVERAGE)}."
        )


def _models_in_words(found: Report) -> str:
    """Return what the models are of which the charts tell, as lines of Markdown."""
    # Where sites keep a part of the model, or a model, the names below stand for others.
    own = f"- {said}\n" if (said := own_parts_in_words(found)) else ""
    beside = (found.get("own-parts") or {}).get("beside", False)
    adjusted = "a model that the site trained" if beside else "the shared model, corrected"
    return (
        f"{own}"
        "- *Site model*: a model each site tuned on its own rows.\n"
        "- *Shared model*: trained by all sites; no row left any of them.\n"
        f"- *Adjusted to the site*: {adjusted} with the site's own rows.\n"
        "- *All rows in one place*: for reference; needs rows to leave the sites.\n"
        "- *Mean of the sites*: of the figures within each site; often lower than over all sites together, "
        "where telling the sites apart helps.\n"
        "- *Gain*: the better of *shared* and *adjusted* against the own model; + is always better.\n"
    )


def _models_under_noise() -> str:
    """Return the same of a run of which all that leaves a site is charged."""
    terms = of_noised_scores(compared=True)
    site, gain = terms["site model"], terms["gain"]
    return (
        f"- *Site model*: {site[0].lower()}{site[1:]} Its own figure does not leave the site.\n"
        "- *Shared model*: trained by all sites; no row left any of them.\n"
        f"- *Gain*: {gain[0].lower()}{gain[1:]} It comes from how many pairs of test rows the shared model orders "
        "better, a number with noise: its interval holds noise and chance.\n"
    )


def choose_metric(found: Report) -> str | None:
    """Return the metric that the reader picked.

    The primary one comes first. None where none was compared.
    """
    metrics = with_verdict(found, metrics_of(found))
    if len(metrics) < 2:
        return metrics[0] if metrics else None
    return str(st.radio("Figure", metrics, format_func=metric_name, horizontal=True, key="metric"))
