"""Tables of a recorded analysis: noised counts, means, shares and cross-tables, with their intervals.

Every cell is a figure of the record, rounded. One that is lost in the noise is "n/a", which is no 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flfed.errors import counted
from flfed.records.section import Lines, Table
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.verdict import (
    ABSENT,
    MINUS,
    MOST_MORE,
    Difference,
    as_given,
    decimals_of,
    gain_in_brackets,
    interval,
    number,
)

Found = dict[str, Any]
ALL = "all"
OF, GROUPS, COUNT, MEDIAN = "Rows of", "Groups", "Count", "Median"
"""Headings: whose figures a line has, which groups it compares, a count with its noise, and the quantile of a half."""
SPARE = (COUNT, "Known", "Missing", "SD")
"""Headings that a narrow terminal leaves out, the first ones first."""
MOST_ACROSS = 6
"""Values side by side in a cross-table; of more in either column each cell has a line."""
PERSON = "person"
"""What is counted where rows of one person weigh one together."""
NO_DIFFERENCE, NOT_TOLD = "no difference is shown", "cannot be told"


def noise_of(found: Found, group: str = "") -> float:
    """Return the deviation of the noise on each count of a histogram, of all rows or of a group's.

    Parameters
    ----------
    found : dict
        The object "statistics" of a run, or one site's of its "by-site".
    group : str
        A group's name; "" means all rows, which are the sum of all groups and of the rows without one.

    Examples
    --------
    >>> noise_of({"deviation": 4.0}), noise_of({"deviation": 4.0, "groups": {"of": {"a": {}, "b": {}, "c": {}}}})
    (4.0, 8.0)
    """
    parts = 1 if group or "groups" not in found else len(found["groups"]["of"]) + 1
    return float(found["deviation"]) * math.sqrt(parts)


def parts_of(found: Found) -> dict[str, tuple[Found, float]]:
    """Return the figures of all rows and of each group, with the deviation of the noise on each count of theirs."""
    whole = {ALL: (found, noise_of(found))}
    if "groups" not in found:
        return whole
    by = found["groups"]["by"]
    return whole | {f"{by}: {name}": (of, noise_of(found, name)) for name, of in found["groups"]["of"].items()}


def analysis_tables(found: Found) -> list[Table]:
    """Return the tables of a recorded analysis, over all sites first; `found` is the object "statistics" of a run."""
    sites = found["by-site"]
    return [*tables_of(found), *(_columns_of({name: (of, noise_of(of)) for name, of in sites.items()}, each=True))]


def tables_of(found: Found) -> list[Table]:
    """Return the tables over all sites, or those of one: `found` may be an object of "by-site"."""
    tables = [_groups(found), *_columns_of(parts_of(found)), _compared(found)]
    return [table for table in (*tables, *(_crossed(found, of) for of in found["cross"])) if table.lines]


def rows_figure(found: Found) -> str:
    """Return the number of rows with its interval, and what is told of them, for a line of an index."""
    told = f"{counted(len(found['columns']), 'column')}, with noise"
    return f"{count_in_words(found['rows'])} {found['counts-each']}s, {told}"


def column_label(name: str, column: Found) -> str:
    """Return a column's name with its unit.

    Examples
    --------
    >>> column_label("age", {"unit": "years"}), column_label("sex", {"unit": ""})
    ('age, years', 'sex')
    """
    return f"{name}, {column['unit']}" if column["unit"] else name


def estimate(one: Found | None) -> str:
    """Return a figure with its interval, "n/a" where it is not told.

    It has so many decimals as its size asks for, and more where its interval would else be none.

    Examples
    --------
    >>> estimate({"value": 53.51, "low": 52.56, "high": 54.46})
    '53.5 (52.6 to 54.5)'
    >>> estimate({"value": 2000.0, "low": 1999.91, "high": 2000.09})
    '2000.0 (1999.9 to 2000.1)'
    >>> estimate(None)
    'n/a'
    """
    if one is None:
        return ABSENT
    value, low, high = one["value"], one["low"], one["high"]
    decimals = _decimals(low, high, decimals_of(value, low, high))
    return f"{number(value, decimals)} ({interval(low, high, decimals)})"


def percent(one: Found | None) -> str:
    """Return a share with its interval in percent, "n/a" where it is not told.

    Examples
    --------
    >>> percent({"value": 0.212, "low": 0.1823, "high": 0.2416}), percent(None)
    ('21.2 % (18.2 to 24.2 %)', 'n/a')
    """
    if one is None:
        return ABSENT
    value, low, high = (100 * one[end] for end in ("value", "low", "high"))
    decimals = _decimals(low, high, 1)
    return f"{value:.{decimals}f} % ({low:.{decimals}f} to {high:.{decimals}f} %)"


def _decimals(low: float, high: float, least: int) -> int:
    """Return with how many decimals an interval is seen: `least`, or a few more."""
    wide = (digits for digits in range(least, least + MOST_MORE) if (high - low) * 10**digits >= 1)
    return next(wide, least + MOST_MORE) if high > low else least


def count_in_words(one: Found) -> str:
    """Return a number of rows with its interval."""
    value, low, high = (f"{one[end]:,.0f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _with_noise(count: float, deviation: float) -> str:
    return f"{count:,.0f} ± {NORMAL_95 * deviation:,.0f}"


def _shared_out(found: Found) -> str:
    """Return how persons are counted, after a title: someone's rows weigh one together."""
    return ", each shared out by their rows" if found["counts-each"] == PERSON else ""


