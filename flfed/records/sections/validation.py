"""Sections on a model that somebody brought along: its figures at each site, and which update would help."""

from __future__ import annotations

from dataclasses import dataclass, field

from flfed.records.objects import figure_of, read
from flfed.records.reports.report import primary_of
from flfed.records.section import Section, Table
from flfed.records.sections.left_out import MEAN, Words, figures_by_site
from flfed.records.statistics import Report
from flfed.records.statistics.left_out import VALIDATION, LeftOut
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.verdict import ABSENT, interval, metric_name, number, sentence_case
from flfed.summaries.recalibration import RecalibrationFigure
from flfed.words import render

DECIMALS = 2
LOSS_DECIMALS = 3
NAMES = {"intercept": "New intercept", "slope": "New intercept and slope"}


@dataclass(frozen=True)
class SiteUpdates:
    """Updates of a model at one site, the new intercept first."""

    updates: list[RecalibrationFigure] = field(default_factory=list)


def due_update(updates: list[RecalibrationFigure]) -> RecalibrationFigure | None:
    """Return the update to make at a site, None where none is due: a new slope where it gains beyond a new intercept.

    Source: Vergouwe et al. 2017, "A closed testing procedure to select an appropriate method for updating prediction
    models".
    """
    due = [one for one in updates if not one.method and one.is_due]
    return due[-1] if due else None


def validated_sites(report: Report) -> Section | None:
    """Return AUC and calibration at each site, or the figure of another outcome; None of a run that trained a model."""
    recorded = _recorded(report)
    if recorded is None:
        return _other_outcome(report) if VALIDATION in report else None
    words = Words(
        key=VALIDATION,
        title=render("report.validation.title"),
        lead=render("report.validation.lead"),
        drawn=render("report.validation.drawn", metric=metric_name(AUC)),
        means=render("report.validation.means"),
    )
    return figures_by_site(recorded, words)


def advised_updates(report: Report) -> Section | None:
    """Return at which sites a new intercept or slope is due, with log loss before and after."""
    recorded = _recorded(report)
    if recorded is None:
        return None
    lines = []
    says = []
    withheld = []
    for site, payload in recorded.sites.items():
        updates = read(SiteUpdates, payload).updates
        reasons = dict.fromkeys(one.method for one in updates if one.method)
        withheld += [render("report.validation.withheld", site=site, why=why) for why in reasons]
        lines += [_line(site, one) for one in updates if not one.method]
        advice = due_update(updates)
        if advice is not None:
            says.append(_advise(site, advice))
    if lines and not says:
        says.append(render("report.validation.none-due"))
    return Section(
        title=render("report.validation.advice-title"),
        lead=(render("report.validation.advice-lead"),),
        tables=(Table(lines=lines, key="updates", is_whole=True),) if lines else (),
        says=says,
        note=[*withheld, render("report.validation.advice-note")],
    )


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
    figure = figure_of(figures, metric)
    cell = number(figure.value, LOSS_DECIMALS)
    if figure.low is not None:
        cell += f" ({interval(figure.low, figure.high, LOSS_DECIMALS)})"
    return {sentence_case(metric_name(metric)): cell}


def _recorded(report: Report) -> LeftOut | None:
    recorded = read(LeftOut, report.get(VALIDATION, {}))
    return recorded if recorded.sites else None


def _advise(site: str, update: RecalibrationFigure) -> str:
    """Return what to change at a site."""
    intercept = number(update.intercept, DECIMALS, signed=True)
    losses = {"before": number(update.before, LOSS_DECIMALS), "after": number(update.after, LOSS_DECIMALS)}
    if update.name == "intercept":
        return render("report.validation.due-intercept", site=site, intercept=intercept, **losses)
    slope = number(update.slope, DECIMALS)
    return render("report.validation.due-slope", site=site, intercept=intercept, slope=slope, **losses)


def _line(site: str, update: RecalibrationFigure) -> dict[str, str]:
    gain = f"{number(update.value, LOSS_DECIMALS, signed=True)} ({interval(update.low, update.high, LOSS_DECIMALS)})"
    slope = ABSENT
    # A record has None where a figure is undefined.
    if update.slope_after is not None:
        slope = f"{number(update.slope_after, DECIMALS)} ({interval(update.slope_low, update.slope_high, DECIMALS)})"
    return {
        "Site": site,
        "Update": NAMES[update.name],
        "Intercept": number(update.intercept, DECIMALS, signed=True),
        "Slope": number(update.slope, DECIMALS),
        "Log loss before": number(update.before, LOSS_DECIMALS),
        "After": number(update.after, LOSS_DECIMALS),
        "Gain (95 % CI)": gain,
        "Slope after (95 % CI)": slope,
        "Due": "yes" if update.is_due else "no",
    }
