"""Protection of one site's rows in a run.

It follows from the study's mechanism, and is charged to the site's account.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from flfed.federation.client.account import Account, Charge
from flfed.paths import SiteFolder
from flfed.records.site_state import SiteState, state_of
from flfed.refusals import NotSpent, Refusal, refuse
from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByOrder
from flfed.rows.data.site import Site, SiteTable, dataset_refusal, study_refusal, study_table
from flfed.rows.statistics.of_study import unconfirmed_columns
from flfed.rows.training.private_noise import NoiseSource, Protection, SeededNoise, SystemNoise, no_spending
from flfed.seeds import noise_key
from flfed.study.study import Study
from flfed.updates.accounting import Release, delta_defect, epsilon
from flfed.updates.mechanism import acting_mechanism, planned
from flfed.updates.messages.kinds import STATISTIC, TRAIN

Draw = Callable[..., NoiseSource]
"""Makes the source of a round's draws from its seeded generator."""


ANY_ROWS = (0, 2**32 - 1)
"""Band of a study with noise on every answer: with up to so many rows, clipped sums are exact in a secure sum of up to
2,000 sites."""


def is_charged(study: Study) -> bool:
    """Return whether a run of a study is charged to the sites' accounts: under record-level differential privacy."""
    return acting_mechanism(study).charged(study.plan, study.rounds) is not None


def run_charges(study: Study) -> dict[str, Release]:
    """Return what one run of a study spends at a site, by name: its rounds or its one answer, and all other answers."""
    mechanism = acting_mechanism(study)
    release = mechanism.round_release(study.plan, study.rounds)
    if release is None:
        return {}
    name = TRAIN if study.analysis is None else STATISTIC
    of_rounds = replace(release, steps=release.steps * planned(study.rounds))
    return {name: of_rounds, **mechanism.answer_releases(study.plan, study.rounds)}


def charge_of(study: Study, run: str = "", repeat: int = 0) -> Charge | None:
    """Return the charge of one run of a study at a site; None where nothing is charged."""
    charged = acting_mechanism(study).charged(study.plan, study.rounds)
    if charged is None:
        return None
    unit, delta = charged
    grouped = datasets.load(study.dataset.name).schema.group
    return Charge(
        study_sha256=study.sha256(), run=run, repeat=repeat, study=study.name, dataset=study.dataset.name,
        unit=unit if grouped or unit == "outcome" else "person", delta=delta,
        given_encoder=excludes_encoder(study), releases=tuple(run_charges(study).values()),
    )  # fmt: skip


