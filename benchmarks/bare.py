"""Federated averaging as a bare PyTorch loop, the reference for the time of a run of flfed.

No messages, no guard, no record, no AUC: modules, `torch.optim.SGD`, and a mean by rows of what
training changed, in float64 as flfed's is, so that float32 runs do not drift apart by rounding.
It imports nothing of flfed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Arrays = dict[str, np.ndarray]
Losses = list[dict[str, float]]
Loop = Callable[["Job"], tuple[Arrays, Losses]]
SEED = 7


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Task of the loop.

    Attributes
    ----------
    x, y : dict of site to array
        [rows, features] and [rows]; encoded already.
    weights : dict of site to float
        Weight of a site in the mean: its rows.
    start : dict of name to array
        `weight-i [in, out]` and `bias-i [out]`, as flfed names them.
    order : callable (site, round) → Generator
        Draws the order of a site's rows.
    cohort : callable round → list of sites
        Sites that train and are scored in a round. After the last one every site is scored.
    rounds, batch : int
    lr : float
    """

    x: Mapping[str, np.ndarray]
    y: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    start: Arrays
    order: Callable[[str, int], np.random.Generator]
    cohort: Callable[[int], list[str]]
    rounds: int
    batch: int
    lr: float


def loop(job: Job) -> tuple[Arrays, Losses]:
    """Return the final arrays, and the loss of the cohort's sites before each round, and of all after the last."""
    x, y = tensors(job)
    server, client, criterion = module(job.start), module(job.start), nn.BCEWithLogitsLoss()
    losses = []
    for number in range(1, job.rounds + 1):
        cohort = job.cohort(number)
        total = sum(job.weights[site] for site in cohort)
        losses.append(evaluate(server, criterion, x, y, cohort))
        before = {name: value.clone() for name, value in server.state_dict().items()}
        mean = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in before.items()}
        for site in cohort:
            client.load_state_dict(before)
            train(client, criterion, x[site], y[site], job.order(site, number), job)
            for name, value in client.state_dict().items():
                mean[name].add_(value - before[name], alpha=job.weights[site] / total)
        server.load_state_dict({name: value + mean[name] for name, value in before.items()})
    losses.append(evaluate(server, criterion, x, y, x))
    return arrays_of(server), losses


def tensors(job: Job) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return every site's inputs and targets in the precision of the first arrays."""
    dtype = torch.from_numpy(next(iter(job.start.values()))).dtype
    x = {site: torch.tensor(rows, dtype=dtype) for site, rows in job.x.items()}
    y = {site: torch.tensor(rows, dtype=dtype) for site, rows in job.y.items()}
    return x, y


def train(client: nn.Module, criterion: nn.Module, x: Tensor, y: Tensor, rng: np.random.Generator, job: Job) -> None:
    """Train one site's module for one epoch, in place."""
    optimiser = torch.optim.SGD(client.parameters(), lr=job.lr)
    order = torch.from_numpy(rng.permutation(len(y)))
    for first in range(0, len(y), job.batch):
        batch = order[first : first + job.batch]
        optimiser.zero_grad()
        criterion(client(x[batch]).squeeze(-1), y[batch]).backward()
        optimiser.step()


def evaluate(
    server: nn.Module, criterion: nn.Module, x: Mapping[str, Tensor], y: Mapping[str, Tensor], sites: Iterable[str]
) -> dict[str, float]:
    """Return the loss of each of the sites."""
    with torch.inference_mode():
        return {site: criterion(server(x[site]).squeeze(-1), y[site]).item() for site in sites}


def module(start: Arrays) -> nn.Sequential:
    """Return a perceptron with these arrays; of one layer it is logistic regression."""
    layers: list[nn.Module] = []
    for weight, bias in pairs(start):
        layer = nn.Linear(*start[weight].shape, dtype=torch.from_numpy(start[weight]).dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(start[weight].T))
            layer.bias.copy_(torch.from_numpy(start[bias]))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def pairs(start: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of each layer's weight and bias, first layer first, from the names of all arrays."""
    weights = sorted(name for name in start if name.startswith("weight"))
    return [(name, name.replace("weight", "bias")) for name in weights]


def arrays_of(server: nn.Sequential) -> Arrays:
    """Return a module's arrays as flfed names and shapes them."""
    layers = [layer for layer in server if isinstance(layer, nn.Linear)]
    found = {}
    for number, layer in enumerate(layers):
        end = f"-{number}" if len(layers) > 1 else ""
        found[f"weight{end}"] = layer.weight.detach().numpy().T.copy()
        found[f"bias{end}"] = layer.bias.detach().numpy().copy()
    return found


def write_job(path: Path, job: Job, fraction: float) -> None:
    """Write the rows and first arrays for processes that do the same work without flfed."""
    dtype = next(iter(job.start.values())).dtype
    parts = {f"x/{site}": rows.astype(dtype) for site, rows in job.x.items()}
    parts |= {f"y/{site}": rows.astype(dtype) for site, rows in job.y.items()}
    parts |= {f"start/{name}": value for name, value in job.start.items()}
    np.savez(path, fraction=fraction, rounds=job.rounds, batch=job.batch, lr=job.lr, **parts)


def read_job(path: Path) -> Job:
    """Return the job of a file; orders and cohorts are drawn anew, so the results are others."""
    with np.load(path) as held:
        parts = {kind: _part(held, kind) for kind in ("x", "y", "start")}
        names = sorted(parts["x"])
        size = max(1, round(float(held["fraction"]) * len(names)))
        rounds, batch, lr = int(held["rounds"]), int(held["batch"]), float(held["lr"])

    def cohort(number: int) -> list[str]:
        chosen = np.random.default_rng([SEED, number]).choice(len(names), size, replace=False)
        return [names[place] for place in sorted(chosen)]

    return Job(
        x=parts["x"],
        y=parts["y"],
        weights={site: float(len(rows)) for site, rows in parts["y"].items()},
        start=parts["start"],
        order=lambda site, number: np.random.default_rng([SEED, names.index(site), number]),
        cohort=cohort,
        rounds=rounds,
        batch=batch,
        lr=lr,
    )


def _part(held: Mapping[str, np.ndarray], kind: str) -> Arrays:
    return {key.partition("/")[2]: held[key] for key in held if key.startswith(f"{kind}/")}
