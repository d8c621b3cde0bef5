"""SGD, Adam and AdamW.

They are pure steps on named tensors, and steps in place for a stack of sites.

Equal to `torch.optim` (tested within 1e-10), whose first use imports the compiler for a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flfed.study.plan import Plan

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
    first, second = plan.betas
    zeros = {name: torch.zeros_like(value) for name, value in w.items()}
    m, v = state.get("m", zeros), state.get("v", zeros)
    m = {name: first * m[name] + (1 - first) * g[name] for name in w}
    v = {name: second * v[name] + (1 - second) * g[name].square() for name in w}
    stepped = {}
    for name in w:
        # Both moments start at zero: the divisors take that bias away in the first steps.
        unit = (m[name] / (1 - first**step)) / ((v[name] / (1 - second**step)).sqrt() + plan.eps)
        stepped[name] = w[name] * (1 - lr * decay) - lr * unit
    return stepped, {"m": m, "v": v}


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """Optimiser state of one tensor, for stacked sites.

    It holds the tensor itself, its gradient and its memory.

    Attributes
    ----------
    w, g : tensor [sites, any, any]
        The same tensor where gradients are added to the weights at once.
    memory : tuple of tensor, same shape
        The velocity of SGD with momentum, the two moments of Adam; zeros before the first step.
    """

    w: Tensor
    g: Tensor
    memory: tuple[Tensor, ...]

    @classmethod
    def of(cls, w: Tensor, g: Tensor, plan: Plan) -> OptimiserState:
        """Return the state before the first step."""
        memories = int(plan.momentum > 0) if plan.optimiser == "sgd" else 2
        return cls(w, g, tuple(torch.zeros_like(w) for _ in range(memories)))

    def first(self, sites: int) -> OptimiserState:
        """Return the first sites, as views."""
        w = self.w[:sites]
        g = w if self.g is self.w else self.g[:sites]
        return OptimiserState(w, g, tuple(part[:sites] for part in self.memory))


def step_in_place(moving: Sequence[OptimiserState], lr: Tensor, step: int, plan: Plan) -> None:
    """Take the plan's step for every site.

    It is the same step as `step_of` takes, for the sites of a stack.

    Parameters
    ----------
    moving : sequence of OptimiserState
    lr : tensor [sites, 1, 1]
    step : int, from 1
    """
    for tensors in moving:
        if plan.optimiser == "sgd":
            _sgd_in_place(tensors, lr, plan.momentum)
        else:
            _adam_in_place(tensors, lr, step, plan)


def _sgd_in_place(tensors: OptimiserState, lr: Tensor, momentum: float) -> None:
    for velocity in tensors.memory:
        torch.add(tensors.g, velocity, alpha=momentum, out=velocity)
    g = tensors.memory[0] if tensors.memory else tensors.g
    tensors.w.addcmul_(g, lr, value=-1)


def _adam_in_place(tensors: OptimiserState, lr: Tensor, step: int, plan: Plan) -> None:
    (first, second), (m, v) = plan.betas, tensors.memory
    m.mul_(first).add_(tensors.g, alpha=1 - first)
    v.mul_(second).addcmul_(tensors.g, tensors.g, value=1 - second)
    if plan.optimiser == "adamw":
        tensors.w.mul_(1 - lr * plan.weight_decay)
    # The gradient is used up by now: its memory serves for the root.
    root = torch.div(v, 1 - second**step, out=tensors.g).sqrt_().add_(plan.eps)
    unit = torch.div(m, root, out=root)
    tensors.w.addcmul_(unit, lr / (1 - first**step), value=-1)


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


def clip_in_place(gradients: Sequence[Tensor], bound: float) -> None:
    """Scale gradients in place, site by site.

    They are [sites, any, any]; each site's joint L2 norm is then at most `bound`.
    """
    squares = torch.stack([g.square().sum(dim=(1, 2)) for g in gradients])
    factor = bound / squares.sum(dim=0).sqrt().clamp(min=bound)
    for g in gradients:
        g.mul_(factor[:, None, None])
