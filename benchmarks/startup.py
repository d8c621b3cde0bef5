"""Cost of a start: a tiny study in a fresh process, against importing torch and Flower.

    python -m benchmarks.startup

Children run one after the other, in turns; CPU seconds are theirs, user and system, as the kernel counts them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

STUDY = ("study", "run", "preterm-birth", "--set", "rounds=1")
"""Four clinics, 1,000 rows: one round, and all of the comparison."""
IMPORTS = "import torch, flwr.app, flwr.clientapp, flwr.serverapp"
CALL = "import sys; sys.argv = ['flfed', *{words!r}]; from flfed.cli import main; main()"
PARTS = {
    "python and numpy": "import numpy",
    "torch": "import torch",
    "Flower": "import flwr.app, flwr.clientapp, flwr.serverapp",
    "pandas": "import pandas",
    "SQLAlchemy": "import sqlalchemy.orm",
    "SciPy": "import scipy.special",
    "flfed's own modules": "import flfed.cli, flfed.federation.server.run, flfed.rows.models.logistic",
}
"""Imports of a run, in this order; each includes only modules that the earlier ones did not load."""


def child(code: str, home: Path) -> tuple[float, str]:
    """Run Python code in a fresh process; return its CPU seconds and what it printed."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **threads, "FLFED_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def breakdown(home: Path) -> dict[str, float]:
    """Return the CPU seconds of each part of a tiny run, in one fresh process that runs it part by part."""
    lines = ["import gc, io, json, sys, time, contextlib", "gc.disable()", "found, last = {}, 0.0"]
    for name, statement in PARTS.items():
        lines += [statement, f"found[{name!r}] = time.process_time() - last; last = time.process_time()"]
    lines += [
        "gc.freeze(); gc.enable()",
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):",
        f"    {CALL.format(words=STUDY)}",
        "found['the run itself'] = time.process_time() - last",
        "print(json.dumps(found))",
    ]
    found: dict[str, float] = json.loads(child("\n".join(lines), home)[1])
    return found


def measure(turns: int = 5) -> dict[str, Any]:
    """Return CPU seconds and their ratio: best and median of `turns`, and where a run's seconds go.

    The run store is there already: making it, once, imports the migrations.
    """
    ways = {
        "import torch and flwr": IMPORTS,
        "tiny study run": CALL.format(words=STUDY),
        "flfed --help": CALL.format(words=("--help",)),
        "import of federate": "from flfed import federate",
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        child(CALL.format(words=STUDY), home)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        parts: list[dict[str, float]] = []
        for _ in range(turns):
            for name, code in ways.items():
                taken[name].append(child(code, home)[0])
            parts.append(breakdown(home))
    seconds = {name: {"best": min(found), "median": median(found)} for name, found in taken.items()}
    return {
        "turns": turns,
        "cpu-seconds": seconds,
        "run-to-imports": seconds["tiny study run"]["best"] / seconds["import torch and flwr"]["best"],
        "where": {name: min(found[name] for found in parts) for name in parts[0]},
    }


def main(words: Sequence[str] = ()) -> None:
    """Measure and print; a number among `words` is how many turns."""
    found = measure(int(words[0]) if words else 5)
    for name, figure in found["cpu-seconds"].items():
        print(f"{name:24} {figure['best']:6.2f} CPU s (median {figure['median']:.2f})")
    print(f"run / imports            {found['run-to-imports']:6.2f}\nwhere the run's seconds go:")
    for name, seconds in found["where"].items():
        print(f"  {name:22} {seconds:6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
