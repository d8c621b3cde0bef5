"""Rows whose outcome follows from the sums from which trees grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flfed.rows.features.encode import plain_inputs
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import tree_columns, tree_rows
from flfed.rows.statistics.boosted_trees import cell_counts, fine_codes
from flfed.summaries.summary import Encoder
from flfed.trees.cut_points import chosen_cuts, codes_in, counted_columns, widths_of
from flfed.trees.forest import Tree, depth_of, forest_of


def told_rows(codes: np.ndarray, y: np.ndarray, node: np.ndarray | None = None) -> np.ndarray:
    """Return which rows lie in a cell whose rows all have one outcome.

    Parameters
    ----------
    codes : int array [columns, rows]
    y : array [rows]
    node : int array [rows], optional
        Where each row is in a tree; cells are by node, column and code. Default: all at the root.

    Returns
    -------
    bool array [rows]

    Examples
    --------
    >>> told_rows(np.array([[0, 0, 1, 1]]), np.array([0, 1, 1, 1])).tolist()
    [False, False, True, True]
    """
    found = np.zeros(len(y), dtype=bool)
    places = np.zeros(len(y), dtype=np.int64) if node is None else node.astype(np.int64)
    for code in codes:
        width = int(code.max(initial=0)) + 1
        cell = places * width + code
        low, high = (np.full(int(cell.max(initial=0)) + 1, end) for end in (np.inf, -np.inf))
        np.minimum.at(low, cell, y)
        np.maximum.at(high, cell, y)
        found |= (low == high)[cell]
    return found


def told_by_tree(codes: np.ndarray, missing: np.ndarray, y: np.ndarray, tree: Tree, depth: int) -> np.ndarray:
    """Return which rows' outcomes follow from the sums of all nodes of a run's first tree.

    Parameters
    ----------
    codes : int array [columns, rows]
    missing : int array [columns]
        The code of a missing value.
    y : array [rows]
    tree : Tree
        The first of a run: in it a row's gradient is its outcome.
    depth : int
        Most levels of its splits; each has sums, those of the leaves after the last follow from it.

    Returns
    -------
    bool array [rows]
    """
    node = np.zeros(codes.shape[1], dtype=np.int64)
    found = told_rows(codes, y)
    for _ in range(depth - 1):
        node = tree.step(node, codes, missing)
        found |= told_rows(codes, y, node)
    return found


def told_of_sites(
    sessions: Sequence[SiteSession], encoder: Encoder, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return how many training rows' outcomes follow from the sums of a run's first trees.

    Returns
    -------
    dict with "sites", by site, and "together"
        Each a dict with "rows", "root" and "tree": rows, and those that the root's sums and those of the whole tree
        tell, of the site's own sums and of the sums over all sites.
    """
    missing = widths_of(arrays) - 1
    depth = depth_of(arrays["value"].shape[2])
    rows = [tree_rows(session, encoder) for session in sessions]
    parts = [(codes_in(own.x, arrays), own.y) for own in rows]
    trees = next(iter(forest_of(arrays)), [])

    def counted(codes: np.ndarray, y: np.ndarray) -> dict[str, int]:
        root = told_rows(codes, y)
        whole = np.logical_or.reduce([root, *(told_by_tree(codes, missing, y, tree, depth) for tree in trees)])
        return {"rows": len(y), "root": int(root.sum()), "tree": int(whole.sum())}

    sites = {session.site.name: counted(*part) for session, part in zip(sessions, parts, strict=True)}
    codes = np.concatenate([of_site for of_site, _ in parts], axis=-1)
    y = np.concatenate([of_site for _, of_site in parts], axis=-1)
    return {"sites": sites, "together": counted(codes, y)}


def told_at_first(session: SiteSession, least: int) -> tuple[int, int]:
    """Return how many of a site's training rows have their outcome told by its first sums, and how many there are.

    With a least number of rows these are its counts by fine bin and outcome; else the root's sums, whose codes are
    taken from the site's own rows here, since those of all sites are not known before a run.
    """
    rows = tree_columns(session)
    layout = session.layout
    if least and layout.task != "regression":
        cuts = [fine_codes(rows, column) for column in counted_columns(layout, least)]
        codes = np.stack(cuts)
    else:
        arrays = chosen_cuts(layout, cell_counts(rows, layout), session.study.model.build("model").codes)
        codes = codes_in(plain_inputs(rows, layout), arrays)
    y = rows.scaled(layout.target) if layout.task == "regression" else rows.codes[layout.target.name]
    return int(told_rows(codes, y).sum()), rows.rows
