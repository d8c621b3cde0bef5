"""A step under record-level differential privacy beside a plain one and Opacus's: `make bench-private`.

Batches of 256 of 2,560 synthetic rows, one thread, one process; the sides take turns, figures are CPU
time. Plain: bare PyTorch, autograd and `torch.optim.SGD`, rows in shuffled order. Ours: what a site
does alone (`private_fit`), its Poisson samples and its noise included, from a seed and from the
operating system. Opacus: its hooks (`GradSampleModule`) and `DPOptimizer`, the same samples, without
its loader. It fails where the three do not take the same step.

    python -m benchmarks.private_steps [--turns 7]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor

from benchmarks import table
from benchmarks.deployment import commit
from benchmarks.limits import missed
from benchmarks.machine import machine
from benchmarks.ways import DifferentResults
from flfed.rows.features.encode import Encoded
from flfed.rows.models.logistic import Logistic
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import NoiseSource, SeededNoise, SystemNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps

ROWS, BATCH, LR, CLIP, NOISE = 2560, 256, 0.1, 1.0, 1.0
SHAPES: dict[str, tuple[int, ...]] = {
    "logistic, 30 inputs": (30, 1),
    "MLP 30-64-32": (30, 64, 32, 1),
    "MLP 100-128": (100, 128, 1),
}
STEPS = {"plain": 300, "ours": 300, "ours-system": 300, "opacus": 40}
"""Of each side in a turn."""
SAME = {"Opacus": 1e-6, "plain SGD": 1e-10}
"""Largest difference of the arrays after a step without noise; Opacus adds 1e-6 to each norm before it divides."""


@dataclass(frozen=True, eq=False)
class Job:
    """One shape with its rows, in float64.

    Attributes
    ----------
    sizes : tuple of int
        Inputs, hidden units of each layer, one output.
    rows : Encoded
    arrays : dict of name to array
        Where every side starts.
    """

    sizes: tuple[int, ...]
    rows: Encoded
    arrays: dict[str, np.ndarray]

    @property
    def model(self) -> Any:
        """Return our model of the shape."""
        return Mlp(hidden=self.sizes[1:-1]) if len(self.sizes) > 2 else Logistic()

    def module(self) -> torch.nn.Sequential:
        """Return the same model, at the start, as PyTorch has it."""
        parts: list[torch.nn.Module] = []
        for weight, bias in self.model.layers:
            w, b = (torch.from_numpy(self.arrays[name].copy()) for name in (weight, bias))
            layer = torch.nn.Linear(*w.shape, dtype=torch.float64)
            layer.load_state_dict({"weight": w.T, "bias": b})
            parts += [layer, torch.nn.ReLU()]
        return torch.nn.Sequential(*parts[:-1])

    def named(self, module: torch.nn.Module) -> dict[str, np.ndarray]:
        """Return a trained module's numbers by our names."""
        values = [p.detach().numpy().T for p in module.parameters()]
        return dict(zip([name for layer in self.model.layers for name in layer], values, strict=True))


def job(sizes: tuple[int, ...], rows: int = ROWS) -> Job:
    """Return a shape with synthetic rows: half of each class, by a linear rule with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, sizes[0]))
    y = (x @ rng.normal(size=sizes[0]) + rng.normal(size=rows) > 0).astype(np.int64)
    made = Job(sizes, Encoded(x, y, np.ones(rows)), {})
    return Job(sizes, made.rows, made.model.first_arrays(sizes[0], 1, rng))


def plain(given: Job, steps: int, *, batch: int = BATCH) -> dict[str, np.ndarray]:
    """Take plain steps of SGD; return the arrays."""
    module, (x, y) = given.module(), _tensors(given)
    optimiser, rng, order = torch.optim.SGD(module.parameters(), lr=LR), np.random.default_rng(1), []
    for _ in range(steps):
        order = order or list(torch.from_numpy(rng.permutation(len(x))).split(batch))
        chosen = order.pop()
        optimiser.zero_grad()
        outputs = module(x.index_select(0, chosen)).squeeze(-1)
        torch.nn.functional.binary_cross_entropy_with_logits(outputs, y.index_select(0, chosen)).backward()
        optimiser.step()
    return given.named(module)


def ours(
    given: Job,
    steps: int,
    *,
    clip: float = CLIP,
    noise: float = NOISE,
    sampling: float = BATCH / ROWS,
    lr: float = LR,
    chance: Callable[[np.random.Generator], NoiseSource] = SeededNoise,
) -> dict[str, np.ndarray]:
    """Take our protected steps; return the arrays."""
    rng = np.random.default_rng(1)
    private = PrivateSteps(clip=clip, noise=noise, sampling=sampling, unit="row")
    request = FitRequest(
        model=given.model, task="binary", arrays=given.arrays, rows=given.rows, plan=Plan(steps=steps), lr=lr,
        rng=rng, private=private, chance=chance(rng),
    )  # fmt: skip
    return private_fit(request).arrays


def opacus(
    given: Job, steps: int, *, clip: float = CLIP, noise: float = NOISE, sampling: float = BATCH / ROWS
) -> dict[str, np.ndarray]:
    """Take protected steps by Opacus's hooks and optimiser; return the arrays."""
    (x, y), rng = _tensors(given), np.random.default_rng(1)
    module = GradSampleModule(given.module())
    optimiser = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=LR), noise_multiplier=noise, max_grad_norm=clip,
        expected_batch_size=sampling * len(x),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its hooks fire where inputs need no gradient
        for _ in range(steps):
            chosen = torch.from_numpy(np.flatnonzero(rng.random(len(x)) < sampling))
            optimiser.zero_grad()
            outputs = module(x.index_select(0, chosen)).squeeze(-1)
            torch.nn.functional.binary_cross_entropy_with_logits(outputs, y.index_select(0, chosen)).backward()
            optimiser.step()
    return given.named(module)