def _groups(found: Found) -> Table:
    """Return how many rows each group has."""
    if "groups" not in found:
        return Table(lines=[])
    by, unit = found["groups"]["by"], found["counts-each"]
    share = f"Share of {unit}s whose {by} is known (95 % CI)"
    lines = [{"Group": ALL, f"{unit.capitalize()}s": count_in_words(found["rows"]), share: ""}]
    for name, of in found["groups"]["of"].items():
        lines.append(
            {"Group": f"{by}: {name}", f"{unit.capitalize()}s": count_in_words(of["rows"]), share: percent(of["share"])}
        )
    return Table(title=f"{unit.capitalize()}s by {by}{_shared_out(found)}", lines=lines)


def _columns_of(parts: Mapping[str, tuple[Found, float]], *, each: bool = False) -> list[Table]:
    """Return the tables of numbers and of shares, a line a column and part; `each` where the parts are sites."""
    names = list(dict.fromkeys(name for of, _ in parts.values() for name in of["columns"]))
    numbers, quantiles, shares = Lines(), Lines(), Lines()
    for name in names:
        columns = {part: (of["columns"][name], deviation) for part, (of, deviation) in parts.items()}
        if all("within" in column for column, _ in columns.values()):
            numbers += [_number(name, part, *of) for part, of in columns.items()]
            quantiles += [_quantiles(name, part, of) for part, (of, _) in columns.items() if of["quantiles"]]
        else:
            shares += _shares(name, columns)
    told = {"Numbers": numbers, "Quantiles of numbers": quantiles, "Shares": shares}
    # A heading that says the same in every line is left out.
    left_out = OF if len(parts) == 1 and not each else ""
    whose = " at each site" if each else ""
    return [
        Table(
            title=f"{title}{whose}, with 95 % CI",
            lines=[{key: cell for key, cell in line.items() if key != left_out} for line in lines],
            spare=SPARE,
            of_each_site=each,
        )
        for title, lines in told.items()
        if lines
    ]


def _number(name: str, part: str, column: Found, deviation: float) -> dict[str, str]:
    """Return the line of a number."""
    low, high = column["within"]
    return {
        "Column": column_label(name, column),
        OF: part,
        "Mean": estimate(column["mean"]),
        "SD": estimate(column["sd"]),
        "Within": f"{end_in_words(low)} to {end_in_words(high)}",
        # The number of known values has the noise of two counts, whose difference it is.
        "Known": _with_noise(math.fsum(column["counts"]), deviation * math.sqrt(2)),
        "Missing": percent(column["missing"]),
    }


def _quantiles(name: str, part: str, column: Found) -> dict[str, str]:
    """Return the line of a number's quantiles."""
    told = {
        MEDIAN if of == "50%" else f"{of.removesuffix('%')} % quantile": estimate(one)
        for of, one in column["quantiles"].items()
    }
    return {"Column": column_label(name, column), OF: part, **told}


