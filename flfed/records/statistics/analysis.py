"""Tables and sentences of a recorded analysis: noised counts, means, shares and cross-tables, with their intervals.

Every cell is a figure of the record, rounded. One that is lost in the noise is "n/a", which is no 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from flfed.errors import counted
from flfed.records.section import Lines, Table
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.verdict import (
    ABSENT,
    MINUS,
    MOST_MORE,
    Difference,
    Figure,
    decimals_of,
    format_as_written,
    gain_in_brackets,
    interval,
    number,
    shown,
)

ALL = "all"
OF, GROUPS, COUNT, MEDIAN = "Rows of", "Groups", "Count", "Median"
"""Headings: whose figures a line has, which groups it compares, a count with its noise, and the quantile of a half."""
SPARE = (COUNT, "Known", "Missing", "SD")
"""Headings that a narrow terminal leaves out, the first ones first."""
MOST_ACROSS = 6
"""Values side by side in a cross-table; of more in either column each cell has a line."""
PERSON = "person"
"""What is counted where rows of one person weigh one together."""
NO_DIFFERENCE = "no difference is shown"
INCONCLUSIVE = "inconclusive"


Parted = dict[str, tuple["PartOfRows", float]]
"""Figures of each part of the rows by its name, with the deviation of the noise on each count of theirs."""


@dataclass(frozen=True, kw_only=True)
class AnalysedColumn:
    """Figures of a column.

    Attributes
    ----------
    unit : str
    missing : Figure or None
        Share of the rows without a value.
    """

    unit: str = ""
    missing: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Number(AnalysedColumn):
    """Figures of a number, in its unit.

    Attributes
    ----------
    within : list of float [2]
        Ends of the range to which values are clipped.
    mean, sd : Figure or None
    quantiles : dict of "25%" and the like to Figure or None
    edges : list of float [bins + 1]
    counts : list of float [bins]
        For display: none below 0.
    """

    within: list[float]
    mean: Figure | None = None
    sd: Figure | None = None
    quantiles: dict[str, Figure | None] = field(default_factory=dict)
    edges: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure | None]:
        """All figures that may be lost in the noise."""
        return [self.mean, self.sd, *self.quantiles.values()]


@dataclass(frozen=True, kw_only=True)
class Category(AnalysedColumn):
    """Figures of a category: the share of each value among rows that have one, and its count for display."""

    shares: dict[str, Figure | None]
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure | None]:
        """All figures that may be lost in the noise."""
        return [*self.shares.values()]


@dataclass(frozen=True, kw_only=True)
class PartOfRows:
    """Figures of all rows, or of a group's: how many there are, and each column's."""

    rows: Figure = field(default_factory=Figure)
    columns: dict[str, Number | Category] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Number]:
        """The columns that are numbers."""
        return {name: column for name, column in self.columns.items() if isinstance(column, Number)}

    @property
    def categories(self) -> dict[str, Category]:
        """The other columns."""
        return {name: column for name, column in self.columns.items() if isinstance(column, Category)}


@dataclass(frozen=True, kw_only=True)
class Group(PartOfRows):
    """Figures of one group's rows, and their share of the rows whose group is known."""

    share: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups by the values of a column.

    Attributes
    ----------
    by : str
        The column.
    of : dict of name to Group
    compared : dict of column to dict of what to dict of "group - first group" to Figure or None
        Differences of a "mean", or of the share of a value.
    """

    by: str = ""
    of: dict[str, Group] = field(default_factory=dict)
    compared: dict[str, dict[str, dict[str, Figure | None]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Independence:
    """Test of whether two columns have to do with each other."""

    chi2: float
    degrees_of_freedom: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """Cross-table of two columns.

    Attributes
    ----------
    columns : list of str [2]
    values : list of list of str [2]
        Values of the first column, which are the rows, and of the second.
    counts : list of list of float [rows][columns]
        For display: none below 0.
    independence : Independence or None
    """

    columns: list[str]
    values: list[list[str]]
    counts: list[list[float]]
    independence: Independence | None = None


@dataclass(frozen=True, kw_only=True)
class RowsAnalysed(PartOfRows):
    """Recorded analysis of the rows of one site, or of all sites.

    Attributes
    ----------
    counts_each : str
        What is counted: "row" or "person".
    deviation : float
        Of the noise on each count, of a group's where there are groups.
    groups : Groups or None
    cross : list of Crossed
    """

    counts_each: str = "row"
    deviation: float = 0.0
    groups: Groups | None = None
    cross: list[Crossed] = field(default_factory=list)

    @property
    def noise(self) -> float:
        """Deviation of the noise on each count of all rows: the sum of all groups, and of rows without one.

        Examples
        --------
        >>> every = Groups(of={"a": Group(), "b": Group(), "c": Group()})
        >>> RowsAnalysed(deviation=4.0).noise, RowsAnalysed(deviation=4.0, groups=every).noise
        (4.0, 8.0)
        """
        parts = 1 if self.groups is None else len(self.groups.of) + 1
        return self.deviation * math.sqrt(parts)

    @property
    def parts(self) -> Parted:
        """Figures of all rows and of each group, with the deviation of the noise on each count of theirs."""
        parts: Parted = {ALL: (self, self.noise)}
        if self.groups is not None:
            for name, of in self.groups.of.items():
                parts[f"{self.groups.by}: {name}"] = (of, self.deviation)
        return parts


@dataclass(frozen=True, kw_only=True)
class Analysis(RowsAnalysed):
    """Recorded analysis over all sites, with that of each site where these crossed."""

    sites: int = 0
    by_site: dict[str, RowsAnalysed] = field(default_factory=dict)


def analysis_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of a recorded analysis, over all sites first."""
    each: Parted = {name: (of, of.noise) for name, of in analysis.by_site.items()}
    return [*tables_of(analysis), *_columns_of(each, each=True)]


