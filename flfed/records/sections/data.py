"""Sections on the data of a run: Table 1, missing values, and differences between sites."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd

from flfed.records.charts.chart import NARROW_PIXELS, Chart, Line, layer, names_axis, nominal, plot, quantitative
from flfed.records.charts.colours import FALLING, INK, NEUTRAL, NO_FIGURE, RISING
from flfed.records.charts.curves import histogram_chart, histogram_lines
from flfed.records.objects import read
from flfed.records.section import Drawing, Section, Table, names_of
from flfed.records.statistics.analysis import ALL, RowsAnalysed, column_label
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.odd_sites import Column, Columns, SiteDrift
from flfed.records.statistics.verdict import MINUS, number, sentence_case
from flfed.summaries.drift import BINNING, FEW_ROWS, LARGE, SMALL
from flfed.summaries.table_one import explained, percent
from flfed.words import render

Payload = Mapping[str, Any]
LEAST_GAP = 5.0
"""Percentage points by which a site's share of missing rows must exceed that of the others to be named."""
NAMED = 3
"""Most sentences."""


def gaps_in_words(payload: Payload | Columns, *, sites: int) -> list[str]:
    """Return the largest gaps of missing values between sites, a sentence a column, three at most.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        Number of the run's sites, including those that are not in `payload`.

    Returns
    -------
    list of str
        One sentence where no gap is large; none where no site can be compared with another.
    """
    columns = read(Columns, payload).columns
    gaps = [(*gap, column) for column in columns if (gap := widest_gap(column)) is not None]
    gaps.sort(key=lambda one: -one[0])
    lines = []
    for points, site, others, column in gaps[:NAMED]:
        if points >= LEAST_GAP:
            share = _share_in_words([column.sites[site]])
            elsewhere = _share_in_words([column.sites[other] for other in others])
            facts = {"column": column.column, "site": site, "sites": _name_others(len(others), sites)}
            lines.append(render("pages.gaps.column", share=share, others=elsewhere, **facts))
    if gaps and not lines:
        return [render("pages.gaps.none", points=number(LEAST_GAP, 0))]
    return lines


def _name_others(others: int, sites: int) -> str:
    """Return the name of the other sites, which says so where some of them do not report."""
    if others >= sites - 1:
        return "the other site" if sites == 2 else "the other sites"
    if others == 1:
        return render("pages.others.one")
    return render("pages.others.some", sites=others)


def widest_gap(column: Column) -> tuple[float, str, list[str]] | None:
    """Return the widest gap of missing rows, between a site's share and that of the others that report theirs.

    Returns
    -------
    tuple or None
        Percentage points, the site, and the others; None where fewer than two sites report theirs.
    """
    entry_by_site = {site: entry for site, entry in column.sites.items() if entry.missing is not None and entry.rows}
    if len(entry_by_site) < 2:
        return None
    missing = sum(entry.gaps for entry in entry_by_site.values())
    rows = sum(entry.rows for entry in entry_by_site.values())
    # The others' share covers their rows together, without the site's own.
    gaps = {}
    for site, entry in entry_by_site.items():
        gaps[site] = 100 * (entry.gaps / entry.rows - (missing - entry.gaps) / (rows - entry.rows))
    site = max(gaps, key=gaps.__getitem__)
    return gaps[site], site, [name for name in entry_by_site if name != site]


def drift_in_words(payload: Payload | Columns, *, sites: int) -> list[str]:
    """Return the sites that differ most and their columns, the largest difference first, three at most.

    Differences from all other sites precede differences from only some of them.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        Number of the run's sites, including those that are not in `payload`.
    """
    entries = _entries(read(Columns, payload).columns)
    entries.sort(key=lambda one: (one[2].compared_with < sites - 1, -one[2].size))
    # Each site is named once, with its largest difference.
    worst: dict[str, tuple[Column, SiteDrift]] = {}
    for column, site, entry in entries:
        if stands_out(entry):
            worst.setdefault(site, (column, entry))
    if worst:
        return [_difference_in_words(*worst[site], site, sites) for site in list(worst)[:NAMED]]
    lines = [render("pages.drift.none", large=number(LARGE, 2))]
    if any(entry.about for _, _, entry in entries):
        lines.append(render("pages.drift.large", large=number(LARGE + BINNING, 2)))
    return lines


def _entries(columns: Sequence[Column]) -> list[tuple[Column, str, SiteDrift]]:
    """Return each column's entry of each site."""
    entries = []
    for column in columns:
        entries += [(column, site, entry) for site, entry in column.sites.items()]
    return entries


def _difference_in_words(column: Column, entry: SiteDrift, site: str, sites: int) -> str:
    """Return a site's largest difference, as a sentence."""
    where = "from"
    if column.towards is not None:
        where = "above" if (entry.difference or 0) > 0 else "below"
    others = _name_others(entry.compared_with, sites)
    facts = {"site": site, "column": named(column), "where": where, "sites": others}
    if entry.about:
        return render("pages.drift.binned", size=number(entry.size, 1), **facts)
    return render("pages.drift.site", size=number(entry.size, 2), **facts)


