"""Record-level differential privacy.

Each row's gradient is clipped, and every step has noise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from flfed.study.plan import Plan, PrivateSteps
from flfed.study.settings import Settings
from flfed.study.study import Study
from flfed.updates.accounting import Clip, Delta, Epsilon, Release, Sampling, epsilon, noise_for, rdp_epsilon
from flfed.updates.mechanism import (
    BUDGETS,
    WEAK_EPSILON,
    Mechanism,
    Promise,
    check_steps,
    planned,
    uncharged_outputs,
)

ROUNDED = (
    "Of these, a site with disclosure 'institution' keeps the losses and metrics over rows that are trained on (unless "
    "its policy names the output 'training-figures'), and rounds those over other rows, and the comparison's, to three "
    "digits. There is no noise on them, and whoever chooses the model that is scored can make them tell of one row."
)

BESIDE = (
    "How long a site takes to answer, that it takes part, and why it does not: there is no noise on these. Whether "
    "delta is small enough for a site's rows is not checked there, since that would tell how many it has."
)


class RecordDp(Mechanism, Settings, where="[privacy]"):
    """DP-SGD at every site.

    Rows are drawn by Poisson sampling, each row's gradient is clipped, and each step has normal noise.

    Parameters
    ----------
    epsilon, delta : float, > 0
        What all rounds of the run may spend together at a site; the noise follows from it and from the
        steps planned. `delta` must be below one over the training rows of the largest site.
        Examples: `epsilon = 3.0`, `delta = 1e-5`.
    clip : float, > 0
        Largest norm of what one row adds to a step. Example: `clip = 0.5`.
    sampling : float in (0, 1]
        With what probability a row takes part in a step; it stands in place of `plan.batch`.
        Example: `sampling = 0.05`.
    unit : {"person", "row"}
        Whose privacy: a person's, where the schema names a group, or each row's alone.

    Notes
    -----
    A study without rounds, an analysis, is one answer of each site: counts and sums of all rows, each person at most
    once, with the noise of one step that takes all rows. `clip` and `sampling` are not used.

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

    def check(self, study: Study) -> None:
        """Refuse a study that would break the promise.

        Its steps are not fixed, or it clips twice, scales by site, or trains again on rows.
        """
        if study.analysis is None:
            check_steps(study)
        self._noise(study.plan, study.rounds)  # there may be none that is enough

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take their steps."""
        noise, sampling = self._noise(plan, rounds), self._sampling(rounds)
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
        return Promise(
            mechanism="record-dp", unit=self.unit, epsilon=epsilon([release], self.delta), delta=self.delta,
            noise=release.noise, sampling=release.sampling, clip=self.clip, steps=release.steps,
        )  # fmt: skip

    def spent(self, plan: Plan, rounds: int, asked: int, *, quick: bool = False) -> float | None:
        """Return the ε of a site's first `asked` rounds.

        The accountant gives it.
        """
        # The quick bound is up to a tenth too high, and takes milliseconds.
        releases = [self._release(plan, rounds, asked)]
        return rdp_epsilon(releases, self.delta) if quick else epsilon(releases, self.delta)

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Return warnings on weak promises and repeated persons.

        Rows may be one person's where the unit is a row.
        """
        found = []
        # Above this ε the promise hardly protects anybody.
        if self.epsilon > WEAK_EPSILON:
            found.append(f"epsilon={self.epsilon:g} hardly promises anything: of 1 it is strong, up to 8 it is usual.")
        if self.unit == "row":
            found.append("The promise is each row's: who has several rows has less, in proportion to them.")
        return tuple(found)

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for each output beside the updates.

        There is no noise on any of them.
        """
        if study.analysis is not None:
            return (BUDGETS, BESIDE)
        return (*uncharged_outputs(study), BUDGETS, ROUNDED)

    def _noise(self, plan: Plan, rounds: int) -> float:
        return noise_for(self.epsilon, self.delta, self._sampling(rounds), _steps(plan, rounds) * planned(rounds))

    def _sampling(self, rounds: int) -> float:
        return self.sampling if rounds else 1.0

    def _release(self, plan: Plan, rounds: int, asked: int) -> Release:
        return Release(self._noise(plan, rounds), self._sampling(rounds), _steps(plan, rounds) * asked)


def _steps(plan: Plan, rounds: int) -> int:
    return plan.steps if rounds else 1
