"""Tables and sentences of a recorded statistic, each for the terminal, the page and the report."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flfed.records.objects import read
from flfed.records.section import Lines, Table
from flfed.records.statistics import Report
from flfed.records.statistics.analysis import Analysis, analysis_in_words, analysis_tables
from flfed.records.statistics.regression import (
    averaging_lines,
    coefficient_lines,
    coefficients_in_words,
    effect_in_words,
    with_ends,
)
from flfed.records.statistics.verdict import (
    ABSENT,
    UNLIKE,
    Figure,
    decimals_beside,
    decimals_of,
    format_as_written,
    format_p,
    number,
    shown,
    with_interval,
)
from flfed.words import counted, render

StatisticObject = dict[str, Any]
ANALYSIS = "analysis"
"""Name of an analysis among recorded statistics."""
SURVIVAL = "survival"
LIFE_TABLE = "life-table"
COEFFICIENTS = ("cox", "glm")
"""Statistics with coefficients."""
NOT_REACHED = "not reached"
"""A median time that a curve, or an end of its interval, never falls to."""


def statistic_tables(statistic: StatisticObject) -> list[Table]:
    """Return the tables of a recorded statistic; `statistic` is the object "statistics" of a run."""
    name = read(Recorded, statistic).name
    if name == ANALYSIS:
        return analysis_tables(read(Analysis, statistic))
    lines = _lines_and_words(name)[0](statistic)
    tables = [Table(lines=lines)] if lines else []
    if name in COEFFICIENTS and (averages := averaging_lines(statistic)):
        tables.append(Table(title=render("report.averaging.title"), lines=averages))
    return tables


def statistic_in_words(statistic: StatisticObject, repeats: int = 1) -> list[str]:
    """Return the result of a statistic, the figure first, and its limits; `repeats` are those of its run."""
    of = read(Recorded, statistic)
    if of.name == ANALYSIS:
        lines = analysis_in_words(read(Analysis, statistic))
        # Each repeat has another draw of the noise; exact sums are the same in all.
        if repeats > 1:
            lines.append(render("report.statistic.first", repeats=repeats))
        return lines
    words = _lines_and_words(of.name)[1](statistic)
    # Without a site's own figures there was secure aggregation.
    if of.by_site:
        return [*words, render("report.statistic.sites")]
    return [*words, render("report.statistic.exact")]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Common part of every recorded statistic: its name, and each site's figures where released."""

    name: str
    by_site: Any = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows of a group, and those of them with the outcome."""

    group: str
    events: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class ChanceTest:
    """Recorded test: its p-value, and its χ² where it has one."""

    p: Figure
    chi2: Figure = field(default_factory=Figure)


@dataclass(frozen=True, kw_only=True)
class OddsOfRows:
    """Odds of the outcome in two groups, of the rows of one site or of all; `by` is the column of the groups."""

    groups: list[Group]
    by: str = ""
    odds_ratio: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Odds(OddsOfRows):
    """Recorded odds of the outcome in two groups, over all sites."""

    sites: int
    by_site: dict[str, OddsOfRows] = field(default_factory=dict)
    p: Figure | None = None
    why: str = ""
    rows_without_a_group: int = 0
    pearson: ChanceTest | None = None
    homogeneity: ChanceTest | None = None


def group_name(by: str, value: str) -> str:
    """Return a group in words: a value of a flag says nothing without its column."""
    return f"{by} = {value}" if by and value in ("no", "yes") else value


def _odds_lines(statistic: StatisticObject) -> Lines:
    odds = read(Odds, statistic)
    lines = []
    for name, one in (odds.by_site | {f"all {odds.sites} sites": odds}).items():
        line = {"Rows of": name}
        for of in one.groups:
            share = f" ({number(100 * of.events / of.rows, 1)} %)" if of.rows else ""
            line[f"{group_name(one.by, of.group)}: with the outcome"] = f"{of.events} of {of.rows}{share}"
        ratio = one.odds_ratio or Figure()
        cell = ABSENT if ratio.value is None else with_ends(*ratio.ends)
        lines.append(line | {"Odds ratio (95 % CI)": cell})
    return lines


def _odds_in_words(statistic: StatisticObject) -> list[str]:
    odds = read(Odds, statistic)
    tests = []
    if odds.pearson is not None:
        chi2 = number(odds.pearson.chi2.value)
        tests.append(render("report.statistic.pearson", chi2=chi2, p=format_p(odds.pearson.p.value or 0.0)))
    tests.append(f"{render('report.statistic.unadjusted')} {render('report.statistic.pooled')}")
    return _ratio_in_words(odds) + tests


def _stratified_in_words(statistic: StatisticObject) -> list[str]:
    odds = read(Odds, statistic)
    tests = [render("report.statistic.stratified")]
    if odds.homogeneity is not None:
        p = odds.homogeneity.p.value or 0.0
        key = "alike" if p >= UNLIKE else "unlike"
        tests.append(render(f"report.homogeneity.{key}", p=format_p(p)))
    return [*_ratio_in_words(odds), *tests, render("report.statistic.unadjusted")]


def _ratio_in_words(odds: Odds) -> list[str]:
    """Return the odds ratio, and the rows left out."""
    first, second = (group_name(odds.by, of.group) for of in odds.groups)
    ratio = odds.odds_ratio
    if ratio is None or ratio.value is None or odds.p is None:
        return [render("report.statistic.inconclusive", reason=odds.why)]
    value, low, high = ratio.ends
    direction = "lower" if value < 1 else "higher"
    conclusion = "no difference is shown" if low <= 1 <= high else "more than chance explains"
    facts = {"first": first, "second": second, "direction": direction, "conclusion": conclusion}
    facts |= {**effect_in_words(value, low, high), "p": format_p(odds.p.value or 0.0)}
    return [render("report.statistic.odds", **facts), *_left_out(odds.rows_without_a_group, "a group")]


@dataclass(frozen=True, kw_only=True)
class Covariance:
    """Recorded means and covariances of columns over all sites."""

    columns: list[str]
    sites: int
    rows: int
    rows_left_out: int = 0
    mean: list[float] | None = None
    sd: dict[str, Figure] | None = None


def _covariance_lines(statistic: StatisticObject) -> Lines:
    of = read(Covariance, statistic)
    if of.mean is None or of.sd is None:
        return []
    deviations = [of.sd[name].value for name in of.columns]
    decimals, decimals_of_sd = (decimals_beside(ends, decimals_of(*ends)) for ends in (of.mean, deviations))
    lines = []
    for name, mean, deviation in zip(of.columns, of.mean, deviations, strict=True):
        lines.append({"Column": name, "Mean": number(mean, decimals), "SD": number(deviation, decimals_of_sd)})
    return lines


def _covariance_in_words(statistic: StatisticObject) -> list[str]:
    of = read(Covariance, statistic)
    if of.mean is None:
        return [render("report.statistic.empty")]
    columns = counted(len(of.columns), "column")
    facts = {"columns": columns, "rows": counted(of.rows, "row"), "sites": counted(of.sites, "site")}
    return [render("report.statistic.covariance", **facts), *_left_out(of.rows_left_out, "a value in one of them")]


def _left_out(rows: int, without: str) -> list[str]:
    """Return that some rows were left out, or nothing."""
    return [render("report.statistic.omitted", rows=counted(rows, "row"), without=without)] if rows else []


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)} %"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Recorded curve of a group: the share of rows without the event by time, with the ends of its interval."""

    time: list[float]
    survival: list[float]
    low: list[float | None]
    high: list[float | None]

    def at(self, time: float) -> tuple[float, float | None, float | None]:
        """Return the share at a time, with its interval: that of the last step before."""
        place = bisect_right(self.time, time) - 1
        if place < 0:
            return 1.0, None, None
        return self.survival[place], self.low[place], self.high[place]


