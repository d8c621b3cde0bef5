"""Boosted trees, the half at a site: rows become sums of gradients.

The other half, which makes sums into splits, is `flfed/trees/growth.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from flfed.rows.features.columns import ColumnArrays
from flfed.summaries.summary import ColumnLayout, Layout
from flfed.trees.cut_points import codes_of, fine_edges
from flfed.trees.forest import UNIT

CHUNK = 2**23
"""Rows summed at once: as many gradients of at most 2^30 units add up exactly in float64."""


def edges_of(column: ColumnLayout) -> np.ndarray:
    """Return the inner edges of a number's fine bins, before its transform."""
    ends = np.array([column.edges[0], column.edges[-1]])
    low, high = np.expm1(ends) if column.transform == "log1p" else ends
    return fine_edges(float(low), float(high))


def fine_counts(rows: ColumnArrays, layout: Layout) -> dict[str, np.ndarray]:
    """Return the rows with a value in each fine bin, by number column."""
    found = {}
    for column in layout.features:
        if column.kind == "number":
            # What lies outside of the range is in the bin at that end.
            cell, cells = _cells(rows, column)
            found[column.name] = np.bincount(cell, minlength=cells)[:-1]
    return found


def coded_rows(rows: ColumnArrays, layout: Layout, cuts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as codes, and how many codes each column has.

    Parameters
    ----------
    rows : ColumnArrays
    layout : Layout
    cuts : dict of column to float32 array
        Cut points of each number; a flag or category has its values as codes.

    Returns
    -------
    int array [columns, rows], int array [columns]
        The last code of a column is that of a missing value.
    """
    widths = np.array(
        [len(cuts[c.name]) + 2 if c.kind == "number" else len(c.cells) for c in layout.features], dtype=np.int64
    )
    codes = np.empty((len(layout.features), rows.rows), dtype=np.min_scalar_type(int(widths.max(initial=1)) - 1))
    for number, column in enumerate(layout.features):
        if column.kind == "number":
            codes[number] = codes_of(rows.values[column.name], cuts[column.name])
        else:
            codes[number] = rows.codes[column.name]
    return codes, widths


def outcome_counts(rows: ColumnArrays, layout: Layout) -> dict[str, np.ndarray]:
    """Return the rows by cell and outcome, [cells, outcomes] by column.

    Cells are the fine bins of a number or the values of a flag or category, then the missing ones. Of a regression all
    outcomes are one.
    """
    classes = 1 if layout.task == "regression" else len(layout.target.cells) - 1
    outcome = np.zeros(rows.rows, dtype=np.int64) if classes == 1 else rows.codes[layout.target.name].astype(np.int64)
    found = {}
    for column in layout.features:
        cell, cells = _cells(rows, column)
        counts = np.bincount(cell * classes + outcome, minlength=cells * classes)
        found[column.name] = counts.reshape(cells, classes)
    return found


def merged_rows(rows: ColumnArrays, layout: Layout, merged: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as the codes that cells were merged to, as `coded_rows` does.

    Parameters
    ----------
    rows : ColumnArrays
    layout : Layout
    merged : dict of column to int array [cells]
        As `merged_codes` returns them.
    """
    widths = np.array([merged[column.name][:-1].max(initial=0) + 2 for column in layout.features], dtype=np.int64)
    return np.stack([merged[column.name][_cells(rows, column)[0]] for column in layout.features]), widths


def _cells(rows: ColumnArrays, column: ColumnLayout) -> tuple[np.ndarray, int]:
    """Return the cell of each row, and how many cells a column has: fine bins or values, then the missing ones."""
    if column.kind == "number":
        edges = edges_of(column)
        return codes_of(rows.values[column.name], edges), len(edges) + 2
    return rows.codes[column.name].astype(np.int64), len(column.cells)


def gradients(score: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's gradient and Hessian of the loss, in `UNIT`.

    Parameters
    ----------
    score : float64 array [rows, outputs]
        The trees' scores so far.
    y : array [rows]
        Class codes; or the outcome of a regression over the width of the schema's range, so that no residual of a
        fair score is beyond 1, where its gradient is cut.
    task : {"binary", "multi-class", "regression"}

    Returns
    -------
    float64 arrays [rows, outputs]
        Whole numbers, at most 2^30 in size.

    Notes
    -----
    Of several classes the Hessian is `2 p (1 - p)`, as XGBoost has it.

    Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine"; Chen and Guestrin 2016,
    "XGBoost: a scalable tree boosting system".
    """
    if task == "regression":
        slope = np.clip(score - y[:, None], -1.0, 1.0)
        curvature = np.ones_like(slope)
    elif task == "binary":
        p = expit(score)
        slope, curvature = p - y[:, None], p * (1 - p)
    else:
        odds = np.exp(score - score.max(axis=1, keepdims=True))
        p = odds / odds.sum(axis=1, keepdims=True)
        slope, curvature = p - (y[:, None] == np.arange(score.shape[1])), 2 * p * (1 - p)
    return np.rint(slope / UNIT), np.rint(curvature / UNIT)


def node_sums(
    codes: np.ndarray,
    widths: np.ndarray,
    node: np.ndarray,
    asked: np.ndarray,
    slope: np.ndarray,
    curvature: np.ndarray,
    *,
    counted: bool = False,
) -> np.ndarray:
    """Return sums of gradients and Hessians by node, column and code.

    Parameters
    ----------
    codes : int array [columns, rows]
    widths : int array [columns]
        Number of codes of each column, that of a missing value among them.
    node : int array [rows]
        The node that each row is at.
    asked : int array [nodes]
        The nodes whose sums are wanted.
    slope, curvature : float64 arrays [rows]
        As `gradients` returns them.
    counted : bool
        Whether rows are counted too.

    Returns
    -------
    int64 array [asked nodes, cells, 2 or 3]
        In `UNIT`, then rows; the cells of a column follow those of the one before.
    """
    place = np.full(int(max(node.max(initial=0), asked.max(initial=0))) + 1, -1)
    place[asked] = np.arange(len(asked))
    found = np.zeros((len(asked), int(widths.sum()), 2 + counted), dtype=np.int64)
    for start in range(0, len(node), CHUNK):
        part = place[node[start : start + CHUNK]]
        inside = np.flatnonzero(part >= 0)
        slot, rows = part[inside], start + inside
        weights, first = (slope[rows], curvature[rows], *((None,) if counted else ())), 0
        for column, width in enumerate(widths):
            cell = slot * width + codes[column, rows]
            for kind, weight in enumerate(weights):
                sums = np.bincount(cell, weights=weight, minlength=len(asked) * width)
                found[:, first : first + width, kind] += sums.reshape(len(asked), width).astype(np.int64)
            first += width
    return found
