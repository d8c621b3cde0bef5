"""One way of one workload in a process of its own, for its memory: `python -m benchmarks.alone W1 stacked`.

Ours draws its sites; loops read a file of encoded rows and import nothing of flfed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def peak_mb() -> float:
    """Return the most memory this process has held, in MB.

    Not `ru_maxrss` on Linux: a process inherits that figure from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # bytes on macOS


def in_child(module: str, *arguments: str, seconds: float) -> dict[str, Any]:
    """Run a module of this package in a fresh process and return the object that it printed last.

    Raises
    ------
    RuntimeError
        If it fails, prints none, or takes more than `seconds`: the end of what it said.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | SETTINGS, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {seconds:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(f"exit {done.returncode}: {said[-1] if said else 'it said nothing'}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def loop_alone(way: str, job: Path, rounds: int | None = None) -> dict[str, Any]:
    """Return the seconds of a loop, and the mean loss of the sites by round."""
    import torch

    from benchmarks import bare, hand_made

    torch.set_num_threads(1)
    read, loop = bare.read_job(job), {"bare": bare.loop, "hand-made": hand_made.loop}[way]
    read = replace(read, rounds=rounds or read.rounds)
    loop(replace(read, rounds=1))  # the first use of torch.optim imports the compiler
    cpu, wall = time.process_time(), time.perf_counter()
    _, losses = loop(read)
    took = {"cpu-seconds": time.process_time() - cpu, "wall-seconds": time.perf_counter() - wall}
    return took | {"losses": [statistics.fmean(by_site.values()) for by_site in losses]}


def ours_alone(way: str, name: str, rounds: int | None = None) -> dict[str, Any]:
    """Return the seconds of the rounds in flfed."""
    from benchmarks.ours import at_work, run_ours
    from benchmarks.workload import WORKLOADS

    workload = WORKLOADS[name]
    with at_work(replace(workload, rounds=rounds or workload.rounds)) as (chosen, taking_part):
        ran = run_ours(chosen, taking_part, stacked=way == "stacked")
    return {"cpu-seconds": ran.clock.cpu["rounds"], "wall-seconds": ran.clock.wall["rounds"]}


def main() -> None:
    """Print what one way took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("way", choices=["bare", "hand-made", "one-by-one", "stacked"])
    parser.add_argument("--job", type=Path)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    if given.job:
        took = loop_alone(given.way, given.job, given.rounds)
    else:
        took = ours_alone(given.way, given.workload, given.rounds)
    print(json.dumps(took | {"peak-mb": peak_mb()}))


if __name__ == "__main__":
    main()
