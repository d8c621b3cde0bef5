"""Sections on the data of a run.

They show who is in the data, what is missing, and how far sites lie apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from flfed.records.charts.chart import NARROW_PIXELS, Chart, Line, layer, names_axis, nominal, plot, quantitative
from flfed.records.charts.colours import FALLING, INK, NEUTRAL, NO_FIGURE, RISING
from flfed.records.charts.histograms import histogram_chart, histogram_lines
from flfed.records.objects import read
from flfed.records.section import Drawing, Section, Table, names_of
from flfed.records.statistics.analysis import ALL, RowsAnalysed, column_label
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.odd_sites import Column, Columns, SiteDrift
from flfed.records.statistics.verdict import number, sentence_case
from flfed.summaries.drift import BINNING, FEW_ROWS, LARGE, SMALL
from flfed.summaries.table_one import explained, percent

Payload = Mapping[str, Any]
LEAST_GAP = 5.0
"""Percentage points by which a site's share of missing rows has to be above that of the others to be named."""
NAMED = 3
"""Sentences at most."""


def gaps_in_words(payload: Payload | Columns, *, sites: int) -> list[str]:
    """Return where most is missing beside other sites.

    It is a sentence for a column, the largest gap first, three at most.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        How many sites the run has, those too that are not in `payload`.

    Returns
    -------
    list of str
        One sentence where no gap is large; none where no site can be set beside another.
    """
    gaps = []
    for column in read(Columns, payload).columns:
        gap = widest_gap(column)
        if gap is not None:
            gaps.append((*gap, column))
    gaps.sort(key=lambda one: -one[0])
    lines = []
    for points, site, others, column in gaps[:NAMED]:
        if points >= LEAST_GAP:
            own = column.sites[site]
            rest = [column.sites[other] for other in others]
            share = _share_in_words(own.gaps, own.rows)
            elsewhere = _share_in_words(sum(one.gaps for one in rest), sum(one.rows for one in rest))
            there = f"{elsewhere} of the rows at {_the_others(len(others), sites)}"
            lines.append(f"{column.column} is missing at {share} of {site}'s rows and at {there}.")
    if gaps and not lines:
        return [
            "No site stands out: in no column is the share of missing rows "
            f"{LEAST_GAP:.0f} percentage points or more above that of the other sites that tell."
        ]
    return lines


def _the_others(others: int, sites: int) -> str:
    """Return what other sites are called; "the other sites" would be wrong where some of them do not tell."""
    if others >= sites - 1:
        return "the other site" if sites == 2 else "the other sites"
    return "the one other site that tells" if others == 1 else f"the {others} other sites that tell"


def widest_gap(column: Column) -> tuple[float, str, list[str]] | None:
    """Return the widest gap of missing rows.

    It is how far a site's share is above that of the others that tell, most of all sites.

    Returns
    -------
    tuple or None
        Percentage points, the site, and the others; None where fewer than two sites tell.
    """
    entry_by_site = {site: entry for site, entry in column.sites.items() if entry.missing is not None and entry.rows}
    if len(entry_by_site) < 2:
        return None
    missing = sum(entry.gaps for entry in entry_by_site.values())
    rows = sum(entry.rows for entry in entry_by_site.values())
    # The others' share is of their rows together, without the site's own.
    gaps = {
        site: 100 * (entry.gaps / entry.rows - (missing - entry.gaps) / (rows - entry.rows))
        for site, entry in entry_by_site.items()
    }
    site = max(gaps, key=lambda name: gaps[name])
    return gaps[site], site, [name for name in entry_by_site if name != site]


