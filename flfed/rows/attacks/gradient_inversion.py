"""Gradient inversion, a row read off an update.

It is the row's inputs, and the update is what a site sends after one step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.special import bdtr

from flfed.rows.comparison.attack_runner import Attacked, Finding, nothing, share
from flfed.rows.evaluation.intervals import NAN
from flfed.rows.features.encode import Encoded
from flfed.rows.own_parts import narrowed, widened
from flfed.rows.training.functional import layers_of
from flfed.rows.training.requests import Asking, FitRequest
from flfed.study.plan import EPS, Plan
from flfed.study.settings import Settings
from flfed.summaries.summary import Arrays
from flfed.words import render

NAME = "gradient-inversion"
CLOSE = {"float64": 1e-6, "float32": 1e-3}
"""Distance from a row, as a share of its length, up to which it counts as recovered exactly: what rounding leaves."""

NEAR = 0.5
"""Cosine over which a guess is close to a row."""
FIGURES = ("share-recovered", "share-close", "median-cosine")
AT_BATCH = "-at-plan-batch"


class GradientInversion(Settings, where=f"attack {NAME!r}"):
    """Attack that reads inputs off one step's update.

    It is `x = ΔW_j / Δb_j` of the first layer, for any output j.

    The gradient of one row by the first layer's weights is its inputs times the derivative by an output. The gradient
    by that output's intercept is the derivative alone, so that the row is their quotient. Of several rows the quotient
    is a mixture, but an output that only one of them reaches gives that row alone.

    Parameters
    ----------
    records : int, >= 1
        Training rows that are attacked, at most all.

    Notes
    -----
    The attack is on one step from the run's global model, as this site would take it. It is made twice: with a batch of
    the single row, and with a batch as large as the plan's (or as the protection samples on average). The step uses the
    site's own training code, with its clipping and its noise σ. Each row of the batch takes part with probability 1,
    and the noise is that of a batch of so many rows. The attacker knows the plan and undoes the optimiser's first step
    and the penalties. It knows nothing of the rows.

    A row counts as recovered where some output's quotient is within 1e-6 of it, as a share of its length (1e-3 where
    the plan computes in float32). The cosine is that of the output whose intercept moved most; over 0.5 the guess
    counts as close.

    Where any noise is added the promise for rows recovered exactly is 0. A number with noise on it equals another with
    probability 0, whatever ε is. Nothing is promised of the cosine.

    No size of a batch is a protection: logistic regression gives single rows away, a network also rows of small batches
    (docs/threat-model.md has figures).

    Limits: real updates come from several steps, and this attack undoes one. An attacker who optimises inputs (Geiping
    et al. 2020) may do better on small batches, so that 0 recovered is no proof. The row is recovered in the model's
    inputs, which the encoder, known to all, turns back into values. An input whose weight is held at 0 by an l1 penalty
    cannot be read. A client-side term of the strategy is taken as 0, which it is in most first steps.

    Reveals: how many of `records` rows an attack recovers or comes close to; an institution withholds a small count.
    The median cosine and its interval, in hundredths: each is that of one row.

    Source: Phong et al. 2018, "Privacy-preserving deep learning via additively homomorphic encryption", section III;
    Geiping et al. 2020, "Inverting gradients", section 3.
    """

    metrics = (*FIGURES, *(figure + AT_BATCH for figure in FIGURES))

    records: Annotated[int, Field(ge=1)] = 50

    def findings(self, attacked: Attacked) -> Asking[tuple[Finding, ...]]:
        """Yield requests and return the recovered shares.

        The requests are for the steps, and the findings say how many rows came back from them.
        """
        rows = attacked.members()
        rng = attacked.rng(NAME)
        number = min(self.records, len(rows))
        why = attacked.too_few(training=number)
        if not why and not layers_of(attacked.session.model):
            why = render("figures.missing.layer")
        if why:
            return tuple(nothing(NAME, metric, why) for metric in self.metrics)
        targets = rng.choice(len(rows), number, replace=False)
        size = self._plan_batch(attacked, len(rows))
        batches = [np.array([target]) for target in targets]
        if size > 1:
            batches += self._batches(targets, len(rows), size, rng)
        fitted = yield [self._step(attacked, rows.take(batch), place) for place, batch in enumerate(batches)]
        # A site that trains a part of the model sends zeros for the rest.
        guessed = [candidates(attacked, widened(reply.arrays, attacked.arrays)) for reply in fitted]
        findings = self._judged(attacked, rows.x[targets], guessed[:number], 1)
        if size > 1:
            return findings + self._judged(attacked, rows.x[targets], guessed[number:], size)
        return findings

    def _plan_batch(self, attacked: Attacked, rows: int) -> int:
        """Return how many rows a step has.

        They are this site's batch, or the mean of its samples.
        """
        work = attacked.session
        if work.protection is not None:
            return max(1, round(work.protection.steps.sampling * rows))
        return work.study.plan.batch_size(rows)

    def _batches(self, targets: np.ndarray, rows: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return a batch as large as the plan's for each target, with other rows drawn anew beside it."""
        batches = []
        for target in targets:
            others = rng.permutation(np.delete(np.arange(rows), target))[: size - 1]
            batches.append(np.array([target, *others]))
        return batches

    def _step(self, attacked: Attacked, batch: Encoded, place: int) -> FitRequest:
        """Return the request for one step.

        It is on the rows of `batch`, under the site's protection.
        """
        work = attacked.session
        rng = attacked.rng(f"{NAME}/step", place)
        request = work.fit_request(attacked.arrays, replace(batch, group=None), rng, lr=work.study.plan.lr)
        private = None if request.private is None else replace(request.private, sampling=1.0, unit="row")
        plan = replace(work.study.plan, batch=0, epochs=1, steps=1)
        return narrowed(replace(request, plan=plan, private=private), work.width)

    def _judged(
        self, attacked: Attacked, x: np.ndarray, guessed: list[tuple[np.ndarray, int]], size: int
    ) -> tuple[Finding, ...]:
        """Return the recovered and close shares, and the cosine.

        They are of the rows `x` [rows, inputs] against the guesses.
        """
        close = CLOSE[attacked.session.study.plan.precision]
        length = np.maximum(np.linalg.norm(x, axis=1), 1e-12)
        gaps = np.full(len(x), np.inf)
        cosines = np.zeros(len(x))
        for place, (row, (g, best)) in enumerate(zip(x, guessed)):
            if len(g):
                gaps[place] = np.linalg.norm(g - row, axis=1).min()
                lengths = float(np.linalg.norm(row)) * float(np.linalg.norm(g[best]))
                if 0 < lengths < np.inf:
                    cosines[place] = row @ g[best] / lengths
        count = int((gaps <= close * length).sum())
        # Single rows and batches have names of their own among the figures.
        where = "" if size == 1 else AT_BATCH
        rows = render("figures.rows.single") if size == 1 else render("figures.rows.plan", n=size)
        is_protected = attacked.session.protection is not None
        noise = render("figures.noise.protected") if is_protected else render("figures.noise.none")
        blind = f"{1 / np.sqrt(max(x.shape[1], 1)):.2f}"
        # The interval of a median lies between two of the values, in hundredths, and needs no distribution.
        ordered = np.sort(cosines)
        lower = max(int(np.searchsorted(bdtr(np.arange(len(x) + 1), len(x), 0.5), 0.025)) - 1, 0)
        figures = (np.median(cosines), ordered[lower], ordered[len(x) - 1 - lower])
        median, low, high = (round(float(figure), 2) for figure in figures)
        promise = NAN if attacked.promised is None else 0.0
        return (
            share(
                attacked, NAME, f"share-recovered{where}", count, len(x), promise=promise,
                says=render("figures.attacks.recovered", rows=rows, noise=noise),
            ),
            share(
                attacked, NAME, f"share-close{where}", int((cosines > NEAR).sum()), len(x),
                says=render("figures.attacks.close", rows=rows, noise=noise, near=NEAR, blind=blind),
            ),
            Finding(
                attack=NAME, metric=f"median-cosine{where}", value=median, low=low, high=high,
                method="order statistics", rows=len(x),
                says=render("figures.attacks.cosine", rows=rows, noise=noise, blind=blind),
            ),
        )  # fmt: skip