@dataclass(frozen=True, kw_only=True)
class SurvivalOfGroup:
    """Recorded survival of a group."""

    group: str
    rows: int
    events: int
    followed_until: float
    median: Figure
    curve: Curve


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Recorded survival by group, over the rows of all sites."""

    sites: int
    groups: list[SurvivalOfGroup]
    unit: str
    by: str
    step: float
    method: str
    rows_left_out: int = 0
    log_rank: ChanceTest | None = None

    @property
    def present(self) -> dict[str, SurvivalOfGroup]:
        """Groups with rows, by their names in words."""
        return {group_name(self.by, of.group): of for of in self.groups if of.rows}

    @property
    def marks(self) -> list[float]:
        """Round times at about a quarter, a half and three quarters of what every group was followed."""
        last = min((of.followed_until for of in self.present.values()), default=0.0)
        if last < self.step:
            return []
        unit = max(10.0 ** math.floor(math.log10(last / 4)), self.step)
        return list(dict.fromkeys(math.floor(last * part / 4 / unit) * unit for part in (1, 2, 3)))

    def moment(self, time: float) -> str:
        """Return a time with its unit."""
        return f"{format_as_written(time)} {self.unit}".rstrip()


def _median_time(median: Figure) -> str:
    """Return the time at which half of the rows have had the event, with its interval.

    Examples
    --------
    >>> _median_time(Figure(value=1528.0, low=1280.0, high=1814.0)), _median_time(Figure(value=2018.0, low=1918.0))
    ('1528 (1280 to 1814)', '2018 (1918 to not reached)')
    >>> _median_time(Figure())
    'not reached'
    """
    value, *ends = (number(end) for end in (median.value, median.low, median.high))
    between = " to ".join(ends)
    return NOT_REACHED if median.low is None else f"{value} ({between})".replace(ABSENT, NOT_REACHED)


def _survival_lines(statistic: StatisticObject) -> Lines:
    of = read(Survival, statistic)
    lines = []
    for name, group in of.present.items():
        line = {"Rows of": name, "Rows": f"{group.rows:,}", "With the event": f"{group.events:,}"}
        line["Median time (95 % CI)"] = _median_time(group.median)
        for time in of.marks:
            line[f"Without event at {of.moment(time)} (95 % CI)"] = with_interval(Figure(*group.curve.at(time)))
        lines.append(line)
    return lines


def _survival_in_words(statistic: StatisticObject) -> list[str]:
    of = read(Survival, statistic)
    if not of.marks:
        return [render("report.statistic.unfollowed")]
    last = of.marks[-1]
    shares = [f"{_percent(group.curve.at(last)[0])} ({name})" for name, group in of.present.items()]
    facts = {"time": of.moment(last), "shares": ", ".join(shares)}
    difference = ""
    if of.log_rank is not None:
        p = of.log_rank.p.value or 0.0
        key = "differ" if p < UNLIKE else "agree"
        difference = " " + render(f"report.log-rank.{key}", chi2=number(of.log_rank.chi2.value), p=format_p(p))
    rows = counted(sum(group.rows for group in of.groups), "row")
    sites = counted(of.sites, "site")
    method = render(f"report.survival.{of.method}", step=of.moment(of.step), rows=rows, sites=sites)
    missing = _left_out(of.rows_left_out, "time, event or group")
    limits = render("report.statistic.unadjusted")
    return [render("report.statistic.survival", **facts) + difference, method, *missing, limits]


def _package_lines(statistic: StatisticObject) -> Lines:
    """Return the numbers of a statistic of another package, under its own names."""
    by_site = read(Recorded, statistic).by_site or {}
    names = [key for key, value in statistic.items() if type(value) in (int, float)]
    lines = []
    for rows_of, one in (by_site | {"all sites": statistic}).items():
        numbers = {name: shown(one.get(name), _format_plain) for name in names}
        lines.append({"Rows of": rows_of, **numbers})
    return lines


def _format_plain(value: float) -> str:
    """Return a number of another package: a count as it is, another figure without reading as 0."""
    if isinstance(value, int):
        return f"{value:,}"
    return number(value, decimals_beside((value,), decimals_of(value)))


def _package_words(statistic: StatisticObject) -> list[str]:
    return [render("report.statistic.package", name=read(Recorded, statistic).name)]


Formats = tuple[Callable[[StatisticObject], Lines], Callable[[StatisticObject], list[str]]]
_FORMATS_BY_NAME: dict[str, Formats] = {
    "odds-ratio": (_odds_lines, _odds_in_words),
    "mantel-haenszel": (_odds_lines, _stratified_in_words),
    SURVIVAL: (_survival_lines, _survival_in_words),
    "covariance": (_covariance_lines, _covariance_in_words),
    "cox": (coefficient_lines, coefficients_in_words),
    "glm": (coefficient_lines, coefficients_in_words),
}


def _lines_and_words(name: str) -> Formats:
    """Return the functions for a statistic's table and its sentences; one of a package has its numbers only."""
    return _FORMATS_BY_NAME.get(name, (_package_lines, _package_words))


OF_ANY_RUN = (
    "run", "study", "status", "reason", "engine", "seconds", "repeats", "statistics", "faults", "privacy",
)  # fmt: skip
"""Keys in the report of a statistic or an analysis; all others are of models."""


def statistic_object(statistic: Mapping[str, Any]) -> Report:
    """Return the report of a run that trains no model, without keys of models and empty objects.

    Parameters
    ----------
    statistic : dict
        From `report.report`.

    Examples
    --------
    >>> statistic_object({"run": "a", "global": {}, "privacy": {"mechanism": "none", "sites": {}}, "faults": []})
    {'run': 'a', 'privacy': {'mechanism': 'none'}, 'faults': []}
    """
    report: Report = _without_empty({key: value for key, value in statistic.items() if key in OF_ANY_RUN})
    return report


def _without_empty(value: Any) -> Any:
    """Return a value without the empty objects in it."""
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_empty(item) for key, item in value.items() if item != {}}
