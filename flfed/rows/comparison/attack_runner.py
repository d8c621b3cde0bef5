"""Runner of attacks at one site.

They attack the outputs of a run. This module has their input and their result, and carries out several. It trains
shadow models by a study's own plan on chosen rows, and scores how well a model knows a row.

An attack runs where the rows are, because it needs them to know whether it was right. Only the figure and its
interval leave the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from scipy.special import logsumexp

from flfed import registry
from flfed.rows.baselines import first_arrays
from flfed.rows.evaluation.intervals import NAN, wilson
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Asking, ShadowsRequest, together
from flfed.seeds import generator
from flfed.study.settings import read_settings
from flfed.summaries.summary import Arrays, Encoder
from flfed.words import render

STACK = 32
"""Shadow models that train as a stack, whatever other stacks there are."""
Promised = tuple[float, float]
"""ε and δ that a run promises each row of a site, or each person."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Figure of one attack at one site.

    It says whether the figure is within the guarantee.

    Attributes
    ----------
    attack : str
        Name in the listing: "gradient-inversion".
    metric : str
        The measure: "auc-of-loss", "share-recovered".
    value, low, high : float
        With a 95 % interval; a bound is in `value` and `low`, and `high` is NaN. All NaN where there is no figure.
    method : str
        How the interval was made, or "" where there is no figure.
    rows : int
        Rows that the figure is of: records, members and non-members, or coins of canaries. 0 where there is
        no figure: then their number does not leave.
    promise : float
        Largest value that the promise allows; NaN where nothing is promised of this metric.
    beyond : bool
        Whether `low` is over the promise. That something is within it proves nothing.
    says : str
        The target, the result and its meaning, in plain sentences.
    """

    attack: str
    metric: str
    value: float = NAN
    low: float = NAN
    high: float = NAN
    method: str = ""
    rows: int = 0
    promise: float = NAN
    beyond: bool = False
    says: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """Target of an attack.

    Attributes
    ----------
    session : SiteSession
        The site, its rows, the study, and how its rows are protected in training.
    arrays : dict of name to array
        The run's global model.
    encoder : Encoder
        Of all sites.
    seed : int
        What an attack draws follows from it; noise of protected training comes from where the site takes it.
    promised : (epsilon, delta) or None
        Of the whole run as it was planned.
    """

    session: SiteSession
    arrays: Arrays
    encoder: Encoder
    seed: int = 0
    promised: Promised | None = None

    def rng(self, purpose: str, number: int = 0) -> np.random.Generator:
        """Return the generator for one purpose.

        It is of an attack at this site.
        """
        return generator(self.seed, site=self.session.site.name, purpose=f"attack/{purpose}", number=number)

    def members(self) -> Encoded:
        """Return the rows that the site trained on.

        Those that the plan keeps for validation are left out.
        """
        return self.session.fitted(self.encoder)

    def others(self) -> Encoded:
        """Return the holdout rows.

        No training of this run has seen them.
        """
        work = self.session
        return work.encode(work.table.holdout("audit"), work.in_use(self.encoder))

    def too_few(self, **parts: int) -> str:
        """Return which part is too small to report.

        It has fewer rows than a figure may have. An empty text where none is too small.

        Examples
        --------
        `attacked.too_few(members=120, holdout=7)` at an institution: "fewer than 10 holdout rows".
        """
        least = self.session.policy.least_rows()
        small = [name for name, rows in parts.items() if rows < least]
        if small:
            return render("figures.missing.rows", n=least, parts=" and ".join(small))
        return ""

    def untrained(self) -> str:
        """Return why no model can be trained beside the attacked one.

        An empty text where it can.
        """
        return render("figures.missing.trees") if self.session.layout.plain else ""


def attack(
    session: SiteSession,
    arrays: Arrays,
    encoder: Encoder,
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    promised: Promised | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Asking[tuple[Finding, ...]]:
    """Yield requests and return the attacks' findings.

    They are what the attacks found at this site, in the order of `names`.

    Parameters
    ----------
    session : SiteSession
        Its protection is used for what the attacks train themselves. Nothing is written to a ledger for it, because
        nothing but figures leaves.
    arrays : dict of name to array
        The run's global model; unchanged.
    encoder : Encoder
        Of all sites.
    names : sequence of str
        Listed attacks; all of them where there is none.
    seed : int
    promised : (epsilon, delta), optional
        What the run promises each row, or each person, whoever reads the site's updates; not what it promises
        whole sites.
    settings : mapping of attack to its settings, optional
        Kebab-case, as a study would give them.

    Raises
    ------
    UsageError
        For an attack that is not listed, or settings that it does not have.

    Reveals: a figure of each metric with its interval, and how many rows it is of. No row, no score of a
    row, no model. These figures are not themselves differentially private.
    """
    attacked = Attacked(session=session, arrays=arrays, encoder=encoder, seed=seed, promised=promised)
    requests = []
    for name in names or registry.names("attack"):
        kind = registry.load("attack", name)
        options = (settings or {}).get(name, {})
        chosen = kind(**read_settings(kind, options, f"attack {name!r}"))
        requests.append(chosen.findings(attacked))
    # Attacks that train run side by side, so that an engine may stack their models.
    findings = yield from together(requests)
    return tuple(chain.from_iterable(findings))


def nothing(attack: str, metric: str, why: str) -> Finding:
    """Return the finding of an attack without a figure.

    It says why there is none.
    """
    return Finding(attack=attack, metric=metric, says=render("figures.attacks.none", why=why))


def share(
    attacked: Attacked, attack: str, metric: str, count: int, rows: int, *, promise: float = NAN, says: str
) -> Finding:
    """Return the finding of a share of rows.

    It has Wilson's interval.

    An institution withholds a count of 1 … k − 1, of rows that are or that are not. Then there is no value, and the
    interval says only that it is such a count.
    """
    policy = attacked.session.policy
    value = count / rows
    low, high, _ = wilson(value, rows)
    method = "Wilson"
    least = min(count, rows - count)
    if not policy.is_open and 0 < least < policy.cell_minimum:
        # The interval spans all small counts, so that it does not show which one it is.
        low = 1 / rows
        high = (policy.cell_minimum - 1) / rows
        if count > least:
            low = 1 - high
            high = 1 - 1 / rows
        value = NAN
        method = render("figures.methods.small")
    return Finding(
        attack=attack, metric=metric, value=value, low=low, high=high, method=method, rows=rows, promise=promise,
        beyond=low > promise, says=says,
    )  # fmt: skip


def trained(attacked: Attacked, tables: Sequence[Encoded], purpose: str) -> Asking[list[Arrays]]:
    """Yield requests and return the shadow models.

    They are the arrays after all rounds of the plan on each of some tables, as if there were one site.

    Parameters
    ----------
    attacked : Attacked
        Whose study, first arrays and protection.
    tables : sequence of Encoded
        One a model. They are trained side by side, so that an engine may stack them.
    purpose : str
        What the draws are for.

    Notes
    -----
    Of the strategy only the average is followed: with one site that is the site's own arrays. A round
    takes the plan's steps, under the site's protection where there is one; a plateau does not change
    the learning rate.
    """
    work = attacked.session
    rounds = work.study.rounds
    plan = work.study.plan
    arrays = first_arrays(work.trainable(), tables[0].x.shape[1])
    fits = []
    for round in range(1, rounds + 1):
        lr = plan.lr * plan.factor(round, rounds)
        # Each round and model has draws of its own, as at a real site.
        rngs = [attacked.rng(f"{purpose}/{round}", number) for number in range(len(tables))]
        requests = [work.fit_request(arrays, rows, rng, lr=lr) for rows, rng in zip(tables, rngs)]
        fits.append([replace(request, delta=False) for request in requests])
    starts = range(0, len(tables), STACK)
    stacks = yield [ShadowsRequest(rounds=[one[start : start + STACK] for one in fits]) for start in starts]
    return list(chain.from_iterable(stacks))


def log_odds(task: str, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log-odds of each row's own class.

    They are [rows], fall as a row's loss rises, and are about normal over models.

    Parameters
    ----------
    task : str
    outputs : array [rows, outputs]
    y : array [rows]
    """
    if task == "regression":
        return np.asarray(-np.log(np.square(outputs[:, 0] - y) + 1e-12))
    if task == "binary":
        return np.asarray(np.where(y == 1, 1.0, -1.0) * outputs[:, 0])
    # Of several classes the odds are those of the own one against all others together.
    own = outputs[np.arange(len(y)), y]
    rest = outputs.copy()
    rest[np.arange(len(y)), y] = -np.inf
    return np.asarray(own - logsumexp(rest, axis=1))