def drift_in_words(payload: Payload | Columns, *, sites: int) -> list[str]:
    """Return which sites differ most, and in what.

    The largest difference comes first, three at most.

    What is told beside all the others goes before what only some of them tell.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        How many sites the run has, those too that are not in `payload`.
    """
    entries = _entries(read(Columns, payload).columns)
    # What is told beside fewer sites comes after what is told beside all.
    entries.sort(key=lambda one: (_count_other_sites(one[2], sites) < sites - 1, -one[2].size))
    # Each site is named once, with the column in which it differs most.
    worst: dict[str, tuple[Column, SiteDrift]] = {}
    for column, site, entry in entries:
        if stands_out(entry):
            worst.setdefault(site, (column, entry))
    if worst:
        return [_difference_in_words(*worst[site], site, sites) for site in list(worst)[:NAMED]]
    about = any(entry.about for _, _, entry in entries)
    also = f" (of figures from groups of bins: {number(LARGE + BINNING, 2)})" if about else ""
    return [
        f"No site stands out: none differs from the others by more than {number(LARGE, 2)} standard "
        f"deviations{also} and by more than chance would."
    ]


def _entries(columns: Sequence[Column]) -> list[tuple[Column, str, SiteDrift]]:
    """Return what each column has of each site."""
    entries = []
    for column in columns:
        entries += [(column, site, entry) for site, entry in column.sites.items()]
    return entries


def _difference_in_words(column: Column, entry: SiteDrift, site: str, sites: int) -> str:
    """Return in which column a site differs most, and how far."""
    where = "from"
    if column.towards is not None:
        where = "above" if (entry.difference or 0) > 0 else "below"
    whom = _the_others(_count_other_sites(entry, sites), sites)
    far = number(entry.size, 2)
    rough = ""
    if entry.about:
        far = f"about {number(entry.size, 1)}"
        rough = " (from groups of bins)"
    return f"{site} differs most in {named(column)}: {far} standard deviations {where} {whom}{rough}."


def stands_out(entry: SiteDrift) -> bool:
    """Tell whether a difference is large and clear.

    It is more than chance, or than what groups of bins may add to it.
    """
    if entry.about:
        return entry.size > LARGE + BINNING
    return entry.size > LARGE and not entry.is_by_chance


def named(column: Column) -> str:
    """Return a column's name with its compared value."""
    return f"{column.column} (share of {column.towards})" if column.towards else str(column.column)


def _count_other_sites(entry: SiteDrift, sites: int) -> int:
    """Return how many other sites one is compared with.

    Earlier versions of flfed did not keep it.
    """
    return int(entry.compared_with or sites - 1)


def _share_in_words(count: float, rows: float) -> str:
    """Return a share in whole percent in words.

    Examples
    --------
    >>> _share_in_words(190, 294), _share_in_words(2, 30000)
    ('65 %', 'less than 1 %')
    """
    return f"{percent(count, rows)} %".replace("<", "less than ").replace(">", "more than ")


NOISE_DRAWN = (
    "Each orange line is how far the noise on its bar may reach, 95 % of the time (± {reach}): where it comes down to "
    "0 there may be nobody at all. Values beyond the range count in the outermost bins."
)
COLUMNS_DRAWN = 25
"""Columns drawn in a map, those with the largest gaps or differences."""
FIRST_COLUMNS = ("Characteristic", "All sites")
TABLE_1 = "Who is in the data (Table 1)"
MISSING = "What is missing where"
APART = "How far the sites lie apart"
NO_GAPS = "Every column has a value in every row, at every site that tells."
A_DASH = (
    "A dash stands for a count that the site's policy keeps back: it, or another that it would give away, is small. It "
    "does not stand for 0."
)
SUPPRESSED = "kept back"
ROW_PIXELS, NAME_SHARE = 40, 0.45
"""Height of a column in a map, and which share of it is for its name."""
CELL_PIXELS = 38
"""Narrower cells have no figure written in them."""
LETTER_PIXELS = 7
"""Of a site's name above a map."""


def sites_of(table_1: Payload | None, columns: Payload | None) -> list[str]:
    """Return the sites that either table tells of."""
    sites = set(table_1_sites(table_1))
    for column in read(Columns, columns or {}).columns:
        sites |= set(column.sites)
    return sorted(sites - {"column", "statistic", "all sites"})


