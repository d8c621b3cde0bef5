"""Sections on gains: by joining, on the score in use, and the shared model beside its references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flfed.records.charts.by_site import forest_plot, interval_chart
from flfed.records.objects import figure_of, read_figure, run_of
from flfed.records.reports.narrative import MARK, forest_lines, interval_name, over_sites, reference_name
from flfed.records.reports.recorded_run import INCUMBENT
from flfed.records.reports.report import REFERENCES
from flfed.records.reports.site_answer import order_of_sites
from flfed.records.reports.site_verdict import UNDERTRAINED, as_difference, best_gain, code_of_mean, too_few
from flfed.records.reports.size_classes import class_lines, classes_in_words
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics import Report, verdict
from flfed.words import render


def at_the_ends(report: Report, metric: str, most: int, *, of: Sequence[str] | None = None) -> list[str]:
    """Return all sites (or those of `of`) by gain; of more than `most`, those with the largest and smallest gain."""
    run = run_of(report)
    order = [site for site in order_of_sites(report, metric) if of is None or site in of]
    if len(order) <= most:
        return order
    # Sites without a gain come last and are no end of the order.
    judged = [site for site in order if best_gain(run.sites[site], metric) is not None] or order
    half = most // 2
    return judged if len(judged) <= most else [*judged[:half], *judged[-half:]]


def are_known(report: Report, metric: str) -> bool:
    """Return whether any site has a gain, so that there is a forest plot."""
    return any(best_gain(site, metric) is not None for site in run_of(report).sites.values())


def gains(
    report: Report, metric: str, shown: Sequence[str], sites: int, lines: Sequence[Mapping[str, Any]] = ()
) -> Section:
    """Return the forest plot: a row a site, and last the mean over sites.

    Parameters
    ----------
    report : dict
        A report.
    metric : str
    shown : sequence of str
        Sites in the order of the plot.
    sites : int
        Number of all sites.
    lines : sequence of mappings
        Figures behind the plot.
    """
    rows = forest_lines(report, metric, shown)
    least = run_of(report).rule.minimum_gain[metric]
    says = []
    for row in rows:
        gain = verdict.gain_in_brackets(row.gain, least)
        says.append(f"{row.name}: gain {gain}, {verdict.describe_verdict(row.verdict, metric)}")
    title = render("pages.forest.title", interval=interval_name(report))
    if len(shown) < sites:
        title = render("pages.forest.ends", interval=interval_name(report), sites=sites)
    draw = partial(forest_plot, report, metric, shown)
    words = {"title": title, "key": "gains", "says": "; ".join(says)}
    drawing = Drawing(**words, draw=draw, lines=lines, least=least, wide=True)
    note = []
    if any(row.value is not None for row in rows):
        note.append(render("pages.forest.lines"))
        if any(row.model == "personalised" for row in rows):
            note.append(render("report.run.adjusted", mark=MARK.strip()))
        if rows[-1].site is None:
            note.append(render("pages.forest.adjusted"))
    return Section(title=render("pages.forest.plot"), charts=(drawing,), note=note)


def by_size(report: Report, metric: str) -> Section | None:
    """Return the gains over all sites of a size class; None where the study names no classes, or none by `metric`."""
    lines = class_lines(report, metric)
    if not lines:
        return None
    table = Table(
        lines=lines,
        spare=("Log loss, adjusted to the site", "Gain in log loss", "Sites"),
        key="size-classes",
        is_whole=True,
    )
    return Section(
        title=render("report.size-classes.title"),
        lead=(render("report.size-classes.lead", classes=len(lines)),),
        tables=(table,),
        says=classes_in_words(report, metric),
        note=(render("report.size-classes.weights"),),
    )


def references(report: Report, metric: str) -> Section:
    """Return the shared model over all sites beside its references."""
    run = run_of(report)
    several = run.repeats > 1
    span = "95 % CI of one repeat" if several else "95 % CI"
    labels = {**verdict.ARM_NAMES, "global": "shared model, all test rows"}
    figures: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    lines = []
    for arm in REFERENCES:
        entry = (report[arm] or {}).get(metric)
        if not entry:
            continue
        figure = read_figure(entry)
        name = reference_name(report, arm) + over_sites(figure)
        drawn.append({"name": labels[arm], "arm": arm, **entry})
        figures.append({"Model": name, "Value": figure.value, "95 % low": figure.low, "95 % high": figure.high})
        line = {
            "Model": name,
            verdict.metric_name(metric): verdict.number(figure.value),
            span: verdict.interval(figure.low, figure.high),
        }
        if several:
            line["SD over repeats"] = verdict.number(figure.sd)
        lines.append(line)
    title = render("pages.forest.references")
    draw = partial(interval_chart, drawn, metric, grid=False)
    says = "; ".join(f"{line['Model']} {verdict.number(line['Value'])}" for line in figures)
    drawing = Drawing(title=title, draw=draw, key="references", says=says, lines=figures)
    note = [render("report.site.together")] if run.noised_scores is None else []
    fewer = over_sites(figure_of(run.sites_mean, metric))
    if fewer:
        note.append(f"{verdict.sentence_case(verdict.ARM_NAMES['sites-mean'])}{fewer}.")
    charts = (drawing,) if figures else ()
    tables = (Table(lines=lines, is_drawn=True),)
    return Section(title=render("pages.forest.section"), charts=charts, tables=tables, note=note)


METRICS = ("roc_auc_score", "average_precision_score")


def score_in_use(report: Mapping[str, Any]) -> Section | None:
    """Return the shared model's gain on the score in use at each site and over sites, None where there is none."""
    sites = {site: of for site, of in report["sites"].items() if INCUMBENT in of}
    if not sites:
        return None
    lines = [_line(site, of) for site, of in sites.items()]
    wide = verdict.name_interval(run_of(report).rule.sites)
    mean = figure_of(report.get(INCUMBENT), METRICS[0])
    says = []
    if mean.value is not None:
        gain = verdict.Difference.of(mean)
        size, span = verdict.size_and_span(gain, mean.minimum_gain or 0.0)
        conclusion = _describe(code_of_mean(mean))
        says.append(render("report.incumbent.mean", sites=mean.sites, gain=size, interval=span, conclusion=conclusion))
    return Section(
        title=render("report.incumbent.title"),
        tables=(Table(lines=lines, spare=(list(lines[0])[3],)),),
        says=says,
        note=(render("report.incumbent.reading", interval=wide),),
    )