def tables_of(analysis: RowsAnalysed) -> list[Table]:
    """Return the tables over all sites, or those of one."""
    tables = _columns_of(analysis.parts)
    if analysis.groups is not None:
        tables = [_groups(analysis, analysis.groups), *tables, _compared(analysis, analysis.groups)]
    tables += [_crossed(analysis, of) for of in analysis.cross]
    return [table for table in tables if table.lines]


def column_label(name: str, column: AnalysedColumn) -> str:
    """Return a column's name with its unit.

    Examples
    --------
    >>> column_label("age", AnalysedColumn(unit="years")), column_label("sex", AnalysedColumn())
    ('age, years', 'sex')
    """
    return f"{name}, {column.unit}" if column.unit else name


def estimate(one: Figure | None) -> str:
    """Return a figure with its interval, "n/a" where it is not told.

    It has so many decimals as its size asks for, and more where its interval would else be none.

    Examples
    --------
    >>> estimate(Figure(53.51, 52.56, 54.46))
    '53.5 (52.6 to 54.5)'
    >>> estimate(Figure(2000.0, 1999.91, 2000.09))
    '2000.0 (1999.9 to 2000.1)'
    >>> estimate(None)
    'n/a'
    """
    if one is None:
        return ABSENT
    value, low, high = one.ends
    decimals = _decimals(low, high, decimals_of(value, low, high))
    return f"{number(value, decimals)} ({interval(low, high, decimals)})"


def percent(one: Figure | None) -> str:
    """Return a share with its interval in percent, "n/a" where it is not told.

    Examples
    --------
    >>> percent(Figure(0.212, 0.1823, 0.2416)), percent(None)
    ('21.2 % (18.2 to 24.2 %)', 'n/a')
    """
    if one is None:
        return ABSENT
    value, low, high = (100 * end for end in one.ends)
    decimals = _decimals(low, high, 1)
    return f"{value:.{decimals}f} % ({low:.{decimals}f} to {high:.{decimals}f} %)"


def _decimals(low: float, high: float, least: int) -> int:
    """Return with how many decimals an interval is seen: `least`, or a few more."""
    if high <= low:
        return least
    for digits in range(least, least + MOST_MORE):
        if (high - low) * 10**digits >= 1:
            return digits
    return least + MOST_MORE


