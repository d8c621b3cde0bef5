"""Tables and sentences of a recorded statistic, each for the terminal, the page and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from flfed.errors import counted
from flfed.records.section import Lines, Table
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.listed.analysis import analysis_tables
from flfed.records.statistics.listed.analysis_words import analysis_in_words
from flfed.records.statistics.verdict import ABSENT, interval, number

Found = dict[str, Any]
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


def statistic_tables(found: Found) -> list[Table]:
    """Return the tables of a recorded statistic; `found` is the object "statistics" of a run."""
    if found["name"] == ANALYSIS:
        return analysis_tables(found)
    lines = _TOLD[found["name"]][0](found)
    return [Table(lines=lines)] if lines else []


def statistic_in_words(found: Found, repeats: int = 1) -> list[str]:
    """Return what a statistic says, the figure first, and what it does not show; `repeats` are those of its run."""
    # An analysis has no exact sums: what it does not show is another thing.
    if found["name"] == ANALYSIS:
        # The first repeat's figures stand for all where sums are exact; here each has another draw of the noise.
        return [*analysis_in_words(found), *([FIRST_OF.format(repeats=repeats)] if repeats > 1 else [])]
    # Without a site's own figures there were sums in secret, or nobody may see whose they are.
    crossed = "each site's own crossed to the coordinator" if found["by-site"] else "no site's own is shown"
    return [*_TOLD[found["name"]][1](found), NOT_SHOWN.format(crossed=crossed)]


def _each(found: Found) -> dict[str, Found]:
    """Return the figures of each site that shares its own, and of all together, by name."""
    return {**found["by-site"], f"all {found['sites']} sites": found}


def _odds_lines(found: Found) -> Lines:
    return [_odds_line(name, one) for name, one in _each(found).items()]


def _odds_line(name: str, one: Found) -> dict[str, str]:
    shares = {
        f"{of['group']}: with the outcome": f"{of['events']} of {of['rows']}"
        + (f" ({100 * of['events'] / of['rows']:.1f} %)" if of["rows"] else "")
        for of in one["groups"]
    }
    ratio = one["odds-ratio"]
    told = ABSENT if ratio is None else f"{number(ratio['value'])} ({interval(ratio['low'], ratio['high'])})"
    return {"Rows of": name, **shares, "Odds ratio (95 % CI)": told}


def _odds_in_words(found: Found) -> list[str]:
    first, second = (of["group"] for of in found["groups"])
    if found["odds-ratio"] is None:
        return [f"The odds ratio cannot be told: {found['why']}."]
    ratio, p = found["odds-ratio"], found["p"]["value"]
    clear = "no difference is shown" if ratio["low"] <= 1 <= ratio["high"] else "more than chance lets expect"
    less = "lower" if ratio["value"] < 1 else "higher"
    figure = f"{number(ratio['value'])} (95 % CI {interval(ratio['low'], ratio['high'])}; p = {p:.2g})"
    missing = found["rows-without-a-group"]
    return [
        f"With {second} the odds of the outcome are {less} than with {first}: odds ratio {figure}; {clear}.",
        *([f"{counted(missing, 'row')} without a group: left out."] if missing else []),
        "It compares the groups as they are: where people were not put into them by lot, they may differ otherwise, "
        "too. No site's own odds are held fixed.",
    ]


def _covariance_lines(found: Found) -> Lines:
    if found["mean"] is None:
        return []
    named = zip(found["columns"], found["mean"], strict=True)
    return [{"Column": name, "Mean": f"{mean:.6g}", "SD": f"{found['sd'][name]['value']:.6g}"} for name, mean in named]


def _covariance_in_words(found: Found) -> list[str]:
    if found["mean"] is None:
        return ["Means and covariances cannot be told: fewer than two rows have all columns."]
    columns, rows = len(found["columns"]), found["rows"]
    left = found["rows-left-out"]
    return [
        f"Means and covariances of {counted(columns, 'column')} over {counted(rows, 'row')} of "
        f"{counted(found['sites'], 'site')}, the same as of one table; all of them: flfed run show RUN --json.",
        *([f"{counted(left, 'row')} without a value in one of them: left out."] if left else []),
    ]


def _stock_lines(found: Found) -> Lines:
    return [_stock_line(name, one) for name, one in _each(found).items()]


def _stock_line(name: str, one: Found) -> dict[str, str]:
    error, deviation = one["error"]["value"], one["deviation"]["value"]
    covered = {
        f"Covered, stock by {_errors_of(by)}": ABSENT if of["service"]["value"] is None
        else f"{100 * of['service']['value']:.1f} %"
        for by, of in one["stocks"].items()
    }  # fmt: skip
    return {
        "Rows of": name,
        "Rows until then, and after": f"{one['rows']:,}, {one['rows-after']:,}",
        "Deviation of errors until then": ABSENT if deviation is None else number(deviation),
        "Mean absolute error after": ABSENT if error is None else number(error),
        **covered,
    }


def _errors_of(by: str) -> str:
    last = by.removeprefix("own-last-")
    return f"own last {last} errors" if last != by else "errors of all sites" if by == "all-sites" else "own errors"


def _stock_in_words(found: Found) -> list[str]:
    shared, service = found["stocks"]["all-sites"], found["service"]
    if shared["miss"]["value"] is None:
        return ["The service level cannot be told: no site has rows both before and after the day."]
    own = [
        f"{number(of['miss']['value'])} with its {_errors_of(by)}"
        for by, of in found["stocks"].items()
        if by != "all-sites" and of["miss"]["value"] is not None
    ]
    beside = f", {', '.join(own)}" if own else ""
    rows = found["rows-after"] / found["sites"]
    chance = NORMAL_95 * math.sqrt(service * (1 - service) / rows)
    missed = f"by {number(shared['miss']['value'])} with the errors of all {found['sites']} sites"
    apart = max(abs(of["miss"]["value"] - shared["miss"]["value"]) for of in found["stocks"].values() if of["sites"])
    said = "; no difference is shown" if own and apart < chance / math.sqrt(found["sites"]) else ""
    left = found["rows-left-out"]
    return [
        f"A stock meant to cover {100 * service:g} % of the rows after {found['until']} covered "
        f"{100 * shared['service']['value']:.1f} % at a site on average: it missed {missed}{beside}{said}.",
        f"A site has {rows:.0f} rows after that day on average, so that chance alone moves its share by "
        f"± {number(chance)}. The forecast is {found['forecast']}, with a mean absolute error of "
        f"{number(found['error']['value'])} after that day.",
        *([f"{counted(left, 'row')} without forecast, date or outcome: left out."] if left else []),
    ]


_TOLD: dict[str, tuple[Callable[[Found], Lines], Callable[[Found], list[str]]]] = {
    "odds-ratio": (_odds_lines, _odds_in_words),
    "covariance": (_covariance_lines, _covariance_in_words),
    "safety-stock": (_stock_lines, _stock_in_words),
}


OF_ANY_RUN = (
    "run", "study", "status", "reason", "engine", "seconds", "repeats", "statistics", "faults", "privacy",
)  # fmt: skip
"""Keys that the report of a statistic or an analysis has; all others are of models."""


def statistic_object(found: Mapping[str, Any]) -> Report:
    """Return the report of a run that trains no model: no key is of models, and no object is empty.

    Parameters
    ----------
    found : dict
        From `report.report`.

    Examples
    --------
    >>> statistic_object({"run": "a", "global": {}, "privacy": {"mechanism": "none", "sites": {}}, "faults": []})
    {'run': 'a', 'privacy': {'mechanism': 'none'}, 'faults': []}
    """
    kept: Report = _without_empty({key: value for key, value in found.items() if key in OF_ANY_RUN})
    return kept


def _without_empty(value: Any) -> Any:
    """Return a value without the empty objects in it."""
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_empty(item) for key, item in value.items() if item != {}}
