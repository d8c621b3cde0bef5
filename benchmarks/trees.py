"""CPU of boosted trees, all sites and the server, over XGBoost's with one thread, in turns in one process."""

from __future__ import annotations

import gc
from statistics import median
from time import process_time

import numpy as np
import xgboost

from benchmarks.ways import DifferentResults
from flfed.rows.statistics.boosted_trees import SiteTrees
from flfed.seeds import generator
from flfed.summaries.summary import Arrays, arrays_sha256
from flfed.trees.cut_points import codes_of, widths_of
from flfed.trees.forest import GrowingTree, TreeSettings, empty_forest, margins, forest_of, tree_arrays, with_round

ROWS, COLUMNS, CODES, SITES, TREES = 100_000, 30, 64, 10, 10
SETTINGS = TreeSettings(depth=6, learning_rate=0.3)
CLOSE = 1e-5
"""Largest difference of a margin."""


def measure(repetitions: int = 3) -> dict[str, float]:
    """Return the CPU seconds of either, the medians over repetitions, and their ratio."""
    rng = generator(1, site="", purpose="trees")
    x = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    y = (rng.random(ROWS) < 1 / (1 + np.exp(-x[:, :5].sum(axis=1)))).astype(np.int64)
    return measure_rows(x, y, repetitions)


def measure_rows(x: np.ndarray, y: np.ndarray, repetitions: int) -> dict[str, float]:
    """Return the figures of rows [rows, columns] with outcomes, as `measure` does."""
    cuts = np.quantile(x, np.arange(1, CODES) / CODES, axis=0).astype(np.float32)
    arrays = {"cuts": cuts.T.astype(float), "missing": np.full(x.shape[1], float(CODES))}
    arrays |= empty_forest(TREES, 1, SETTINGS.depth)
    codes = np.stack([codes_of(x[:, column], cuts[:, column]) for column in range(x.shape[1])])
    seconds: dict[str, list[float]] = {"sites": [], "xgboost": []}
    for _ in range(repetitions + 1):
        sites = [SiteTrees({"fitted": x[part]}, y[part], "binary") for part in np.array_split(np.arange(len(x)), SITES)]
        gc.collect()
        start = process_time()
        ours = grow_trees(sites, arrays)
        seconds["sites"].append(process_time() - start)
        gc.collect()
        start = process_time()
        theirs = of_xgboost(codes, y)
        seconds["xgboost"].append(process_time() - start)
        apart = float(np.abs(ours - theirs).max())
        if not apart <= CLOSE:
            raise DifferentResults(f"trees: a margin differs from XGBoost's by {apart:.1e}")
    # The first turn of each includes one-time imports.
    medians = {way: median(of_way[1:]) for way, of_way in seconds.items()}
    return {
        "sites-cpu-seconds": round(medians["sites"], 3),
        "xgboost-cpu-seconds": round(medians["xgboost"], 3),
        "ratio": round(medians["sites"] / medians["xgboost"], 2),
    }


def grow_trees(sites: list[SiteTrees], arrays: Arrays) -> np.ndarray:
    """Return the scores of all rows by trees that the sites grow together, level by level."""
    for site in sites:
        site.take(arrays)
    widths = widths_of(arrays)
    for number in range(TREES):
        growing = GrowingTree(widths, SETTINGS)
        while len(growing.requested_nodes):
            sums = [site.sums([growing.tree], [growing.requested_nodes]) for site in sites]
            growing.grow(np.sum(sums, axis=0))
        stacked = tree_arrays([growing.tree], arrays["value"].shape[2])
        arrays = with_round(arrays, number, stacked)
        sha256 = arrays_sha256(arrays)
        for site in sites:
            site.follow(number + 2, stacked, sha256)
    return np.concatenate([site.scores["fitted"][:, 0] for site in sites])


def of_xgboost(codes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return XGBoost's margins of the same rows."""
    given = {
        "tree_method": "hist", "max_depth": SETTINGS.depth, "eta": SETTINGS.learning_rate, "max_bin": 256, "nthread": 1,
        "objective": "binary:logistic", "base_score": 0.5,
    }  # fmt: skip
    rows = xgboost.DMatrix(codes.T.astype(np.float32), y, nthread=1)
    return np.asarray(xgboost.train(given, rows, TREES).predict(rows, output_margin=True), dtype=float)
