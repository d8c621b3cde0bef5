"""flfed against a bare PyTorch loop, a loop with hand-made gradients, and Flower's simulation: `make bench`.

Four workloads of synthetic rows (`workload.py`), one thread. The ways take turns in one process;
memory is that of a process for each way. All must reach the same arrays, in float64 to 1e-10, or,
Flower's simulation, the same loss: else this fails. Then int8 both ways beside float32, boosted trees
beside XGBoost, secure aggregation beside its bare cryptography, the information on one site in differences of two
sums, noised counts beside numpy's own draws, the scale curve and the start-up. It writes
results.json, the tables of docs/performance.md and docs/secure-sums.md, and docs/scale.svg; it ends
with 1 where a limit is missed.
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

from benchmarks import codec, noised_counts, secure_sums, startup, sum_differences, table, trees
from benchmarks.alone import in_child
from benchmarks.bare import Job, write_job
from benchmarks.limits import missed
from benchmarks.machine import machine
from benchmarks.scale import scale
from benchmarks.ways import LOOPS, DifferentResults, compare
from benchmarks.workload import WORKLOADS, Workload

PARTS = (*WORKLOADS, "codec", "trees", "secure-sums", "sum-differences", "noised-counts", "ray", "scale", "start-up")
SECONDS = 900.0
SAME_LOSS = 1e-5
"""Largest difference of the loss after the last round: the simulation draws the orders of rows as the loop does."""
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


def ray_figures(bare: dict[str, Any], job: Path) -> dict[str, Any]:
    """Return the figures of Flower's simulation on W2, with stacked before and after it, without start-up."""
    try:
        stacked = [in_child("alone", "W2", "stacked", seconds=SECONDS)]
        took = in_child("ray_plain", str(job), seconds=SECONDS)
        stacked.append(in_child("alone", "W2", "stacked", seconds=SECONDS))
        expected = in_child("alone", "W2", "bare", "--job", str(job), seconds=SECONDS)["losses"][-1]
    except RuntimeError as error:
        return {"error": str(error)[:300]}
    if not abs(took["loss"] - expected) <= SAME_LOSS:
        raise DifferentResults(f"Flower's simulation ends with loss {took['loss']:.5f} instead of {expected:.5f}")
    wall, cpu = (sum(each[name] for each in stacked) / 2 for name in ("wall-seconds", "cpu-seconds"))
    return {
        **{name: round(value, 5) for name, value in took.items()},
        "loss-difference": took["loss"] - expected,
        "cpu-ratio": round(took["cpu-seconds"] / bare["cpu-seconds"], 2),
        "wall-ratio": round(took["wall-seconds"] / bare["wall-seconds"], 2),
        "cpu-over-stacked": round(took["cpu-seconds"] / cpu, 1),
        "times-slower-than-stacked": round(took["wall-seconds"] / wall, 1),
        "stacked-memory-share": round(max(each["peak-mb"] for each in stacked) / took["peak-mb"], 3),
        "note": "both cores; memory of all its processes, shared pages once",
    }


def run(parts: list[str], repetitions: int, results: dict[str, Any]) -> None:
    """Measure the parts that are asked for, into `results`."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: Path(folder) / f"{name}.npz" for name in WORKLOADS}
        for name, workload in WORKLOADS.items():
            if name in parts or (name == "W2" and "ray" in parts):
                earlier = {"ray": ray} if (ray := results.get(name, {}).get("ray")) else {}
                results[name] = earlier | workload_figures(workload, repetitions, jobs[name])
                print(f"{name} measured", flush=True)
        if "ray" in parts:
            results["W2"]["ray"] = ray_figures(results["W2"]["bare"], jobs["W2"])
            print("Flower's simulation measured", flush=True)
    others = {
        "codec": codec.measure,
        "trees": trees.measure,
        "secure-sums": secure_sums.measure,
        "sum-differences": sum_differences.measure,
        "noised-counts": noised_counts.measure,
        "scale": scale,
        "start-up": startup.measure,
    }
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
