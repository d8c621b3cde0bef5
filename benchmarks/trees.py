"""CPU of boosted trees, all sites and the server, over XGBoost's with one thread, in turns in one process."""

from __future__ import annotations

import gc
from statistics import median
from time import process_time

import numpy as np
import xgboost

from benchmarks.ways import DifferentResults
from flfed.rows.statistics.boosted_trees import gradients, node_sums
from flfed.seeds import generator
from flfed.trees.cut_points import codes_of
from flfed.trees.forest import GrowingTree, Tree, TreeSettings, margins

ROWS, COLUMNS, CODES, SITES, TREES = 100_000, 30, 64, 10, 10
SETTINGS = TreeSettings(depth=6, learning_rate=0.3)
CLOSE = 1e-5
"""Largest difference of a margin."""


def measure(repetitions: int = 3) -> dict[str, float]:
    """Return the CPU seconds of either, the medians over repetitions, their ratio, and the bytes of a site and tree."""
    rng = generator(1, site="", purpose="trees")
    x = rng.normal(size=(ROWS, COLUMNS))
    y = (rng.random(ROWS) < 1 / (1 + np.exp(-x[:, :5].sum(axis=1)))).astype(np.int64)
    cuts = np.quantile(x, np.arange(1, CODES) / CODES, axis=0).astype(np.float32)
    codes = np.stack([codes_of(x[:, column], cuts[:, column]) for column in range(COLUMNS)]).astype(np.uint8)
    taken: dict[str, list[float]] = {"sites": [], "xgboost": []}
    for _ in range(repetitions + 1):
        gc.collect()
        start = process_time()
        ours = margins(grown(codes, y), codes, np.full(COLUMNS, CODES))[:, 0]
        taken["sites"].append(process_time() - start)
        gc.collect()
        start = process_time()
        theirs = of_xgboost(codes, y)
        taken["xgboost"].append(process_time() - start)
        apart = float(np.abs(ours - theirs).max())
        if not apart <= CLOSE:
            raise DifferentResults(f"trees: a margin differs from XGBoost's by {apart:.1e}")
    # The first turn of each includes one-time imports.
    found = {way: median(seconds[1:]) for way, seconds in taken.items()}
    return {
        "sites-cpu-seconds": round(found["sites"], 3),
        "xgboost-cpu-seconds": round(found["xgboost"], 3),
        "ratio": round(found["sites"] / found["xgboost"], 2),
    }


def grown(codes: np.ndarray, y: np.ndarray) -> list[list[Tree]]:
    """Return the trees of sites that each have a part of the rows."""
    parts = np.array_split(np.arange(ROWS), SITES)
    widths, missing = np.full(COLUMNS, CODES + 1), np.full(COLUMNS, CODES)
    own = [np.ascontiguousarray(codes[:, part]) for part in parts]
    scores = [np.zeros((len(part), 1)) for part in parts]
    forest = []
    for _ in range(TREES):
        sums = [gradients(score, y[part], "binary") for score, part in zip(scores, parts, strict=True)]
        tree = GrowingTree(widths, SETTINGS)
        nodes = [np.zeros(len(part), dtype=np.int64) for part in parts]
        while len(tree.requested_nodes):
            found = [
                node_sums(code, widths, node, tree.requested_nodes, slope[:, 0], curvature[:, 0])
                for code, node, (slope, curvature) in zip(own, nodes, sums, strict=True)
            ]
            tree.grow(np.sum(found, axis=0))
            nodes = [tree.tree.step(node, code, missing) for node, code in zip(nodes, own, strict=True)]
        for score, node in zip(scores, nodes, strict=True):
            score[:, 0] += tree.tree.value[node]
        forest.append([tree.tree])
    return forest


def of_xgboost(codes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return XGBoost's margins of the same rows."""
    given = {
        "tree_method": "hist", "max_depth": SETTINGS.depth, "eta": SETTINGS.learning_rate, "max_bin": 256, "nthread": 1,
        "objective": "binary:logistic", "base_score": 0.5,
    }  # fmt: skip
    rows = xgboost.DMatrix(codes.T.astype(np.float32), y, nthread=1)
    return np.asarray(xgboost.train(given, rows, TREES).predict(rows, output_margin=True), dtype=float)