def _line(site: str, of: Mapping[str, Any]) -> dict[str, str]:
    differences = of["difference-incumbent"]
    score = figure_of(of[INCUMBENT], METRICS[0])
    auc = score.reason or verdict.with_interval(score)
    line = {"Test rows of": site, "AUC of the score in use": auc}
    for metric in METRICS:
        gain = as_difference(differences.get(metric)) or verdict.Difference(None)
        least = figure_of(differences, metric).minimum_gain or 0.0
        line[f"Gain in {verdict.metric_name(metric)}"] = verdict.gain_in_brackets(gain, least)
    return line | {"Verdict": _describe(_code(of))}


def _code(of: Mapping[str, Any]) -> str:
    """Return the verdict by the rule of a site's gain from joining."""
    differences = of["difference-incumbent"]
    gain = as_difference(differences.get(METRICS[0]))
    if gain is None or too_few(dict(of)) is not None:
        return verdict.INCONCLUSIVE
    code = verdict.code_of(gain.deciding, figure_of(differences, METRICS[0]).minimum_gain or 0.0)
    if code == verdict.DO_NOT_USE and of.get(UNDERTRAINED):
        return verdict.INCONCLUSIVE
    return code


def _describe(code: str) -> str:
    return render(f"report.incumbent-verdicts.{code.replace(' ', '-')}")
