"""Panels of the page Sites: the verdict at one site, and the figures of all sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from flfed.records.charts.by_site import interval_chart, sites_by_arm
from flfed.records.dashboard import page_files
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import SITES_SHOWN, bullets, figure, show, show_table, table
from flfed.records.objects import figure_of, read, read_figure, run_of, site_of
from flfed.records.reports import narrative, site_answer
from flfed.records.reports.report import arms_shown, metrics_of
from flfed.records.reports.site_verdict import best_gain, site_verdict
from flfed.records.section import Table
from flfed.records.sections import gains
from flfed.records.sections.gains import score_in_use
from flfed.records.statistics import Report, verdict
from flfed.records.statistics import noised_scores as noised
from flfed.records.statistics.own_models import OwnParts, own_parts_in_words
from flfed.records.text import escape
from flfed.words import render

FEW_SITES = 8
"""Sites on the page Overview."""
MODELS = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted model"}


def answer(report: Report, site: str, metric: str) -> None:
    """Show the verdict at one site, the figures behind it, and their limits."""
    of_site = run_of(report).sites[site]
    with st.container(border=True):
        # Doubts go before the verdict, as on the page Overview.
        for line in (*narrative.doubts(report, metric), site_answer.should_it_join(report, site, metric)):
            st.markdown(f"### {escape(line)}")
        _models(report, site, metric)
        st.markdown(escape(site_verdict(of_site, metric)[1]))
        with st.expander("Basis and limits"):
            st.markdown(bullets(map(escape, site_answer.rests_on(report, site, metric))))


def figures_of_all(report: Report, metric: str) -> None:
    """Show the shared model beside its references, or its figures from noised counts."""
    if noised.noised_scores(report) is None:
        show(gains.references(report, metric), titled=False)
    elif lines := noised.figure_lines(report):
        st.markdown(f"**{render('pages.sites.noised')}**")
        table(lines)
        _captions(noised.lost_in_words(report, metric))


def _captions(lines: Sequence[str]) -> None:
    for line in lines:
        st.caption(escape(line))


def _models(report: Report, site: str, metric: str) -> None:
    """Show each model at one site as a chart; figures from noised counts have a table beside it."""
    lines = []
    cells = []
    words = []
    arms = arms_shown(report, metric)
    for arm in arms:
        entry = run_of(report).sites[site][arm].get(metric)
        of_arm = read_figure(entry)
        if of_arm.value is not None:
            lines.append({"name": MODELS[arm], "arm": arm, **entry})
            cells.append({"Model": MODELS[arm], "value": of_arm.value, "low": of_arm.low, "high": of_arm.high})
            words.append(f"{MODELS[arm]} {verdict.number(of_arm.value)}")
    pooled = figure_of(run_of(report).pooled, metric)
    if cells and pooled.value is not None:
        name = f"Pooled model, {render('pages.sites.pooled')}"
        cells.append({"Model": name, "value": pooled.value, "low": pooled.low, "high": pooled.high})
    key = "shared" if arms == ["global"] else "models"
    interval = "95 % CI of one repeat" if run_of(report).repeats > 1 else "95 % CI"
    title = render(f"pages.figures.{key}", metric=verdict.metric_name(metric), interval=interval)
    # Where no model has a figure, the sentence of the verdict has the reason.
    if lines:
        figure(st, title, interval_chart(lines, metric), cells, key="site-own-models", says="; ".join(words))
    if others := noised.lines_of_site(report, site, metric):
        table(others)


def everywhere(opened: Opened, metric: str) -> None:
    """Show gain and models of every site as charts and as a table, and which sites are not in it."""
    report, sites = opened.report, opened.shown.sites
    own = site_answer.own_figures(report)
    order = [name for name in site_answer.order_of_sites(report, metric) if name in own]
    if order:
        st.markdown(f"## All sites: {verdict.metric_name(metric)} on test rows")
        _beside(report, metric, order)
    _captions(site_answer.together(report, metric))
    _captions(site_answer.left_out(sites))


def _beside(report: Report, metric: str, order: Sequence[str]) -> None:
    """Show gain and models of some sites."""
    # Of many sites the charts show both ends of the order, and the table has all.
    shown = gains.at_the_ends(report, metric, SITES_SHOWN, of=order)
    if len(shown) < len(order):
        st.caption(render("pages.sites.ends", shown=len(shown), sites=len(order)))
    arms = arms_shown(report, metric)
    lines = [_line(report, name, metric, arms) for name in order]
    words = {name: site_answer.site_line(report, name, metric, arms) for name in order}
    # All charts have one table, so that no figure stands twice.
    folded = Table(title="Table", lines=list(words.values()), key="site-figures", rows=lines, is_folded=True)
    if noised.is_uncompared(report):
        _shared_model(report, metric, shown, lines, is_tabled=False)
        show_table(folded)
        _captions(noised.lost_in_words(report, metric))
        return
    has_gains = gains.are_known(report, metric)
    columns: Sequence[Any] = st.columns(2) if has_gains else [st]
    if has_gains:
        title = render("pages.figures.gains", interval=narrative.interval_name(report))
        [drawing] = gains.gains(report, metric, shown, len(order)).charts
        figure(columns[0], title, drawing.draw(), lines, key="site-gains", says=drawing.says, is_tabled=False)
    title = render("pages.figures.each")
    if arms == ["global"]:
        title = render("pages.figures.shared", metric=verdict.metric_name(metric), interval="95 % CI")
    says = "; ".join(_figures_in_words(words[name], arms) for name in shown)
    by_arm = sites_by_arm(report, metric, shown)
    figure(columns[-1], title, by_arm, lines, key="site-models", says=f"{title}. {says}", is_tabled=False)
    show_table(folded)
    if why := site_answer.untold_at(report, metric, order):
        st.caption(bullets(map(escape, why)))
    _captions(narrative.unadjusted_in_words(report, metric))


def _figures_in_words(cells: Report, arms: Sequence[str]) -> str:
    """Return a site's models with their figures."""
    models = [site_answer.MODELS[arm] for arm in arms]
    return f"{cells['Site']}: {', '.join(f'{model} {cells[model]}' for model in models)}"


