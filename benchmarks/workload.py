"""Federations of synthetic tables for timing: their dataset, their sites, their study.

The rows are drawn from a seed by `table`; nothing here is a patient or a customer. Sites hand
their tables over drawn: reading, mapping and checking a table is on no clock here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import getitem
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByTime, PublishedSplit
from flfed.rows.data.site import Policy, Site, SiteTable
from flfed.rows.data.sources import Frame
from flfed.study.study import Study

NAME = "benchmark"
SEED = 42
TRAINED, HELD = pd.Timestamp("2025-01-01"), pd.Timestamp("2026-01-01")
LIMIT = 6.0
"""Range of every column; draws beyond it are cut to it."""
LEAST = 10
"""Rows of the smallest site."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How large a federation is, and what its sites train.

    Attributes
    ----------
    name : str
    sites, rows, held, features : int
        `rows` are training rows of each site, exactly where `spread` is 0, else on average;
        `held` are its holdout rows.
    spread : float, >= 0
        Standard deviation of the logarithm of the sites' sizes, which are then log-normal.
    hidden : tuple of int
        Of the perceptron; empty for logistic regression.
    fraction : float in (0, 1]
        Share of sites asked in a round.
    batch, rounds : int
    precision : {"float32", "float64"}
    lr : float
        Small, because rounding of float32 grows through the ReLUs with every step: at 0.05 two
        equal float32 runs that round once differently were 5e-4 apart after 50 rounds (measured).
    """

    name: str
    sites: int
    rows: int
    held: int
    rounds: int
    features: int = 30
    spread: float = 0.0
    hidden: tuple[int, ...] = (64, 32)
    fraction: float = 1.0
    batch: int = 64
    precision: str = "float32"
    lr: float = 0.01

    def columns(self) -> list[str]:
        """Return the names of the features."""
        return [f"x{number:02d}" for number in range(self.features)]

    def size(self, number: int) -> int:
        """Return the training rows of one site."""
        if not self.spread:
            return self.rows
        drawn = np.random.default_rng([SEED, number, 1]).normal(math.log(self.rows) - self.spread**2 / 2, self.spread)
        return max(LEAST, round(math.exp(drawn)))


W1 = Workload(name="W1", sites=10, rows=2000, held=200, rounds=50)
W2 = Workload(name="W2", sites=100, rows=500, held=50, rounds=50)
W3 = Workload(name="W3", sites=1000, rows=200, held=20, rounds=20, fraction=0.1)
W4 = Workload(name="W4", sites=10, rows=28_000, held=2800, rounds=20, hidden=())
WORKLOADS = {workload.name: workload for workload in (W1, W2, W3, W4)}


def table(workload: Workload, number: int) -> pd.DataFrame:
    """Return the rows of one site: normal numbers, and an outcome that depends on three of them and their product."""
    rng = np.random.default_rng([SEED, number])
    trained = workload.size(number)
    rows = trained + workload.held
    x = rng.normal(0.1 * (number % 3), 1, (rows, workload.features)).clip(-LIMIT, LIMIT)
    odds = x[:, 0] - x[:, 1] + x[:, 2] * x[:, 0]
    found = pd.DataFrame(x, columns=workload.columns())
    found["y"] = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    found["seen"] = np.where(np.arange(rows) < trained, TRAINED, HELD)
    return found


def write_dataset(workload: Workload, root: Path) -> None:
    """Write the dataset's folder under `root`, which the caller puts on FLFED_PATH."""
    folder = root / "datasets" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    numbers = "".join(
        f'[columns.{name}]\nkind = "number"\nrange = [{-LIMIT}, {LIMIT}]\n' for name in workload.columns()
    )
    (folder / "schema.toml").write_text(
        f'format = 1\nname = "{NAME}"\ntask = "binary"\ntarget = "y"\n{numbers}'
        '[columns.seen]\nkind = "date"\n[columns.y]\nkind = "target"\nvalues = ["no", "yes"]\n'
    )
    (folder / "source.toml").write_text(
        'format = 1\nlicence = "none"\ncitation = "drawn by benchmarks/workload.py"\nsynthetic = true\n'
    )


@dataclass(frozen=True)
class DrawnSite(Site):
    """A site whose table is drawn when it is read, and kept for the next run.

    Parameters
    ----------
    workload : Workload
    number : int
        Which of its sites this is.
    """

    workload: Workload = W1
    number: int = 0

    def read(
        self, repeat: int = 0, *, complete: Sequence[str] = (), published: PublishedSplit | None = None
    ) -> SiteTable:
        """Return the drawn table, split; it has no gap, and the study asks for no published split."""
        return self._drawn

    @cached_property
    def _drawn(self) -> SiteTable:
        rows, trained = table(self.workload, self.number), self.workload.size(self.number)
        training, holdout = (part.reset_index(drop=True) for part in (rows[:trained], rows[trained:]))
        return SiteTable(partial(getitem, training), trained, datasets.load(self.dataset).schema, holdout)


def sites(workload: Workload) -> list[Site]:
    """Return the sites; the split by date makes the number of training rows exact."""
    holdout = HoldoutByTime(column="seen", train_until="2025-06-30", test_from="2025-07-01")
    return [
        DrawnSite(
            name=f"site-{number:05d}",
            dataset=NAME,
            source=Frame(pd.DataFrame()),
            holdout=holdout,
            policy=Policy(disclosure="open"),
            workload=workload,
            number=number,
        )
        for number in range(workload.sites)
    ]


def study(workload: Workload) -> Study:
    """Return the study that all sites run."""
    model = f'name = "mlp"\nhidden = {list(workload.hidden)}' if workload.hidden else 'name = "logistic"'
    return Study.parse(
        f"""
        format = 1
        name = "{NAME}"
        purpose = "Timing on synthetic rows"
        legal-basis = "none needed: no person's data"
        seed = {SEED}
        [dataset]
        name = "{NAME}"
        features = {workload.columns()}
        [model]
        {model}
        [plan]
        optimiser = "sgd"
        lr = {workload.lr}
        batch = {workload.batch}
        precision = "{workload.precision}"
        [strategy]
        name = "fedavg"
        fraction = {workload.fraction}
        rounds = {workload.rounds}
        """
    )
