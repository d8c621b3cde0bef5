"""Interface of the mechanisms in `updates/privacy/`.

A mechanism says what it promises of a run, and how rounds are changed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flfed.study.plan import Plan, PrivateSteps
from flfed.study.study import Study
from flfed.study.tables import TREES
from flfed.updates.accounting import Release
from flfed.updates.arrays import Arrays
from flfed.updates.masks.ring import LARGEST_ENTRY, Ring
from flfed.words import render, usage_error

WEAK_EPSILON = 10.0
"""Above which a promise hardly says anything, and the record says that."""


Normals = Callable[[int], np.ndarray]
"""Draws so many numbers of mean 0 and deviation 1, as float64: the server's own noise of one round."""


@dataclass(frozen=True, kw_only=True)
class SiteNoise:
    """What a site does to its own update before a secure sum.

    It clips the update, and adds its part of the noise on the grid of the sum.

    Attributes
    ----------
    noise : float
        Noise multiplier σ of a sum of all sites.
    clip : float
        Largest norm C of an update.
    sites : int
        Sites n of a sum.

    Notes
    -----
    In units of the ring, of which there are s to 1, a clipped update is at most s·C long. Rounding it up or down at
    random moves each of its p entries by less than one, and so its length by less than √p. One site moves the sum by at
    most s·C + √p. Each site adds whole numbers, normal draws of deviation σ (s·C + √p) / √n that are rounded; n of them
    have deviation σ (s·C + √p) together. So the multiplier, and with it ε, is σ with the rounding counted in. The noise
    is larger than σ·C by the share √p / (s·C), which is 0.001 % of 20 sites and 4,000 entries.

    A sum of rounded normal draws reveals no more than that of the draws before rounding. Given the latter, the parts
    that rounding takes off are uniform, whatever the updates are, but for a probability below exp(-π² d²). There d is
    the deviation in units; of 1,000 sites with σ = 0.3 it is over 1,000. So no allowance is made for that.

    Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with
    secure aggregation", for rounding before noise in sums modulo a number.
    """

    noise: float
    clip: float
    sites: int

    @property
    def deviation(self) -> float:
        """Standard deviation of a site's noise, the part for rounding left out."""
        return self.noise * self.clip / math.sqrt(self.sites)

    @property
    def largest(self) -> float:
        """Largest entry of the ring, in place of `LARGEST_ENTRY`.

        No honest update with its noise has a larger one, nor does the check of a sum's norm refuse honest sites. It is
        ten times the sum of clip and one deviation, rounded up to a power of two, so that all sites have the same
        number.
        """
        return 2.0 ** math.ceil(math.log2(10 * (self.clip + self.deviation)))

    def clipped(self, entries: np.ndarray) -> np.ndarray:
        """Return an update whose norm is at most `clip`.

        One that is not finite has entries that are not either.
        """
        norm = float(np.linalg.norm(entries))
        return entries if norm <= self.clip else entries * (self.clip / norm)

    def units(self, entries: int, scale: float) -> float:
        """Return the deviation of a site's noise in units of a ring, rounding counted in the sensitivity."""
        return self.noise * (scale * self.clip + math.sqrt(entries)) / math.sqrt(self.sites)

    def added(self, vector: np.ndarray, ring: Ring, normals: Normals) -> np.ndarray:
        """Return a clipped update, as numbers of the ring, with a site's noise.

        Parameters
        ----------
        vector : array of the ring's dtype [entries]
        ring : Ring
        normals : callable (count) → float64 [count]
            The site's own draws: they must never be drawn again for another update.
        """
        drawn = np.rint(self.units(vector.size, ring.scale) * normals(vector.size)).astype(np.int64)
        return np.asarray(vector + drawn.astype(ring.dtype))


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Privacy guarantee of a run, before it begins.

    Attributes
    ----------
    mechanism : str
    unit : {"row", "person", "site", "outcome"}
        Who is hidden in the results: neighbours are tables, or federations, with and without one, or tables in which
        one person has another outcome.
    epsilon : float
        Of the whole run as it is planned, by the accountant; not the requested one.
    delta : float
    noise, sampling : float
        Noise multiplier and share of each step.
    clip : float
    steps : int
        Of the whole run: a site's steps of training, or for the unit "site" its rounds.
    """

    mechanism: str
    unit: Literal["row", "person", "site", "outcome"]
    epsilon: float
    delta: float
    noise: float
    sampling: float
    clip: float
    steps: int


class Mechanism:
    """Mechanism that changes nothing and promises nothing.

    Each listed one says what it does instead.

    Notes
    -----
    `check` takes the whole study: what breaks a promise may stand in any of its tables. All other
    questions about a run take the plan and the number of rounds, which every site and the server have.

    Examples
    --------
    >>> from flfed import Mechanism
    >>> Mechanism().promise(None, 10) is None
    True
    """

    refuses_by_norm = True
    """Whether the guard may set a site aside because of the others' norms: not where it would break the promise."""
    protects_rows = False
    """Whether noise protects rows while they are trained on: unless it says so itself, where it has `private_steps`."""

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "protects_rows" not in vars(cls):
            cls.protects_rows = cls.private_steps is not Mechanism.private_steps

    def check(self, study: Study) -> None:
        """Refuse a study whose promise could not be kept.

        Raises
        ------
        UsageError
            If the study would break it.
        """

    def check_sites(self, sites: int) -> None:
        """Refuse a number of sites that empties the promise.

        It is asked once the number is known.

        Raises
        ------
        UsageError
            Why.
        """

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take steps, None for the plan's way."""
        return None

    def round_release(self, plan: Plan, rounds: int) -> Release | None:
        """Return what one round spends of a site's budget.

        It is None where its ledger counts nothing.
        """
        return None

    def answer_releases(self, plan: Plan, rounds: int) -> Mapping[str, Release]:
        """Return what each noised answer beside the updates spends, by its name.

        None where nothing else is charged.
        """
        return {}

    def charged(self, plan: Plan, rounds: int) -> tuple[str, float] | None:
        """Return whose privacy a site's ledger counts, and at which δ.

        It is the promise's unit and δ, and None where the ledger counts nothing. A mechanism that knows both without
        its accountant says so here: a site's status asks for no more.
        """
        if self.round_release(plan, rounds) is None:
            return None
        promise = self.promise(plan, rounds)
        return None if promise is None else (promise.unit, promise.delta)

    def promise(self, plan: Plan, rounds: int) -> Promise | None:
        """Return the planned run's guarantee, None for nothing."""
        return None

    def spent(self, plan: Plan, rounds: int, asked: int) -> float | None:
        """Return what a site spends of which `asked` rounds were requested, None without a promise.

        A run is charged whole, with its first request.
        """
        promise = self.promise(plan, rounds)
        if promise is None:
            return None
        return promise.epsilon if asked else 0.0

    def merged(
        self, deltas: Mapping[str, Arrays], *, plan: Plan, rounds: int, asked: int, normals: Normals
    ) -> Arrays | None:
        """Return the one update that replaces the sites' own.

        It is None where the strategy sees theirs.

        Parameters
        ----------
        deltas : mapping of site to arrays
            Of the sites whose update the guard accepted.
        plan, rounds
            Of the study.
        asked : int
            How many sites were asked in the round, whatever they answered.
        normals : callable (count) → float64 [count]
            The server's draws of this round: the same when a round is repeated in simulation.
        """
        return None

    def site_noise(self, rounds: int, sites: int) -> SiteNoise | None:
        """Return what each site does to its update before a secure sum.

        It is None where it does nothing. A mechanism that has `merged` cannot do without: under secure sums the
        server has no updates to merge.

        Parameters
        ----------
        rounds : int
            Of the study.
        sites : int
            Of a sum.
        """
        return None

    def colluding(self, rounds: int, sites: int, colluding: int) -> float | None:
        """Return the ε of `rounds` secure sums against a server with which some sites collude.

        It is None where sites add no noise of their own.

        Parameters
        ----------
        rounds, sites : int
            As `site_noise` takes them.
        colluding : int, < sites
            Sites that give the server their own noise; only the noise of the others remains.
        """
        return None

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Return warnings on how far to believe the promise.

        They are what a person should know before that.

        Parameters
        ----------
        study : Study
        sites : int
            How many take part.
        """
        return ()

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for each unaccounted output.

        Such a thing leaves a site, or steers the run, and is not in the promise.
        """
        if study.is_statistic:
            if study.aggregation.sums_updates:
                return (render("mechanisms.uncharged.summed"),)
            return (render("mechanisms.uncharged.statistic"),)
        if study.is_vertical:
            return (
                render("mechanisms.uncharged.people"),
                render("mechanisms.uncharged.parcels-of-columns"),
                render("mechanisms.uncharged.parcels-of-outcomes"),
                render("mechanisms.uncharged.reasons"),
                render("mechanisms.uncharged.replies"),
                render("mechanisms.uncharged.ledger"),
                render("mechanisms.uncharged.joined"),
            )
        if not study.train:
            return uncharged_outputs(study)
        if study.model.name == TREES:
            cells = render("mechanisms.uncharged.cells")
            return (render("mechanisms.uncharged.trees"), cells, *uncharged_outputs(study))
        leaving = "either" if study.aggregation.is_optional else "sum"
        if not study.aggregation.sums_updates:
            leaving = "each"
        return (render(f"mechanisms.updates.{leaving}"), *uncharged_outputs(study))