def _shared_model(
    report: Report, metric: str, sites: Sequence[str], lines: Sequence[Report], *, is_tabled: bool = True
) -> None:
    """Show the shared model's figure at some sites, the only one that they release."""
    drawn = sites_by_arm(report, metric, sites)
    if drawn is None:
        return
    title = render("pages.figures.sites", metric=verdict.metric_name(metric))
    shared = {site: figure_of(site_of(run_of(report).sites[site]).global_, metric) for site in sites}
    says = "; ".join(f"{site} {verdict.number(of.value)}" for site, of in shared.items())
    figure(st, title, drawn, lines, key="site-models", says=f"{title}. {says}", is_tabled=is_tabled)


def _line(report: Report, name: str, metric: str, arms: Sequence[str]) -> Report:
    """Return a site's line in the charts' table and its CSV file, each figure and bound in a cell of its own."""
    site = run_of(report).sites[name]
    here = site_of(site)
    cells: dict[str, Any] = {"Site": name, "Rows": here.rows, "Test rows": here.holdout_rows}
    if noised.noised_scores(report) is not None:
        cells = {"Site": name, noised.TRAINED_ON.capitalize(): here.rows}
    for arm in arms:
        entry = figure_of(site[arm], metric)
        title = verdict.ARM_NAMES[arm].capitalize()
        cells |= {title: entry.value, f"{title}, low": entry.low, f"{title}, high": entry.high}
    gain = best_gain(site, metric)
    if gain is not None:
        deciding = gain.deciding
        cells |= {"Gain (+ is better)": gain.value, "Gain, low": deciding.low, "Gain, high": deciding.high}
    if not noised.is_uncompared(report):
        cells["Verdict"] = verdict.describe_verdict(site_verdict(site, metric)[0], metric)
    return cells


def who_gains(report: Report, metric: str) -> None:
    """Show the forest plot of the sites' gains, of many sites of those at its ends; without a gain, the references."""
    order = site_answer.order_of_sites(report, metric)
    shown = gains.at_the_ends(report, metric, FEW_SITES)
    lines = [_line(report, site, metric, arms_shown(report, metric)) for site in order]
    if noised.is_uncompared(report):
        _shared_model(report, metric, shown, lines)
        return
    if gains.are_known(report, metric):
        show(gains.gains(report, metric, shown, len(order), lines), titled=False)
    else:
        figures_of_all(report, metric)
    if not run_of(report).is_of_parties:  # the headline has it
        st.markdown(escape(" ".join([narrative.tally(report, metric), *narrative.untold_in_words(report, metric)])))
    show(gains.by_size(report, metric))
    show(score_in_use(report))


def link_sites(opened: Opened, metric: str) -> None:
    """Show a link to each site on its page, of many sites to those at the ends of the order."""
    with st.container(horizontal=True, gap="xsmall"):
        for site in gains.at_the_ends(opened.report, metric, FEW_SITES):
            address = {"run": opened.name, "site": site}
            st.page_link(page_files()["sites"], label=escape(site), query_params=address)


def how_to_read(report: Report, metric: str) -> None:
    """Explain the words of the charts, folded away."""
    if noised.is_uncompared(report):
        return
    least = narrative.least_gain(report, metric)
    minus = verdict.MINUS if run_of(report).rule.minimum_gain[metric] else ""
    lines = _models_in_words(report)
    pays, harm, neither = (
        verdict.sentence_case(verdict.describe_verdict(code, metric))
        for code in (verdict.PAYS, verdict.DO_NOT_USE, verdict.NO_CLEAR_GAIN)
    )
    lines += [
        render("pages.verdicts.pays", verdict=pays, interval=narrative.interval_name(report), least=least),
        render("pages.verdicts.harm", verdict=harm, least=f"{minus}{least}"),
        render("pages.verdicts.neither", verdict=neither),
    ]
    if minus:
        lines.append(render("pages.verdicts.small", small=verdict.sentence_case(verdict.TOO_SMALL), least=least))
    mean = {"sites": render("report.mean.assumes"), "coverage": render("report.mean.coverage")}
    lines += [render("pages.verdicts.widened"), render("pages.verdicts.mean", **mean)]
    with st.expander("How to read this"):
        st.markdown(bullets(lines))


def _models_in_words(report: Report) -> list[str]:
    """Return the meanings of the models in the charts."""
    # Where a part of the model, or a whole model, is a site's own, the names stand for others.
    lines = list(filter(None, [own_parts_in_words(report)]))
    beside = read(OwnParts, run_of(report).own_parts).beside
    return lines + [
        render("pages.models.site"),
        render("pages.models.shared"),
        render("pages.models.beside" if beside else "pages.models.adjusted"),
        render("pages.models.pooled"),
        render("pages.models.mean"),
        render("pages.models.gain"),
    ]


def choose_metric(report: Report) -> str | None:
    """Return the metric that the reader picked, at first the primary one; None where none was compared."""
    metrics = [*metrics_of(report)]
    if len(metrics) < 2:
        return next(iter(metrics), None)
    return str(st.radio("Figure", metrics, format_func=verdict.metric_name, horizontal=True, key="metric"))
