"""CPU of boosted trees, all sites and the server, over XGBoost's with one thread, in turns in one process.

`python -m benchmarks.trees` prints the table of docs/performance.md on real tables. It needs their files:
`flfed data get taiwan-credit` and `flfed data get heart-disease`.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from statistics import median
from time import process_time

import numpy as np
import xgboost

from benchmarks.ways import DifferentResults
from flfed.rows.features.encode import plain_inputs
from flfed.rows.statistics.boosted_trees import SiteTrees, cell_counts
from flfed.seeds import generator
from flfed.summaries.summary import Arrays, arrays_sha256
from flfed.trees.cut_points import chosen_cuts, codes_in, widths_of
from flfed.trees.forest import GrowingTree, TreeSettings, empty_forest, tree_arrays, with_round
from tests.boosting import tables_of

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


STUDY_SETTINGS = TreeSettings(depth=4, learning_rate=0.1)
"""Those of the shipped studies of trees."""
TABLES = {"taiwan-credit-trees": (1, 100), "heart-disease": (100, 30), "loan-default": (1, 100)}
"""How often a study's rows are repeated, and how many trees grow on them."""


def measure_table(name: str, repetitions: int = 5) -> dict[str, float]:
    """Return the figures of a shipped study's rows, at its sites or four drawn ones, as `measure` does."""
    layout, parts = tables_of(name)
    times, trees = TABLES[name]
    parts = [part.take(np.tile(np.arange(part.rows), times)) for part in parts]
    counts = [cell_counts(part, layout) for part in parts]
    merged = {column: np.sum([of[column] for of in counts], axis=0) for column in counts[0]}
    arrays = chosen_cuts(layout, merged, CODES)
    rows = [(plain_inputs(part, layout), part.codes[layout.target.name].astype(np.int64)) for part in parts]
    return measure_sites(rows, arrays, STUDY_SETTINGS, trees, repetitions)


def measure_rows(x: np.ndarray, y: np.ndarray, repetitions: int) -> dict[str, float]:
    """Return the figures of rows [rows, columns] with outcomes, as `measure` does."""
    cuts = np.quantile(x, np.arange(1, CODES) / CODES, axis=0).astype(np.float32)
    arrays = {"cuts": cuts.T.astype(float), "missing": np.full(x.shape[1], float(CODES))}
    rows = [(x[part], y[part]) for part in np.array_split(np.arange(len(x)), SITES)]
    return measure_sites(rows, arrays, SETTINGS, TREES, repetitions)


def measure_sites(
    rows: Sequence[tuple[np.ndarray, np.ndarray]],
    cuts: Arrays,
    settings: TreeSettings,
    trees: int,
    repetitions: int,
) -> dict[str, float]:
    """Return the figures of each site's rows and outcomes, given the cut points of a forest's arrays."""
    arrays = {**cuts, **empty_forest(trees, 1, settings.depth)}
    codes = np.concatenate([codes_in(x, arrays) for x, _ in rows], axis=1).astype(np.float32)
    codes[codes == (widths_of(arrays) - 1)[:, None]] = np.nan
    outcomes = np.concatenate([y for _, y in rows])
    seconds: dict[str, list[float]] = {"sites": [], "xgboost": []}
    for _ in range(repetitions + 1):
        sites = [SiteTrees({"fitted": x}, y, "binary") for x, y in rows]
        gc.collect()
        start = process_time()
        ours = grow_trees(sites, arrays, settings, trees)
        seconds["sites"].append(process_time() - start)
        gc.collect()
        start = process_time()
        theirs = of_xgboost(codes, outcomes, settings, trees)
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


def grow_trees(sites: list[SiteTrees], arrays: Arrays, settings: TreeSettings, trees: int) -> np.ndarray:
    """Return the scores of all rows by trees that the sites grow together, level by level."""
    for site in sites:
        site.take(arrays)
    widths = widths_of(arrays)
    for number in range(trees):
        growing = GrowingTree(widths, settings)
        while len(growing.requested_nodes):
            sums = [site.sums([growing.tree], [growing.requested_nodes]) for site in sites]
            growing.grow(np.sum(sums, axis=0))
        stacked = tree_arrays([growing.tree], arrays["value"].shape[2])
        arrays = with_round(arrays, number, stacked)
        sha256 = arrays_sha256(arrays)
        for site in sites:
            site.follow(number + 2, stacked, sha256)
    return np.concatenate([site.scores["fitted"][:, 0] for site in sites])


def of_xgboost(codes: np.ndarray, y: np.ndarray, settings: TreeSettings, trees: int) -> np.ndarray:
    """Return XGBoost's margins of the same rows, of codes [columns, rows]."""
    given = {
        "tree_method": "hist", "max_depth": settings.depth, "eta": settings.learning_rate, "max_bin": 256, "nthread": 1,
        "objective": "binary:logistic", "base_score": 0.5,
    }  # fmt: skip
    rows = xgboost.DMatrix(codes.T, y, nthread=1)
    return np.asarray(xgboost.train(given, rows, trees).predict(rows, output_margin=True), dtype=float)


if __name__ == "__main__":
    for name in TABLES:
        found = measure_table(name)
        print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in found.values()) + " |", flush=True)
