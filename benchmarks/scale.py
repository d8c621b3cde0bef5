"""From 1,000 to 10,000 sites of log-normal size: what a full round takes, and how much memory.

Every site trains and is scored every round; messages, guard, aggregation, run store and checkpoint
are on the clock, which is the CPU time from one round in the store to the next. One thing is not
as in life, and not in a round: the tables are handed over drawn. Each size is run in a process of
its own, and then a bare loop over the same sites in the same process: what a machine of that day
is capable of. Their arrays are compared on the workloads and not here, since of ten thousand sites
the guard refuses those few whose many rows move the model ten times as far as the median site's.
Another process only opens and encodes the same sites, for its memory: it never holds the sums of
their rows, which a run does until they are on the disk for Table 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import bare
from benchmarks.alone import in_child, peak_mb
from benchmarks.bare import Job
from benchmarks.ours import Timed, at_work, conducting, job_of
from benchmarks.ways import timed_loop
from benchmarks.workload import Workload
from flfed.summaries.summary import Summary

SIZES = (1000, 3000, 10_000)
ROUNDS = 5
SECONDS = 3600.0


class FirstSums(Timed):
    """A conductor that holds the sums of one site's rows and takes them for all others'."""

    def summarise(self, participants: Mapping[str, Any]) -> dict[str, Summary]:
        """Return the first site's sums for each site."""
        first = next(iter(self.side.sessions.values())).summary()
        return dict.fromkeys(participants, first)


def workload(sites: int) -> Workload:
    """Return the federation: 200 rows on average, the logarithm's standard deviation 0.8."""
    return Workload(name="scale", sites=sites, rows=200, held=20, spread=0.8, rounds=ROUNDS)


def one(size: int, *, rounds: bool) -> dict[str, Any]:
    """Return the time of one size in this process; without `rounds` sites are only opened and encoded."""
    kind = Timed if rounds else FirstSums
    with (
        at_work(workload(size)) as (chosen, taking_part),
        conducting(chosen, taking_part, stacked=True, conductor_class=kind) as conductor,
    ):
        if rounds:
            encoder = conductor.conduct().encoder
        else:
            _, kept = conductor.begin()
            conductor.encode(kept.encoder)
        encoded = conductor.encoded()
        found = {
            "rows": sum(map(len, encoded)),
            "arrays-mb": sum(e.x.nbytes + e.y.nbytes + e.weight.nbytes for e in encoded) / 2**20,
            "peak-mb": peak_mb(),
            "cpu-by-round": conductor.stages.by_round(),
        }
        if rounds:
            found["bare-cpu-seconds-a-round"] = bare_seconds(job_of(conductor, encoder))
    return found


def bare_seconds(job: Job) -> float:
    """Return the CPU seconds of a round of the bare loop.

    Runs of one round and of two are timed, so that one-time work before the first round and after the last cancels.
    """
    one_site = sorted(job.x)[:1]
    bare.loop(replace(job, rounds=1, cohort=lambda _: one_site))  # the first use of torch.optim imports for a second
    (_, (once, _)), (_, (twice, _)) = (timed_loop(bare.loop, replace(job, rounds=rounds)) for rounds in (1, 2))
    return twice - once


def measured(size: int) -> dict[str, Any]:
    """Return the figures of one size, from two fresh processes."""
    held = in_child("scale", str(size), seconds=SECONDS)
    ran = in_child("scale", str(size), "--rounds", seconds=SECONDS)
    seconds, loop = statistics.median(ran["cpu-by-round"]), ran["bare-cpu-seconds-a-round"]
    return {
        "sites": size,
        "rows": ran["rows"],
        "cpu-seconds-a-round": round(seconds, 3),
        "bare-cpu-seconds-a-round": round(loop, 3),
        "cpu-ratio": round(seconds / loop, 3),
        "cpu-by-round": [round(seconds, 3) for seconds in ran["cpu-by-round"]],
        "peak-mb": ran["peak-mb"],
        "holding-mb": held["peak-mb"],
        "arrays-mb": round(held["arrays-mb"], 1),
        "memory-ratio": round(ran["peak-mb"] / held["peak-mb"], 3),
    }


def scale(sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Return the figures of all sizes and how straight their line is."""
    found = [measured(size) for size in sizes]
    slope, intercept, fit = line([f["sites"] for f in found], [f["cpu-seconds-a-round"] for f in found])
    return {
        "sizes": found,
        "r-squared": round(fit, 4),
        "site-dearer": dearer(found),
        "slope": slope,
        "intercept": intercept,
    }


def dearer(found: list[dict[str, Any]]) -> float:
    """Return the CPU seconds of one site among the most sites over those among the fewest; 1 if proportional."""
    few, many = (size["cpu-seconds-a-round"] / size["sites"] for size in (found[0], found[-1]))
    return float(round(many / few, 3))


def line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Return slope, intercept and R² of the straight line of least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.asarray(y) - slope * np.asarray(x) - intercept
    return float(slope), float(intercept), float(1 - np.square(residual).sum() / np.square(y - np.mean(y)).sum())


def main() -> None:
    """Print what one size took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int)
    parser.add_argument("--rounds", action="store_true")
    given = parser.parse_args()
    print(json.dumps(one(given.size, rounds=given.rounds)))


if __name__ == "__main__":
    main()
