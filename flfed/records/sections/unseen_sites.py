"""Sections on a model at sites that did not train it: its figures at each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from flfed.records.charts.by_site import interval_chart
from flfed.records.objects import FigureReport, figure_of, read, run_of
from flfed.records.reports.report import primary_of
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.left_out import (
    INTERCEPT,
    KEY,
    SLOPE,
    VALIDATION,
    LeftOut,
    MeanLeftOut,
    SiteLeftOut,
    figures_of,
)
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.verdict import (
    ABSENT,
    interval,
    metric_name,
    number,
    sentence_case,
    with_interval,
)
from flfed.words import render

MEAN = "Mean over sites"
HEADINGS = {AUC: metric_name(AUC), SLOPE: "Calibration slope", INTERCEPT: "Calibration intercept"}
"""Heading of each figure."""
DECIMALS = {AUC: 3, SLOPE: 2, INTERCEPT: 2}
LOSS_DECIMALS = 3


def unseen_sites(report: Report) -> Section | None:
    """Return the figures at each site that was left out of a run; None where no site was."""
    if not report.get(KEY):
        return None
    words = Words(
        key="left-out",
        title=render("report.left-out.title"),
        lead=render("report.left-out.lead"),
        drawn=render("report.left-out.drawn", metric=metric_name(AUC)),
        means=render("report.left-out.means"),
    )
    return figures_by_site(read(LeftOut, report[KEY]), words)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Sentences around the figures by site, and the key of their chart and file."""

    key: str
    title: str
    lead: str
    drawn: str
    means: str


def figures_by_site(recorded: LeftOut, words: Words) -> Section:
    """Return AUC and calibration of a model at sites without a part in it, with their means."""
    lines = []
    areas: dict[str, FigureReport | MeanLeftOut] = {}
    notes = [render("report.left-out.calibration")]
    for name, site in recorded.sites.items():
        figures = figures_of(site)
        of_site = read(SiteLeftOut, site)
        rows = str(of_site.rows)
        if of_site.calibration.few_events:
            rows += f", {render('report.left-out.few-events')}"
        cells = {"Site": name, "Rows": rows}
        for key, heading in HEADINGS.items():
            figure = figure_of(figures, key)
            cells[heading] = with_interval(figure, DECIMALS[key])
            if figure.value is None:
                notes.append(render("report.left-out.absent", site=name, figure=heading, reason=figure.reason))
        lines.append(cells)
        areas[name] = figure_of(figures, AUC)
    means = {key: read(MeanLeftOut, mean) for key, mean in figures_of(recorded.mean).items()}
    if means[AUC].value is not None:
        areas[MEAN] = means[AUC]
    lines += _mean_lines(means)
    return Section(
        title=words.title,
        lead=(words.lead,),
        charts=(_chart(areas, words),),
        tables=(Table(lines=lines, spare=("Rows",), key=f"{words.key}-sites", is_whole=True),),
        says=_findings(means),
        note=[*notes, words.means],
    )


def _chart(areas: Mapping[str, FigureReport | MeanLeftOut], words: Words) -> Drawing:
    """Return the AUC at each site, and last the mean."""
    drawn = []
    lines = []
    for name, of in areas.items():
        arm = "sites-mean" if name == MEAN else "global"
        drawn.append({"name": name, "arm": arm, "value": of.value, "low": of.low, "high": of.high})
        lines.append({"Site": name, HEADINGS[AUC]: of.value, "95 % low": of.low, "95 % high": of.high})
    says = "; ".join(f"{name} {with_interval(of, DECIMALS[AUC])}" for name, of in areas.items())
    return Drawing(title=words.drawn, draw=partial(interval_chart, drawn, AUC), key=words.key, says=says, lines=lines)


def _percent(share: float | None) -> str:
    if share is None:
        return ABSENT
    return f"{100 * share:.0f} %"


def _mean_lines(means: Mapping[str, MeanLeftOut]) -> list[dict[str, str]]:
    """Return the lines of the table below the sites: means, I², and the interval for another site."""
    mean = {"Site": MEAN, "Rows": ""}
    share = {"Site": "I²", "Rows": ""}
    another = {"Site": "Another such site", "Rows": ""}
    for key, heading in HEADINGS.items():
        of = means[key]
        mean[heading] = with_interval(of, DECIMALS[key])
        share[heading] = _percent(of.i2)
        another[heading] = interval(of.prediction_low, of.prediction_high, DECIMALS[key])
    if all(of.prediction_low is None for of in means.values()):
        return [mean, share]
    return [mean, share, another]


def _findings(means: Mapping[str, MeanLeftOut]) -> list[str]:
    """Return the mean AUC as a sentence, or why there is none."""
    of = means[AUC]
    if of.value is None or of.i2 is None:
        return [render("report.left-out.no-mean", reason=of.reason)]
    facts = {"metric": metric_name(AUC), "sites": of.sites, "share": _percent(of.i2)}
    return [render("report.left-out.mean", value=number(of.value), interval=interval(of.low, of.high), **facts)]


def validated_sites(report: Report) -> Section | None:
    """Return AUC and calibration at each site, or the figure of another outcome; None of a run that trained a model."""
    recorded = _recorded(report)
    if recorded is None:
        return _other_outcome(report) if run_of(report).is_validation else None
    words = Words(
        key=VALIDATION,
        title=render("report.validation.title"),
        lead=render("report.validation.lead"),
        drawn=render("report.validation.drawn", metric=metric_name(AUC)),
        means=render("report.validation.means"),
    )
    return figures_by_site(recorded, words)


def _other_outcome(report: Report) -> Section | None:
    """Return the primary figure at each site, of an outcome that is not yes or no."""
    metric = primary_of(report)
    if metric is None:
        return None
    lines = []
    for name, site in report["sites"].items():
        rows = ABSENT if site["holdout-rows"] is None else str(site["holdout-rows"])
        lines.append({"Site": name, "Rows": rows, **_cell(site["global"], metric)})
    lines.append({"Site": MEAN, "Rows": "", **_cell(report["sites-mean"], metric)})
    table = Table(lines=lines, key="validation-sites", is_whole=True)
    title = render("report.validation.title")
    return Section(title=title, lead=(render("report.validation.lead"),), tables=(table,))


def _cell(figures: Report, metric: str) -> dict[str, str]:
    return {sentence_case(metric_name(metric)): with_interval(figure_of(figures, metric), LOSS_DECIMALS)}


def _recorded(report: Report) -> LeftOut | None:
    recorded = read(LeftOut, report.get(VALIDATION))
    return recorded if recorded.sites else None
