"""Protection of one site's rows in a run.

It follows from the study's mechanism, and is charged to the site's account.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flfed.federation.client.privacy_budget import PrivacyAccount, account_of_site
from flfed.federation.client.released.accounts import BOTH, SIDES, Side, holdout_hash, own_ledger
from flfed.records.ledger import Ledger
from flfed.refusals import NotSpent, Refusal, refuse
from flfed.rows.data import datasets
from flfed.rows.data.holdout import AnyHoldout, Holdout, HoldoutByOrder, HoldoutByTime
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


@dataclass(frozen=True)
class Charge:
    """Cost of each round in a site's budget.

    Attributes
    ----------
    release : Release
    unit : {"person", "row"}
        Whose privacy.
    delta : float
        Of the study's own guarantee.
    """

    release: Release
    unit: str
    delta: float

    def colluding_epsilon(self, sites: int) -> float:
        """Return the ε of an answer in a sum over so many sites if a third of them reveal their noise."""
        left = math.sqrt((sites - sites // 3) / (sites - 1))
        return epsilon([replace(self.release, noise=self.release.noise * left)], self.delta)


def charge_of(study: Study) -> Charge | None:
    """Return the cost of each round of a study.

    It is charged to a site, and is None without record-level differential privacy.
    """
    mechanism = acting_mechanism(study)
    release = mechanism.round_release(study.plan, study.rounds)
    promise = mechanism.promise(study.plan, study.rounds)
    if release is None or promise is None:
        return None
    return Charge(release=release, unit=promise.unit, delta=promise.delta)


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
        charge_of(study)
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
    refused = None
    if study.covers_model:
        refused = _sides_refusal(site.holdout, grouped=bool(schema.group))
    refused = refused or policy.privacy_refusal(mechanism=study.privacy.name, delta=delta)
    # Only a budget of a site that enforces it can be overdrawn.
    if not refused and policy.enforces_budget and unit == "row" and schema.group:
        # A budget of rows does not bound a person with several rows, and the two cannot be added up.
        return Refusal("unit-person-needed")
    return refused


def _sides_refusal(holdout: AnyHoldout, *, grouped: bool) -> Refusal | None:
    """Return why a holdout does not separate persons, or None.

    They are trained on or held out. Each has the whole ε of a study that covers both sides: a person on both would
    spend more.
    """
    if grouped and getattr(holdout, "same_groups", False):
        return Refusal("sides-share-persons")
    if isinstance(holdout, HoldoutByOrder) and holdout.rule.train_share is not None:
        return Refusal("sides-by-share")
    return None


def compares_models(study: Study) -> bool:
    """Return whether own and pooled models are fitted; under noise for all outputs none is compared."""
    return not study.is_covered


def follows_history(study: Study, site: Site) -> bool:
    """Return whether what a site releases in one run of a study may depend on its earlier runs."""
    return bool(site.policy.enforces_budget and run_charges(study, site))


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
    charge = charge_of(study)
    if too_small or charge is None:
        return too_small
    # Delta is compared with the units that it protects: persons, or else rows.
    units = table.training_rows
    if table.schema.group and charge.unit == "person":
        units = table.training[table.schema.group].nunique()
    return delta_defect(charge.delta, units)


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
    return study.encode.scaler not in ("schema", "private") and not study.is_vertical


def protection_of(
    study: Study, *, spend: Callable[[int], None] = no_spending, chance: Draw = SeededNoise
) -> Protection | None:
    """Return how a run protects a site's rows.

    It is None where the study requires no protection.

    Parameters
    ----------
    study : Study
    spend : callable (round)
        Records the cost of a round.
    chance : callable (Generator, study=text) → NoiseSource
        Source of the draws; by default they follow from the study's seed, and noise from its hash, too.
    """
    steps = acting_mechanism(study).private_steps(study.plan, study.rounds)
    if steps is None:
        return None
    return Protection(steps=steps, spend=spend, chance=partial(chance, study=noise_key(study.text)))


def side_charged(side: Side, study: Study, site: Site) -> Side:
    """Return the account of a release of one side's rows.

    It is both where a person of one side may be on the other too, in this study or in another one.

    Parameters
    ----------
    side : {"training", "holdout", "both"}
        Side of the release's rows.
    study : Study
        A published split differs from the site's own. Under a holdout by time a person without a complete row of the
        early period is held out of a study of complete rows, and trained on in one of all.
    site : Site
        Its policy may draw another split in each repeat. By its holdout by hash the side follows from the person alone.
        By time it does where nobody is on both sides. By order it follows from all rows.
    """
    holdout = site.holdout
    by_time = isinstance(holdout, HoldoutByTime) and not holdout.same_groups and study.encode.rows == "all"
    apart = isinstance(holdout, Holdout) or by_time
    return side if apart and not site.policy.resplit and not study.split.fixed else BOTH


Charged = dict[str, tuple[Side, Release]]
"""Charges by the name of the release, each with the side of the holdout whose account it counts on."""


def run_charges(study: Study, site: Site) -> Charged:
    """Return all charges of one run of a study.

    They are its rounds or its one answer, and all answers; they are empty for a study without a charge.
    """
    mechanism = acting_mechanism(study)
    release = mechanism.round_release(study.plan, study.rounds)
    if release is None:
        return {}
    of_rounds: Side = "training" if study.covers_model else BOTH
    name = TRAIN if study.analysis is None else STATISTIC
    charges: Charged = {name: (of_rounds, replace(release, steps=release.steps * planned(study.rounds)))}
    for answer, spent in mechanism.answer_releases(study.plan, study.rounds).items():
        charges[answer] = (spent.side, spent.release)
    return {name: (side_charged(side, study, site), release) for name, (side, release) in charges.items()}


@dataclass(frozen=True)
class RoundCharge:
    """Charge of one run's rounds to a site's account.

    It is called with the number of a round.

    Attributes
    ----------
    spending : PrivacyAccount
    charge : Charge
    study : Study
    run : str
    site : Site
    rows : str
        Hash of the site's rows, where one is known.
    repeat : int
    same_noise : bool
        Whether a repeated round has the same noise, which then follows from the study's seed.
    """

    spending: PrivacyAccount
    charge: Charge
    study: Study
    run: str
    site: Site
    rows: str = ""
    repeat: int = 0
    same_noise: bool = False

    def __call__(self, round: int) -> None:
        """Charge a round to the account.

        The charge is on the disk when this returns.

        Raises
        ------
        NotSpent
            If it exceeds the budget, or cannot be recorded.
        """
        # Exact sums moved with both sides' rows: so updates of a study with such sums are charged to both sides.
        side: Side = self.on("training") if self.study.covers_model else BOTH
        self.spending.reserve_round(self.charge.release, same_noise=self.same_noise, side=side, **self._line(round))

    def answer(self, releases: Sequence[Release], *, answer: str, request: str, side: Side, **facts: Any) -> None:
        """Charge an answer that is noised as a whole.

        `facts` are added to its lines. Raises as a round does.

        Parameters
        ----------
        releases : sequence of Release
            Of its parts.
        answer : str
            Its name: a run has it for one request.
        request : str
            Hash of the coordinator's choice for it; an empty text without a choice.
        side : {"training", "holdout", "both"}
            Side of the rows that it counts.
        """
        named = {"answer": answer, "request_sha256": request}
        self.spending.reserve(*releases, side=self.on(side), **self._line(0), **named, **facts)

    def on(self, side: Side) -> Side:
        """Return the account of a release of one side's rows."""
        return side_charged(side, self.study, self.site)

    def _line(self, round: int) -> dict[str, Any]:
        return {
            "study": self.study.name,
            "study_sha256": self.study.sha256(),
            "run": self.run,
            "repeat": self.repeat,
            "round": round,
            # Under covering noise the line names rows by a keyed hash alone: the ledger's head follows from it.
            "rows_sha256": "" if self.study.is_covered else self.rows,
            "unit": self.charge.unit,
            "delta": self.charge.delta,
            "given_encoder": excludes_encoder(self.study),
            "holdout_sha256": holdout_hash(self.site),
        }

    def figures(self, *, free: Collection[str] = ()) -> tuple[float, float]:
        """Return the budget and the consumed ε.

        The budget is NaN where there is none. One more round must be possible. Where noise covers every release it is
        the whole run, since a run that stops has spent and shows no figure. Charges with a name in `free` cost nothing.

        The consumed ε is NaN where it is unbounded: no infinite number crosses.

        Raises
        ------
        NotSpent
            If that exceeds the budget, or the ledger cannot be read.
        """
        releases = [(BOTH, self.charge.release)]
        whole = self.study.is_covered or self.study.is_vertical
        rule = holdout_hash(self.site)
        if whole:
            charges = run_charges(self.study, self.site)
            releases = [charged for name, charged in charges.items() if name not in free]
        refused = self.spending.refusal(releases, self.run, rule=rule, whole=whole)
        if refused:
            raise NotSpent(refused)
        # Where this run names a side, its rule counts beside those before.
        by_side = any(side in SIDES for side, _ in releases)
        spent = self.spending.spent(rule if by_side else None)
        if not math.isfinite(spent):
            spent = math.nan
        budget = self.spending.budget
        if budget is None:
            budget = math.nan
        return budget, spent