def count_in_words(one: Figure) -> str:
    """Return a number of rows with its interval."""
    value, low, high = (f"{end:,.0f}" for end in one.ends)
    return f"{value} ({low} to {high})"


def _with_noise(count: float, deviation: float) -> str:
    return f"{count:,.0f} ± {NORMAL_95 * deviation:,.0f}"


def _shared_out(analysis: RowsAnalysed) -> str:
    """Return how persons are counted, after a title: someone's rows weigh one together."""
    return ", each shared out by their rows" if analysis.counts_each == PERSON else ""


def _groups(analysis: RowsAnalysed, groups: Groups) -> Table:
    """Return how many rows each group has."""
    unit = analysis.counts_each
    counts = f"{unit.capitalize()}s"
    share = f"Share of {unit}s whose {groups.by} is known (95 % CI)"
    lines = [{"Group": ALL, counts: count_in_words(analysis.rows), share: ""}]
    for name, of in groups.of.items():
        lines.append({"Group": f"{groups.by}: {name}", counts: count_in_words(of.rows), share: percent(of.share)})
    return Table(title=f"{counts} by {groups.by}{_shared_out(analysis)}", lines=lines)


def _columns_of(parts: Parted, *, each: bool = False) -> list[Table]:
    """Return the tables of numbers and of shares, a line a column and part; `each` where the parts are sites."""
    lines_by_title: dict[str, Lines] = {
        "Numbers": list(_number_lines(parts)),
        "Quantiles of numbers": list(_quantile_lines(parts)),
        "Shares": list(_share_lines(parts)),
    }
    # A heading that says the same in every line is left out.
    left_out = OF if len(parts) == 1 and not each else ""
    whose = " at each site" if each else ""
    tables = []
    for title, lines in lines_by_title.items():
        if lines:
            table_lines = [_without(line, left_out) for line in lines]
            title = f"{title}{whose}, with 95 % CI"
            tables.append(Table(title=title, lines=table_lines, spare=SPARE, of_each_site=each))
    return tables


def _names(parts: Parted) -> list[str]:
    """Return the columns of all parts."""
    return list(dict.fromkeys(chain.from_iterable(of.columns for of, _ in parts.values())))


def _without(line: Mapping[str, str], heading: str) -> dict[str, str]:
    """Return a line without one of its cells."""
    return {key: cell for key, cell in line.items() if key != heading}


def _number_lines(parts: Parted) -> Iterator[dict[str, str]]:
    """Yield the lines of numbers, so that the parts of each stand below each other."""
    for head, column, deviation in _numbers(parts):
        yield head | {
            "Mean": estimate(column.mean),
            "SD": estimate(column.sd),
            "Within": " to ".join(map(end_in_words, column.within)),
            # The number of known values has the noise of two counts, whose difference it is.
            "Known": _with_noise(math.fsum(column.counts), deviation * math.sqrt(2)),
            "Missing": percent(column.missing),
        }


def _numbers(parts: Parted) -> Iterator[tuple[dict[str, str], Number, float]]:
    """Yield each number of every part: how its line begins, its figures, and the noise on a count of theirs."""
    for name in _names(parts):
        for part, (of, deviation) in parts.items():
            if column := of.numbers.get(name):
                yield {"Column": column_label(name, column), OF: part}, column, deviation


def _quantile_lines(parts: Parted) -> Iterator[dict[str, str]]:
    """Yield the lines of the quantiles of numbers."""
    for line, column, _ in _numbers(parts):
        for key, one in column.quantiles.items():
            heading = MEDIAN if key == "50%" else f"{key.removesuffix('%')} % quantile"
            line[heading] = estimate(one)
        if column.quantiles:
            yield line


def end_in_words(value: float) -> str:
    """Return an end of a range.

    Examples
    --------
    >>> end_in_words(40_000.0), end_in_words(0.25), end_in_words(-5.0) == f"{MINUS}5"
    ('40000', '0.25', True)
    """
    sign = MINUS if value < 0 else ""
    return f"{sign}{format_as_written(abs(value))}"