def end_in_words(value: float) -> str:
    """Return an end of a range.

    Examples
    --------
    >>> end_in_words(40_000.0), end_in_words(0.25), end_in_words(-5.0) == f"{MINUS}5"
    ('40000', '.25', True)
    """
    return f"{MINUS if value < 0 else ''}{as_given(abs(value))}"


def _shares(name: str, columns: Mapping[str, tuple[Found, float]]) -> Iterator[dict[str, str]]:
    """Yield the lines of a category: each value in every part, so that parts stand below each other."""
    first = next(iter(columns.values()))[0]
    for value in first["shares"]:
        for part, (column, deviation) in columns.items():
            yield {
                "Column": column_label(name, column),
                "Value": value,
                OF: part,
                "Share": percent(column["shares"][value]),
                COUNT: _with_noise(column["counts"][value], deviation),
            }
    for part, (column, _) in columns.items():
        missing = {"Value": "missing, of all", OF: part, "Share": percent(column["missing"]), COUNT: ""}
        yield {"Column": column_label(name, column), **missing}


def _compared(found: Found) -> Table:
    """Return the table of differences between groups."""
    if "groups" not in found:
        return Table(lines=[])
    first = next(iter(found["groups"]["of"]), "")
    lines = []
    for name, of, groups, one in differences(found):
        is_mean = "within" in found["columns"][name]
        unit = found["columns"][name]["unit"] if is_mean else "percentage points"
        difference = difference_of(one, 1.0 if is_mean else 100.0)
        lines.append(
            {
                "Column": name,
                "What": "mean" if is_mean else f"share of {of}",
                GROUPS: f"{groups.removesuffix(f' - {first}')} minus {first}",
                "Difference (95 % CI)": ABSENT if difference is None else gain_in_brackets(difference),
                "Unit": unit,
                "Shows": shows_of(difference),
            }
        )
    title = f"Differences by {found['groups']['by']}"
    pairs = {line[GROUPS] for line in lines}
    # The one pair of two groups stands in the title alone.
    if len(pairs) == 1:
        title += f": {pairs.pop()}"
        lines = [{key: cell for key, cell in line.items() if key != GROUPS} for line in lines]
    return Table(title=title, lines=lines, spare=("Unit",))


def differences(found: Found) -> Iterator[tuple[str, str, str, Found | None]]:
    """Yield each difference between groups: its column, what of it, which groups, and the figure."""
    for name, column in found["groups"]["compared"].items():
        for of, groups in column.items():
            for which, one in groups.items():
                yield name, of, which, one


def difference_of(one: Found | None, scale: float = 1.0) -> Difference | None:
    """Return a recorded difference times `scale`, None where it is not told."""
    return None if one is None else Difference(*(scale * one[end] for end in ("value", "low", "high")))


def shows_of(difference: Difference | None) -> str:
    """Return what a difference between groups shows."""
    if difference is None or difference.low is None or difference.high is None:
        return NOT_TOLD
    return "higher" if difference.low > 0 else "lower" if difference.high < 0 else NO_DIFFERENCE


def _crossed(found: Found, of: Found) -> Table:
    """Return a cross-table, or a line a cell where it is wide both ways."""
    (first, second), (rows, columns), counts = of["columns"], of["values"], of["counts"]
    reach = NORMAL_95 * found["deviation"]
    whose = f"persons{_shared_out(found)}; " if found["counts-each"] == PERSON else "counts, each "
    title = f"{first} by {second}: {whose}± {reach:,.0f}"
    if len(columns) <= MOST_ACROSS:
        lines = [
            {first: row, **{f"{second}: {at}": f"{count:,.0f}" for at, count in zip(columns, line, strict=True)}}
            for row, line in zip(rows, counts, strict=True)
        ]
    elif len(rows) <= MOST_ACROSS:
        lines = [
            {second: column, **{f"{first}: {row}": f"{line[at]:,.0f}" for row, line in zip(rows, counts, strict=True)}}
            for at, column in enumerate(columns)
        ]
    else:
        lines = [
            {first: row, second: column, COUNT: f"{line[at]:,.0f}"}
            for row, line in zip(rows, counts, strict=True)
            for at, column in enumerate(columns)
        ]
    return Table(title=title, lines=lines)