@dataclass(frozen=True, kw_only=True)
class TableOne:
    """The object "table-1" of a run: rows of heading to cell, and what is to be known of them."""

    rows: Any = ()
    note: str | None = ""


def table_1_sites(payload: Payload | None) -> list[str]:
    """Return the sites that have a column in a Table 1."""
    return [name for name in names_of(read(TableOne, payload or {}).rows) if name not in FIRST_COLUMNS]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def table_1(
    payload: Payload | None, hidden: Collection[str] = (), *, why_none: str, note: Sequence[str] = ()
) -> Section:
    """Return the federated Table 1, which is merged from sums of the sites.

    Parameters
    ----------
    payload : dict or None
        The object "table-1" of a run.
    hidden : collection of str
        Sites without a column of their own here.
    why_none : str
        Why there is none.
    note : sequence of str
        What is said below it beside its own notes.
    """
    of = read(TableOne, payload or {})
    if not of.rows:
        return Section(title=TABLE_1, lead=(why_none,))
    names = [name for name in names_of(of.rows) if name not in hidden]
    lines = [{name: _text(row.get(name)) for name in names} for row in of.rows]
    explanations = explained(chain.from_iterable(line.values() for line in lines))
    notes = [" ".join(explanations), str(of.note or ""), *note]
    stays = sum(name in FIRST_COLUMNS for name in names)
    # All of its lines: who reads a Table 1 compares those that a scroll bar would keep apart.
    table = Table(lines=lines, rows=of.rows, stays=stays, is_whole=True, key="table-1")
    return Section(title=TABLE_1, tables=(table,), note=tuple(filter(None, notes)))


def missing(payload: Payload | None, sites: Sequence[str], *, of: int, why_none: str) -> Section:
    """Return each site's share of missing values.

    The run has `of` sites. Only columns in which any is missing are shown.
    """
    column_statistics = read(Columns, payload or {})
    if not column_statistics.columns:
        return Section(title=MISSING, lead=(why_none,))
    gappy = [
        column for column in column_statistics.columns if any(entry.missing != 0 for entry in column.sites.values())
    ]
    if not gappy:
        return Section(title=MISSING, lead=(NO_GAPS,))
    # Columns that only one site tells of come last.
    gappy.sort(key=lambda column: (-(widest_gap(column) or (-100.0,))[0], -_most_missing(column)))
    sentences = gaps_in_words(column_statistics, sites=of)
    cells = []
    lines = []
    for column in gappy:
        each = [_missing_cell(column, site) for site in sites]
        cells += each
        lines.append({"Column": column.column} | {cell["site"]: cell["value"] for cell in each})
    cells = cells[: COLUMNS_DRAWN * len(sites)]
    drawing = Drawing(
        title="Rows without a value, % of each site's rows",
        draw=lambda: _map(cells, most=100),
        key="missing",
        says=" ".join(sentences),
        lines=lines,
    )
    any_suppressed = any(cell["value"] is None for cell in cells)
    return Section(
        title=MISSING,
        lead=_drawn_of(gappy, "with the largest gaps between sites"),
        charts=(drawing,),
        says=tuple(sentences),
        note=(A_DASH,) if any_suppressed else (),
    )


def drift(payload: Payload | None, sites: Sequence[str], *, of: int, why_none: str) -> Section:
    """Return how far the sites lie apart, by column, each site against the other ones; the run has `of` sites."""
    column_statistics = read(Columns, payload or {})
    if not column_statistics.columns:
        return Section(title=APART, lead=(why_none,))
    columns = sorted(column_statistics.columns, key=_furthest)
    entries = [entry for _, _, entry in _entries(columns)]
    # A map without any difference would be grey all over.
    if not any(entry.size for entry in entries):
        reasons = "; ".join(sorted({str(entry.reason) for entry in entries if entry.reason})) or "there is none"
        return Section(title=APART, lead=(f"No difference can be given: {reasons}.",))
    sentences = drift_in_words(column_statistics, sites=of)
    cells = []
    lines = []
    for place, column in enumerate(columns):
        for site in sites:
            if site in column.sites:
                lines.append(_drift_line(column, site, column.sites[site]))
                if place < COLUMNS_DRAWN:
                    cells.append(_drift_cell(column, site, column.sites[site]))
    drawing = Drawing(
        title="Difference from the other sites, in standard deviations",
        draw=lambda: _map(cells, most=1),
        key="drift",
        says=" ".join(sentences),
        lines=lines,
    )
    return Section(
        title=APART,
        lead=_drawn_of(columns, "that differ most"),
        charts=(drawing,),
        says=tuple(sentences),
        note=_how_to_read("".join(cell["text"] for cell in cells)),
    )


