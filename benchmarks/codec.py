"""CPU of a round whose arrays are packed as int8 both ways, over one in float32, in turns in one process."""

from __future__ import annotations

import gc
from statistics import median

from benchmarks.ours import at_work, run_ours
from benchmarks.workload import WORKLOADS, Workload

PACKED = {"codec.name": "int8"}


def measure(repetitions: int = 5) -> dict[str, dict[str, float]]:
    """Return the figures of every workload, stacked."""
    return {name: codec_figures(workload, repetitions) for name, workload in WORKLOADS.items()}


def codec_figures(workload: Workload, repetitions: int) -> dict[str, float]:
    """Return the CPU seconds of a round of either, the medians over repetitions, and their ratio.

    A round's is the median over the run's rounds after the first, in which the encoder crosses.
    """
    taken: dict[str, list[float]] = {"plain": [], "packed": []}
    with at_work(workload) as (plain, taking_part):
        studies = {"plain": plain, "packed": plain.replace(PACKED)}
        for _ in range(repetitions + 1):
            for way, chosen in studies.items():
                gc.collect()
                taken[way].append(median(run_ours(chosen, taking_part, stacked=True).clock.by_round()))
    # The first turn of each includes one-time imports and draws.
    found = {way: median(seconds[1:]) for way, seconds in taken.items()}
    named = {f"{way}-cpu-seconds": round(seconds, 6) for way, seconds in found.items()}
    return {**named, "ratio": round(found["packed"] / found["plain"], 3)}
