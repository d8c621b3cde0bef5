"""flfed against a bare PyTorch loop that does the same steps, side by side: `make bench`.

Ten sites with 2,000 training rows each (synthetic, drawn by `workload.py`), a perceptron
30-64-32-1, batches of 64, 50 rounds, every site scored each round, one thread. The two take turns
in one process. On flfed's clock: the rounds of a whole run, with encoding, messages, guard,
AUC, checkpoint and run store. On the bare loop's: modules, `torch.optim.SGD`, the loss of every
site, the mean. Imports and data are on neither; the stages before the rounds are shown apart.
Both must end with the same arrays, else the script fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bare import Arrays, Job, Loop, loop
from benchmarks.workload import W1, Workload, sites, study, write_dataset
from flfed.apps.client_app import ClientSide
from flfed.apps.engines.inprocess import InProcessGrid
from flfed.apps.recording import Recorder
from flfed.apps.server_app import Conductor
from flfed.records.store import RunStore
from flfed.rows.site import Site
from flfed.seeds import generator
from flfed.study import Study
from flfed.summary import Encoder

RESULTS = Path(__file__).resolve().parent / "results.json"
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
"""Largest difference between any two numbers of the final arrays.

float64 is the proof. In float32 one input of a ReLU that rounding puts on the other side of 0, of
a hundred million in a run, moves weights by up to lr * gradient / batch.
"""
PRIMARY = "roc_auc_score"
LIMIT = 1.35
"""CPU seconds of flfed over those of the bare loop."""


@dataclass
class Clock:
    """CPU and wall seconds by stage."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu
        self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """One run of flfed: its arrays, its clock, and what a bare loop needs to do the same."""

    arrays: Arrays
    clock: Clock
    job: Job


class DifferentResults(Exception):
    """The two sides did not reach the same arrays, so their times say nothing."""


class Timed(Conductor):
    """A conductor with a clock on its stages; it leaves the comparison out, which the bare loop has not."""

    clock: Clock

    def enrol(self) -> Any:
        """Time reading the tables."""
        with self.clock.on("enrol"):
            return super().enrol()

    def summarise(self, *given: Any, **named: Any) -> Any:
        """Time the sums for the encoder."""
        with self.clock.on("summarise"):
            return super().summarise(*given, **named)

    def rounds(self, *given: Any, **named: Any) -> Any:
        """Time the rounds: what is compared."""
        with self.clock.on("rounds"):
            return super().rounds(*given, **named)

    def compare(self, *_: Any) -> None:
        """Compare nothing."""


def run_flfed(chosen: Study, taking_part: list[Site], workload: Workload) -> Ran:
    """Run the study as `flfed study run` does, up to the comparison, in a store of its own."""
    by_name = {site.name: site for site in taking_part}
    side = ClientSide(lambda name, _: by_name[name])
    with tempfile.TemporaryDirectory() as folder, RunStore.open(f"sqlite:///{folder}/runs.db") as store:
        series = store.begin_series(study=chosen.name, study_sha256=chosen.sha256(), study_text=chosen.text)
        writer = store.begin_run(
            series,
            engine="inprocess",
            path="one-by-one",
            seed=chosen.seed,
            rounds_planned=chosen.rounds,
            primary=PRIMARY,
            task="binary",
        )
        # The run's name makes the sites keep their replies on the disk, for a resume.
        config = {"study": chosen.text, "repeat": 0, "run": writer.run}
        grid = InProcessGrid(side.app(), list(by_name), config)
        conductor = Timed(grid, chosen, Recorder(writer, PRIMARY, chosen.rounds))
        conductor.clock = Clock()
        outcome = conductor.conduct()
    job = job_of(side, chosen, workload, conductor.first_arrays(), outcome.encoder)
    return Ran(arrays=outcome.arrays, clock=conductor.clock, job=job)


def job_of(side: ClientSide, chosen: Study, workload: Workload, start: Arrays, encoder: Encoder) -> Job:
    """Return the same work for the bare loop: the encoded rows, the first arrays, the orders of rows."""
    rows = {name: workplace.training(encoder) for (name, _, _), workplace in sorted(side.workplaces.items())}
    return Job(
        x={name: encoded.x for name, encoded in rows.items()},
        y={name: encoded.y for name, encoded in rows.items()},
        weights={name: len(encoded) for name, encoded in rows.items()},
        start=start,
        order=lambda site, round: generator(chosen.seed, site=site, purpose="fit", number=round),
        rounds=workload.rounds,
        batch=workload.batch,
        lr=workload.lr,
    )


