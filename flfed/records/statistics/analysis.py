"""Tables and sentences of a recorded analysis: counts with noise, means, shares and cross-tables, with intervals.

Every cell is a figure of the record, rounded. A figure that is lost in the noise is "n/a", not 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

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
    format_p,
    gain_in_brackets,
    interval,
    number,
    shown,
    with_interval,
)
from flfed.words import counted, render

ALL = "all"
OF = "Rows of"
GROUPS = "Groups"
COUNT = "Count"
MEDIAN = "Median"
SPARE = (COUNT, "Known", "Missing", "SD")
"""Headings that a narrow terminal leaves out, in this order."""
MOST_ACROSS = 6
"""Most values side by side in a cross-table; with more in both columns each cell has a line."""
PERSON = "person"
"""Unit of counts where the rows of one person weigh one together."""
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
    """Test of the independence of two columns."""

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
        Unit of the counts: "row" or "person".
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
    """Recorded analysis over all sites, with that of each site where released."""

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
    """Return a figure with its interval, "n/a" where lost in the noise.

    Its size sets the decimals, with more where the ends of its interval would else read alike.

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
    return with_interval(one, decimals)


def percent(one: Figure | None) -> str:
    """Return a share with its interval in percent, "n/a" where lost in the noise.

    Examples
    --------
    >>> percent(Figure(0.212, 0.1823, 0.2416)), percent(None)
    ('21.2 % (18.2 to 24.2 %)', 'n/a')
    """
    if one is None:
        return ABSENT
    value, low, high = (100 * end for end in one.ends)
    decimals = _decimals(low, high, 1)
    return f"{number(value, decimals)} % ({interval(low, high, decimals)} %)"


def _decimals(low: float, high: float, least: int) -> int:
    """Return the decimals that show an interval: `least`, or a few more."""
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
    """Return how persons are counted, for a title: a person's rows weigh one together."""
    return ", each shared out by their rows" if analysis.counts_each == PERSON else ""


def _groups(analysis: RowsAnalysed, groups: Groups) -> Table:
    """Return the number of rows of each group."""
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
    # A heading with the same cell in every line is left out.
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
            # The number of known values is a difference of two counts, with the noise of both.
            "Known": _with_noise(math.fsum(column.counts), deviation * math.sqrt(2)),
            "Missing": percent(column.missing),
        }


def _numbers(parts: Parted) -> Iterator[tuple[dict[str, str], Number, float]]:
    """Yield each number of every part: start of its line, figures, and noise on a count."""
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
    lines = [_difference_line(analysis.columns[one[0]], first, *one) for one in differences(groups)]
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
    statistic = f"share of {of}"
    unit = "percentage points"
    scale = 100.0
    if isinstance(column, Number):
        statistic = "mean"
        unit = column.unit
        scale = 1.0
    difference = difference_of(one, scale)
    line = {"Column": name, "What": statistic, GROUPS: f"{groups.removesuffix(f' - {first}')} minus {first}"}
    line |= {"Difference (95 % CI)": shown(difference, gain_in_brackets), "Unit": unit}
    return line | {"Shows": shows_of(difference)}


def differences(groups: Groups) -> Iterator[tuple[str, str, str, Figure | None]]:
    """Yield each difference between groups: its column, its statistic, the groups, and the figure."""
    for name, column in groups.compared.items():
        for of, pairs in column.items():
            for pair, one in pairs.items():
                yield name, of, pair, one


def difference_of(one: Figure | None, scale: float = 1.0) -> Difference | None:
    """Return a recorded difference times `scale`, None where lost in the noise."""
    if one is None:
        return None
    value, low, high = one.ends
    return Difference(scale * value, scale * low, scale * high)


def shows_of(difference: Difference | None) -> str:
    """Return the direction of a difference between groups, where shown."""
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
    unit = f"persons{_shared_out(analysis)}; " if analysis.counts_each == PERSON else "counts, each "
    title = f"{first} by {second}: {unit}± {reach:,.0f}"
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
"""Most numbers whose ranges are named in the sentence; those of more are in the table only."""
FEW = 8
"""From so many differences on, a sentence warns that some exclude 0 by chance."""