def candidates(attacked: Attacked, delta: Arrays) -> tuple[np.ndarray, int]:
    """Return the guesses of the first layer.

    They are the quotients of each output that moved, [outputs, inputs], and which moved most.
    """
    work = attacked.session
    weight, bias = layers_of(work.model)[0]
    plan = work.study.plan
    penalised = work.model.penalised
    g = {name: _gradient(plan, attacked.arrays[name], delta[name], name in penalised) for name in (weight, bias)}
    # An output whose intercept did not move shows nothing: its quotient is 0 / 0.
    moved = np.flatnonzero(np.abs(g[bias]) > 0)
    if not len(moved):
        return np.empty((0, len(g[weight]))), 0
    with np.errstate(over="ignore", invalid="ignore"):
        guesses = np.nan_to_num(g[weight][:, moved] / g[bias][moved]).T
    return guesses, int(np.abs(g[bias][moved]).argmax())


def _gradient(plan: Plan, before: np.ndarray, delta: np.ndarray, penalised: bool) -> np.ndarray:
    """Return the gradient of the first step.

    It follows from what the step changed, the optimiser's rule undone.

    Adam's first step is `lr * g / (|g| + eps)`, so that `|g| = eps * d / (lr - d)` for a step of length d.
    """
    before = np.asarray(before, dtype=float)
    change = np.asarray(delta, dtype=float)
    # A penalty moves the arrays as well, and is taken off first.
    if penalised and plan.l1:
        change = change + np.sign(before + change) * plan.lr * plan.l1
    if plan.optimiser == "sgd":
        g = -change / plan.lr
    else:
        if plan.optimiser == "adamw":
            change = change + plan.lr * plan.weight_decay * before
        length = np.abs(change)
        g = -np.sign(change) * EPS * length / np.maximum(plan.lr - length, plan.lr * 1e-16)
    if penalised and plan.l2:
        g = g - plan.l2 * before
    return g
