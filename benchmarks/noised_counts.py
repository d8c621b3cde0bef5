"""Counts noised for an answer beside numpy's own normal draws, in turns in one process.

Ours is the whole mechanism of `GaussianQuery`: the check that counts are whole numbers, draws of the operating system,
rounding, and the sum. Numpy's is `Generator.normal` of the same deviation, from a seed: no protection, and no rounding.
It fails where an answer does not have the noise that it says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks.ways import DifferentResults
from flfed.rows.statistics.noised_counts import GaussianQuery
from flfed.rows.training.private_noise import NoiseSource, SystemNoise

COUNTS, TURNS, TIMES = 100_000, 9, 10
"""Counts of an answer, turns, and answers of each side in a turn."""
QUERY = GaussianQuery(sensitivity=1.0, noise=3.766)
"""An epsilon of 1 at a delta of 1e-5."""
NEAR = 0.02
"""Largest relative difference of the deviation of so many draws: nine standard errors."""

Side = Callable[[np.ndarray], np.ndarray]


def sides(query: GaussianQuery, chance: NoiseSource) -> dict[str, Side]:
    """Return both ways to noise counts, by name."""
    rng = np.random.default_rng(1)
    return {
        "numpy": lambda counts: np.asarray(counts + rng.normal(0.0, query.deviation, counts.shape)),
        "ours": lambda counts: query.answer(counts, chance),
    }


def checked(query: GaussianQuery, counts: np.ndarray, answer: np.ndarray) -> None:
    """Refuse an answer that is not of whole numbers, or whose noise is not that of the query.

    Raises
    ------
    DifferentResults
        Saying which.
    """
    if not (answer == np.rint(answer)).all():
        raise DifferentResults("noised counts are no whole numbers")
    # Rounding adds the variance of a draw that is even over one step.
    expected = math.sqrt(query.deviation**2 + query.step**2 / 12)
    found = float((answer - counts).std())
    if not abs(found / expected - 1) <= NEAR:
        raise DifferentResults(f"noised counts have deviation {found:.3f} instead of {expected:.3f}")


def timed(ways: dict[str, Side], counts: np.ndarray, turns: int, times: int) -> dict[str, list[float]]:
    """Return each side's CPU milliseconds an answer, turn by turn; an answer before them is left out."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(counts)
    for _ in range(turns):
        for name, way in ways.items():
            start = time.process_time()
            for _ in range(times):
                way(counts)
            found[name].append((time.process_time() - start) / times * 1e3)
    return found


def figures(took: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the ratio turn by turn: its median, lowest and highest."""
    ratios = [ours / plain for ours, plain in zip(took["ours"], took["numpy"], strict=True)]
    return {
        **{f"{name}-milliseconds": round(median(each), 3) for name, each in took.items()},
        "over-numpy": round(median(ratios), 2),
        "over-numpy-low": round(min(ratios), 2),
        "over-numpy-high": round(max(ratios), 2),
    }


def measure(turns: int = TURNS) -> dict[str, Any]:
    """Return the figures of an answer of `COUNTS` counts."""
    import torch

    torch.set_num_threads(1)  # whose cosines the draws are made with
    counts = np.random.default_rng(0).integers(0, 1000, COUNTS).astype(np.float64)
    ways = sides(QUERY, SystemNoise())
    checked(QUERY, counts, ways["ours"](counts))
    return {"counts": COUNTS, "turns": turns, **figures(timed(ways, counts, turns, TIMES))}
