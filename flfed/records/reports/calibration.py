"""Calibration of the shared model at each site: over repeats, over sites, in a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from flfed.records.objects import CalibrationReport, FigureReport, read, read_figure, read_some
from flfed.records.section import Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of, mean_over_sites, standard_error
from flfed.records.statistics.verdict import LEAST_SITES, UNLIKE, Figure, decimals_beside, with_interval
from flfed.words import render

KEY = "calibration"
FIGURES = ("slope", "intercept")
DECIMALS = 2
TARGETS = {"slope": 1.0, "intercept": 0.0}
"""Values of calibrated predictions."""


@dataclass(frozen=True)
class RecordedFigure(Figure):
    """Slope or intercept at a site in one repeat; None where undefined or suppressed, with the reason in `method`."""

    variance: float | None = None
    few_events: bool = False
    method: str = ""


@dataclass(frozen=True)
class RecordedCalibration:
    """The object "calibration" of a repeat."""

    sites: dict[str, dict[str, RecordedFigure]] = field(default_factory=dict)


def over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> tuple[dict[str, Report], Report | None]:
    """Return slope and intercept by site over the repeats, and their means over sites; None where not requested.

    A site's figure is the mean of its repeats, and its ends are the means of theirs: repeats share most rows.

    Parameters
    ----------
    payloads : sequence of dict or None
        The objects "calibration" of the repeats.
    """
    repeats = read_some(RecordedCalibration, payloads)
    if not repeats:
        return {}, None
    names = sorted(set(chain.from_iterable(one.sites for one in repeats)))
    sites: dict[str, Report] = {site: {} for site in names}
    means = {}
    for name in FIGURES:
        for site in names:
            figures = [one.sites[site][name] for one in repeats if site in one.sites]
            sites[site][name] = _over_repeats(figures)
            sites[site]["few-events"] = any(figure.few_events for figure in figures)
        means[name] = describe_mean([read_figure(of[name]) for of in sites.values()], len(names))
    return sites, means


def _over_repeats(figures: Sequence[RecordedFigure]) -> Report:
    """Return a site's figure over its repeats; none where it is defined in less than half of them."""
    defined = [figure for figure in figures if figure.value is not None]
    if 2 * len(defined) < len(figures) or not defined:
        reason = next(figure.method for figure in figures if figure.value is None)
        return {"value": None, "low": None, "high": None, "reason": reason}
    ends = {end: mean_of([getattr(figure, end) for figure in defined]) for end in ("value", "low", "high")}
    return {**ends, "method": defined[0].method}


def describe_mean(figures: Sequence[FigureReport], of: int) -> Report:
    """Return the random-effects mean of the figures of some sites, of `of` that took part, as report keys.

    A figure without an interval has no error, and is left out.
    """
    measured = []
    for figure in figures:
        error = standard_error("", figure.value, figure.low, figure.high)
        if figure.value is not None and error is not None:
            measured.append((figure.value, error))
    facts: Report = {"sites": len(measured), "of": of}
    if len(measured) < LEAST_SITES:
        why = render("report.mean.minimum", sites=len(measured), of=of, least=LEAST_SITES)
        return {"value": None, "low": None, "high": None, "reason": why} | facts
    mean = mean_over_sites(*zip(*measured, strict=True))
    ends = {name: getattr(mean, name) for name in ("value", "low", "high", "i2")}
    return {**ends, "between-sites-sd": mean.between, "between-sites-p": mean.alike} | facts


def calibration_of_sites(report: Mapping[str, Any]) -> Section | None:
    """Return slope and intercept at each site and over sites, None where the study does not ask for them."""
    sites = {site: read(CalibrationReport, of[KEY]) for site, of in report["sites"].items() if KEY in of}
    if not sites:
        return None
    lines = [_line(site, of) for site, of in sites.items()]
    means = read(CalibrationReport, report.get(KEY))
    differing = [_spread(name, read_figure(getattr(means, name))) for name in FIGURES]
    if read_figure(means.slope).value is not None or read_figure(means.intercept).value is not None:
        lines.append(_line(render("report.calibration.mean"), means))
    return Section(
        title=render("report.calibration.title"),
        tables=(Table(lines=lines, spare=("Finding",)),),
        note=(*filter(None, differing), render("report.calibration.reading")),
    )


def _line(name: str, of: CalibrationReport) -> dict[str, str]:
    slope = read_figure(of.slope)
    intercept = read_figure(of.intercept)
    finding = describe_finding(slope, intercept)
    if of.few_events:
        finding = "; ".join(filter(None, (finding, render("report.calibration.few"))))
    return {
        "Test rows of": name,
        "Slope (95 % CI)": _in_words(slope, signed=False),
        "Intercept (95 % CI)": _in_words(intercept, signed=True),
        "Finding": finding,
    }


def _in_words(of: FigureReport, *, signed: bool) -> str:
    if of.value is None:
        return of.reason
    # The finding beside it says on which side of 0 or 1 an end lies.
    decimals = decimals_beside((of.low, of.high), DECIMALS, (0.0, 1.0))
    return with_interval(of, decimals, signed=signed)


def describe_finding(slope: FigureReport, intercept: FigureReport) -> str:
    """Return in which way predictions are not calibrated beyond chance.

    Examples
    --------
    >>> slope = FigureReport(value=0.7, low=0.6, high=0.8)
    >>> describe_finding(slope, FigureReport(value=0.1, low=-0.2, high=0.4))
    'too extreme'
    """
    findings = []
    for name, of in (("intercept", intercept), ("slope", slope)):
        if name == "slope" and of.high is not None and of.low is not None and of.low <= 0 and of.high < 1:
            findings.append(render("report.calibration.no-skill"))
        elif of.low is not None and of.low > TARGETS[name]:
            findings.append(render(f"report.calibration.{name}-above"))
        elif of.high is not None and of.high < TARGETS[name]:
            findings.append(render(f"report.calibration.{name}-below"))
    if not findings and intercept.value is not None:
        findings.append(render("report.calibration.no-fault"))
    return "; ".join(findings)


def _spread(name: str, mean: FigureReport) -> str:
    """Return how far sites differ, "" where no further than chance explains."""
    if mean.i2 is None or mean.between_sites_p is None or mean.between_sites_p >= UNLIKE:
        return ""
    return render("report.calibration.differ", figure=name, share=f"{100 * mean.i2:.0f}")