def planned(rounds: int) -> int:
    """Return how many protected replies a study requests of each site: one where it has no rounds, an analysis."""
    return max(1, rounds)


def uncharged_outputs(study: Study) -> tuple[str, ...]:
    """Return a sentence for each output beside the updates.

    No mechanism puts noise on these.

    They are what the messages of `flfed.updates.messages` hold (each class says what it Reveals), and
    what the run does by them.
    """
    sums = "schema" if study.encode.scaler == "schema" else "sums"
    keys = ["rows", "reasons", sums, "loss", "metrics", "replies", "ledger", "comparison", "histograms", "audit"]
    keys.append("pooled")
    if not study.train:
        keys = ["rows", "reasons", "replies", "ledger", "validated", "histograms"]
    # The next outputs are of some studies only.
    if study.compare.calibration:
        keys.append("calibration")
    if study.compare.incumbent is not None:
        keys.append("incumbent")
    if study.adjusts_intercept():
        keys.append("intercept")
    # A loss steers the run only where some rule of the study reads it.
    choices = [render(f"mechanisms.choices.{choice}") for choice in study.loss_choices]
    if choices:
        keys.append("choices")
    if study.sweep:
        keys.append("sweep")
    rows = "validation" if study.plan.validation else "training"
    facts = {"rows": rows, "choices": " and ".join(choices)}
    return tuple(render(f"mechanisms.uncharged.{key}", **facts) for key in keys)


