"""The bare loop with gradients written out by hand: no modules, no autograd, no optimiser.

What one who knows the model would write for speed; it does nothing for many sites at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.bare import Arrays, Job, Losses, pairs, tensors

Layers = list[tuple[Tensor, Tensor]]


def loop(job: Job) -> tuple[Arrays, Losses]:
    """Return the final arrays, and the loss of the cohort's sites before each round, and of all after the last."""
    x, y = tensors(job)
    names = pairs(job.start)
    server = [(torch.from_numpy(job.start[weight]), torch.from_numpy(job.start[bias])) for weight, bias in names]
    losses = []
    with torch.inference_mode():
        for number in range(1, job.rounds + 1):
            cohort = job.cohort(number)
            losses.append(evaluate(server, x, y, cohort))
            server = one_round(server, job, x, y, cohort, number)
        losses.append(evaluate(server, x, y, x))
    found = {}
    for (weight, bias), (w, b) in zip(names, server, strict=True):
        found |= {weight: w.numpy(), bias: b.numpy()}
    return found, losses


def one_round(
    server: Layers, job: Job, x: Mapping[str, Tensor], y: Mapping[str, Tensor], cohort: list[str], number: int
) -> Layers:
    """Return the model after one round: the mean by rows of what training changed, summed in float64."""
    total = sum(job.weights[site] for site in cohort)
    mean = [tuple(torch.zeros_like(value, dtype=torch.float64) for value in layer) for layer in server]
    for site in cohort:
        trained = [(w.clone(), b.clone()) for w, b in server]
        train(trained, x[site], y[site], job.order(site, number), job)
        for sums, after, before in zip(mean, trained, server, strict=True):
            for part, new, old in zip(sums, after, before, strict=True):
                part.add_(new - old, alpha=job.weights[site] / total)
    return [((w + dw).to(w.dtype), (b + db).to(b.dtype)) for (w, b), (dw, db) in zip(server, mean, strict=True)]


def train(layers: Layers, x: Tensor, y: Tensor, rng: np.random.Generator, job: Job) -> None:
    """Train for one epoch, in place: of the mean logistic loss, d/dz = (sigmoid(z) - y) / rows."""
    order = torch.from_numpy(rng.permutation(len(y)))
    inputs, targets = x[order].split(job.batch), y[order][:, None].split(job.batch)
    for part, target in zip(inputs, targets, strict=True):
        seen = forward(layers, part)
        g = (seen.pop().sigmoid_() - target).div_(len(target))
        for (weight, bias), before in zip(reversed(layers), reversed(seen), strict=True):
            below = (g @ weight.T).mul_(before > 0) if before is not part else None
            weight.addmm_(before.T, g, alpha=-job.lr)
            bias.sub_(g.sum(0), alpha=job.lr)
            if below is not None:
                g = below


def forward(layers: Layers, x: Tensor) -> list[Tensor]:
    """Return the input of every layer, and the outputs; ReLU between layers."""
    seen = [x]
    for weight, bias in layers[:-1]:
        seen.append(torch.addmm(bias, seen[-1], weight).relu_())
    weight, bias = layers[-1]
    return [*seen, torch.addmm(bias, seen[-1], weight)]


def evaluate(
    layers: Layers, x: Mapping[str, Tensor], y: Mapping[str, Tensor], sites: Iterable[str]
) -> dict[str, float]:
    """Return the mean loss of each of the sites: log(1 + exp(z)) - y z."""
    found = {}
    for site in sites:
        z = forward(layers, x[site])[-1].squeeze(-1)
        found[site] = (torch.nn.functional.softplus(z) - y[site] * z).mean().item()
    return found
