"""Score counts with noise in tables and sentences, and the suppressed figures under a budget that covers all releases.

Every figure is from the record, rounded; none is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flfed.records.objects import FigureReport, figure_of, read, read_figure, run_of, site_of
from flfed.records.section import Lines, group
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.verdict import (
    ABSENT,
    MINUS,
    format_as_written,
    interval,
    metric_name,
    number,
    sentence_case,
    shown,
)
from flfed.words import render

ReportMapping = Mapping[str, Any]
COVERS = "covers"
"""Key of an object `privacy`: "study" where one ε covers all releases of a site."""
SCORES = "noised-scores"
"""Name of the record, and of the key in a report."""
NOT_COMPARED = "not-compared"
"""Key of a site in a report: why it is not compared with the site's own model."""
SLOPE = "Calibration slope"
METRICS = ("roc_auc_score", "brier_score_loss", "log_loss")
UNBROKEN = "\u00a0"
"""A space at which no line ends."""
NAMED = 6
"""Most sites without a figure that are named; more are counted."""
TRAINED_ON = "trained on, about"
"""Heading of the number of training persons, or rows, with noise."""
FROM = "Predicted, from"
TO = "Predicted, to"
WITHOUT = "Without the outcome"
WITH = "With the outcome"
NOISE = "Noise on a count, 95 % (±)"
"""Headings of counts by score."""


@dataclass(frozen=True, kw_only=True)
class NoisedCounts:
    """Counts of test rows by class and by bin of the score, with noise.

    Attributes
    ----------
    counts : list of list of float [2][bins]
        Rows without the outcome, and with it; they may be below 0.
    edges : list of float [bins + 1]
        Log-odds at which the bins begin and end.
    deviation : float
        Of the noise on each count, in rows.
    slope : FigureReport or None
        Slope of calibration; None where lost in the noise.
    """

    counts: list[list[float]] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)
    deviation: float = 0.0
    slope: FigureReport | None = None


@dataclass(frozen=True, kw_only=True)
class NoisedScores:
    """The object "noised-scores" of a run.

    Attributes
    ----------
    requested_sites : int
        Sites that received a request.
    reason : str
        Why there are no counts; "" where there are some.
    all_ : NoisedCounts or None
        Over all sites together.
    sites : dict of name to NoisedCounts
    """

    requested_sites: int = 0
    reason: str | None = ""
    all_: NoisedCounts | None = None
    sites: dict[str, NoisedCounts] = field(default_factory=dict)

    @property
    def whose(self) -> dict[str, NoisedCounts]:
        """The counts by site, all sites together first."""
        counts_by_name = {} if self.all_ is None else {f"all {self.requested_sites} sites": self.all_}
        for site in sorted(self.sites):
            counts_by_name[site] = self.sites[site]
        return counts_by_name


@dataclass(frozen=True, kw_only=True)
class Released:
    """How sites release the figures of a run, by the object "privacy" of its report.

    Attributes
    ----------
    covers : str or None
        "study" where one ε covers all releases of a site.
    trained : bool
        Whether a model was trained.
    """

    covers: str | None = None
    trained: bool = True

    @property
    def is_exact(self) -> bool:
        """Whether figures are made of exact counts, without noise."""
        return self.covers != "study"

    @property
    def is_compared(self) -> bool:
        """Whether a comparison with the site models is released."""
        return self.is_exact and self.trained

    @property
    def why_not_compared(self) -> str:
        """Why a site has no difference; "" where its figures have the reason."""
        if self.is_exact:
            return "" if self.trained else render("report.validation.uncompared")
        return render("report.noised.uncompared")


def released(report: ReportMapping) -> Released:
    """Return how sites release the figures of a run; `report` is its report."""
    return read(Released, run_of(report).privacy)


def is_covered(report: ReportMapping) -> bool:
    """Return whether one ε covers all releases of a run with a model; `report` is its report."""
    return not released(report).is_exact


def noised_scores(report: ReportMapping) -> NoisedScores | None:
    """Return the counts with noise of a report, or None."""
    recorded = run_of(report).noised_scores
    return None if recorded is None else read(NoisedScores, recorded)


def is_uncompared(report: ReportMapping) -> bool:
    """Return whether no comparison with the site models is released."""
    return not released(report).is_compared


def uncompared_in_words(report: ReportMapping) -> str:
    """Return why a run compares no site models: it trained nothing, or one ε covers all releases."""
    return render("report.noised.gain") if released(report).trained else render("report.validation.joining")