def _share_lines(parts: Parted) -> Iterator[dict[str, str]]:
    """Yield the lines of categories: each value in every part, so that parts stand below each other."""
    for name in _names(parts):
        columns = {part: (of.categories[name], noise) for part, (of, noise) in parts.items() if name in of.categories}
        for value in dict.fromkeys(chain.from_iterable(column.shares for column, _ in columns.values())):
            for part, (column, noise) in columns.items():
                line = {"Column": column_label(name, column), "Value": value, OF: part}
                yield line | {"Share": percent(column.shares[value]), COUNT: _with_noise(column.counts[value], noise)}
        for part, (column, _) in columns.items():
            line = {"Column": column_label(name, column), "Value": "missing, of all", OF: part}
            yield line | {"Share": percent(column.missing), COUNT: ""}


def _compared(analysis: RowsAnalysed, groups: Groups) -> Table:
    """Return the table of differences between groups."""
    first = next(iter(groups.of), "")
    lines = []
    for name, of, pair, one in differences(groups):
        lines.append(_difference_line(analysis.columns[name], first, name, of, pair, one))
    title = f"Differences by {groups.by}"
    pairs = {line[GROUPS] for line in lines}
    # The one pair of two groups stands in the title alone.
    if len(pairs) == 1:
        title += f": {pairs.pop()}"
        lines = [_without(line, GROUPS) for line in lines]
    return Table(title=title, lines=lines, spare=("Unit",))


def _difference_line(
    column: Number | Category, first: str, name: str, of: str, groups: str, one: Figure | None
) -> dict[str, str]:
    """Return the line of one of `differences`, of a group less the `first` one."""
    what = f"share of {of}"
    unit = "percentage points"
    scale = 100.0
    if isinstance(column, Number):
        what = "mean"
        unit = column.unit
        scale = 1.0
    difference = difference_of(one, scale)
    return {
        "Column": name,
        "What": what,
        GROUPS: f"{groups.removesuffix(f' - {first}')} minus {first}",
        "Difference (95 % CI)": shown(difference, gain_in_brackets),
        "Unit": unit,
        "Shows": shows_of(difference),
    }


def differences(groups: Groups) -> Iterator[tuple[str, str, str, Figure | None]]:
    """Yield each difference between groups: its column, what of it, which groups, and the figure."""
    for name, column in groups.compared.items():
        for of, pairs in column.items():
            for pair, one in pairs.items():
                yield name, of, pair, one


def difference_of(one: Figure | None, scale: float = 1.0) -> Difference | None:
    """Return a recorded difference times `scale`, None where it is not told."""
    if one is None:
        return None
    value, low, high = one.ends
    return Difference(scale * value, scale * low, scale * high)


def shows_of(difference: Difference | None) -> str:
    """Return what a difference between groups shows."""
    if difference is None or difference.low is None or difference.high is None:
        return INCONCLUSIVE
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    return NO_DIFFERENCE


def _crossed(analysis: RowsAnalysed, of: Crossed) -> Table:
    """Return a cross-table, or a line a cell where it is wide both ways."""
    first, second = of.columns
    rows, columns = of.values
    reach = NORMAL_95 * analysis.deviation
    whose = f"persons{_shared_out(analysis)}; " if analysis.counts_each == PERSON else "counts, each "
    title = f"{first} by {second}: {whose}± {reach:,.0f}"
    every = of.counts
    if len(columns) > MOST_ACROSS >= len(rows):
        first, second = second, first
        rows, columns = columns, rows
        every = [list(counts) for counts in zip(*every, strict=True)]
    lines = []
    for row, counts in zip(rows, every, strict=True):
        cells = {column: f"{count:,.0f}" for column, count in zip(columns, counts, strict=True)}
        if len(columns) <= MOST_ACROSS:
            lines.append({first: row} | {f"{second}: {column}": cell for column, cell in cells.items()})
        else:
            lines += [{first: row, second: column, COUNT: cell} for column, cell in cells.items()]
    return Table(title=title, lines=lines)