def _how_to_read(text: str) -> tuple[str, ...]:
    """Return the key to the map's signs in `text`."""
    signs = {
        "±": "±: a category of three or more values, whose difference has no direction.",
        "(": "In brackets, without a colour: no larger than what chance alone brings about in some 95 of 100 "
        "comparisons of so many rows. So about 1 in 20 of all cells may lie outside brackets by chance alone, and more "
        "where rows depend on each other, as several visits of one patient do.",
        "≈": "≈: about, to one decimal. A mean in it comes from groups of bins, which stand in for values that a "
        "site's policy keeps; how much of it is chance cannot be told.",
        "–": f"A dash: no figure, such as for want of {FEW_ROWS} rows with a value; the table says why.",
    }
    return (
        "Standardised difference: the site's mean (or share) less that of the other sites that give theirs, in "
        f"standard deviations of one row. Up to {number(SMALL, 1)} is usually called small, from {number(LARGE, 2)} "
        "on it is worth a look: a rule of thumb.",
        *(meaning for sign, meaning in signs.items() if sign in text),
        "It compares one column at a time: sites may still differ in how columns go together, or in how they measure.",
    )


def _drawn_of(columns: Sequence[Column], which: str) -> tuple[str, ...]:
    if len(columns) <= COLUMNS_DRAWN:
        return ()
    return (f"The {COLUMNS_DRAWN} columns {which} are drawn; the table has all {len(columns)}.",)


def _furthest(column: Column) -> tuple[float, float]:
    """Return the sort key of columns by difference.

    It is the largest difference that is more than chance, then the largest of all.
    """
    entries = list(column.sites.values())
    beyond = (entry.size for entry in entries if not entry.is_by_chance)
    return -max(beyond, default=0.0), -max((entry.size for entry in entries), default=0.0)


def _most_missing(column: Column) -> float:
    return max((entry.share_missing or 0.0 for entry in column.sites.values()), default=0.0)


def _missing_cell(column: Column, site: str) -> Payload:
    cell: dict[str, Any] = {"column": column.column, "site": site, "value": None, "text": "–", "says": SUPPRESSED}
    entry = column.sites.get(site)
    if entry is not None and entry.share_missing is not None:
        text = percent(entry.gaps, entry.rows)
        says = f"{entry.missing} of {entry.rows} rows ({text} %)"
        cell |= {"value": entry.share_missing, "text": text, "says": says}
    return cell


def _drift_cell(column: Column, site: str, entry: SiteDrift) -> Payload:
    """Return a cell of the map of differences.

    It has no colour for what may be chance, and is grey where there is no figure.
    """
    # A colour would make a difference by chance look like one.
    value = 0.0 if entry.is_by_chance else entry.difference
    text = _signed(column, entry)
    says = f"no figure: {entry.reason}" if entry.difference is None else text
    says += f"; {entry.rows} rows, of which {_with_value(entry)} have a value"
    return {"column": named(column), "site": site, "value": value, "text": text, "says": says}


def _with_value(entry: SiteDrift) -> int | str:
    return SUPPRESSED if entry.missing is None else entry.rows - entry.missing


def _signed(column: Column, entry: SiteDrift) -> str:
    """Return a difference as its cell shows it.

    It has its sign, and stands in brackets where it may be chance.
    """
    if entry.difference is None:
        return "–"
    decimals = 1 if entry.about else 2
    text = number(entry.difference, decimals, signed=True)
    if column.towards is None:
        text = f"±{number(entry.size, decimals)}"
    if entry.about:
        return f"≈{text}"
    return f"({text})" if entry.is_by_chance else text


