"""The parts of the page Data: who is in the data, what is missing where, and how far sites lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from flfed.drift import LARGE, SMALL
from flfed.records.dashboard.by_round import Curves, Spec
from flfed.records.dashboard.panels import escape, table
from flfed.records.dashboard.showing import Line, download, figure
from flfed.records.verdicts import number

Payload = Mapping[str, Any]
SITES_DRAWN = 12
"""Sites shown unless the reader picks others."""
COLUMNS_DRAWN = 25
"""Columns drawn in a map, those that differ most."""
FIRST_COLUMNS = ("Characteristic", "All sites")
SUPPRESSED = "suppressed"
LIGHT_TO_BLUE = ["#ffffff", "#56B4E9"]
ORANGE_TO_BLUE = ["#E69F00", "#ffffff", "#56B4E9"]
"""So light that dark text stands on each of them, in either theme; told apart by colour-blind readers."""
ROW_PIXELS, AXIS_PIXELS = 22, 150
OLDER = "This run was recorded by an earlier version of flfed, which did not keep it: run the study again."
NOT_YET = "The sites give their sums before the first round and after the last one; it comes with the comparison."


def choose_sites(sites: Sequence[str]) -> list[str]:
    """Return the sites to show: all, or those that the reader picked of many."""
    if len(sites) <= SITES_DRAWN:
        return list(sites)
    chosen = st.multiselect("Sites shown", sites, default=sites[:SITES_DRAWN], max_selections=40, key="data-sites")
    return list(chosen)


def sites_of(table_1: Payload | None, columns: Payload | None) -> list[str]:
    """Return the sites that either of the two tells of, by name."""
    found = {site for column in (columns or {}).get("columns", ()) for site in column["sites"]}
    for row in (table_1 or {}).get("rows", ()):
        found |= {name for name in row if name not in FIRST_COLUMNS}
    return sorted(found - {"column", "statistic", "all sites"})


def table_1(payload: Payload | None, sites: Sequence[str], of: Sequence[str], *, why_none: str) -> None:
    """Show the federated Table 1, merged from sums of the sites; of many sites those that were picked."""
    st.markdown("## Who is in the data (Table 1)")
    rows = (payload or {}).get("rows")
    if not rows or payload is None:
        st.caption(why_none)
        return
    hidden = set(of) - set(sites)
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in hidden]
    lines = [{name: "" if row.get(name) is None else row[name] for name in names} for row in rows]
    table(lines)
    if any(SUPPRESSED in str(cell) for line in lines for cell in line.values()):
        st.caption(
            "*suppressed*: so few rows that the site's policy does not let the count leave. It is not 0. "
            "*at least*: some sites kept their part back."
        )
    if payload.get("note"):
        st.caption(escape(str(payload["note"])))
    download(rows, key="table-1")


def missing(payload: Payload | None, sites: Sequence[str], *, why_none: str) -> None:
    """Show which share of each site's rows has no value, in the columns where any is missing."""
    st.markdown("## What is missing where")
    if payload is None:
        st.caption(why_none)
        return
    lines: list[Line] = [
        {"Column": column["column"]} | {site: _share(column["sites"].get(site)) for site in sites}
        for column in payload["columns"]
        if any(entry["missing"] != 0 for entry in column["sites"].values())
    ]
    if not lines:
        st.markdown("Every column has a value in every row, at every site that tells.")
        return
    for sentence in gaps_in_words(payload):
        st.markdown(f"- {escape(sentence)}")
    cells = [
        {"column": line["Column"], "site": site, "value": line[site], "text": _percent(line[site])}
        for line in lines[:COLUMNS_DRAWN]
        for site in sites
    ]
    colour = {"scale": {"domain": [0, 100], "range": LIGHT_TO_BLUE, "interpolate": "rgb"}, "legend": None}
    says = " ".join(gaps_in_words(payload))
    drawn = _map(cells, colour, "% of the site's rows without a value")
    figure(st, "Rows without a value, % of each site's rows", drawn, lines, key="missing", says=says)
    st.caption("A dash stands for a count that the site's policy does not let leave. It is not 0.")


def drift(payload: Payload | None, sites: Sequence[str], *, why_none: str) -> None:
    """Show how far each site's rows lie from those of the other sites, column by column."""
    st.markdown("## How far the sites lie apart")
    if payload is None:
        st.caption(why_none)
        return
    columns = sorted(payload["columns"], key=lambda column: -_largest(column))
    if not any(_largest(column) for column in columns):
        reasons = sorted({str(e["reason"]) for column in columns for e in column["sites"].values() if e["reason"]})
        st.caption(escape(f"No difference can be given: {'; '.join(reasons) or 'there is none'}."))
        return
    for sentence in drift_in_words(payload):
        st.markdown(f"- {escape(sentence)}")
    cells = [
        {"column": _named(column), "site": site, "value": entry["difference"], "text": _signed(column, entry)}
        for column in columns[:COLUMNS_DRAWN]
        for site in sites
        if (entry := column["sites"].get(site))
    ]
    colour = {
        "scale": {"domain": [-1, 0, 1], "clamp": True, "range": ORANGE_TO_BLUE, "interpolate": "rgb"},
        "legend": None,
    }
    drawn = _map(cells, colour, "standard deviations from the other sites together")
    if len(columns) > COLUMNS_DRAWN:
        st.caption(f"The {COLUMNS_DRAWN} columns that differ most are drawn; the table has all {len(columns)}.")
    says = " ".join(drift_in_words(payload))
    figure(
        st,
        "Difference from the other sites, in standard deviations",
        drawn,
        _drift_lines(columns, sites),
        key="drift",
        says=says,
    )
    st.caption(
        "Standardised difference: the site's mean (or share) less that of the other sites together, in standard "
        "deviations of one row; a category of three or more values has no direction (±). Up to "
        f"{number(SMALL, 1)} is usually called small, from {number(LARGE, 2)} on it is worth a look: a rule of thumb. "
        "Cells in brackets are no larger than what chance alone brings about in 95 of 100 comparisons of so many rows. "
        "It compares one column at a time: sites may still differ in how columns go together, or in how they measure."
    )