def difference(ours: Arrays, theirs: Arrays) -> float:
    """Return the largest difference between any two numbers; infinite where names or shapes differ."""
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        return float("inf")
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


def compare(workload: Workload, *, repetitions: int, bare: Loop = loop) -> dict[str, Any]:
    """Return the figures of one workload, one-by-one against bare, after checking that the results agree.

    Parameters
    ----------
    workload : Workload
    repetitions : int, >= 1
        Pairs of runs, after a short one of each that is not timed.
    bare : callable
        The loop to compare with.

    Raises
    ------
    DifferentResults
        If the arrays differ by more than `TOLERANCE`, in the workload's precision or in float64.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, environment(FLFED_PATH=root, FLFED_HOME=f"{root}/home"):
        write_dataset(workload, Path(root))
        taking_part = sites(workload)
        # In float64, over all rounds, nothing hides behind rounding. It warms up, too: torch.optim's
        # first use imports the compiler for a second.
        _, exact = pair(replace(workload, precision="float64"), taking_part, bare)
        figures = summary(workload, [pair(workload, taking_part, bare) for _ in range(repetitions)])
        return figures | {"arrays-max-difference-float64": exact}


def pair(workload: Workload, taking_part: list[Site], bare: Loop) -> tuple[Clock, float]:
    """Return the clock of one run of each, and how far their arrays are apart."""
    ran = run_flfed(study(workload), taking_part, workload)
    with ran.clock.on("bare"):
        arrays, _ = bare(ran.job)
    apart = difference(ran.arrays, arrays)
    if not apart <= TOLERANCE[workload.precision]:
        raise DifferentResults(
            f"{workload.name} in {workload.precision}: the arrays differ by {apart:.1e}, "
            f"more than {TOLERANCE[workload.precision]:.0e}; the times cannot be compared"
        )
    return ran.clock, apart


def summary(workload: Workload, pairs: list[tuple[Clock, float]]) -> dict[str, Any]:
    """Return medians over the repetitions, with the range of the CPU ratio."""
    clocks = [clock for clock, _ in pairs]
    cpu = [clock.cpu["rounds"] / clock.cpu["bare"] for clock in clocks]
    wall = [clock.wall["rounds"] / clock.wall["bare"] for clock in clocks]
    return {
        "cpu-ratio": round(statistics.median(cpu), 3),
        "cpu-ratio-low": round(min(cpu), 3),
        "cpu-ratio-high": round(max(cpu), 3),
        "wall-ratio": round(statistics.median(wall), 3),
        "cpu-seconds": {stage: round(statistics.median(c.cpu[stage] for c in clocks), 3) for stage in clocks[0].cpu},
        "arrays-max-difference": max(apart for _, apart in pairs),
        "repetitions": len(pairs),
        "rounds": workload.rounds,
        "peak-mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def write_results(path: Path, workload: str, way: str, figures: dict[str, Any]) -> None:
    """Put one way's figures into the results file and leave the others in it as they are."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    known.setdefault(workload, {})[way] = figures
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None, planned: Workload = W1) -> int:
    """Time W1, or another workload, print a table, write the results; 1 where the ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=planned.rounds)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    workload = replace(planned, rounds=given.rounds)
    figures = compare(workload, repetitions=given.repetitions)
    write_results(given.results, workload.name, "one-by-one", figures)
    seconds = figures["cpu-seconds"]
    print(f"{workload.name}: {workload.sites} sites x {workload.rows:,} rows, {workload.rounds} rounds, synthetic rows")
    for stage in ("bare", "rounds", "enrol", "summarise"):
        print(f"  {stage:<10} {seconds[stage]:8.3f} CPU s")
    print(
        f"  CPU ratio {figures['cpu-ratio']} (from {figures['cpu-ratio-low']} to {figures['cpu-ratio-high']}, "
        f"{figures['repetitions']} repetitions; limit {LIMIT}), wall ratio {figures['wall-ratio']}, "
        f"largest difference {figures['arrays-max-difference']:.1e}, peak {figures['peak-mb']} MB"
    )
    return 0 if figures["cpu-ratio"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
