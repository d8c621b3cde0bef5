"""Boosted trees: scores of rows by trees that the strategy of the same name grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.summaries.summary import Arrays, Layout
from flfed.trees.cut_points import CODES, codes_in, empty_cuts, widths_of
from flfed.trees.forest import empty_forest, forest_of, forest_shapes, margins
from flfed.words import usage_error

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST = 10
MOST_BINS = 256


class BoostedTrees:
    """Boosted trees: the sum of trees over a row's values.

    Inputs are the columns as they are: numbers, the places of values in the schema's order, NaN where missing.

    Parameters
    ----------
    depth : int, 1 to 10
        Most splits from the root to a leaf. Example: `depth = 6`.
    max_bins : int, 2 to 256
        Most bins of a number, which splits distinguish. Example: `max-bins = 32`.

    Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine"; codes as in Chen and Guestrin
    2016, "XGBoost: a scalable tree boosting system".
    """

    tasks: tuple[str, ...] = ("binary", "multi-class", "regression")
    linear = False
    plain = True
    penalised: tuple[str, ...] = ()
    layers: tuple[tuple[str, str], ...] = ()

    def __init__(self, *, depth: int = 4, max_bins: int = CODES) -> None:
        for name, value, least, most in (("depth", depth, 1, DEEPEST), ("max-bins", max_bins, 2, MOST_BINS)):
            if not least <= value <= most:
                raise usage_error("study.strategies.trees", name=name, value=value, least=least, most=most)
        self.depth = depth
        self.max_bins = max_bins

    def forest_shapes(self, layout: Layout, outputs: int, rounds: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of as many trees as there are rounds."""
        cuts = {name: value.shape for name, value in empty_cuts(layout, self.max_bins).items()}
        return {**forest_shapes(rounds, outputs, self.depth), **cuts}

    def first_forest(self, layout: Layout, outputs: int, rounds: int) -> Arrays:
        """Return the arrays that a run starts from: trees without a split, for as many as there are rounds."""
        return {**empty_forest(rounds, outputs, self.depth), **empty_cuts(layout, self.max_bins)}

    def outputs(self, arrays: dict[str, Any], x: Tensor) -> Tensor:
        """Return scores [rows, outputs] of plain inputs [rows, columns]."""
        import torch

        own = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
        scores = margins(forest_of(own), codes_in(np.asarray(x), own), widths_of(own) - 1)
        # Without any tree margins do not show how many outputs there are.
        return torch.from_numpy(np.broadcast_to(scores, (len(x), own["value"].shape[1])).copy())