def drift_in_words(payload: Payload) -> list[str]:
    """Return which sites differ most from the others, and in what; the largest first, three at most."""
    found = [
        (abs(entry["difference"]), column, site, entry)
        for column in payload["columns"]
        for site, entry in column["sites"].items()
        if entry["difference"] is not None and abs(entry["difference"]) > max(entry["chance"], LARGE)
    ]
    if not found:
        return ["No site differs from the others by more than a quarter of a standard deviation beyond chance."]
    worst: dict[str, tuple[Any, ...]] = {}
    for one in sorted(found, key=lambda item: -item[0]):
        worst.setdefault(one[2], one)
    sentences = []
    for size, column, site, entry in list(worst.values())[:3]:
        where = "from" if column["towards"] is None else "above" if entry["difference"] > 0 else "below"
        name = _named(column)
        sentences.append(
            f"{site} differs most in {name}: {number(size, 2)} standard deviations {where} the other sites."
        )
    return sentences


def gaps_in_words(payload: Payload) -> list[str]:
    """Return where most is missing, beside the other sites; the largest gap between a site and the others first."""
    found = []
    for column in payload["columns"]:
        known = {
            site: entry for site, entry in column["sites"].items() if entry["missing"] is not None and entry["rows"]
        }
        for site, entry in known.items():
            others = [other for name, other in known.items() if name != site]
            rows = sum(other["rows"] for other in others)
            share = 100 * entry["missing"] / entry["rows"]
            elsewhere = 100 * sum(other["missing"] for other in others) / rows if rows else None
            if share >= 1:
                found.append((share - (elsewhere or 0.0), site, column["column"], share, elsewhere))
    sentences = []
    for _, site, column, share, elsewhere in sorted(found, key=lambda item: -item[0])[:3]:
        rest = "" if elsewhere is None else f" and at {elsewhere:.0f} % of the rows elsewhere"
        sentences.append(f"{column} is missing at {share:.0f} % of {site}'s rows{rest}.")
    return sentences


def _named(column: Payload) -> str:
    """Return a column's name, with the value whose share is compared."""
    return f"{column['column']} (share of {column['towards']})" if column["towards"] else str(column["column"])


def _largest(column: Payload) -> float:
    return max((abs(e["difference"]) for e in column["sites"].values() if e["difference"] is not None), default=0.0)


def _share(entry: Payload | None) -> float | None:
    """Return the share of rows without a value in percent; None where it is kept back."""
    if entry is None or entry["missing"] is None or not entry["rows"]:
        return None
    return float(100 * entry["missing"] / entry["rows"])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _signed(column: Payload, entry: Payload) -> str:
    """Return a difference as it stands in its cell: with its sign, in brackets where it may be chance."""
    if entry["difference"] is None:
        return "–"
    size = number(abs(entry["difference"]), 2)
    said = f"±{size}" if column["towards"] is None else number(entry["difference"], 2, signed=True)
    return said if abs(entry["difference"]) > entry["chance"] else f"({said})"


def _drift_lines(columns: Sequence[Payload], sites: Sequence[str]) -> list[Line]:
    return [
        {
            "Column": _named(column),
            "Site": site,
            "Rows": entry["rows"],
            "Rows without a value": SUPPRESSED if entry["missing"] is None else entry["missing"],
            "Difference (standard deviations)": entry["difference"],
            "By chance up to": entry["chance"],
            "Why none": entry["reason"],
        }
        for column in columns
        for site in sites
        if (entry := column["sites"].get(site))
    ]


def _map(cells: Sequence[Payload], colour: Spec, title: str) -> Curves | None:
    """Return a map of columns and sites, with the figure written in each cell."""
    if not cells:
        return None
    rows = pd.DataFrame(cells).astype({"value": "float64"})
    columns = list(dict.fromkeys(rows["column"]))
    axis = {"title": None, "labelLimit": 200}
    base = {
        "x": {"field": "site", "type": "nominal", "axis": axis | {"orient": "top", "labelAngle": -35}},
        "y": {"field": "column", "type": "nominal", "sort": columns, "axis": axis},
        "tooltip": [
            {"field": "site", "type": "nominal"},
            {"field": "column", "type": "nominal"},
            {"field": "text", "type": "nominal", "title": title},
        ],
    }
    fill = {"color": {"field": "value", "type": "quantitative"} | colour}
    # The text stands on the cell's own colour, whatever the theme.
    text = {"text": {"field": "text", "type": "nominal"}, "color": {"value": "#1b2733"}}
    spec = {
        "height": ROW_PIXELS * len(columns) + AXIS_PIXELS,
        "encoding": base,
        "layer": [
            {"mark": {"type": "rect", "stroke": "#808080", "strokeWidth": 0.5}, "encoding": fill},
            {"mark": {"type": "text", "fontSize": 11}, "encoding": text},
        ],
    }
    return Curves(rows, spec)
