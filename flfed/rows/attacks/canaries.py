"""Canaries, rows that nobody is behind.

Coins put them into training, and it counts how many coins the model gives away.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.special import betainc

from flfed.rows.comparison.attack_runner import Attacked, Finding, log_odds, nothing, trained
from flfed.rows.evaluation.intervals import NAN
from flfed.rows.features.encode import Encoded, pooled_rows
from flfed.rows.training.requests import Asking, together
from flfed.study.settings import Settings
from flfed.words import render

NAME = "canaries"
METRIC = "least-epsilon"
CONFIDENCE = 0.95
DELTA = 1e-5
"""δ of the bound where the run promises none."""
MOST_RUNS = 64


class Canaries(Settings, where=f"attack {NAME!r}"):
    """Attack that bounds a training's ε from below.

    The bound has 95 % confidence, and is of the ε that this site's training really has: a loose detector of bugs.

    Canaries are random inputs with random labels. In each of several trainings by the study's plan, under the site's
    own protection, every canary is put among the site's rows or left out by a coin of its own. From the models
    alone the coins are guessed where they are clearest, and from the number of right guesses follows the bound.

    Parameters
    ----------
    coins : int, >= 20
        Coins in all: canaries times trainings.
    guessed : float in (0, 1]
        Share of the coins that are guessed: half of them "in", the others "out".
    beside : int, >= 1
        Training rows of the site, at most, that canaries are put beside.

    Notes
    -----
    There are at most as many canaries as inputs, in directions at right angles, and of the length of ordinary
    rows, so that they do not hide one another. Each is a person of its own. Trainings differ in their coins and draws.
    A canary's score in one is its log-odds there, less their mean over the trainings: that is a function of the
    models alone. All trainings together are one mechanism in which each coin matters to one of them, so that theorem
    5.2 of the source holds for all coins together.

    What the bound says is that an implementation with a smaller ε would hardly ever be guessed so well. It is far
    under the ε of the accountant, which covers every row and every attacker, and it is no estimate of it: 0
    means that this attack shows nothing. Over the promise it means that something is wrong: the noise, the
    clipping, the sampling or the accounting.

    Reveals: the bound. The site's rows are trained on beside the canaries, but the coins are the canaries'. The figure
    says next to nothing of a row, and it is not differentially private.

    Source: Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2.
    """

    metrics = (METRIC,)

    coins: Annotated[int, Field(ge=20)] = 400
    guessed: Annotated[float, Field(gt=0, le=1)] = 0.5
    beside: Annotated[int, Field(ge=1)] = 50

    def findings(self, attacked: Attacked) -> Asking[tuple[Finding, ...]]:
        """Yield requests and return the bound.

        The requests train beside canaries and score them.
        """
        rows = attacked.members()
        rng = attacked.rng(NAME)
        work = attacked.session
        if why := attacked.untrained() or attacked.too_few(training=len(rows)):
            return (nothing(NAME, METRIC, why),)
        if not rows.x.shape[1]:
            return (nothing(NAME, METRIC, render("figures.missing.inputs")),)
        rows = rows.take(rng.permutation(len(rows))[: self.beside])
        canaries = self._canaries(attacked, rows, rng)
        # As many trainings as the coins need, since canaries are at most as many as inputs.
        trainings = min(MOST_RUNS, -(-self.coins // len(canaries)))
        inside = rng.random((trainings, len(canaries))) < 0.5
        tables = [pooled_rows([rows, canaries.take(chosen)]) for chosen in inside]
        models = yield from trained(attacked, tables, NAME)
        outputs = yield from together([work.outputs(arrays, canaries.x) for arrays in models])
        signals = np.stack([log_odds(work.task, output, canaries.y) for output in outputs])
        if not np.isfinite(signals).all():
            return (nothing(NAME, METRIC, render("figures.missing.infinite")),)
        # Less the mean over trainings: a canary that is easy in all of them shows nothing.
        order = np.argsort(signals - signals.mean(axis=0), axis=None, kind="stable")
        # Only the clearest coins are guessed, since a wrong guess costs more than none: the highest are "in".
        half = max(1, int(self.guessed * inside.size / 2))
        coins = inside.reshape(-1)
        right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
        return (self._finding(attacked, inside.size, 2 * half, right),)

    def _canaries(self, attacked: Attacked, rows: Encoded, rng: np.random.Generator) -> Encoded:
        """Return random rows as canaries.

        They are at right angles, of the root mean square length of `rows`, with random labels.
        """
        inputs = rows.x.shape[1]
        count = min(inputs, self.coins)
        directions = np.linalg.qr(rng.standard_normal((inputs, count)))[0].T
        length = math.sqrt(float(np.square(rows.x).sum(axis=1).mean())) or 1.0
        if attacked.session.task == "regression":
            y = rng.choice([-2.0, 2.0], count)
        else:
            y = rng.integers(0, max(attacked.session.classes, 2), count)
        weight = np.full(count, float(rows.weight.mean()))
        return Encoded(directions * length, y.astype(rows.y.dtype), weight, None)

    def _finding(self, attacked: Attacked, coins: int, guesses: int, right: int) -> Finding:
        epsilon, delta = attacked.promised or (NAN, DELTA)
        bound = least_epsilon(coins, guesses, right, delta)
        # With the decimals that its figure has in tables.
        decimals = 3 if bound < 1.5 else 2
        shown = f"{bound:.{decimals}f}"
        says = render("figures.attacks.canaries", right=right, guesses=guesses, coins=coins, bound=shown)
        method = render("figures.methods.steinke")
        return Finding(
            attack=NAME, metric=METRIC, value=bound, low=bound, method=method,
            rows=coins, promise=epsilon, beyond=bound > epsilon, says=says,
        )  # fmt: skip


def p_value(coins: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the largest probability of right guesses.

    It is of so many right guesses, at most, under (ε, δ), by theorem 5.2.

    Parameters
    ----------
    coins, guesses, right : int
        Canaries in all, those whose coin was guessed, and those guessed rightly.
    epsilon, delta : float

    Notes
    -----
    With δ = 0 right guesses are at most binomial with probability exp(ε) / (1 + exp(ε)). With δ there is added 2 δ
    times the coins times the largest, over i, of the probability of `right - i` … `right - 1` divided by i.
    """
    q = 1 / (1 + math.exp(-epsilon))
    least = np.arange(right, -1, -1)
    # The chance of at least so many right guesses; of none or more it is 1.
    chances = np.where(least > 0, betainc(np.maximum(least, 1), guesses - least + 1, q), 1.0)
    most = float(((chances[1:] - chances[0]) / (right - least[1:])).max(initial=0.0))
    return min(1.0, float(chances[0]) + 2 * coins * delta * most)


def least_epsilon(coins: int, guesses: int, right: int, delta: float) -> float:
    """Return the largest ε that the guesses refute.

    So many right guesses refute it at `CONFIDENCE`, to 1e-6, and 0 where they refute none.

    Examples
    --------
    >>> round(least_epsilon(100, 100, 100, 0.0), 3)  # log(q / (1 - q)) for q = 0.05 ** (1 / 100)
    3.493
    """
    low = 0.0
    high = 64.0
    # The bound is where the probability crosses the confidence, found by halving.
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(coins, guesses, right, middle, delta) <= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return low