MOST_RANGES = 6
"""Numbers whose ranges are named in the sentence; those of more stand in the table alone."""
FEW = 8
"""From so many differences on a reader is told that some exclude 0 by chance."""
MORE = "more than noise and chance would make"
LOST = "n/a: {figures} lost in the noise and not told. That is no 0: what is behind it is too little for this noise."
NOISE = (
    "Noise: each count has normal noise of deviation {deviation}, so that 95 % of the time it is within {reach} of the "
    "exact one{of_all}. A 95 % CI holds this noise and chance, what other people of the same kind would have given; "
    "that of a number of {unit}s, and ±, hold the noise alone."
)
CLIPPED = (
    "Mean, SD and quantiles are of values within the range that is named; farther ones are counted as its ends"
    "{ranges}. A quantile is read from the histogram: its interval has whole bins, and values are taken as spread "
    "evenly within one for the figure alone."
)
PERSONS = "Each person weighs one, shared over their rows; SD and quantiles are of rows so weighted."
IN_GROUP = (
    "Someone with one of five rows in a group counts there as a fifth, so this is not how many people ever were in it."
)
WITH_VALUE = (
    "Someone who has a value in one of five rows counts there as a fifth, so this is not how many people ever had it."
)
DISPLAYED = (
    "A share is of {unit}s whose value is known, of missing ones of all; each has noise of its own, so that they need "
    "not add up to 100 %. Counts in histograms and cross-tables are for display: none below 0, and adding up. Means, "
    "shares and tests are made of the counts as they came."
)
COMPARED = (
    "Groups are compared as they are: where people were not put into them by lot, they may differ otherwise, too."
)
NOT_SHOWN = (
    "All rows are counted, also those that other studies hold out: nothing was trained and nothing is predicted. Exact "
    "counts stay at the sites: outside they are known no closer than the noise allows, and to ask again with the same "
    "text gives the same numbers.{crossed}"
)
CROSSED = " Each site's own numbers crossed to the coordinator, with the noise on them."


def analysis_in_words(analysis: Analysis) -> list[str]:
    """Return what an analysis says, the figure first, and what it does not show."""
    unit = analysis.counts_each
    lines = [_headline(analysis)]
    if analysis.groups is not None:
        lines += _clear(analysis.groups)
    lines += [_independence(of) for of in analysis.cross]
    lost = _lost(analysis)
    if lost:
        figures = f"{lost} figure is" if lost == 1 else f"{lost} figures are"
        lines.append(LOST.format(figures=figures))
    lines.append(_noise(analysis))
    if analysis.numbers:
        lines.append(CLIPPED.format(ranges=_ranges(analysis.numbers)))
    if unit == PERSON:
        lines += _persons(analysis)
    if analysis.columns or analysis.cross:
        lines.append(DISPLAYED.format(unit=unit))
    if analysis.groups is not None:
        lines.append(COMPARED)
    crossed = CROSSED if analysis.by_site else ""
    return [*lines, NOT_SHOWN.format(crossed=crossed)]


def _headline(analysis: Analysis) -> str:
    """Return how many rows were described, and by what."""
    by = "" if analysis.groups is None else f", also by {analysis.groups.by}"
    number_of, span = count_in_words(analysis.rows).split(" ", 1)
    described = f"described by {counted(len(analysis.columns), 'column')}{by}; each figure has noise"
    return f"{number_of} {analysis.counts_each}s {span} at {counted(analysis.sites, 'site')}, {described}."


def _persons(analysis: Analysis) -> list[str]:
    """Return how a person with several rows is counted."""
    if analysis.groups is not None:
        return [PERSONS, IN_GROUP]
    return [PERSONS, WITH_VALUE] if analysis.cross or analysis.categories else [PERSONS]


