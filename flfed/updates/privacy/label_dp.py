"""Label differential privacy: noise on the sums that a party with the outcome sends parties with other columns."""

from __future__ import annotations

from typing import Annotated

from flfed.study.plan import Plan, PrivateSteps
from flfed.study.settings import Settings
from flfed.study.study import Study
from flfed.updates.accounting import Clip, Delta, Epsilon, Release, epsilon, noise_for
from flfed.updates.mechanism import WEAK_EPSILON, Mechanism, Promise
from flfed.words import render, usage_error


class LabelDp(Mechanism, Settings, where="[privacy]"):
    """Noise that protects single outcomes where parties have different columns of the same people.

    It goes with the strategy "vertical" alone.

    Parameters
    ----------
    label_epsilon, delta : float, > 0
        What all steps of the run may spend together, of the privacy of one person's outcome. The noise follows from it
        and from the rounds. `delta` must be below one over the rows of the largest table. Examples:
        `label-epsilon = 3.0`, `delta = 1e-5`.
    row_norm : float, > 0
        Largest norm of a person's row at each party, in the units of the model: an input has deviation 1 there. Longer
        rows count with this norm in the sums, and whole in scores. Example: `row-norm = 3.0`.

    Notes
    -----
    Residuals of a classification are a probability minus the outcome, 0 or 1. Given the weights, one changed outcome
    changes one residual by 1, and the sums of a party by that person's row. Of P parties the sums together change by at
    most `row-norm` √P. The label party adds normal noise with σ times that deviation to each party's sums and, because
    later residuals follow from its weights, to its own. So σ is the noise multiplier of each step, and all weights of
    the run follow from sums with noise.

    Guarantee: whoever sees all sums and weights of a run learns almost the same whichever outcome one person has:
    (ε, δ) by `promise`. Neighbours are tables that differ in the outcome of one person. Assumes parties that keep to
    the protocol, which shorten their rows and return the sums that they were asked for, and noise that nobody else can
    draw. Columns are not protected, and figures over test rows are exact.

    Source: Chaudhuri and Hsu 2011, "Sample complexity bounds for differentially private learning", for label privacy;
    Balle and Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8.
    """

    protects_rows = False
    """Outcomes are protected, and the columns of a row are not."""

    label_epsilon: Epsilon = 3.0
    delta: Annotated[Delta, "in (0, 0.1): less than one over the rows of the largest table"] = 1e-5
    row_norm: Clip = 3.0

    def check(self, study: Study) -> None:
        """Refuse a study whose sites have all columns."""
        if not study.is_vertical:
            raise usage_error("mechanisms.refusals.parties")
        self._release(study.plan, study.rounds)  # there may be no noise that is enough

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps:
        """Return the norm of rows in the sums of a step, and the noise multiplier."""
        return PrivateSteps(clip=self.row_norm, noise=self._release(plan, rounds).noise, sampling=1.0)

    def round_release(self, plan: Plan, rounds: int) -> Release:
        """Return what the sums of one round spend."""
        return self._release(plan, rounds)

    def charged(self, plan: Plan, rounds: int) -> tuple[str, float]:
        """Return that a ledger counts outcomes, and at which δ."""
        return "outcome", self.delta

    def promise(self, plan: Plan, rounds: int) -> Promise:
        """Return what the run promises as it is planned."""
        release = self._release(plan, rounds, rounds)
        return Promise(
            mechanism="label-dp", unit="outcome", epsilon=epsilon([release], self.delta), delta=self.delta,
            noise=release.noise, sampling=1.0, clip=self.row_norm, steps=release.steps,
        )  # fmt: skip

    def spent(self, plan: Plan, rounds: int, asked: int) -> float:
        """Return the ε of the first `asked` rounds."""
        return epsilon([self._release(plan, rounds, asked)], self.delta)

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Return a warning on a weak promise."""
        if self.label_epsilon > WEAK_EPSILON:
            return (render("mechanisms.warnings.weak", epsilon=self.label_epsilon),)
        return ()

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for each output beside the sums that depend on outcomes."""
        charged = render("mechanisms.uncharged.parcels-of-outcomes")
        exact = [sentence for sentence in super().uncharged(study) if sentence != charged]
        return (*exact, render("mechanisms.uncharged.budgets"))

    def _release(self, plan: Plan, rounds: int, count: int = 1) -> Release:
        steps = plan.steps or 1
        return Release(noise_for(self.label_epsilon, self.delta, 1.0, steps * rounds), 1.0, steps * count)