def stands_out(entry: SiteDrift) -> bool:
    """Return whether a difference is large, and larger than chance or the effect of groups of bins."""
    if entry.about:
        return entry.size > LARGE + BINNING
    return entry.size > LARGE and not entry.is_by_chance


def named(column: Column) -> str:
    """Return a column's name with its compared value."""
    return f"{column.column} (share of {column.towards})" if column.towards else str(column.column)


def _share_in_words(entries: Sequence[SiteDrift]) -> str:
    """Return the share of missing values of some sites in whole percent.

    Examples
    --------
    >>> _share_in_words([SiteDrift(190, 294)]), _share_in_words([SiteDrift(1, 10000), SiteDrift(1, 20000)])
    ('65 %', 'less than 1 %')
    """
    gaps, rows = (sum(getattr(entry, key) for entry in entries) for key in ("gaps", "rows"))
    return f"{percent(gaps, rows)} %".replace("<", "less than ").replace(">", "more than ")


COLUMNS_DRAWN = 25
"""Columns drawn in a map, those with the largest gaps or differences."""
FIRST_COLUMNS = ("Characteristic", "All sites")
TABLE_1 = "Table 1: characteristics"
MISSING = "Missing values"
APART = "Differences between sites"
SUPPRESSED = "suppressed"
HYPHEN = re.compile(r"(?<!\S)-(?=\d)")
ROW_PIXELS, NAME_SHARE = 40, 0.45
"""Height of a column in a map, and the share of it that its name takes."""
CELL_PIXELS = 38
"""Least width of a cell with a figure in it."""
LETTER_PIXELS = 7
"""Width of a letter of a site's name above a map."""


def sites_of(table_1: Payload | None, columns: Payload | None) -> list[str]:
    """Return the sites in either table."""
    sites = set(table_1_sites(table_1))
    for column in read(Columns, columns).columns:
        sites |= set(column.sites)
    return sorted(sites - {"column", "statistic", "all sites"})


@dataclass(frozen=True, kw_only=True)
class TableOne:
    """The object "table-1" of a run: rows of heading to cell, and a note on them."""

    rows: Any = ()
    note: str | None = ""


def table_1_sites(payload: Payload | None) -> list[str]:
    """Return the sites that have a column in a Table 1."""
    return [name for name in names_of(read(TableOne, payload).rows) if name not in FIRST_COLUMNS]


def _text(cell: Any) -> str:
    # A record has a hyphen before a figure below 0.
    return "" if cell is None else HYPHEN.sub(MINUS, str(cell))


def table_1(
    payload: Payload | None, hidden: Collection[str] = (), *, why_none: str, note: Sequence[str] = ()
) -> Section:
    """Return the federated Table 1, computed from sums of the sites.

    Parameters
    ----------
    payload : dict or None
        The object "table-1" of a run.
    hidden : collection of str
        Sites without a column of their own here.
    why_none : str
        Reason for its absence.
    note : sequence of str
        Sentences below it beside its own notes.
    """
    of = read(TableOne, payload)
    if not of.rows:
        return Section(title=TABLE_1, lead=(why_none,))
    names = [name for name in names_of(of.rows) if name not in hidden]
    lines = [{name: _text(row.get(name)) for name in names} for row in of.rows]
    explanations = explained(chain.from_iterable(line.values() for line in lines))
    notes = [" ".join(explanations), str(of.note or ""), *note]
    stays = sum(name in FIRST_COLUMNS for name in names)
    # Readers compare the lines of a Table 1, so it has no scroll bar.
    table = Table(lines=lines, rows=of.rows, stays=stays, is_whole=True, key="table-1")
    return Section(title=TABLE_1, tables=(table,), note=tuple(filter(None, notes)))


def missing(payload: Payload | None, sites: Sequence[str], *, of: int, why_none: str) -> Section:
    """Return each site's share of missing values, of columns with any; the run has `of` sites."""
    columns = read(Columns, payload)
    if not columns.columns:
        return Section(title=MISSING, lead=(why_none,))
    gappy = [column for column in columns.columns if any(of.missing != 0 for of in column.sites.values())]
    if not gappy:
        return Section(title=MISSING, lead=(render("pages.gaps.complete"),))
    # Columns that only one site reports come last.
    gappy.sort(key=lambda column: (-(widest_gap(column) or (-100.0,))[0], -_most_missing(column)))
    cells = []
    lines = []
    for column in gappy:
        each = [_missing_cell(column, site) for site in sites]
        cells += each
        lines.append({"Column": column.column} | {cell["site"]: cell["value"] for cell in each})
    cells = cells[: COLUMNS_DRAWN * len(sites)]
    lead = []
    if len(gappy) > COLUMNS_DRAWN:
        lead.append(render("pages.gaps.drawn", shown=COLUMNS_DRAWN, columns=len(gappy)))
    note = []
    if any(cell["value"] is None for cell in cells):
        note.append(render("pages.gaps.dash"))
    says = gaps_in_words(columns, sites=of)
    drawing = _drawing("missing", render("pages.gaps.title"), cells, 100, says, lines)
    return Section(title=MISSING, lead=lead, charts=(drawing,), says=says, note=note)


