"""SGD, Adam and AdamW as pure steps on named tensors.

Equal to `torch.optim` (tested within 1e-10), whose first use imports the compiler for a second.
The same steps in place, for many sites at once, are in `stacked/stack.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flfed.study.plan import BETAS, EPS, Plan

Tensors = dict[str, Tensor]
State = dict[str, Tensors]
Step = Callable[[Tensors, Tensors, State, float, int], tuple[Tensors, State]]


def step_of(plan: Plan) -> Step:
    """Return the plan's optimiser as a function.

    (arrays, gradients, state, lr, step from 1) → (arrays, state)
    """
    if plan.optimiser == "sgd":
        return lambda w, g, state, lr, step: _sgd(w, g, state, lr, plan.momentum)
    decay = plan.weight_decay if plan.optimiser == "adamw" else 0.0
    return lambda w, g, state, lr, step: _adam(w, g, state, lr, step, plan, decay)


def _sgd(w: Tensors, g: Tensors, state: State, lr: float, momentum: float) -> tuple[Tensors, State]:
    if momentum:
        before = state.get("velocity")
        g = {name: momentum * before[name] + g[name] for name in g} if before else g
        state = {"velocity": g}
    return {name: torch.sub(w[name], g[name], alpha=lr) for name in w}, state


def _adam(
    w: Tensors, g: Tensors, state: State, lr: float, step: int, plan: Plan, decay: float
) -> tuple[Tensors, State]:
    """Take a step of Adam or AdamW.

    Kingma and Ba 2015, algorithm 1; decay as Loshchilov and Hutter 2019, algorithm 2.
    """
    first, second = BETAS
    zeros = {name: torch.zeros_like(value) for name, value in w.items()}
    m = state.get("m", zeros)
    v = state.get("v", zeros)
    m = {name: first * m[name] + (1 - first) * g[name] for name in w}
    v = {name: second * v[name] + (1 - second) * g[name].square() for name in w}
    stepped = {}
    for name in w:
        # Both moments start at zero: the divisors take that bias away in the first steps.
        unit = (m[name] / (1 - first**step)) / ((v[name] / (1 - second**step)).sqrt() + EPS)
        stepped[name] = w[name] * (1 - lr * decay) - lr * unit
    return stepped, {"m": m, "v": v}


def soft_threshold(w: Tensor, amount: float | Tensor) -> Tensor:
    """Shrink weights towards 0 by `amount`.

    `sign(w) * max(|w| - amount, 0)`, the proximal step of an L1 penalty.

    Source: Parikh and Boyd 2014, "Proximal algorithms", section 6.5.2.
    """
    return w.sign() * (w.abs() - amount).clamp(min=0)


def clip_by_norm(g: Tensors, bound: float) -> Tensors:
    """Scale gradients to a joint norm of `bound`.

    The L2 norm over all of one site's gradients is then at most `bound`.
    """
    norm = torch.stack([value.square().sum() for value in g.values()]).sum().sqrt()
    factor = (bound / norm.clamp(min=bound)).item()
    return {name: value * factor for name, value in g.items()}
