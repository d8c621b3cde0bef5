"""A site's part of a round in which trees grow, and the rows whose outcome follows from the sums that it sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.features.encode import Encoded, plain_inputs
from flfed.rows.session import SiteSession
from flfed.rows.statistics.boosted_trees import SiteTrees, cell_counts, fine_codes
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.requests import Asking
from flfed.summaries.score_bins import RowScores
from flfed.summaries.summary import Arrays, Encoder, arrays_sha256
from flfed.trees.cut_points import chosen_cuts, codes_in, counted_columns, widths_of
from flfed.trees.forest import depth_of, forest_of, trees_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """What a site is asked of one level of a round's trees.

    Attributes
    ----------
    round : int
        From 1.
    score : bool
        Whether the trees before the round are to be scored, too.
    forest : dict of name to array
        All trees before the round; empty where the site has them.
    sha256 : str
        Of these trees' arrays.
    last : float64 array [arrays, outputs, nodes]
        The trees of the round before.
    tree : float64 array [arrays, outputs, nodes]
        The trees of this round, as far as they are grown.
    node_marks : float64 array [outputs, nodes]
        1 where a node's sums are wanted.
    """

    round: int
    score: bool
    forest: Arrays
    sha256: str
    last: np.ndarray
    tree: np.ndarray
    node_marks: np.ndarray


@dataclass(frozen=True, eq=False)
class Grown:
    """What a site answers to one level.

    Attributes
    ----------
    sums : int64 array [nodes, cells, 2 or 3]
    rows : int
        Rows trained on.
    loss : float or None
        Mean loss of these rows before the round; None where only sums were asked for.
    scores : RowScores or None
        Of the trees before the round.
    """

    sums: np.ndarray
    rows: int
    loss: float | None
    scores: RowScores | None


class _Scored:
    """Model whose outputs are its inputs: scores that are known are measured as others are."""

    layers: tuple[tuple[str, str], ...] = ()

    def outputs(self, arrays: dict[str, Any], x: Tensor) -> Tensor:
        return x.double()


SCORED = _Scored()


def grown(session: SiteSession, encoder: Encoder, level: Level, *, counted: bool) -> Asking[Grown | None]:
    """Return a site's sums of one level, None where it lacks the trees before the round.

    Yields the requests by which the trees before the round are scored.

    Parameters
    ----------
    session : SiteSession
    encoder : Encoder
    level : Level
    counted : bool
        Whether rows are counted beside gradients and Hessians.
    """
    fitted, scored = session.round_rows(encoder)
    trees = session.trees = _trees(session, encoder, fitted, scored)
    if not trees.follow(level.round, level.last, level.sha256):
        # A request sent under a hash must have it: the site knows a request by its hash.
        if not level.forest or arrays_sha256(dict(level.forest)) != level.sha256:
            return None
        trees.take(level.forest)
    growing = trees_of(level.tree, len(session.layout.features))
    sums = trees.sums(growing, [np.flatnonzero(nodes) for nodes in level.node_marks], counted=counted)
    trained = len(trees.y)
    if not level.score:
        return Grown(sums, trained, None, None)
    own = replace(scored, x=trees.scores["scored"])
    kind = "validation" if scored is not fitted else "training"
    scores = yield from session.measured(kind, {}, encoder, own, SCORED)
    return Grown(sums, trained, loss_of_rows(session.task, trees.scores["fitted"], fitted.y), scores)


def _trees(session: SiteSession, encoder: Encoder, fitted: Encoded, scored: Encoded) -> SiteTrees:
    """Return the trees before the round as far as the site knows them."""
    trees = session.trees
    # Another run may have another encoder, and by it another unit of a number that is predicted.
    if trees is not None and trees.y is fitted.y:
        return trees
    parts = {"fitted": fitted.x, "scored": scored.x}
    return SiteTrees(parts, fitted.y, session.task)


def cells_of_rows(session: SiteSession, least: int) -> Arrays:
    """Return the rows that trees grow on by cell and outcome, as `cell_counts` does."""
    return cell_counts(session.fitted_columns(), session.layout, least)


def find_determined_rows(codes: np.ndarray, y: np.ndarray, node: np.ndarray | int = 0) -> np.ndarray:
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
    >>> find_determined_rows(np.array([[0, 0, 1, 1]]), np.array([0, 1, 1, 1])).tolist()
    [False, False, True, True]
    """
    single_outcome = np.zeros(len(y), dtype=bool)
    for code in codes:
        width = int(code.max(initial=0)) + 1
        cell = node * width + code
        low, high = (np.full(int(cell.max(initial=0)) + 1, end) for end in (np.inf, -np.inf))
        np.minimum.at(low, cell, y)
        np.maximum.at(high, cell, y)
        single_outcome |= (low == high)[cell]
    return single_outcome


def count_determined_outcomes(sessions: Sequence[SiteSession], encoder: Encoder, arrays: Arrays) -> dict[str, Any]:
    """Return how many training rows' outcomes follow from the sums of a run's first trees.

    Returns
    -------
    dict with "sites", by site, and "together"
        Each a dict with "rows", "root" and "tree": rows, and those that the root's sums and those of the whole tree
        reveal. They are of the site's own sums, and of the sums over all sites.
    """
    missing = widths_of(arrays) - 1
    depth = depth_of(arrays["value"].shape[2])
    parts = []
    for session in sessions:
        own = session.fitted(encoder)
        parts.append((codes_in(own.x, arrays), own.y))
    trees = next(iter(forest_of(arrays)), [])

    def counted(codes: np.ndarray, y: np.ndarray) -> dict[str, int]:
        root = find_determined_rows(codes, y)
        whole = root.copy()
        # In the first trees of a run a row's gradient is its outcome. Each level of splits has sums; those of the
        # leaves after the last follow from it.
        for tree in trees:
            node = np.zeros(len(y), dtype=np.int64)
            for _ in range(depth - 1):
                node = tree.step(node, codes, missing)
                whole |= find_determined_rows(codes, y, node)
        return {"rows": len(y), "root": int(root.sum()), "tree": int(whole.sum())}

    sites = {session.site.name: counted(*part) for session, part in zip(sessions, parts)}
    codes = np.concatenate([of_site for of_site, _ in parts], axis=-1)
    y = np.concatenate([of_site for _, of_site in parts], axis=-1)
    return {"sites": sites, "together": counted(codes, y)}


def count_determined_at_start(session: SiteSession, least: int) -> tuple[int, int]:
    """Return how many of a site's training rows have their outcome revealed by its first sums, and how many there are.

    With a least number of rows these are its counts by fine bin and outcome, else the root's sums. Their codes are
    taken from the site's own rows here, since those of all sites are not known before a run.
    """
    rows = session.fitted_columns()
    layout = session.layout
    if least and layout.task != "regression":
        codes = np.stack([fine_codes(rows, column) for column in counted_columns(layout, least)])
    else:
        arrays = chosen_cuts(layout, cell_counts(rows, layout), session.study.model.build("model").max_bins)
        codes = codes_in(plain_inputs(rows, layout), arrays)
    y = rows.scaled(layout.target) if layout.task == "regression" else rows.codes[layout.target.name]
    return int(find_determined_rows(codes, y).sum()), rows.rows
