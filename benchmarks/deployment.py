"""Three institutions: a round of flfed's deployment beside one of plain Flower, `make bench-deployment`.

Both on loopback with TLS and the nodes' keys, `heart-disease` at three hospitals. flfed's coordinator
and sites by their own commands; Flower's SuperLink and SuperNodes as they start by default, its
FedAvg with train and evaluate messages on the same rows. Runs take turns; a run's first round is
left out. It fails where flfed's arrays are not those of the run in one process, or nobody learned.

    python -m benchmarks.deployment [--data FOLDER] [--turns 2]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import ours as in_process
from benchmarks import table
from benchmarks.bare import Arrays
from benchmarks.institutions import SITES, Ran, ours, study_text
from benchmarks.limits import missed
from benchmarks.machine import machine
from benchmarks.plain import plain
from benchmarks.ways import DifferentResults
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.study.study import Study

ROUNDS = {"ours": 13, "plain": 5}
SAME = 1e-6
"""Largest difference from the arrays of the run in one process."""
DATA = Path(os.environ.get("FLFED_TEST_DATA", table.ROOT.parent / "shared" / "data"))


def measure(data: Path, turns: int) -> dict[str, Any]:
    """Return the figures of both sides.

    Parameters
    ----------
    data : Path
        The folder of the data files, as for `flfed data get heart-disease --from`.
    turns : int
        How often each side runs; they take turns.

    Raises
    ------
    DifferentResults
        If flfed's arrays are others than in one process, or the loss of a run does not fall.
    """
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        expected = here(folder / "here", data)
        chosen = Study.parse(study_text(ROUNDS["ours"])).plan
        plan = {"batch": chosen.batch, "lr": chosen.lr, "l2": chosen.l2, "epochs": chosen.epochs}
        sides = {name: folder / name for name in ROUNDS}
        for side in sides.values():
            side.mkdir()
        ran: dict[str, list[Ran]] = {name: [] for name in ROUNDS}
        with (
            ours(sides["ours"], data, study_text(ROUNDS["ours"])) as run_ours,
            plain(sides["plain"], expected.job, plan, ROUNDS["plain"]) as run_plain,
        ):
            for turn in range(turns):
                for name, run in {"ours": run_ours, "plain": run_plain}.items():
                    ran[name].append(run())
                    said = ", ".join(f"{seconds:.2f}" for seconds in ran[name][-1].seconds)
                    print(f"{name}, turn {turn + 1}: {said} s a round", flush=True)
    apart = checked(ran, expected.arrays)
    training = median(expected.clock.by_round())
    facts = {"arrays-max-difference": apart, "turns": turns, "sites": len(SITES)}
    return {**figures(ran, training), **facts}


def here(home: Path, data: Path) -> in_process.Ran:
    """Return the run in this process: its arrays, its seconds and the encoded rows."""
    with in_process.environment(FLFED_HOME=str(home)):
        datasets.get(datasets.load("heart-disease"), from_folder=data, progress=lambda line: None)
        taking_part = [sites.load(name) for name in SITES]
        in_process.run_ours(Study.parse(study_text(1)), taking_part, stacked=False)  # imports are in no round
        return in_process.run_ours(Study.parse(study_text(ROUNDS["ours"])), taking_part, stacked=False)


def checked(ran: dict[str, list[Ran]], expected: Arrays) -> float:
    """Return the largest difference of flfed's arrays from the expected ones; refuse runs that did not train."""
    apart = float(np.max([_apart(each.arrays, expected) for each in ran["ours"]]))  # NaN where one is
    if not apart <= SAME:
        raise DifferentResults(f"the deployment's arrays differ by {apart:.1e} from those of the run in one process")
    for name, runs in ran.items():
        for each in runs:
            if not each.losses[-1] < each.losses[0]:
                raise DifferentResults(f"{name}: the loss does not fall, {each.losses}")
    return apart


def _apart(found: dict[str, list[float]], expected: Arrays) -> float:
    if set(found) != set(expected):
        return float("inf")
    return float(np.max([np.max(np.abs(np.asarray(found[name]) - expected[name].ravel())) for name in expected]))


def figures(ran: dict[str, list[Ran]], training: float) -> dict[str, Any]:
    """Return the time of a round beyond training, on both sides, and the ratio of the medians.

    Parameters
    ----------
    ran : dict of "ours" and "plain" to runs
    training : float, CPU seconds
        Of a round in one process, all of it; taken from the rounds of both sides.
    """
    found: dict[str, Any] = {"training-seconds": round(training, 4)}
    for name, runs in ran.items():
        beyond = [seconds - training for each in runs for seconds in each.seconds]
        found[name] = {
            "seconds": round(median(beyond), 3),
            "seconds-low": round(min(beyond), 3),
            "seconds-high": round(max(beyond), 3),
            "cpu-seconds": round(median(each.cpu for each in runs), 3),
            "rounds": len(beyond),
        }
    found["ratio"] = round(found["ours"]["seconds"] / found["plain"]["seconds"], 4)
    found["cpu-ratio"] = round(found["ours"]["cpu-seconds"] / found["plain"]["cpu-seconds"], 4)
    return found


def commit() -> str:
    """Return the commit that is checked out, with "+" where files were changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=table.ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = [
        line for line in git("status", "--porcelain", "--untracked-files=no").splitlines() if ".json" not in line
    ]
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def main() -> int:
    """Measure, write the results file and the page, print; 1 where the limit is missed or results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with heart-disease's files")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all processes are ended
    stamp: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit()}
    try:
        found = measure(given.data, given.turns) | stamp
    except DifferentResults as error:
        print(error, file=sys.stderr)
        return 1
    found["machine"]["load"] += f", {os.getloadavg()[0]:.1f} at the end, our own included"
    results = json.loads(table.RESULTS.read_text()) | {"deployment": found}
    table.RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    table.write(json.loads(table.RESULTS.read_text()))
    print(table.deployment(results))
    return 1 if any(sentence.startswith("deployment: ") for sentence in missed(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