def figure_lines(report: ReportMapping) -> Lines:
    """Return the figures of the shared model in a report, a line for all sites and one for each site."""
    recorded = noised_scores(report) or NoisedScores()
    run = run_of(report)
    lines = Lines()
    slope = f"{SLOPE}, first repeat" if run.repeats > 1 else SLOPE
    for name, one in recorded.whose.items():
        of = site_of(run.sites[name]).global_ if name in run.sites else run.global_
        line = {"Rows of": name}
        for metric in METRICS:
            line[metric_name(metric)] = with_interval(figure_of(of, metric))
        lines.append(line | {slope: with_interval(one.slope), NOISE: _reach(one)})
    return lines


def lines_of_site(report: ReportMapping, site: str, metric: str) -> list[dict[str, str]]:
    """Return one site's figures from counts with noise, without that of `metric`, a line each."""
    recorded = noised_scores(report) or NoisedScores()
    of_site = dict(zip(recorded.whose, figure_lines(report), strict=True)).get(site, {})
    others = {name: cell for name, cell in of_site.items() if name not in ("Rows of", metric_name(metric))}
    return [{"Figure": sentence_case(name), "Shared model": str(cell)} for name, cell in others.items()]


def with_interval(one: FigureReport | None) -> str:
    """Return a figure with its interval, which no line of a table breaks.

    Examples
    --------
    >>> text = with_interval(FigureReport(value=0.7602, low=0.7457, high=0.7748))
    >>> text.replace(UNBROKEN, " "), with_interval(None)
    ('0.760 (0.746 to 0.775)', 'n/a')
    """
    if one is None or one.value is None:
        return ABSENT
    return f"{number(one.value)} ({interval(one.low, one.high).replace(' ', UNBROKEN)})"


def lost_in_words(report: ReportMapping, metric: str) -> list[str]:
    """Return why sites of a report have no figure of a metric, a sentence for each reason."""
    run = run_of(report)
    whole = figure_of(run.global_, metric)
    if metric in (run.global_ or {}) and whole.value is None:
        return [render("report.noised.lost", sites="any site", reason=whole.reason)]
    reasons = []
    for name, site in run.sites.items():
        figures = site_of(site).global_ or {}
        one = figure_of(figures, metric)
        if metric in figures and one.value is None:
            reasons.append((one.reason, name))
    by_reason = group(reasons).items()
    return [render("report.noised.lost", sites=name_sites(names), reason=why) for why, names in by_reason]


def name_sites(sites: Sequence[str]) -> str:
    """Return the names of a few sites, or the number of many."""
    if len(sites) > NAMED:
        return f"{len(sites)} sites"
    return ", ".join(sites)


def covered_rows(report: ReportMapping, metric: str) -> tuple[list[str], list[list[str]]]:
    """Return the table of the sites as headers and rows, the line over all sites last."""
    run = run_of(report)
    headers = ["site", TRAINED_ON, f"{metric_name(metric)} of the shared model", "95 % CI"]
    whole = figure_of(run.global_, metric)
    # Where noise hides the rows of all sites, no site has a figure.
    none = whole if whole.value is None else FigureReport(reason="no figure of its own")
    rows = []
    for site, of in run.sites.items():
        recorded = (site_of(of).global_ or {}).get(metric, none)
        rows.append([site, trained_on(of), *_cells(read_figure(recorded))])
    return headers, [*rows, ["all test rows", "", *_cells(whole)]]


def trained_on(site: ReportMapping) -> str:
    """Return the number of a site's training rows or persons."""
    return shown(site_of(site).rows)


def _cells(one: FigureReport) -> list[str]:
    """Return a figure and its interval, or the reason without one."""
    if one.value is None:
        return [ABSENT, one.reason]
    return [number(one.value), interval(one.low, one.high)]


def over_all_rows(report: ReportMapping) -> tuple[list[str], list[list[str]]]:
    """Return the figures over all sites, a line a metric, as headers and rows."""
    run = run_of(report)
    rows = [[metric_name(metric), *_cells(read_figure(one))] for metric, one in run.global_.items()]
    recorded = noised_scores(report) or NoisedScores()
    if recorded.all_ is not None and recorded.all_.slope is not None:
        first = ", first repeat" if run.repeats > 1 else ""
        rows.append([f"{SLOPE.lower()}{first}", *_cells(recorded.all_.slope)])
    return ["over all sites", "shared model", "95 % CI"], rows