class RunCharge(RoundCharge):
    """Charge of a whole run at once, to the account of a party with the outcome: label privacy."""

    def __call__(self, round: int) -> None:
        """Charge all rounds of the run before the first number with noise is drawn; raises as a round does."""
        release = replace(self.charge.release, steps=self.charge.release.steps * self.study.rounds)
        self.spending.reserve(release, side=BOTH, **self._line(round))


def round_charge(protection: Protection | None) -> RoundCharge | None:
    """Return the charge of a session's noise, or None.

    Research sites have none, since they have no ledger.
    """
    if protection is not None and isinstance(protection.spend, RoundCharge):
        return protection.spend
    return None


def draws_once(protection: Protection | None) -> bool:
    """Return whether a round's noise is drawn once.

    Nobody can draw the same again then.
    """
    charge = round_charge(protection)
    return charge is not None and not charge.same_noise


class LocalProtection:
    """Protection of the sites of one process.

    It has the ledger in which each site records its consumption.

    Parameters
    ----------
    ledger_of : callable (site) → Ledger
        Default: the site's own on this machine.
    chance : callable (Generator, study=text) → NoiseSource
        Source of the draws: an institution's come from its operating system, those of simulation follow from the
        study's seed and hash.
    rows : str
        Hash of the rows that are served, where one is known.
    """

    def __init__(
        self, *, ledger_of: Callable[[Site], Ledger] = own_ledger, chance: Draw = SeededNoise, rows: str = ""
    ) -> None:
        self.ledger_of = ledger_of
        self._chance = chance
        self._rows = rows
        self._accounts: dict[tuple[str, str], PrivacyAccount] = {}

    @classmethod
    def by_system(cls, ledger: Ledger, rows: str) -> LocalProtection:
        """Return the protection of an institution, whose draws come from its operating system."""
        return cls(ledger_of=lambda site: ledger, chance=SystemNoise, rows=rows)

    def __call__(self, site: Site, study: Study, repeat: int, run: str) -> Protection | None:
        """Return how a run protects a site's rows.

        It is None where the study requires no protection.

        Research sites, which a study cuts out of a table, spend within the run only: nothing of it is on the disk.
        """
        charge = charge_of(study) if site.has_outcome else None
        # Research sites have no ledger: their spending ends with the run.
        if charge is None or study.dataset.partition is not None:
            return protection_of(study, chance=self._chance)
        # Where the guarantee covers every release, nobody may draw the noise again: in one process, too.
        chance = SystemNoise if study.is_covered else self._chance
        kind = RunCharge if study.is_vertical else RoundCharge
        reserving = kind(
            self._account(site, study.dataset.name), charge, study, run, site, self._rows, repeat,
            same_noise=chance is SeededNoise,
        )  # fmt: skip
        return protection_of(study, spend=reserving, chance=chance)

    def _account(self, site: Site, dataset: str) -> PrivacyAccount:
        key = (site.name, dataset)
        # One account a dataset: it remembers its lines, for a ledger may be long.
        if key not in self._accounts:
            self._accounts[key] = account_of_site(site, self.ledger_of(site), dataset)
        return self._accounts[key]