def drift(payload: Payload | None, sites: Sequence[str], *, of: int, why_none: str) -> Section:
    """Return the differences between each site and the others, by column; the run has `of` sites."""
    columns = read(Columns, payload)
    if not columns.columns:
        return Section(title=APART, lead=(why_none,))
    entries = [entry for _, _, entry in _entries(columns.columns)]
    # A map without any difference would be grey all over.
    if not any(entry.size for entry in entries):
        reasons = "; ".join(sorted({str(entry.reason) for entry in entries if entry.reason})) or "there is none"
        return Section(title=APART, lead=(render("pages.drift.unknown", reasons=reasons),))
    cells = []
    lines = []
    for place, column in enumerate(sorted(columns.columns, key=_furthest)):
        for site in sites:
            if site in column.sites:
                lines.append(_drift_line(column, site, column.sites[site]))
                if place < COLUMNS_DRAWN:
                    cells.append(_drift_cell(column, site, column.sites[site]))
    lead = []
    if len(columns.columns) > COLUMNS_DRAWN:
        lead.append(render("pages.drift.drawn", shown=COLUMNS_DRAWN, columns=len(columns.columns)))
    says = drift_in_words(columns, sites=of)
    drawing = _drawing("drift", render("pages.drift.title"), cells, 1, says, lines)
    text = "".join(cell["text"] for cell in cells)
    signs = {
        "±": render("pages.drift.category"),
        "(": render("pages.drift.chance"),
        "≈": render("pages.drift.about"),
        "–": render("pages.drift.dash", rows=FEW_ROWS),
    }
    note = (
        render("pages.drift.read", small=number(SMALL, 1), large=number(LARGE, 2)),
        *(meaning for sign, meaning in signs.items() if sign in text),
        render("pages.drift.limits"),
    )
    return Section(title=APART, lead=lead, charts=(drawing,), says=says, note=note)


def _drawing(
    key: str, title: str, cells: Sequence[Payload], most: float, says: Sequence[str], lines: Sequence[Line]
) -> Drawing:
    """Return the map of cells by column and site."""
    draw = partial(_map, cells, most=most)
    return Drawing(title=title, draw=draw, key=key, says=" ".join(says), lines=lines)


def _furthest(column: Column) -> tuple[float, float]:
    """Return the sort key of a column: its largest difference beyond chance, then the largest of all."""
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
        says = f"{entry.missing} of {entry.rows} ({text} %)"
        cell |= {"value": entry.share_missing, "text": text, "says": says}
    return cell


def _drift_cell(column: Column, site: str, entry: SiteDrift) -> Payload:
    """Return a cell of the map of differences, without a colour where it may be chance, grey without a figure."""
    # A colour would make a difference by chance look real.
    value = 0.0 if entry.is_by_chance else entry.difference
    text = _signed(column, entry)
    says = text
    if entry.difference is None:
        says = f"no figure: {entry.reason}"
    says += f"; {entry.rows:,} rows, {_with_value(entry)} with a value"
    return {"column": named(column), "site": site, "value": value, "text": text, "says": says}


def _with_value(entry: SiteDrift) -> int | str:
    return SUPPRESSED if entry.missing is None else entry.rows - entry.missing


def _signed(column: Column, entry: SiteDrift) -> str:
    """Return a difference as its cell shows it: with its sign, in brackets where it may be chance."""
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
        "Largest by chance": entry.chance,
        "Other sites compared": entry.compared_with or None,
        "Reason": entry.reason,
    }


def _map(cells: Sequence[Payload], *, most: float) -> Chart | None:
    """Return a map of columns and sites, with a figure in each cell, which is grey without one.

    A cell has its full colour where its figure is `most` or more, or -`most` or less.
    """
    if not cells:
        return None
    rows = pd.DataFrame(cells).astype({"value": "float64"})
    columns = list(dict.fromkeys(rows["column"]))
    # Every label is shown at its column's middle.
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
    """Return the histogram of a number in an analysis, with the reach of its noise.

    Parameters
    ----------
    of : RowsAnalysed
    name : str
        Of the number.
    group : str
        Of its rows.
    whose : str
        Site of the rows, "" where there are no others.
    counts_each : str
        Unit of the counts, such as "row".
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
    note = render("pages.noise.bars", reach=number(NORMAL_95 * deviation))
    return Section(title=title, charts=(drawing,), note=(note,))
