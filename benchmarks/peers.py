"""W1 in other simulators of federated learning, each in an environment of its own: `make bench-peers`.

Same rows, first arrays, model, batches, learning rate; orders of rows differ, so that the loss is
compared. How they score a round differs, and stands beside the figures. What does not install or
run is said with its error; that fails nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.alone import in_child
from benchmarks.bare import write_job
from benchmarks.machine import machine
from benchmarks.ours import at_work, run_ours
from benchmarks.table import RESULTS, simulators, write
from benchmarks.workload import W1

INSTALL_SECONDS, RUN_SECONDS = 900.0, 600.0
LOSS = 5e-4
"""Largest difference from the bare loop's loss after as many rounds.

Orders of rows move it by 1e-4, a round of training by 1e-3 and more.
"""


@dataclass(frozen=True)
class Peer:
    """A simulator: its script, what pip is asked for, how many rounds it is run, and why fewer."""

    name: str
    script: str
    packages: tuple[str, ...]
    rounds: int = W1.rounds
    scored: int = W1.rounds
    """Rounds of training in the model whose loss it gives."""


PEERS = (
    Peer("pfl 0.6", "peer_pfl", ("pfl[pytorch]==0.6.*", "torch==2.13.*")),
    Peer("fluke-fl 0.8.1", "peer_fluke", ("fluke-fl==0.8.1", "torch==2.13.*")),
    # 50 rounds of it take minutes; the first one is its start-up, and the last model is not scored.
    Peer("NVFlare 2.9", "peer_nvflare", ("nvflare==2.9.*", "torch==2.13.*"), rounds=8, scored=7),
)


def environments() -> Path:
    """Return the folder of the environments, kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("FLFED_PEERS") or cache / "flfed" / "peers")


def python_of(peer: Peer) -> str:
    """Return the Python of a peer's environment, made at first use.

    Raises
    ------
    RuntimeError
        If it cannot be installed: pip's last line.
    """
    folder = environments() / peer.script.removeprefix("peer_")
    python = folder / "bin" / "python"
    made = folder / "made"
    if made.is_file():
        return str(python)
    commands = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *peer.packages],
    )
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or error.stderr.splitlines()
            raise RuntimeError(f"cannot be installed: {said[0] if said else error}") from None
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"cannot be installed in {INSTALL_SECONDS:.0f} s") from None
    made.touch()
    return str(python)


def one(peer: Peer, job: Path) -> dict[str, Any]:
    """Return a peer's figures beside those of stacked and of the bare loop, run before and after it; or its error."""
    try:
        python = python_of(peer)
        before = beside(job)
        took = in_child(peer.script, str(job), str(peer.rounds), seconds=RUN_SECONDS, python=python)
        after = beside(job)
    except RuntimeError as error:
        return {"error": str(error)[:300]}
    expected = before["bare"]["losses"][peer.scored]
    apart = abs(took["loss"] - expected)
    if not apart <= LOSS:
        return {"error": f"loss {took['loss']:.5f} instead of {expected:.5f} after {peer.scored} rounds"}

    def over(way: str, seconds: str) -> float:
        ours = (before[way][seconds] + after[way][seconds]) / 2 / W1.rounds
        return round(float(took[seconds]) / took["rounds"] / ours, 2)

    return {
        **{name: round(value, 3) if isinstance(value, float) else value for name, value in took.items()},
        "cpu-ratio": over("bare", "cpu-seconds"),
        "wall-ratio": over("bare", "wall-seconds"),
        "cpu-over-stacked": over("stacked", "cpu-seconds"),
        "times-slower-than-stacked": over("stacked", "wall-seconds"),
        "loss-difference": apart,
    }


def beside(job: Path) -> dict[str, dict[str, Any]]:
    """Return the time of the bare loop and of stacked on W1, each in its own process."""
    return {
        "bare": in_child("alone", "W1", "bare", "--job", str(job), seconds=RUN_SECONDS),
        "stacked": in_child("alone", "W1", "stacked", seconds=RUN_SECONDS),
    }


def main() -> int:
    """Run every peer that is asked for, write what it took into the results file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[peer.name for peer in PEERS])
    given = parser.parse_args()
    known = json.loads(RESULTS.read_text()).get("peers", {})
    peers = {"found": known.get("found", {}), "date": datetime.date.today().isoformat(), "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "W1.npz"
        with at_work(replace(W1, rounds=1)) as (chosen, taking_part):
            ran = run_ours(chosen, taking_part, stacked=False)
        write_job(job, replace(ran.job, rounds=W1.rounds), W1.fraction)
        for peer in PEERS:
            if peer.name in given.only:
                peers["found"][peer.name] = one(peer, job)
                print(f"{peer.name}: {json.dumps(peers['found'][peer.name])}", flush=True)
    results = json.loads(RESULTS.read_text()) | {"peers": peers}
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    write(results)
    print(simulators(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