def _drift_line(column: Column, site: str, entry: SiteDrift) -> Line:
    return {
        "Column": named(column),
        "Site": site,
        "Rows": entry.rows,
        "Rows with a value": _with_value(entry),
        "Difference (standard deviations)": _signed(column, entry) if entry.about else entry.difference,
        "By chance up to": entry.chance,
        "Other sites compared with": entry.compared_with or None,
        "Why none": entry.reason,
    }


def _map(cells: Sequence[Payload], *, most: float) -> Chart | None:
    """Return a map of columns and sites.

    A figure is written in each cell, which is grey where there is none. A cell's colour is full where its figure
    is `most` or more, or as far below 0.
    """
    if not cells:
        return None
    rows = pd.DataFrame(cells).astype({"value": "float64"})
    columns = list(dict.fromkeys(rows["column"]))
    # Each label is there and at its column's middle, however many there are.
    sites = {"title": None, "orient": "top", "labelOverlap": False, "labelFlush": False, "labelLimit": 2000}
    sites |= {"labelPadding": 22, "ticks": False, "labelAngle": 0}
    longest = max(len(cell["site"]) for cell in cells)
    if LETTER_PIXELS * longest * rows["site"].nunique() > NARROW_PIXELS:  # side by side they do not fit a phone
        sites |= {"labelAngle": -90, "labelAlign": "left", "labelBaseline": "middle"}
    band = {"paddingInner": NAME_SHARE, "paddingOuter": 0}
    names = names_axis(ROW_PIXELS * (1 - NAME_SHARE) / 2 + 9)
    base = {
        "x": nominal("site", axis=sites),
        "y": nominal("column", sort=columns, axis=names, scale=band),
        "tooltip": [nominal(field) for field in ("site", "column", "says")],
    }
    gap = {"test": "!isValid(datum.value)"}
    below = {"test": "datum.value < 0", "value": FALLING}
    scale = {"domain": [0, most], "range": [0, 1], "clamp": True}
    fill = {
        "color": {"condition": [gap | {"value": NO_FIGURE}, below], "value": RISING},
        "fillOpacity": quantitative("size", condition=gap | {"value": 1}, scale=scale, legend=None),
    }
    # A figure that is wider than its cell would run into the next one.
    wide = {"condition": {"test": f"bandwidth('x') < {CELL_PIXELS}", "value": 0}, "value": 1}
    rows["size"] = rows["value"].abs()
    layers = [
        layer("rect", fill, stroke=NEUTRAL, strokeWidth=0.5, invalid=None),
        layer("text", {"text": nominal("text"), "color": {"value": INK}, "opacity": wide}, fontSize=11),
    ]
    return Chart(rows, plot(ROW_PIXELS * len(columns), encoding=base, layer=layers))


def histogram(of: RowsAnalysed, name: str, group: str, *, whose: str, counts_each: str) -> Section:
    """Return the histogram of a number of an analysis, with the reach of its noise.

    Parameters
    ----------
    of : RowsAnalysed
    name : str
        Of the number.
    group : str
        Of its rows.
    whose : str
        At which site, "" where there are no others.
    counts_each : str
        What is counted, such as "row".
    """
    part, deviation = of.parts[group]
    column = part.numbers[name]
    label = column_label(name, column)
    unit = f"{counts_each}s"
    lines = histogram_lines(column, deviation)
    which = ", ".join(qualifier for qualifier in (whose, group) if qualifier not in ("", ALL))
    title = f"{sentence_case(unit)} by {label}"
    if which:
        title += f" ({which})"
    drawing = Drawing(title=title, draw=lambda: histogram_chart(lines, label, unit), key="histogram", lines=lines)
    return Section(title=title, charts=(drawing,), note=(NOISE_DRAWN.format(reach=number(NORMAL_95 * deviation)),))