def _tensors(given: Job) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(given.rows.x), torch.from_numpy(given.rows.y).to(torch.float64)


Way = Callable[..., dict[str, np.ndarray]]


def ours_system(given: Job, steps: int) -> dict[str, np.ndarray]:
    """Take our protected steps with draws of the operating system; return the arrays."""
    return ours(given, steps, chance=SystemNoise)


WAYS: dict[str, Way] = {"plain": plain, "ours": ours, "ours-system": ours_system, "opacus": opacus}


def checked(given: Job, protected: Way = ours) -> float:
    """Return the largest difference of one step on all rows: to Opacus's, and without a clip to plain SGD's.

    Raises
    ------
    DifferentResults
        If it is more than `SAME`.
    """
    everybody = {"noise": 0.0, "sampling": 1.0}
    pairs = (
        ("Opacus", opacus(given, 1, clip=CLIP, **everybody), protected(given, 1, clip=CLIP, **everybody)),
        ("plain SGD", plain(given, 1, batch=len(given.rows)), protected(given, 1, clip=1e9, **everybody)),
    )
    worst = 0.0
    for name, expected, found in pairs:
        apart = max(float(np.abs(expected[key] - found[key]).max()) for key in expected)
        if not apart <= SAME[name]:
            raise DifferentResults(f"after one step our arrays differ by {apart:.1e} from those of {name}")
        worst = max(worst, apart)
    return worst


def timed(given: Job, turns: int, steps: dict[str, int]) -> dict[str, list[float]]:
    """Return each side's CPU microseconds a step, turn by turn; three steps before them are left out."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for way in WAYS.values():
        way(given, 3)
    for _ in range(turns):
        for name, way in WAYS.items():
            start = time.process_time()
            way(given, steps[name])
            found[name].append((time.process_time() - start) / steps[name] * 1e6)
    return found


def figures(took: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the ratios turn by turn: their median, lowest and highest.

    Parameters
    ----------
    took : dict of side to microseconds, one a turn
    """
    found: dict[str, Any] = {f"{name}-microseconds": round(median(each), 1) for name, each in took.items()}
    ratios = {
        "over-plain": (took["ours"], took["plain"]),
        "system-over-plain": (took["ours-system"], took["plain"]),
        "opacus-over-ours": (took["opacus"], took["ours"]),
    }
    for name, (above, below) in ratios.items():
        each = [a / b for a, b in zip(above, below, strict=True)]
        found[name] = round(median(each), 3)
        found |= {f"{name}-low": round(min(each), 3), f"{name}-high": round(max(each), 3)}
    return found


def measure(turns: int) -> dict[str, Any]:
    """Return the figures of every shape."""
    shapes = {}
    for name, sizes in SHAPES.items():
        given = job(sizes)
        shapes[name] = {"arrays-max-difference": checked(given), **figures(timed(given, turns, STEPS))}
        print(f"{name} measured", flush=True)
    return {"shapes": shapes, "turns": turns, "batch": BATCH, "precision": "float64"}


def main() -> int:
    """Measure, write the results file and the page, print; 1 where a limit is missed or steps differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit()}
    try:
        found = measure(given.turns) | stamp
    except DifferentResults as error:
        print(error, file=sys.stderr)
        return 1
    found["machine"]["load"] += f", {os.getloadavg()[0]:.1f} at the end, our own included"
    results = json.loads(table.RESULTS.read_text()) | {"private-steps": found}
    table.RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    table.write(json.loads(table.RESULTS.read_text()))
    print(table.private_steps(results))
    return 1 if any(sentence.startswith("private steps") for sentence in missed(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