def _clear(groups: Groups) -> list[str]:
    """Return how many differences between groups are more than chance and noise would make, and how many are lost.

    Examples
    --------
    >>> none, clear = Figure(0.0, -1.0, 1.0), Figure(2.0, 1.0, 3.0)
    >>> of = lambda *ones: _clear(Groups(compared={"age": {"mean": dict(enumerate(ones))}}))[0]
    >>> of(None, None, none)
    'Of 3 differences between groups 2 are inconclusive; the other is not more than noise and chance would make.'
    >>> of(None, none, clear)
    'Of 3 differences between groups 1 is inconclusive; of the other 2, 1 is more than noise and chance would make.'
    >>> of(None, None), of(None)
    ('All 2 differences between groups are inconclusive.', 'The difference between groups is inconclusive.')
    """
    every = [shows_of(difference_of(one)) for *_, one in differences(groups)]
    conclusive_differences = [shows for shows in every if shows != INCONCLUSIVE]
    if not every:
        return []
    clear = sum(shows != NO_DIFFERENCE for shows in conclusive_differences)
    alone = f"is {MORE}" if clear else f"is not {MORE}"
    if len(every) == 1:
        says = alone if conclusive_differences else "is inconclusive"
        return [f"The difference between groups {says}."]
    if not conclusive_differences:
        return [f"All {len(every)} differences between groups are inconclusive."]
    return [_clear_of_many(len(every), len(conclusive_differences), clear)]


def _clear_of_many(every: int, conclusive_count: int, clear: int) -> str:
    """Return how many of several differences are conclusive, and how many of those are clear."""
    alone = f"is {MORE}" if clear else f"is not {MORE}"
    first = f"Of {every} differences between groups"
    of_many = f"{clear} is {MORE}" if clear == 1 else f"{clear} are {MORE}"
    many = " About one in twenty is so by chance alone." if conclusive_count >= FEW else ""
    if conclusive_count == every:
        return f"{first}, {of_many}.{many}"
    rest = f"the other {alone}" if conclusive_count == 1 else f"of the other {conclusive_count}, {of_many}"
    are = "is" if every - conclusive_count == 1 else "are"
    return f"{first} {every - conclusive_count} {are} inconclusive; {rest}.{many}"


def _independence(of: Crossed) -> str:
    """Return whether two columns have to do with each other."""
    first, second = of.columns
    test = of.independence
    if test is None:
        return f"Whether {first} and {second} go together is inconclusive: too few of some value, for this noise."
    clear = f"they go together {MORE}" if test.p < 0.05 else "no connection is shown"
    # Of what is too small for a number the next larger one is told.
    value = f"p = {test.p:.2g}" if test.p > 0 else "p < 1e-300"
    freedom = counted(test.degrees_of_freedom, "degree") + " of freedom"
    return f"{first} and {second}: {clear} (χ² = {number(test.chi2)}, {freedom}, {value})."


def _noise(analysis: Analysis) -> str:
    unit = analysis.counts_each
    deviation, reach = (number(by * analysis.deviation) for by in (1, NORMAL_95))
    of_all = ""
    if analysis.groups is not None:
        whole, far = (number(by * analysis.noise) for by in (1, NORMAL_95))
        of_all = f"; of all {unit}s, which are added up from the groups, {whole} and {far}"
    return NOISE.format(deviation=deviation, reach=reach, of_all=of_all, unit=unit)


def _ranges(numbers: Mapping[str, Number]) -> str:
    """Return the ranges of a few numbers, in brackets."""
    if len(numbers) > MOST_RANGES:
        return ""
    ranges = []
    for name, column in numbers.items():
        ends = " to ".join(map(end_in_words, column.within))
        ranges.append(f"{column_label(name, column)}: {ends}")
    return f" ({'; '.join(ranges)})"


def _lost(analysis: Analysis) -> int:
    """Return how many figures of all sites are lost in the noise."""
    figures: list[Figure | None] = []
    for of, _ in analysis.parts.values():
        for column in of.columns.values():
            figures += [column.missing, *column.figures]
    if analysis.groups is not None:
        figures += [of.share for of in analysis.groups.of.values()]
        figures += [one for *_, one in differences(analysis.groups)]
    return figures.count(None)
