"""flfed against a bare PyTorch loop and a loop with hand-made gradients: `make bench`.

Four workloads of synthetic rows (`workload.py`), one thread. The ways take turns in one process;
memory is that of a process for each way. All must reach the same arrays, in float64 to 1e-10: else this
fails. Then boosted trees beside XGBoost, and the scale curve. It writes results.json, the tables of
docs/performance.md, and docs/scale.svg; it ends with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from benchmarks import table, trees
from benchmarks.alone import in_child
from benchmarks.bare import Job, write_job
from benchmarks.limits import missed
from benchmarks.machine import machine
from benchmarks.scale import scale
from benchmarks.ways import LOOPS, DifferentResults, compare
from benchmarks.workload import WORKLOADS, Workload

PARTS = (*WORKLOADS, "trees", "scale")
SECONDS = 900.0
MEMORY_ROUNDS = "5"
"""Rounds of the processes for memory, which no longer grows after a few."""


def workload_figures(workload: Workload, repetitions: int, job: Path) -> dict[str, Any]:
    """Return the figures of every way of one workload; its job is kept as a file."""

    def keep(found: Job) -> None:
        write_job(job, found, workload.fraction)

    found = compare(workload, repetitions=repetitions, keep=keep)
    for way in found:
        given = ("--job", str(job)) if way in LOOPS else ()
        child = in_child("alone", workload.name, way, "--rounds", MEMORY_ROUNDS, *given, seconds=SECONDS)
        found[way]["peak-mb"] = child["peak-mb"]
    return found


def run(parts: list[str], repetitions: int, results: dict[str, Any]) -> None:
    """Measure the parts that are asked for, into `results`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, workload in WORKLOADS.items():
            if name in parts:
                results[name] = workload_figures(workload, repetitions, Path(folder) / f"{name}.npz")
                print(f"{name} measured", flush=True)
    others = {"trees": trees.measure, "scale": scale}
    for name, measure in others.items():
        if name in parts:
            try:
                results[name] = measure()
            except (RuntimeError, CalledProcessError) as error:
                results[name] = {"error": str(error)[:300]}
            print(f"{name} measured", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print; 1 where a limit is missed or results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the others stay as they are")
    parser.add_argument("--results", type=Path, default=table.RESULTS)
    given = parser.parse_args(arguments)
    results = json.loads(given.results.read_text()) if given.results.is_file() else {}
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine()}
    if set(given.only) == set(PARTS) or "machine" not in results:
        results |= stamp | {"later": {}}
    else:  # a part that is measured again has its own stamp: that of the page is the whole run's
        results["later"] = results.get("later", {}) | dict.fromkeys(given.only, stamp)
    try:
        run(given.only, given.repetitions, results)
    except DifferentResults as error:
        print(error, file=sys.stderr)
        return 1
    given.results.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    if given.results == table.RESULTS:
        table.write(json.loads(given.results.read_text()))  # in the order that they are read in later
    for part in table.PARTS.values():
        print(f"{part(results)}\n")
    return 1 if missed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
