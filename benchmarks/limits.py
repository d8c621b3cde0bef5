"""Limits of the figures, and the figures that miss them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CPU = {
    ("W1", "stacked"): 0.38,
    ("W2", "stacked"): 0.38,
    ("W3", "stacked"): 0.48,
    ("W4", "stacked"): 0.35,
    ("W1", "one-by-one"): 1.2,
    ("W2", "one-by-one"): 1.5,
}
"""CPU seconds over those of the bare loop, at most."""
SCALE_OVER_BARE, SCALE_MEMORY, SCALE_STRAIGHT, SCALE_DEARER = 0.5, 1.5, 0.98, 1.5
"""CPU seconds of a round with the most sites over a bare loop's; memory over that of holding the rows; R² of the line;
CPU seconds of one site among the most sites over those among the fewest, since R² alone lets quadratic time pass."""
DEPLOYMENT_RATIO = 0.25
"""Seconds of a round at three institutions beyond the training, over those of plain Flower, at most."""
TREES_OVER_XGBOOST = 4.0
"""CPU seconds of boosted trees, all sites and the server, over those of XGBoost with one thread, at most."""
Results = Mapping[str, Any]


def missed(results: Results) -> list[str]:
    """Return a sentence for each limit that the results miss, or that has no figure."""
    return [
        *_ratios(results),
        *_trees(results),
        *_scale(results),
        *_deployment(results),
    ]


def _ratios(results: Results) -> Iterator[str]:
    for (workload, way), most in CPU.items():
        found = results.get(workload, {}).get(way, {}).get("cpu-ratio")
        if found is None:
            yield f"{workload} {way}: no figure"
        elif found > most:
            yield f"{workload} {way}: CPU ratio {found}, limit {most}"


def _trees(results: Results) -> Iterator[str]:
    found = results.get("trees", {})
    if "ratio" not in found:
        yield f"boosted trees: {found.get('error', 'no figure')}"
    elif found["ratio"] > TREES_OVER_XGBOOST:
        yield f"boosted trees: {found['ratio']} times XGBoost's CPU, limit {TREES_OVER_XGBOOST}"


def _scale(results: Results) -> Iterator[str]:
    scale = results.get("scale", {})
    if "sizes" not in scale:
        yield f"scale: {scale.get('error', 'no figure')}"
        return
    most = scale["sizes"][-1]
    where = f"scale, {most['sites']:,} sites"
    if most["cpu-ratio"] > SCALE_OVER_BARE:
        yield f"{where}: CPU ratio {most['cpu-ratio']} of a bare loop's, limit {SCALE_OVER_BARE}"
    if most["memory-ratio"] > SCALE_MEMORY:
        yield f"{where}: {most['memory-ratio']} times the memory of holding the rows, limit {SCALE_MEMORY}"
    if scale["r-squared"] < SCALE_STRAIGHT:
        yield f"scale: R² {scale['r-squared']} of a straight line, limit {SCALE_STRAIGHT}"
    if scale["site-dearer"] > SCALE_DEARER:
        yield f"scale: a site is {scale['site-dearer']} times as dear among many as among few, limit {SCALE_DEARER}"


def _deployment(results: Results) -> Iterator[str]:
    found = results.get("deployment", {}).get("ratio")
    if found is None:
        yield "deployment: no figure"
    elif found > DEPLOYMENT_RATIO:
        yield f"deployment: a round beyond the training takes {found} of plain Flower's, limit {DEPLOYMENT_RATIO}"