def colluding_epsilon(study: Study, sites: int) -> float:
    """Return the ε of an analysis's answer in a sum over so many sites if a third of them reveal their noise."""
    charged = charge_of(study)
    if charged is None:
        raise ValueError(f"study {study.name!r} charges nothing")
    left = math.sqrt((sites - sites // 3) / (sites - 1))
    return epsilon([replace(release, noise=release.noise * left) for release in charged.releases], charged.delta)


def privacy_refusal(study: Study, site: Site, *, noise: bool = True) -> Refusal | None:
    """Return why a policy refuses a study's protection, or None.

    No row is read.

    Parameters
    ----------
    study : Study
    site : Site
    noise : bool
        Whether to check that some noise is enough, which takes the accountant a second and raises where none is.
    """
    mechanism = acting_mechanism(study)
    policy = site.policy
    charged = mechanism.charged(study.plan, study.rounds)
    if noise:
        run_charges(study)
    # Label privacy protects no columns: a party without the outcome is charged nothing, and promised nothing.
    if charged is None or not site.has_outcome:
        return policy.privacy_refusal(mechanism=study.privacy.name, delta=None)
    if site.source.keep is not None:
        return Refusal("keep-private")
    unit, delta = charged
    schema = datasets.load(study.dataset.name).schema
    unconfirmed = unconfirmed_columns(study, schema)
    if unconfirmed:
        return Refusal("ranges-unconfirmed", columns=", ".join(unconfirmed))
    # One person must not move others from side to side.
    if study.covers_model and isinstance(site.holdout, HoldoutByOrder) and site.holdout.rule.train_share is not None:
        return Refusal("sides-by-share")
    refused = policy.privacy_refusal(mechanism=study.privacy.name, delta=delta)
    # Only a budget of a site that enforces it can be overdrawn.
    if not refused and policy.enforces_budget and unit == "row" and schema.group:
        # A budget of rows does not bound a person with several rows, and the two cannot be added up.
        return Refusal("unit-person-needed")
    return refused


def compares_models(study: Study) -> bool:
    """Return whether own and pooled models are fitted; under noise for all outputs none is compared."""
    return not study.is_covered


def follows_history(study: Study, site: Site) -> bool:
    """Return whether what a site releases in one run of a study may depend on its earlier runs."""
    return bool(site.policy.enforces_budget and run_charges(study))


def read_ahead(study: Study, sites: Sequence[Site]) -> None:
    """Read the tables that a study's sessions will need, of cached sites.

    A site that does not take part, or cannot be read, has its error in its session, which keeps what may not cross.
    """
    if study.expires is not None and datetime.date.today() > study.expires:
        return
    for site in sites:
        with suppress(Exception):
            study_table(study, willing_site(site, study))


def willing_site(site: Site, study: Study) -> Site:
    """Return a site with the study's dataset, unless it refuses the study before a row is read."""
    refuse(dataset_refusal(study, site))
    site = site.serving(study.dataset.name)
    # Refusals that need no row come before the table is read.
    refuse(study_refusal(study, site) or privacy_refusal(study, site))
    return site


def rows_refusal(study: Study, table: SiteTable, too_small: Refusal | None) -> Refusal | None:
    """Return why a site's rows are too few, or None.

    They may be for the study, or for its guarantee. Where noise covers every release nothing may follow from exact
    counts, not even a refusal.

    Parameters
    ----------
    study : Study
    table : SiteTable
    too_small : Refusal or None
        Refusal of a part of the rows that is too small for the kind of run.
    """
    if study.is_covered:
        return None
    charged = acting_mechanism(study).charged(study.plan, study.rounds)
    if too_small or charged is None:
        return too_small
    unit, delta = charged
    # Delta is compared with the units that it protects: persons, or else rows.
    units = table.training_rows
    if table.schema.group and unit == "person":
        units = table.training[table.schema.group].nunique()
    return delta_defect(delta, units)


def rows_band(study: Study, rows: int) -> tuple[int, int]:
    """Return the power of ten of a number of rows.

    Where noise covers every release, the number of rows is one of the noised answers, and the band is that of any
    table.
    """
    if study.is_covered:
        return ANY_ROWS
    low = 10 ** (len(str(rows)) - 1)
    return low, 10 * low - 1


def excludes_encoder(study: Study) -> bool:
    """Return whether what the study's ε protects moves the encoder, which it does not cover; no outcome does."""
    return study.encode.scaler != "schema" and not study.is_vertical


def protection_of(
    study: Study, *, spend: Callable[[int], None] = no_spending, chance: Draw = SeededNoise
) -> Protection | None:
    """Return how a run protects a site's rows.

    It is None where the study requires no protection.

    Parameters
    ----------
    study : Study
    spend : callable (round)
        Charges the run.
    chance : callable (Generator, study=text) → NoiseSource
        Source of the draws; by default they follow from the study's seed, and noise from its hash, too.
    """
    steps = acting_mechanism(study).private_steps(study.plan, study.rounds)
    if steps is None:
        return None
    return Protection(steps=steps, spend=spend, chance=partial(chance, study=noise_key(study.text)))


@dataclass(frozen=True)
class RunCharge:
    """Charge of one run to a site's account.

    It is called with the round whose noise is to be drawn.

    Attributes
    ----------
    account : Account
    charge : Charge
    draws_once : bool
        Whether no noise may be drawn again in the run; noise that follows from a seed is the same again.
    """

    account: Account
    charge: Charge
    draws_once: bool

    def __call__(self, round: int) -> None:
        """Charge the whole run, once; raises NotSpent."""
        self.account.charge(self.charge, draws=round if self.draws_once else None)

    def figures(self) -> tuple[float, float]:
        """Return the site's budget and what is spent of it, each NaN where there is no such number.

        Raises
        ------
        NotSpent
            If the run does not fit, or the account cannot be read.
        """
        policy = self.account.policy
        spent = self.account.spent()
        if why := self.account.refusal(spent, self.charge):
            raise NotSpent(why)
        now = spent.epsilon(policy.delta)
        return math.nan if policy.epsilon is None else policy.epsilon, now if math.isfinite(now) else math.nan


def run_charge(protection: Protection | None) -> RunCharge | None:
    """Return the charge of a session's run; None for research sites, which have no account."""
    if protection is not None and isinstance(protection.spend, RunCharge):
        return protection.spend
    return None


def draws_once(protection: Protection | None) -> bool:
    """Return whether a round's noise is drawn once, so that nobody can draw the same again."""
    charge = run_charge(protection)
    return charge is not None and charge.draws_once


def own_state(site: Site) -> SiteState:
    """Return the state of a site on this machine."""
    folder = SiteFolder(site.name)
    folder.make()
    return state_of(folder)


class LocalProtection:
    """Protection of the sites of one process, with the state of each.

    Parameters
    ----------
    state_of : callable (site) → SiteState
        Default: the site's own on this machine.
    chance : callable (Generator, study=text) → NoiseSource
        Source of the draws: an institution's come from its operating system, those of simulation follow from the
        study's seed and hash.
    has_journal : bool
        Whether a journal lets each step of a run have one answer, so that the account need not see to it.
    """

    def __init__(
        self,
        *,
        state_of: Callable[[Site], SiteState] = own_state,
        chance: Draw = SeededNoise,
        has_journal: bool = False,
    ) -> None:
        self._state_of = state_of
        self._has_journal = has_journal
        self._chance = chance
        self._accounts: dict[str, Account] = {}

    @classmethod
    def by_system(cls, state: SiteState) -> LocalProtection:
        """Return the protection of an institution, whose draws come from its operating system.

        Its gate's journal lets one reply to a round leave, so that noise of one that did not leave is drawn anew.
        """
        return cls(state_of=lambda site: state, chance=SystemNoise, has_journal=True)

    def __call__(self, site: Site, study: Study, repeat: int, run: str) -> Protection | None:
        """Return how a run protects a site's rows.

        It is None where the study requires no protection. Research sites, which a study cuts out of a table, have no
        account.
        """
        if not is_charged(study) or study.dataset.partition is not None or not site.has_outcome:
            return protection_of(study, chance=self._chance)
        charge = charge_of(study, run, repeat)
        if charge is None:
            return None
        # Where the guarantee covers every release, nobody may draw the noise again: in one process, too.
        chance = SystemNoise if study.is_covered else self._chance
        if site.name not in self._accounts:
            self._accounts[site.name] = Account(self._state_of(site), site.policy)
        spend = RunCharge(
            self._accounts[site.name], charge, draws_once=chance is not SeededNoise and not self._has_journal
        )
        return protection_of(study, spend=spend, chance=chance)
