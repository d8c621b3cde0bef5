"""A run of flfed with a clock on its stages, one by one or stacked, end to end.

On the clock of the rounds: messages, guard, training, scoring with AUC, aggregation, checkpoints
and the run store, as `flfed study run` does them. Encoding has a clock of its own, since loops are
given encoded rows; the comparison is left out: no loop has one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.bare import Arrays, Job
from benchmarks.workload import Workload, sites, study, write_dataset
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import grid_of
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.rows.features.encode import Encoded
from flfed.rows.training.answer import stacked_compute
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.strategies.fedavg import FedAvg

PRIMARY = "roc_auc_score"


@dataclass
class Clock:
    """CPU and wall seconds by stage, and the CPU time at which each round was in the store."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    marks: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu
        self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall

    def mark(self, stage: str, round: int) -> None:
        """Take note of a round that is in the store; the observer of a run."""
        if stage == "round":
            self.marks.append(time.process_time())

    def by_round(self) -> list[float]:
        """Return the CPU seconds of each round after the first."""
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """One run of flfed.

    Attributes
    ----------
    arrays : dict of name to array
    clock : Clock
    job : Job
        The same work for a loop: encoded rows, first arrays, orders of rows, cohorts.
    """

    arrays: Arrays
    clock: Clock
    job: Job


class Timed(FederatedRun):
    """A conductor with a clock on its stages; it leaves the comparison out.

    Attributes
    ----------
    side : SiteClient
    stages : Clock
    store : str
        Where the record of its run is.
    encoder : Encoder
    strategy : FedAvg
    """

    side: SiteClient
    stages: Clock
    store: str
    encoder: Encoder
    strategy: FedAvg

    def enrol_cohort(self) -> Any:
        """Time opening the tables."""
        with self.stages.on("enrol"):
            return super().enrol_cohort()

    def summarise(self, *given: Any, **named: Any) -> Any:
        """Time the sums for the encoder."""
        with self.stages.on("summarise"):
            return super().summarise(*given, **named)

    def write_start(self, *given: Any) -> Any:
        """Time the first file of the checkpoints, as part of the rounds that they are for."""
        with self.stages.on("rounds"):
            return super().write_start(*given)

    def rounds(self, participants: Any, common: Any) -> Any:
        """Time the rounds, the comparison, and before them the encoding of rows."""
        self.encode(common.encoder)
        with self.stages.on("rounds"):
            self.strategy, arrays = super().rounds(participants, common)
        return self.strategy, arrays

    def encode(self, encoder: Encoder) -> None:
        """Time the encoding of all rows, which are kept for the rounds."""
        with self.stages.on("encode"):
            for session in self.side.sessions.values():
                session.training(encoder)
        self.encoder = encoder

    def encoded(self) -> list[Encoded]:
        """Return the encoded training rows of all sites."""
        return [session.training(self.encoder) for session in self.side.sessions.values()]

    def compare(self, *_: Any) -> None:
        """Compare nothing."""


@contextmanager
def conducting(
    chosen: Study, taking_part: Sequence[Site], *, stacked: bool, conductor_class: type[Timed] = Timed
) -> Iterator[Timed]:
    """Give a conductor of the study with a run in a store of its own, as `flfed study run` begins one.

    Parameters
    ----------
    chosen : Study
    taking_part : sequence of Site
    stacked : bool
        Whether the sites of a cohort are computed together.
    conductor_class : subclass of Timed
    """
    by_name = {site.name: site for site in taking_part}
    side = SiteClient(lambda name, _: by_name[name])
    with tempfile.TemporaryDirectory() as folder, RunStore.open(url := f"sqlite:///{folder}/runs.db") as store:
        series = store.begin_series(study=chosen.name, study_sha256=chosen.sha256(), study_text=chosen.text)
        writer = store.begin_run(
            series,
            engine="inprocess",
            path="stacked" if stacked else "one-by-one",
            seed=chosen.seed,
            rounds_planned=chosen.rounds,
            primary=PRIMARY,
            task="binary",
        )
        config: dict[str, bool | float | int | str] = {"study": chosen.text, "repeat": 0}
        grid = grid_of(side, list(by_name), config, stacked_compute() if stacked else None)
        clock = Clock()
        conductor = conductor_class(grid, chosen, Recorder(writer, PRIMARY, chosen.rounds), observer=clock.mark)
        conductor.side, conductor.stages, conductor.store = side, clock, url
        yield conductor


def run_ours(chosen: Study, taking_part: Sequence[Site], *, stacked: bool) -> Ran:
    """Run the study as `flfed study run` does, up to the comparison; parameters as for `conducting`."""
    with conducting(chosen, taking_part, stacked=stacked) as conductor:
        outcome = conductor.conduct()
        job = job_of(conductor, outcome.encoder)
    return Ran(arrays=outcome.arrays, clock=conductor.stages, job=job)


def job_of(conductor: Timed, encoder: Encoder) -> Job:
    """Return the work of a conductor as a task for a loop."""
    rows = {name: session.training(encoder) for (name, _, _), session in sorted(conductor.side.sessions.items())}
    chosen = conductor.study
    return Job(
        x={name: encoded.x for name, encoded in rows.items()},
        y={name: encoded.y for name, encoded in rows.items()},
        weights={name: len(encoded) for name, encoded in rows.items()},
        start=conductor.first_arrays(),
        order=lambda site, number: generator(chosen.seed, site=site, purpose="fit", number=number),
        cohort=conductor.strategy.cohort,
        rounds=chosen.rounds,
        batch=chosen.plan.batch,
        lr=chosen.plan.lr,
    )


@contextmanager
def at_work(workload: Workload) -> Iterator[tuple[Study, list[Site]]]:
    """Give the study and the sites of a workload, with folders of their own; one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, environment(FLFED_PATH=root, FLFED_HOME=f"{root}/home"):
        write_dataset(workload, Path(root))
        yield study(workload), sites(workload)


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