def analysis_in_words(analysis: Analysis) -> list[str]:
    """Return the result of an analysis, the figure first, and its limits."""
    unit = analysis.counts_each
    lines = [_headline(analysis)]
    if analysis.groups is not None:
        lines += _clear(analysis.groups)
    lines += [_independence(of) for of in analysis.cross]
    lost = _lost(analysis)
    if lost:
        lines.append(render("report.analysis.lost", figures=counted(lost, "figure")))
    lines.append(_noise(analysis))
    if analysis.numbers:
        lines.append(render("report.analysis.clipped", ranges=_ranges(analysis.numbers)))
    if unit == PERSON:
        lines += _persons(analysis)
    if analysis.columns or analysis.cross:
        lines.append(render("report.analysis.displayed", unit=unit))
    if analysis.groups is not None:
        lines.append(render("report.analysis.compared"))
    lines.append(render("report.analysis.limits"))
    if analysis.by_site:
        lines.append(render("report.analysis.sites"))
    return lines


def _headline(analysis: Analysis) -> str:
    """Return the number of rows described, and the columns."""
    columns = counted(len(analysis.columns), "column")
    if analysis.groups is not None:
        columns += f", also by {analysis.groups.by}"
    count, span = count_in_words(analysis.rows).split(" ", 1)
    sites = counted(analysis.sites, "site")
    rows = f"{count} {analysis.counts_each}s {span}"
    return render("report.analysis.headline", rows=rows, sites=sites, columns=columns)


def _persons(analysis: Analysis) -> list[str]:
    """Return how a person with several rows is counted."""
    persons = render("report.analysis.persons")
    if analysis.groups is not None:
        return [persons, render("report.analysis.members")]
    if analysis.cross or analysis.categories:
        return [persons, render("report.analysis.values")]
    return [persons]


def _clear(groups: Groups) -> list[str]:
    """Return how many differences between groups are clear, and how many inconclusive.

    Examples
    --------
    >>> none, clear = Figure(0.0, -1.0, 1.0), Figure(2.0, 1.0, 3.0)
    >>> of = lambda *ones: _clear(Groups(compared={"age": {"mean": dict(enumerate(ones))}}))[0]
    >>> of(None, None, none)
    '0 of 3 differences between groups exceed noise and chance; 2 are inconclusive.'
    >>> of(None, none, clear)
    '1 of 3 differences between groups exceeds noise and chance; 1 is inconclusive.'
    >>> of(clear), of(None)
    ('The difference between groups exceeds noise and chance.', 'The difference between groups is inconclusive.')
    """
    shown_ones = [shows_of(difference_of(one)) for *_, one in differences(groups)]
    every = len(shown_ones)
    inconclusive = shown_ones.count(INCONCLUSIVE)
    clear = every - inconclusive - shown_ones.count(NO_DIFFERENCE)
    if not every:
        return []
    if every == 1:
        key = "clear" if clear else "not-clear"
        if inconclusive:
            key = "inconclusive"
        return [render(f"report.difference.{key}")]
    verb = "exceeds" if clear == 1 else "exceed"
    line = render("report.analysis.differences", clear=clear, every=every, verb=verb)
    if inconclusive:
        are = "1 is" if inconclusive == 1 else f"{inconclusive} are"
        line += f"; {are} inconclusive"
    lines = [f"{line}."]
    if every - inconclusive >= FEW:
        lines.append(render("report.analysis.many"))
    return lines


def _independence(of: Crossed) -> str:
    """Return whether two columns are associated."""
    first, second = of.columns
    test = of.independence
    if test is None:
        return render("report.analysis.untested", first=first, second=second)
    freedom = counted(test.degrees_of_freedom, "degree")
    facts = {"first": first, "second": second, "freedom": freedom, "p": format_p(test.p), "chi2": number(test.chi2)}
    if test.p < 0.05:
        return render("report.analysis.associated", **facts)
    return render("report.analysis.independent", **facts)


def _noise(analysis: Analysis) -> str:
    unit = analysis.counts_each
    deviation, reach = (number(by * analysis.deviation) for by in (1, NORMAL_95))
    if analysis.groups is None:
        return render("report.analysis.noise", deviation=deviation, reach=reach, unit=unit)
    whole, far = (number(by * analysis.noise) for by in (1, NORMAL_95))
    facts = {"deviation": deviation, "reach": reach, "unit": unit, "of_all": whole, "reach_of_all": far}
    return render("report.analysis.groups", **facts)


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
    """Return the number of figures over all sites that are lost in the noise."""
    figures = []
    for of, _ in analysis.parts.values():
        for column in of.columns.values():
            figures += [column.missing, *column.figures]
    if analysis.groups is not None:
        figures += [of.share for of in analysis.groups.of.values()]
        figures += [one for *_, one in differences(analysis.groups)]
    return figures.count(None)
