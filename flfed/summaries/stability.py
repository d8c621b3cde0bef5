"""Population stability: groups of training rows, and the index of later rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.summaries.summary import Layout, Summary

LEAST_ROWS = 10
"""Training rows that a group has at least; where they are fewer, it has this number all the same."""
QUANTILES = 10


@dataclass(frozen=True)
class Group:
    """Cells of a column that are compared together, as places among them, and the training rows in them."""

    cells: tuple[int, ...]
    rows: int


def training_groups(layout: Layout, summary: Summary) -> dict[str, tuple[Group, ...]]:
    """Return the groups of each feature, from the merged sums over the training rows of all sites.

    Reveals: nothing that the merged sums do not, and no count below ten. It shows which cells some site suppressed.
    """
    groups = {}
    rows = round(float(summary.rows[0]))
    for _, column, place in layout.places():
        if column is not layout.target:
            counts = np.rint(summary.cells[place]).astype(int)
            is_released = summary.cells_known[place] == summary.sites[0]
            groups[column.name] = group_cells(counts, is_released, rows, is_ordered=column.kind == "number")
    return groups


def group_cells(counts: np.ndarray, is_released: np.ndarray, rows: int, *, is_ordered: bool) -> tuple[Group, ...]:
    """Return the groups of a column's cells, of which the last has the rows without a value.

    Ordered cells make groups of a tenth of the rows, and others of ten rows, each from the cells that follow each
    other. Missing values are a group. All that is left, and what some site suppressed, are one.
    """
    values = np.flatnonzero(is_released[:-1])
    least = max(LEAST_ROWS, counts[values].sum() / QUANTILES if is_ordered else 0)
    groups: list[Group] = []
    others = np.flatnonzero(~is_released).tolist()
    others_rows = rows - int(counts[is_released].sum())
    members: list[int] = []
    size = 0
    for cell in values.tolist():
        members.append(cell)
        size += int(counts[cell])
        if size >= least:
            groups.append(Group(tuple(members), size))
            members, size = [], 0
    for cells, left in ((members, size), ([len(counts) - 1] if is_released[-1] else [], int(counts[-1]))):
        if cells and left >= LEAST_ROWS:
            groups.append(Group(tuple(cells), left))
        elif cells:
            others += cells
            others_rows += left
    if others:
        groups.append(Group(tuple(sorted(others)), max(others_rows, LEAST_ROWS)))
    return tuple(groups)


def stability_index(groups: tuple[Group, ...], counts: np.ndarray) -> float | None:
    """Return the population stability index of rows by cell, None where nothing is compared.

    It is the sum over groups of `(p - q) log(p / q)`, with half a row added to each. A group of ten training rows or
    fewer counts where it has become more.

    Source: Siddiqi 2006, "Credit risk scorecards".

    Examples
    --------
    >>> groups = Group((0,), 5000), Group((1,), 5000)
    >>> round(stability_index(groups, np.array([300, 700])), 3)  # 0.4 log(0.7 / 0.3) / 2 = 0.169
    0.169
    """
    now = np.array([counts[list(group.cells)].sum() for group in groups], dtype=float)
    before = np.array([group.rows for group in groups], dtype=float)
    if len(groups) < 2 or not now.sum():
        return None
    few = before <= LEAST_ROWS
    before[few] = np.minimum(before[few], now[few] / now.sum() * before.sum())
    p = (now + 0.5) / (now + 0.5).sum()
    q = (before + 0.5) / (before + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())
