"""Federated averaging as a bare PyTorch loop: what a run of flfed is timed against.

No messages, no guard, no record, no AUC: modules, `torch.optim.SGD`, and a mean by rows of what
training changed, in float64 as flfed's is, so that float32 runs do not drift apart by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Arrays = dict[str, np.ndarray]
Loop = Callable[["Job"], tuple[Arrays, list[list[float]]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What the loop is to do.

    Attributes
    ----------
    x, y : dict of site to array
        [rows, features] and [rows]; encoded already.
    weights : dict of site to float
        What a site counts in the mean: its rows.
    start : dict of name to array
        `weight-i [in, out]` and `bias-i [out]`, as flfed names them.
    order : callable (site, round) → Generator
        Draws the order of a site's rows.
    rounds, batch : int
    lr : float
    """

    x: Mapping[str, np.ndarray]
    y: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    start: Arrays
    order: Callable[[str, int], np.random.Generator]
    rounds: int
    batch: int
    lr: float


def loop(job: Job) -> tuple[Arrays, list[list[float]]]:
    """Return the final arrays, and the loss of every site before each round and after the last."""
    dtype = torch.from_numpy(job.start["weight-0"]).dtype
    x = {site: torch.tensor(rows, dtype=dtype) for site, rows in job.x.items()}
    y = {site: torch.tensor(rows, dtype=dtype) for site, rows in job.y.items()}
    total = sum(job.weights.values())
    server, client, criterion = module(job.start), module(job.start), nn.BCEWithLogitsLoss()
    losses = []
    for number in range(1, job.rounds + 1):
        losses.append(evaluate(server, criterion, x, y))
        before = {name: value.clone() for name, value in server.state_dict().items()}
        mean = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in before.items()}
        for site in x:
            client.load_state_dict(before)
            train(client, criterion, x[site], y[site], job.order(site, number), job)
            for name, value in client.state_dict().items():
                mean[name].add_(value - before[name], alpha=job.weights[site] / total)
        server.load_state_dict({name: value + mean[name] for name, value in before.items()})
    losses.append(evaluate(server, criterion, x, y))
    return arrays_of(server), losses


def train(client: nn.Module, criterion: nn.Module, x: Tensor, y: Tensor, rng: np.random.Generator, job: Job) -> None:
    """Train one site's module for one epoch, in place."""
    optimiser = torch.optim.SGD(client.parameters(), lr=job.lr)
    order = torch.from_numpy(rng.permutation(len(y)))
    for first in range(0, len(y), job.batch):
        batch = order[first : first + job.batch]
        optimiser.zero_grad()
        criterion(client(x[batch]).squeeze(-1), y[batch]).backward()
        optimiser.step()


def evaluate(server: nn.Module, criterion: nn.Module, x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> list[float]:
    """Return the loss of every site."""
    with torch.inference_mode():
        return [criterion(server(x[site]).squeeze(-1), y[site]).item() for site in x]


def module(start: Arrays) -> nn.Sequential:
    """Return a perceptron with these arrays."""
    layers: list[nn.Module] = []
    for number in range(len(start) // 2):
        weight, bias = start[f"weight-{number}"], start[f"bias-{number}"]
        layer = nn.Linear(*weight.shape, dtype=torch.from_numpy(weight).dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def arrays_of(server: nn.Sequential) -> Arrays:
    """Return a module's arrays as flfed names and shapes them."""
    found = {}
    for number, layer in enumerate(layer for layer in server if isinstance(layer, nn.Linear)):
        found[f"weight-{number}"] = layer.weight.detach().numpy().T.copy()
        found[f"bias-{number}"] = layer.bias.detach().numpy().copy()
    return found
