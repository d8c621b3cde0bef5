"""Membership inference from a model's fit.

It guesses the training rows from how well the model fits.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.special import log_ndtr

from flfed.rows.comparison.attack_runner import Attacked, Finding, log_odds, nothing, trained
from flfed.rows.data.holdout import HoldoutByOrder, HoldoutByTime
from flfed.rows.evaluation.bootstrap import units_of
from flfed.rows.evaluation.intervals import NAN, Estimate, Z, estimate, hanley_mcneil, logit_limits
from flfed.rows.features.encode import Encoded, pooled_rows
from flfed.rows.metrics.roc_auc_score import RocAucScore
from flfed.rows.training.requests import Asking, together
from flfed.study.settings import Settings
from flfed.words import render

NAME = "membership-inference"
METRICS = ("auc-of-loss", "auc-of-lira")
LEAST_SPREAD = 1e-6
"""Least deviation of a row's score among the shadow models: where they all agree there is none to divide by."""


class MembershipInference(Settings, where=f"attack {NAME!r}"):
    """Attack that distinguishes members from non-members.

    Members are training rows, the others holdout rows. The global model is attacked, and the figure is the area
    under the ROC curve.

    Two attacks. By the loss: a row that fits well is guessed to be a member (Yeom et al. 2018). LiRA: as many shadow
    models as `shadows` are trained by the study's own plan, under the site's own protection. Each is trained on half of
    the site's training and holdout rows, so that every row is in half of them. A row's score is how much likelier its
    log-odds are among those with it than among those without (Carlini et al. 2022).

    Parameters
    ----------
    shadows : int, even, >= 4
        Shadow models of LiRA. Carlini et al. take 256: with few the attack is weaker.
    rows : int, >= 20
        Training and holdout rows that are attacked, at most, drawn at random. Shadow models are trained on half of just
        these, and memory holds them all at once.
    mode : {"online", "offline"}
        Whether a row's score compares with shadow models that have it, too. Offline is only how unusual
        the row's log-odds are among those without.

    Notes
    -----
    The normal distributions of LiRA have a mean for each row, and one deviation for all rows with and one without. A
    row's own deviation, from half of `shadows` values, would be noise. People with several rows are in a shadow model
    with all of them or none. The log-odds are of the row's own class; of a regression, minus the log of the squared
    error.

    The promise is the area under the trade-off curve (see `largest_auc`). There is none where the holdout is by time,
    since changes in between are in the figure. Nor is there one where the promise is to each row alone and people have
    several: they are members with all of them. The finding says which.

    Limits: a 95 % interval is DeLong's and takes the model and the shadows as they are. With people of several rows it
    is the bootstrap's over people, and Hanley and McNeil's over people where each draw gives the same. Holdout rows
    that differ from training rows in other ways than membership move the figure from 0.5 for that reason alone, up or
    down. Shadow models know this site's rows only: where others have trained too they fit more closely than the model
    attacked. The mean over rows hides that some rows are easier to guess than others.

    Reveals: the area under the ROC curve of either attack and its interval, and the number of members and non-members,
    which the site's other replies have anyway. Under disclosure "institution" only where both are at least the cell
    minimum.

    Source: Yeom et al. 2018, "Privacy risk in machine learning"; Carlini et al. 2022, "Membership inference attacks
    from first principles", section V.
    """

    metrics = METRICS

    shadows: Annotated[int, Field(ge=4, multiple_of=2), "even and >= 4"] = 16
    rows: Annotated[int, Field(ge=20)] = 10_000
    mode: Literal["online", "offline"] = "online"

    def findings(self, attacked: Attacked) -> Asking[tuple[Finding, ...]]:
        """Yield requests and return both areas.

        The requests train the shadow models and score all models.
        """
        members = attacked.members()
        rows = pooled_rows([members, attacked.others()])
        work = attacked.session
        # Rows are drawn from both sides together, so that their shares stay about as they are.
        chosen = np.sort(attacked.rng(f"{NAME}/rows").permutation(len(rows))[: self.rows])
        rows = rows.take(chosen)
        member = chosen < len(members)
        if why := attacked.untrained() or attacked.too_few(training=int(member.sum()), holdout=int((~member).sum())):
            return tuple(nothing(NAME, metric, why) for metric in METRICS)
        inside = self._halves(attacked, rows)
        models = yield from trained(attacked, [rows.take(half) for half in inside], f"{NAME}/shadow")
        outputs = yield from together([work.outputs(arrays, rows.x) for arrays in (attacked.arrays, *models)])
        signals = np.stack([log_odds(work.task, output, rows.y) for output in outputs])
        # A model that diverged gives no order of rows.
        if not np.isfinite(signals).all():
            why = render("figures.missing.infinite")
            return tuple(nothing(NAME, metric, why) for metric in METRICS)
        lira = likelihood_ratio(signals[0], signals[1:], inside, online=self.mode == "online")
        loss = signals[0]  # falls as the loss rises, for every task: the same order
        by_lira = render("figures.how.lira", n=self.shadows)
        return (
            self._finding(attacked, METRICS[0], rows, member, loss, render("figures.how.loss")),
            self._finding(attacked, METRICS[1], rows, member, lira, by_lira),
        )

    def _halves(self, attacked: Attacked, rows: Encoded) -> np.ndarray:
        """Return which rows train each shadow model.

        It is bool [shadows, rows], with each row in half of them.
        """
        codes, units = units_of(len(rows), rows.group)
        # Ranks of random numbers put every unit into exactly half of the models.
        order = attacked.rng(f"{NAME}/halves").random((self.shadows, units)).argsort(axis=0).argsort(axis=0)
        return (order < self.shadows // 2)[:, codes]

    def _finding(
        self, attacked: Attacked, metric: str, rows: Encoded, member: np.ndarray, score: np.ndarray, how: str
    ) -> Finding:
        auc = estimate(
            RocAucScore(), member.astype(int), score, attacked.rng(f"{NAME}/{metric}"),
            draws=attacked.session.study.compare.resamples,
            groups=rows.group,
        )  # fmt: skip
        # Every draw of a perfect attack is 1, so that the bootstrap has no interval.
        if np.isfinite(auc.value) and not np.isfinite(auc.low):
            auc = over_people(auc, member, rows.group)
        sentence = _sentence(attacked, rows)
        promise = NAN
        if attacked.promised is not None and sentence == "bounded":
            promise = largest_auc(*attacked.promised)
        says = render(f"figures.members.{sentence}", how=how)
        return Finding(
            attack=NAME, metric=metric, value=auc.value, low=auc.low, high=auc.high, method=auc.method,
            rows=len(rows), promise=promise, beyond=auc.low > promise, says=says,
        )  # fmt: skip


def over_people(auc: Estimate, member: np.ndarray, group: np.ndarray | None) -> Estimate:
    """Return an area with an interval over people.

    It is Hanley and McNeil's, for where the bootstrap over people has none.

    Parameters
    ----------
    auc : Estimate
        With a value. Of a perfect attack every draw gives 1, so that no bootstrap says how sure that is.
    member : bool array [rows]
    group : int array [rows] or None
        Whose each row is; nobody has rows on both sides.

    Notes
    -----
    People are counted as if each had one row, and the area is first moved towards 0.5 by half a person of the smaller
    side, as for rows. The interval is never a point. It has no limits where a side has nobody.
    """
    codes, _ = units_of(len(member), group)
    people = [len(np.unique(codes[side])) for side in (member, ~member)]
    if min(people) == 0:
        return auc
    centre, variance = hanley_mcneil(auc.value, *people)
    limits = logit_limits(auc.value, centre, variance, Z)
    return Estimate(auc.value, *limits, variance, "Hanley-McNeil over people")


def _sentence(attacked: Attacked, rows: Encoded) -> str:
    """Return the key of the figure's sentence, by whether a guarantee to a row or person bounds it."""
    work = attacked.session
    if isinstance(work.site.holdout, (HoldoutByTime, HoldoutByOrder)):
        return "later"
    people = rows.group
    alone = work.protection is not None and work.protection.steps.unit == "row"
    if alone and people is not None and len(np.unique(people)) < len(people):
        return "person"
    return "bounded"


def largest_auc(epsilon: float, delta: float) -> float:
    """Return the largest membership AUC under (ε, δ).

    The area under the ROC curve of a test is at most `1 - (1 - δ)² / (1 + exp(ε))`.

    Parameters
    ----------
    epsilon : float, >= 0
    delta : float in [0, 1]

    Notes
    -----
    A test with false positive rate a misses at least f(a) = max(0, 1 - δ - a exp(ε), exp(-ε) (1 - δ - a)) of the
    members (Wasserman and Zhou 2010; Dong, Roth and Su 2022, proposition 3). The two lines meet at a* =
    (1 - δ) / (1 + exp(ε)), where f(a*) = a*. Under the first the area is a* (1 - δ + a*) / 2, under the second a*
    (1 - δ - a*) / 2, together a* (1 - δ) = (1 - δ)² / (1 + exp(ε)): what an ROC curve leaves above itself at least.

    This is of the test of one row that is put in by a coin of its own. Of two rows of one run, one in and one out, the
    probability that the first scores higher can be up to 1 - exp(-ε) (1/2 - δ). Two rows may be distinguished where
    neither can be guessed alone. Among hundreds of rows such pairs do not count.

    Source: Dong, Roth and Su 2022, "Gaussian differential privacy", section 2.2.

    Examples
    --------
    >>> round(largest_auc(1.0, 0.0), 4), largest_auc(0.0, 0.0)
    (0.7311, 0.5)
    """
    # exp(-ε) does not overflow where ε is large.
    small = math.exp(-epsilon)
    return 1 - (1 - delta) ** 2 * small / (1 + small)


def likelihood_ratio(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray, *, online: bool) -> np.ndarray:
    """Return each row's likelihood ratio of membership.

    It is how much likelier a row's signal is with it than without it, [rows]. Offline it is how unusual the signal
    is without it.

    Parameters
    ----------
    target : array [rows]
        Signals of the model attacked.
    shadows : array [models, rows]
    inside : bool array [models, rows]
        Which rows each shadow model was trained on; each row is in at least one, and not in all.
    online : bool

    Source: Carlini et al. 2022, "Membership inference attacks from first principles", algorithm 1 and section VI-C.
    """
    means = []
    deviations = []
    for chosen in (inside, ~inside):
        count = chosen.sum(axis=0)
        mean = np.where(chosen, shadows, 0.0).sum(axis=0) / count
        # One deviation over all rows: that of a row's few values would be noise.
        squares = np.where(chosen, np.square(shadows - mean), 0.0).sum() / max(int((count - 1).sum()), 1)
        means.append(mean)
        deviations.append(max(float(np.sqrt(squares)), LEAST_SPREAD))
    apart_inside, apart_outside = [(target - mean) / deviation for mean, deviation in zip(means, deviations)]
    if not online:
        return np.asarray(log_ndtr(apart_outside))
    # The difference of two normal log densities.
    return np.asarray((apart_outside**2 - apart_inside**2) / 2 + np.log(deviations[1] / deviations[0]))
