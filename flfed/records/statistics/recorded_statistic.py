"""Tables and sentences of a recorded statistic, each for the terminal, the page and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flfed.errors import counted
from flfed.records.objects import read
from flfed.records.section import Lines, Table
from flfed.records.statistics import Report
from flfed.records.statistics.analysis import Analysis, analysis_in_words, analysis_tables
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.verdict import Figure, interval, number, shown

StatisticObject = dict[str, Any]
ANALYSIS = "analysis"
"""Name of an analysis among recorded statistics."""
FIRST_OF = (
    "These are the figures of the first of {repeats} repeats. Each of the others drew other noise and was charged as "
    "well: flfed run show with a repeat's own id tells it."
)
NOT_SHOWN = (
    "All rows are counted, also those that other studies hold out: nothing was trained and nothing is predicted. Sums "
    "are exact, and {crossed}."
)


def statistic_tables(statistic: StatisticObject) -> list[Table]:
    """Return the tables of a recorded statistic; `statistic` is the object "statistics" of a run."""
    name = read(Recorded, statistic).name
    if name == ANALYSIS:
        return analysis_tables(read(Analysis, statistic))
    lines = _lines_and_words(name)[0](statistic)
    return [Table(lines=lines)] if lines else []


def statistic_in_words(statistic: StatisticObject, repeats: int = 1) -> list[str]:
    """Return what a statistic says, the figure first, and what it does not show; `repeats` are those of its run."""
    of = read(Recorded, statistic)
    # An analysis has no exact sums: what it does not show is another thing.
    if of.name == ANALYSIS:
        lines = analysis_in_words(read(Analysis, statistic))
        # The first repeat's figures stand for all where sums are exact; here each has another draw of the noise.
        if repeats > 1:
            lines.append(FIRST_OF.format(repeats=repeats))
        return lines
    # Without a site's own figures there were sums in secret, or nobody may see whose they are.
    crossed = "each site's own crossed to the coordinator" if of.by_site else "no site's own is shown"
    words = _lines_and_words(of.name)[1](statistic)
    return [*words, NOT_SHOWN.format(crossed=crossed)]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What every recorded statistic has: its name, and the figures of each site where these crossed."""

    name: str
    by_site: Any = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows of a group, and those of them with the outcome."""

    group: str
    events: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class OddsOfRows:
    """Odds of the outcome in two groups, of the rows of one site or of all."""

    groups: list[Group]
    odds_ratio: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Odds(OddsOfRows):
    """Recorded odds of the outcome in two groups, over all sites."""

    sites: int
    by_site: dict[str, OddsOfRows] = field(default_factory=dict)
    p: Figure | None = None
    why: str = ""
    rows_without_a_group: int = 0


def _odds_lines(statistic: StatisticObject) -> Lines:
    odds = read(Odds, statistic)
    return [_odds_line(name, one) for name, one in (odds.by_site | {f"all {odds.sites} sites": odds}).items()]


def _odds_line(name: str, one: OddsOfRows) -> dict[str, str]:
    line = {"Rows of": name}
    for of in one.groups:
        share = f" ({100 * of.events / of.rows:.1f} %)" if of.rows else ""
        line[f"{of.group}: with the outcome"] = f"{of.events} of {of.rows}{share}"
    ratio_text = shown(one.odds_ratio, lambda ratio: f"{number(ratio.value)} ({interval(ratio.low, ratio.high)})")
    return line | {"Odds ratio (95 % CI)": ratio_text}


def _odds_in_words(statistic: StatisticObject) -> list[str]:
    odds = read(Odds, statistic)
    first, second = (of.group for of in odds.groups)
    ratio = odds.odds_ratio
    if ratio is None or ratio.value is None or ratio.low is None or ratio.high is None or odds.p is None:
        return [f"The odds ratio is inconclusive: {odds.why}."]
    clear = "no difference is shown" if ratio.low <= 1 <= ratio.high else "more than chance lets expect"
    less = "lower" if ratio.value < 1 else "higher"
    figure = f"{number(ratio.value)} (95 % CI {interval(ratio.low, ratio.high)}; p = {odds.p.value:.2g})"
    return [
        f"With {second} the odds of the outcome are {less} than with {first}: odds ratio {figure}; {clear}.",
        *_left_out(odds.rows_without_a_group, "a group"),
        "It compares the groups as they are: where people were not put into them by lot, they may differ otherwise, "
        "too. No site's own odds are held fixed.",
    ]


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
    named = zip(of.columns, of.mean, strict=True)
    return [{"Column": name, "Mean": f"{mean:.6g}", "SD": f"{of.sd[name].value:.6g}"} for name, mean in named]


def _covariance_in_words(statistic: StatisticObject) -> list[str]:
    of = read(Covariance, statistic)
    if of.mean is None:
        return ["There are no means and covariances: fewer than two rows have all columns."]
    return [
        f"Means and covariances of {counted(len(of.columns), 'column')} over {counted(of.rows, 'row')} of "
        f"{counted(of.sites, 'site')}, the same as of one table; all of them: flfed run show RUN --json.",
        *_left_out(of.rows_left_out, "a value in one of them"),
    ]


def _left_out(rows: int, without: str) -> list[str]:
    """Return that some rows were left out, nothing where none was."""
    return [f"{counted(rows, 'row')} without {without}: left out."] if rows else []


@dataclass(frozen=True, kw_only=True)
class Stock:
    """How a stock that was set by some errors covered later rows; `miss` is how far from what was meant."""

    service: Figure
    miss: Figure = field(default_factory=Figure)
    sites: int = 0


@dataclass(frozen=True, kw_only=True)
class StocksOfRows:
    """Errors of forecasts and the stocks set by them, of the rows of one site or of all."""

    error: Figure
    deviation: Figure
    stocks: dict[str, Stock]
    rows: int
    rows_after: int


@dataclass(frozen=True, kw_only=True)
class Stocks(StocksOfRows):
    """Recorded stocks over all sites."""

    sites: int
    by_site: dict[str, StocksOfRows] = field(default_factory=dict)
    service: float = 0.0
    until: str = ""
    forecast: str = ""
    rows_left_out: int = 0


def _stock_lines(statistic: StatisticObject) -> Lines:
    stocks = read(Stocks, statistic)
    return [_stock_line(name, one) for name, one in (stocks.by_site | {f"all {stocks.sites} sites": stocks}).items()]


def _stock_line(name: str, one: StocksOfRows) -> dict[str, str]:
    line = {
        "Rows of": name,
        "Rows until then, and after": f"{one.rows:,}, {one.rows_after:,}",
        "Deviation of errors until then": number(one.deviation.value),
        "Mean absolute error after": number(one.error.value),
    }
    for by, of in one.stocks.items():
        line[f"Covered, stock by {_errors_of(by)}"] = shown(of.service.value, lambda share: f"{100 * share:.1f} %")
    return line


def _errors_of(by: str) -> str:
    last = by.removeprefix("own-last-")
    if last != by:
        return f"own last {last} errors"
    return "errors of all sites" if by == "all-sites" else "own errors"


def _stock_in_words(statistic: StatisticObject) -> list[str]:
    of = read(Stocks, statistic)
    shared = of.stocks["all-sites"]
    missed, covered = shared.miss.value, shared.service.value
    if missed is None or covered is None:
        return ["There is no service level: no site has rows both before and after the day."]
    rows = of.rows_after / of.sites
    chance = NORMAL_95 * math.sqrt(of.service * (1 - of.service) / rows)
    beside = _misses_beside(of, missed, chance / math.sqrt(of.sites))
    return [
        f"A stock meant to cover {100 * of.service:g} % of the rows after {of.until} covered "
        f"{100 * covered:.1f} % at a site on average: it missed by {number(missed)} with the errors of all "
        f"{of.sites} sites{beside}.",
        f"A site has {rows:.0f} rows after that day on average, so that chance alone moves its share by "
        f"± {number(chance)}. The forecast is {of.forecast}, with a mean absolute error of "
        f"{number(of.error.value)} after that day.",
        *_left_out(of.rows_left_out, "forecast, date or outcome"),
    ]


def _misses_beside(of: Stocks, missed: float, chance: float) -> str:
    """Return by how much stocks of a site's own errors missed, beside `missed` with those of all sites.

    `chance` is how far two of them lie apart by chance alone.
    """
    own = []
    for by, one in of.stocks.items():
        if by != "all-sites" and one.miss.value is not None:
            own.append(f"{number(one.miss.value)} with its {_errors_of(by)}")
    if not own:
        return ""
    apart = max(abs((one.miss.value or 0.0) - missed) for one in of.stocks.values() if one.sites)
    alike = "; no difference is shown" if apart < chance else ""
    return f", {', '.join(own)}{alike}"


def _package_lines(statistic: StatisticObject) -> Lines:
    """Return the numbers of a statistic of another package, under its own names."""
    by_site = read(Recorded, statistic).by_site or {}
    names = [key for key, value in statistic.items() if type(value) in (int, float)]
    lines = []
    for rows_of, one in (by_site | {"all sites": statistic}).items():
        numbers = {name: shown(one.get(name), "{:.6g}".format) for name in names}
        lines.append({"Rows of": rows_of, **numbers})
    return lines


def _package_words(statistic: StatisticObject) -> list[str]:
    return [
        f"The figures of {read(Recorded, statistic).name} are its package's; all of them: flfed run show RUN --json."
    ]


Formats = tuple[Callable[[StatisticObject], Lines], Callable[[StatisticObject], list[str]]]
_FORMATS_BY_NAME: dict[str, Formats] = {
    "odds-ratio": (_odds_lines, _odds_in_words),
    "covariance": (_covariance_lines, _covariance_in_words),
    "safety-stock": (_stock_lines, _stock_in_words),
}


def _lines_and_words(name: str) -> Formats:
    """Return what makes the lines of a statistic's table, and its sentences; one of a package has its numbers alone."""
    return _FORMATS_BY_NAME.get(name, (_package_lines, _package_words))


OF_ANY_RUN = (
    "run", "study", "status", "reason", "engine", "seconds", "repeats", "statistics", "faults", "privacy",
)  # fmt: skip
"""Keys that the report of a statistic or an analysis has; all others are of models."""


def statistic_object(statistic: Mapping[str, Any]) -> Report:
    """Return the report of a run that trains no model: no key is of models, and no object is empty.

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