def slope_in_words(slope: FigureReport | None) -> str:
    """Return the slope of calibration with its meaning, "" without one.

    Examples
    --------
    >>> slope_in_words(FigureReport(value=0.811, low=0.702, high=0.919))[:81]
    'Calibration slope 0.811 (95 % CI 0.702 to 0.919): predictions are too extreme. A '
    """
    if slope is None or slope.low is None or slope.high is None:
        return ""
    key = "no-fault"
    if slope.low > 1:
        key = "too-near"
    elif slope.high < 1 and slope.low > 0:
        key = "too-extreme"
    elif slope.high < 1:
        key = "no-skill"
    return render(f"report.slope.{key}", slope=number(slope.value), interval=interval(slope.low, slope.high))


def scores_in_words(report: ReportMapping, site: str = "") -> list[str]:
    """Return the notes on figures from counts with noise, a sentence each; none without such counts.

    Parameters
    ----------
    report : mapping
        A report. Under repeats its counts are of the first.
    site : str
        "" for all sites together.
    """
    recorded = noised_scores(report) or NoisedScores()
    one = recorded.sites.get(site) if site else recorded.all_
    if one is None:
        return []
    repeats = run_of(report).repeats
    facts = {"bins": len(one.counts[0]), "reach": _reach(one)}
    noise = render("report.noised.site", **facts)
    if not site:
        noise = render("report.noised.counts", sites=recorded.requested_sites, **facts)
    slope = slope_in_words(one.slope)
    if not slope:
        return [noise]
    if repeats > 1:
        slope = render("report.noised.first", repeats=repeats, slope=slope[0].lower() + slope[1:])
    return [slope, noise]


def _reach(one: NoisedCounts) -> str:
    return number(NORMAL_95 * one.deviation, 1)


def count_lines(one: NoisedCounts) -> list[dict[str, float]]:
    """Return the counts of a record by bin of the predicted probability, with noise: they may be below 0.

    Examples
    --------
    >>> one = NoisedCounts(counts=[[40.2, 9.0], [3.0, -1.4]], edges=[-12.0, 0.0, 12.0], deviation=1.0)
    >>> lines = count_lines(one)
    >>> [line["Predicted, to"] for line in lines], lines[1]["With the outcome"]
    ([0.5, 1.0], -1.4)
    """
    # The outermost bins have all that is beyond.
    ends = [0.0, *(1 / (1 + math.exp(-odds)) for odds in one.edges[1:-1]), 1.0]
    reach = round(NORMAL_95 * one.deviation, 1)
    return [
        {FROM: _digits(low), TO: _digits(high), WITHOUT: round(without, 1), WITH: round(with_, 1), NOISE: reach}
        for low, high, without, with_ in zip(ends, ends[1:], *one.counts, strict=False)
    ]


def _digits(probability: float) -> float:
    """Return a probability with three significant digits of its distance from 0 or 1."""
    near = min(probability, 1 - probability)
    digits = 3 if near <= 0 else max(3, 2 - math.floor(math.log10(near)))
    return round(probability, digits)


def shown_counts(one: NoisedCounts) -> Lines:
    """Return the same as text, for a printed table."""
    return [
        {
            "Predicted probability": f"{format_as_written(line[FROM])} to {format_as_written(line[TO])}",
            WITHOUT: _count(line[WITHOUT]),
            WITH: _count(line[WITH]),
        }
        for line in count_lines(one)
    ]


def _count(value: float) -> str:
    sign = MINUS if round(value) < 0 else ""
    return f"{sign}{abs(value):,.0f}"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Sentences of pages that depend on the releases of a run.

    Attributes
    ----------
    running, interrupted : str
        The steps that follow, before any comparison.
    no_rounds, no_sums : str
        Why no round has a figure, and why there are no sums over rows; "" where there may be some.
    """

    running: str
    interrupted: str
    no_rounds: str = ""
    no_sums: str = ""


def wording(report: ReportMapping) -> Wording:
    """Return the sentences of pages of a run."""
    if is_covered(report):
        return Wording(
            running=render("report.noised.running"),
            interrupted=render("report.noised.interrupted"),
            no_rounds=render("report.noised.rounds"),
            no_sums=render("report.noised.sums"),
        )
    return Wording(running=render("report.pages.running"), interrupted=render("report.pages.interrupted"))
