"""The ways to do a workload, side by side and interleaved in one process, and proof that all reach the same arrays."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import bare, hand_made
from benchmarks.bare import Arrays, Job, Loop
from benchmarks.ours import Clock, at_work, run_ours
from benchmarks.workload import Workload, study
from flfed.rows.data.site import Site

LOOPS: dict[str, Loop] = {"bare": bare.loop, "hand-made": hand_made.loop}
OURS = {"one-by-one": False, "stacked": True}
"""Way to whether it is stacked."""
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""Largest difference between any two numbers of the final arrays.

float64 is the proof. In float32 one input of a ReLU that rounding puts on the other side of 0, of
a hundred million in a run, moves weights by up to lr * gradient / batch.
"""
PROOF_ROUNDS = 5
"""Rounds of the proof in float64, at most."""

Took = dict[str, tuple[float, float]]
"""Way to CPU and wall seconds of its rounds."""


class DifferentResults(Exception):
    """The ways did not reach the same arrays, so their times say nothing."""


def difference(ours: Arrays, theirs: Arrays) -> float:
    """Return the largest difference between any two numbers; infinite where names or shapes differ."""
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        return float("inf")
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


def compare(
    workload: Workload,
    *,
    repetitions: int,
    loops: Mapping[str, Loop] = LOOPS,
    keep: Callable[[Job], object] = lambda job: None,
) -> dict[str, dict[str, Any]]:
    """Return the figures of every way, by its name, after checking that all reach the same arrays.

    Parameters
    ----------
    workload : Workload
    repetitions : int, >= 1
        How often every way is timed; each time another one begins.
    loops : dict of name to callable
        To compare with; the ratios are to "bare".
    keep : callable
        Given the job, for those who do the same work elsewhere.

    Raises
    ------
    DifferentResults
        If the arrays differ by more than `TOLERANCE`, in the workload's precision or in float64.
    """
    with at_work(workload) as (chosen, taking_part):
        exact, job = proof(workload, taking_part, loops)
        job = replace(job, rounds=workload.rounds, start=_as(job.start, workload.precision))
        keep(job)
        names, took, apart = [*loops, *OURS], list[Took](), dict.fromkeys([*loops, *OURS], 0.0)
        for number in range(repetitions):
            first = number % len(names)
            arrays: dict[str, Arrays] = {}
            took.append({})
            for way in names[first:] + names[:first]:
                if way in loops:
                    arrays[way], took[-1][way] = timed_loop(loops[way], job)
                else:
                    ran = run_ours(chosen, taking_part, stacked=OURS[way])
                    arrays[way], took[-1][way] = ran.arrays, (ran.clock.cpu["rounds"], ran.clock.wall["rounds"])
            found = apart_from_bare(workload, arrays)
            apart = {way: max(apart[way], found[way]) for way in names}
    return {
        way: figures(way, took) | {"arrays-max-difference": apart[way], "arrays-max-difference-float64": exact[way]}
        for way in names
    }


def proof(workload: Workload, taking_part: Sequence[Site], loops: Mapping[str, Loop]) -> tuple[dict[str, float], Job]:
    """Return how far every way is from bare in float64, where nothing hides behind rounding, and the job.

    It warms everything up, too: the first use of torch.optim imports the compiler for a second.
    """
    precise = replace(workload, precision="float64", rounds=min(workload.rounds, PROOF_ROUNDS))
    ran = {way: run_ours(study(precise), taking_part, stacked=stacked) for way, stacked in OURS.items()}
    job = ran["one-by-one"].job
    arrays = {way: loop(job)[0] for way, loop in loops.items()} | {way: found.arrays for way, found in ran.items()}
    return apart_from_bare(precise, arrays), job


def apart_from_bare(workload: Workload, arrays: Mapping[str, Arrays]) -> dict[str, float]:
    """Return how far the arrays of every way are from those of the bare loop.

    Raises
    ------
    DifferentResults
        If one is too far.
    """
    apart = {way: difference(found, arrays["bare"]) for way, found in arrays.items()}
    for way, by in apart.items():
        if not by <= TOLERANCE[workload.precision]:
            raise DifferentResults(
                f"{workload.name} in {workload.precision}: the arrays of {way} differ by {by:.1e} from bare's, "
                f"more than {TOLERANCE[workload.precision]:.0e}; the times cannot be compared"
            )
    return apart


def timed_loop(loop: Loop, job: Job) -> tuple[Arrays, tuple[float, float]]:
    """Return a loop's arrays, and its CPU and wall seconds."""
    clock = Clock()
    with clock.on("rounds"):
        arrays, _ = loop(job)
    return arrays, (clock.cpu["rounds"], clock.wall["rounds"])


def figures(way: str, took: Sequence[Took]) -> dict[str, Any]:
    """Return medians over the repetitions of a way's seconds and of its ratios, with the CPU ratio's range.

    A ratio is to the bare loop of the same repetition.
    """
    cpu = [each[way][0] / each["bare"][0] for each in took]
    return {
        "cpu-ratio": round(statistics.median(cpu), 3),
        "cpu-ratio-low": round(min(cpu), 3),
        "cpu-ratio-high": round(max(cpu), 3),
        "cpu-over-hand-made": round(statistics.median(each[way][0] / each["hand-made"][0] for each in took), 3),
        "wall-ratio": round(statistics.median(each[way][1] / each["bare"][1] for each in took), 3),
        "cpu-seconds": round(statistics.median(each[way][0] for each in took), 3),
        "wall-seconds": round(statistics.median(each[way][1] for each in took), 3),
        "repetitions": len(took),
    }


def _as(arrays: Arrays, precision: str) -> Arrays:
    return {name: value.astype(precision) for name, value in arrays.items()}