def check_steps(study: Study) -> None:
    """Refuse a study without fixed, clipped steps.

    Such steps are counted beforehand.

    Raises
    ------
    UsageError
        If the plan fixes no steps, clips whole gradients too, or each site scales its rows by its own means.
    """
    name = study.privacy.name
    plan = study.plan
    # Each step is charged, so that their number must not depend on the rows.
    if not plan.steps:
        raise usage_error("mechanisms.refusals.steps", name=name)
    if plan.clip:
        raise usage_error("mechanisms.refusals.clip")
    # Under a site's own scaler one row moves the inputs of all others.
    if study.encode.scaler == "per-site":
        raise usage_error("mechanisms.refusals.scaler", name=name)


def mechanism_of(study: Study) -> Mechanism | None:
    """Return a study's mechanism, None where it has none.

    Raises
    ------
    UsageError
        For settings that it does not have.
    """
    if study.privacy.name == "none":
        return None
    mechanism: Mechanism = study.privacy.build("mechanism")
    return mechanism


def acting_mechanism(study: Study) -> Mechanism:
    """Return a study's mechanism, or the one that changes nothing; raises as `mechanism_of` does."""
    return mechanism_of(study) or Mechanism()


def noise_of_site(study: Study, sites: int) -> SiteNoise | None:
    """Return what sites do to their updates before a secure sum, None for nothing.

    Parameters
    ----------
    study : Study
    sites : int
        Of a sum.
    """
    return acting_mechanism(study).site_noise(study.rounds, sites)


def largest_entry(study: Study, sites: int) -> float:
    """Return the largest entry of a site in the ring of a study's updates; parameters as of `noise_of_site`."""
    noise = noise_of_site(study, sites)
    return LARGEST_ENTRY if noise is None else noise.largest
