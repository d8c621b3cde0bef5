"""A run whose process is killed goes on where it was, to the same model.

The state is on the disk about once a second. `flfed study resume latest` does the same from the command line.
Run it: python examples/resume.py
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from flfed import load, resume, run, runs

STUDY, ROUNDS = "breast-cancer", 400
CHILD = f"from flfed import run; run({STUDY!r}, rounds={ROUNDS})"


def rounds_done() -> int:
    """Return how many rounds of a run that goes on the store has."""
    found = runs()
    if not len(found) or found.iloc[0]["status"] != "running":
        return 0
    rounds = load("latest").rounds["round"]
    return 0 if rounds.empty else int(rounds.max())


def main() -> None:
    """Kill a run in the middle, resume it, and compare with one that nothing happened to."""
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    while rounds_done() < 10 and child.poll() is None:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    killed = runs().iloc[0]
    print(f"killed after round {load('latest').rounds['round'].max()} of {ROUNDS}: {killed['status']}")
    resumed = resume("latest")
    undisturbed = run(STUDY, rounds=ROUNDS)
    gap = max(
        np.abs(resumed.model.arrays[name] - undisturbed.model.arrays[name]).max() for name in resumed.model.arrays
    )
    print(f"resumed: {resumed.status}; its arrays differ by {gap} from those of a run that was left alone")


if __name__ == "__main__":
    main()
