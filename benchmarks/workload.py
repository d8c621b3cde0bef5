"""A federation of synthetic tables for timing: its dataset, its sites, its study.

The rows are drawn from a seed by `table`; nothing here is a patient or a customer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.rows.holdout import HoldoutByTime
from flfed.rows.site import Policy, Site
from flfed.rows.sources import Frame
from flfed.study import Study

NAME = "benchmark"
SEED = 42
TRAINED, HELD = pd.Timestamp("2025-01-01"), pd.Timestamp("2026-01-01")
LIMIT = 6.0
"""Range of every column; draws beyond it are cut to it."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How large a federation is, and what its sites train.

    Attributes
    ----------
    name : str
    sites, rows, held, features : int
        `rows` are training rows of each site, exactly; `held` are its holdout rows.
    hidden : tuple of int
    batch, rounds : int
    precision : {"float32", "float64"}
    lr : float
        Small, because rounding of float32 grows through the ReLUs with every step: at .05 two
        equal float32 runs that round once differently were 5e-4 apart after 50 rounds (measured).
    """

    name: str
    sites: int
    rows: int
    held: int
    features: int
    hidden: tuple[int, ...]
    batch: int
    rounds: int
    precision: str = "float32"
    lr: float = 0.01

    def columns(self) -> list[str]:
        """Return the names of the features."""
        return [f"x{number:02d}" for number in range(self.features)]


W1 = Workload(name="W1", sites=10, rows=2000, held=200, features=30, hidden=(64, 32), batch=64, rounds=50)


def table(workload: Workload, number: int) -> pd.DataFrame:
    """Return the rows of one site: normal numbers, and an outcome that depends on three of them and their product."""
    rng = np.random.default_rng([SEED, number])
    rows = workload.rows + workload.held
    x = rng.normal(0.1 * (number % 3), 1, (rows, workload.features)).clip(-LIMIT, LIMIT)
    odds = x[:, 0] - x[:, 1] + x[:, 2] * x[:, 0]
    found = pd.DataFrame(x, columns=workload.columns())
    found["y"] = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    found["seen"] = np.where(np.arange(rows) < workload.rows, TRAINED, HELD)
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


def sites(workload: Workload) -> list[Site]:
    """Return the sites, their tables in memory; the split by date makes the number of training rows exact."""
    holdout = HoldoutByTime(column="seen", train_until="2025-06-30", test_from="2025-07-01")
    return [
        Site(
            name=f"site-{number:04d}",
            dataset=NAME,
            source=Frame(table(workload, number)),
            holdout=holdout,
            policy=Policy(disclosure="open"),
        )
        for number in range(workload.sites)
    ]


def study(workload: Workload) -> Study:
    """Return the study that all sites run."""
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
        name = "mlp"
        hidden = {list(workload.hidden)}
        [plan]
        optimiser = "sgd"
        lr = {workload.lr}
        batch = {workload.batch}
        precision = "{workload.precision}"
        [strategy]
        name = "fedavg"
        rounds = {workload.rounds}
        """
    )
