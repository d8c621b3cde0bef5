"""A site's part of a round in which trees grow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.comparison.single_rows import holds_models, outputs_refusal
from flfed.rows.session import SiteSession
from flfed.rows.statistics.boosted_trees import SiteTrees, cell_counts
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.requests import ComputeRequest
from flfed.summaries.score_bins import RowScores
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.trees.forest import trees_of


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
    asked : float64 array [outputs, nodes]
        1 where a node's sums are wanted.
    cuts_sha256 : str
        Of the cut points that the trees before must have; "" for any.
    """

    round: int
    score: bool
    forest: Mapping[str, np.ndarray]
    sha256: str
    last: np.ndarray
    tree: np.ndarray
    asked: np.ndarray
    cuts_sha256: str = ""


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
    scores, holdout : RowScores or None
        Of the trees before the round.
    """

    sums: np.ndarray
    rows: int
    loss: float | None
    scores: RowScores | None
    holdout: RowScores | None


class _Scored:
    """Model whose outputs are its inputs: scores that are known are measured as others are."""

    layers: tuple[tuple[str, str], ...] = ()

    def outputs(self, arrays: dict[str, Any], x: Tensor) -> Tensor:
        return x.to(torch.float64)


SCORED = _Scored()


def grown(
    session: SiteSession, encoder: Encoder, level: Level, *, counted: bool
) -> Generator[ComputeRequest, Any, Grown | None]:
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
    (fitted, scored), curve = session.round_rows(encoder), _scores_holdout(session)
    # Another run may have another encoder, and by it another unit of a number that is predicted.
    if session.trees is None or session.trees.y is not fitted.y:
        parts = {"fitted": fitted.x, "scored": scored.x} | (
            {"holdout": session.holdout_rows(encoder)[1].x} if curve or holds_models(session) else {}
        )
        session.trees = SiteTrees(parts, fitted.y, session.task)
    trees = session.trees
    if not trees.follow(level.round, level.last, level.sha256):
        # What is sent under a hash must have it: by the hash the site knows what it was asked.
        if not level.forest or arrays_sha256(dict(level.forest)) != level.sha256:
            return None
        trees.take(level.forest)
    # The trees that are here may be those of another run, which has other cut points.
    if level.cuts_sha256 not in ("", trees.cuts_sha256):
        return None
    growing = trees_of(level.tree, len(session.layout.features))
    sums = trees.sums(growing, [np.flatnonzero(nodes) for nodes in level.asked], counted=counted)
    if not level.score:
        return Grown(sums, len(fitted), None, None, None)
    validated = scored is not fitted
    scores = held = None
    if validated or not session.validation_only:
        own, kind = replace(scored, x=trees.scores["scored"]), "validation" if validated else "training"
        scores = yield from session.measured(kind, session.table.training, {}, encoder, own, SCORED)
    if curve:
        table, rows = session.holdout_rows(encoder)
        own = replace(rows, x=trees.scores["holdout"])
        held = yield from session.measured("holdout", table, {}, encoder, own, SCORED)
    if _tell_single_rows(session, trees, validated=validated):
        bare = [None if one is None else one.bare() for one in (scores, held)]
        return Grown(sums, len(fitted), None, *bare)
    return Grown(sums, len(fitted), loss_of_rows(session.task, trees.scores["fitted"], fitted.y), scores, held)


def _tell_single_rows(session: SiteSession, trees: SiteTrees, *, validated: bool) -> bool:
    """Tell whether figures of the trees before the round would tell of single rows."""
    if not holds_models(session) or not trees.grown:
        return False
    parts = ("fitted", "scored", "holdout") if validated else ("fitted", "holdout")
    return outputs_refusal(session, [trees.scores[part] for part in parts]) is not None


def _scores_holdout(session: SiteSession) -> bool:
    return session.study.compare.holdout_curve and not session.validation_only


def cells_of_rows(session: SiteSession, least: int) -> dict[str, np.ndarray]:
    """Return the rows that are trained on by cell and outcome, as `cell_counts` does."""
    return cell_counts(session.fitted_columns(), session.layout, least)
