"""The federated Table 1: who is in the data, from merged sums, with suppressed cells marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from flfed.summary import ColumnLayout, Layout, Summary, merge

SUPPRESSED = "suppressed"
ALL = "All sites"


def table_one(layout: Layout, sites: Mapping[str, Sequence[Summary]]) -> list[dict[str, str]]:
    """Return Table 1 as lines of text: a characteristic, all sites together, each site.

    Parameters
    ----------
    layout : Layout
    sites : dict of site to its summaries
        Over disjoint rows, such as training and holdout; they are added.

    Notes
    -----
    A number is given as mean ± standard deviation of the rows that have one (from groups of bins
    where a site's disclosure is "institution"), an amount with
    transform "log1p" as geometric mean (of the amount plus one, minus one). A mean that lacks
    sites says over how many it is; one that lacks some summary of a site, "not all rows". A count
    of which a site kept its part back is "at least"; where all kept it back, "suppressed".
    """
    merged = {site: merge(parts) for site, parts in sites.items()}
    columns = {ALL: merge([part for parts in sites.values() for part in parts]), **merged}
    lines = [{"Characteristic": "Rows"} | {name: f"{summary.rows[0]:.0f}" for name, summary in columns.items()}]
    for number, (column, place) in enumerate(zip(layout.columns, layout.slices().values(), strict=True)):
        label = f"{column.name}, {column.unit}" if column.unit else column.name
        if column.kind == "number":
            cells = {name: _mean(column, summary, number) for name, summary in columns.items()}
            giving = sum(summary.moments_known[number] > 0 for summary in merged.values())
            if 0 < giving < len(merged):
                cells[ALL] += f" ({giving} of {len(merged)} sites)"
            partly = (name for name, summary in columns.items() if 0 < summary.moments_known[number] < summary.sites[0])
            cells |= {name: f"{cells[name]} (not all rows)" for name in partly if not cells[name].endswith(" sites)")}
            lines.append({"Characteristic": label} | cells)
        else:
            lines += [
                {"Characteristic": f"{label}: {value}"}
                | {name: _count(summary, place.start + offset) for name, summary in columns.items()}
                for offset, value in enumerate(column.cells[:-1])
            ]
        if column is layout.target:
            continue  # A row without an outcome is refused, so none is missing.
        missing = {name: _count(summary, place.stop - 1) for name, summary in columns.items()}
        if set(missing.values()) != {"0 (0 %)"}:
            lines.append({"Characteristic": f"{label}: missing"} | missing)
    return lines


def _mean(column: ColumnLayout, summary: Summary, number: int) -> str:
    count, total, squares = summary.moments[number]
    if not summary.moments_known[number]:
        return SUPPRESSED
    if count <= 0:
        return "none"
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0)) * column.half
    center = column.middle + column.half * mean
    if column.transform == "log1p":
        return f"{math.expm1(center):,.4g} (geometric mean)"
    return f"{center:,.4g} ± {deviation:,.3g}"


def _count(summary: Summary, cell: int) -> str:
    """Return a count and its share of all rows, or what is known of it."""
    count, rows, known = summary.cells[cell] + summary.lower[cell], summary.rows[0], summary.cells_known[cell]
    if not known and not count:
        return SUPPRESSED
    share = f"{100 * count / rows:.0f} %" if rows else "0 %"
    return f"{count:.0f} ({share})" if known == summary.sites[0] else f"at least {count:.0f}"
