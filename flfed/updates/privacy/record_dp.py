"""Record-level differential privacy.

Each row's gradient is clipped, and every step has noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from flfed.study.plan import Plan, PrivateSteps
from flfed.study.settings import Settings
from flfed.study.study import Study
from flfed.summaries.noised_scores import COUNTS, SCORES
from flfed.updates.accounting import Clip, Delta, Epsilon, Release, Sampling, epsilon, noise_for
from flfed.updates.mechanism import WEAK_EPSILON, Mechanism, Promise, check_steps, planned, uncharged_outputs
from flfed.words import render, usage_error

SHARES = {COUNTS: 0.02, SCORES: 0.2}
"""Of μ², that of the Gaussian with the same ε and δ, for answers where ε covers the study; training has the rest."""


class RecordDp(Mechanism, Settings, where="[privacy]"):
    """Noise that protects single rows: DP-SGD at every site.

    Rows are drawn by Poisson sampling, each row's gradient is clipped, and each step has normal noise.

    Parameters
    ----------
    epsilon, delta : float, > 0
        What all rounds of the run may spend together at a site. The noise follows from it and from the steps planned.
        `delta` must be below one over the training rows of the largest site. Examples: `epsilon = 3.0`, `delta = 1e-5`.
    clip : float, > 0
        Largest norm of what one row adds to a step. Example: `clip = 0.5`.
    sampling : float in (0, 1]
        With what probability a row takes part in a step; it stands in place of `plan.batch`.
        Example: `sampling = 0.05`.
    unit : {"person", "row"}
        Whose privacy: a person's, where the schema names a group, or each row's alone.
    covers : {"updates", "study"}
        Releases that ε covers: the updates alone, or all of a site, counts of rows by class and of the model's scores
        included. What cannot be charged stays at the site then: losses, metrics, comparisons with own
        models, Table 1. Example: `covers = "study"`.

    Notes
    -----
    A study without rounds, an analysis, is one answer of each site: counts and sums of all rows, each person at most
    once, with the noise of one step that takes all rows. `clip` and `sampling` are not used.

    Where it covers the study, training and counts of test rows share the one ε: the noise follows from the composition
    of all releases of a run, whoever is trained on or held out.

    Guarantee: whoever sees all updates of a site learns almost the same whether or not one row (person)
    of its training rows was there: (ε, δ) by `promise`. Neighbours are tables with and without one.
    Assumes Poisson sampling, noise that nobody else can draw, and that the number of rows is known. All
    else that leaves the site is not in it: see `uncharged`.

    Source: Abadi et al. 2016, "Deep learning with differential privacy".
    """

    epsilon: Epsilon = 3.0
    delta: Annotated[Delta, "in (0, 0.1): less than one over the rows of the largest site"] = 1e-5
    clip: Clip = 1.0
    sampling: Sampling = 0.1
    unit: Literal["person", "row"] = "person"
    covers: Literal["updates", "study"] = "updates"

    def check(self, study: Study) -> None:
        """Refuse a study that would break the promise.

        Its steps are not fixed, or it clips twice, scales by site, or trains again on rows.
        """
        if study.analysis is None:
            check_steps(study)
        if self.covers == "study":
            check_covered(study)
        # There may be no noise that is enough.
        self.answer_releases(study.plan, study.rounds)
        self._noise(study.plan, study.rounds)

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take their steps."""
        noise = self._noise(plan, rounds)
        sampling = self._sampling(rounds)
        return PrivateSteps(clip=self.clip, noise=noise, sampling=sampling, unit=self.unit)

    def round_release(self, plan: Plan, rounds: int) -> Release | None:
        """Return what one round spends at a site."""
        return self._release(plan, rounds, 1)

    def charged(self, plan: Plan, rounds: int) -> tuple[str, float] | None:
        """Return whose privacy a site's ledger counts, and at which δ."""
        return self.unit, self.delta

    def promise(self, plan: Plan, rounds: int) -> Promise | None:
        """Return what the run promises as it is planned."""
        release = self._release(plan, rounds, planned(rounds))
        spent = epsilon([release, *self.answer_releases(plan, rounds).values()], self.delta)
        return Promise(
            mechanism="record-dp", unit=self.unit, epsilon=spent, delta=self.delta,
            noise=release.noise, sampling=release.sampling, clip=self.clip, steps=release.steps,
        )  # fmt: skip

    def answer_releases(self, plan: Plan, rounds: int) -> Mapping[str, Release]:
        """Return what each noised answer beside the updates spends, by its name."""
        if self.covers == "updates" or not rounds:
            return {}
        whole = noise_for(self.epsilon, self.delta, 1.0, 1)
        noises = {name: math.ceil(1000 * whole / math.sqrt(share)) / 1000 for name, share in SHARES.items()}
        return {name: Release(noise, 1.0, 1) for name, noise in noises.items()}

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Return warnings on weak promises and repeated persons.

        Rows may be one person's where the unit is a row.
        """
        warnings = []
        # Above this ε the promise hardly protects anybody.
        if self.epsilon > WEAK_EPSILON:
            warnings.append(render("mechanisms.warnings.weak", epsilon=self.epsilon))
        if self.unit == "row":
            warnings.append(render("mechanisms.warnings.unit"))
        return tuple(warnings)

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for each output beside the updates.

        There is no noise on any of them.
        """
        budgets = render("mechanisms.uncharged.budgets")
        if study.is_covered:
            return (budgets, render("mechanisms.uncharged.covered"))
        return (*uncharged_outputs(study), budgets, render("mechanisms.uncharged.rounded"))

    def _noise(self, plan: Plan, rounds: int) -> float:
        answers = tuple(self.answer_releases(plan, rounds).values())
        steps = _steps(plan, rounds) * planned(rounds)
        return noise_for(self.epsilon, self.delta, self._sampling(rounds), steps, answers)

    def _sampling(self, rounds: int) -> float:
        return self.sampling if rounds else 1.0

    def _release(self, plan: Plan, rounds: int, rounds_done: int) -> Release:
        return Release(self._noise(plan, rounds), self._sampling(rounds), _steps(plan, rounds) * rounds_done)


def check_covered(study: Study) -> None:
    """Refuse what a study asks for that no ε is charged for, or that follows from exact rows.

    Raises
    ------
    UsageError
        For the first such thing.
    """
    plan = study.plan
    settings = study.strategy.settings
    compare = study.compare
    exclusions = {
        "validation": plan.validation,
        "plateau": plan.schedule == "plateau",
        "classes": plan.class_weight == "balanced",
        "scaler": study.encode.scaler != "schema",
        "rows": study.encode.rows == "complete",
        "losses": settings.get("select") == "best" or settings.get("patience"),
        "figures": compare.subgroups or compare.incumbent,
        "sums": study.aggregation.sums_updates,
        "split": study.split.fixed,
    }
    for key, is_set in exclusions.items():
        if is_set:
            excluded = render(f"mechanisms.excluded.{key}", scaler=study.encode.scaler)
            raise usage_error("mechanisms.refusals.covers", excluded=excluded)


def _steps(plan: Plan, rounds: int) -> int:
    return plan.steps if rounds else 1
