"""Site's answer in a study that asks for a statistic or an analysis in place of a model: one kind, two protections."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import Message

from flfed.federation.client.protection import Charge, RoundCharge, charge_of
from flfed.federation.client.redaction import NotTakingPart
from flfed.federation.client.released.model_answers import cells_kept, noised_cells
from flfed.federation.client.released.noised_answer import NoisedAnswer, Part, kept_path
from flfed.federation.client.secure_sums import SiteSums
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.training import Round, RunKind
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.session import SiteSession
from flfed.rows.statistics.analysis import ANSWER, NoisedAnalysis
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import Statistic, entries
from flfed.rows.training.requests import ComputeRequest
from flfed.study.kinds import ANALYSIS
from flfed.study.study import Study, covers_model
from flfed.updates.accounting import epsilon
from flfed.updates.arrays import Arrays
from flfed.updates.messages.kinds import STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest
from flfed.updates.messages.train import TrainRequest


@dataclass(frozen=True)
class StatisticProtection(ABC):
    """How the sums of a statistic are protected, at the site and in the figures that are made of them.

    Attributes
    ----------
    study : Study
    """

    study: Study

    @property
    @abstractmethod
    def name(self) -> str:
        """Under which figures are recorded."""

    @property
    @abstractmethod
    def statistic(self) -> Statistic:
        """The statistic, with its noise where it has any."""

    @abstractmethod
    def refusal(self, policy: Policy) -> Refusal | None:
        """Return why a site's policy forbids its sums to leave by themselves, None where it allows them."""

    @abstractmethod
    def sums(self, session: SiteSession, secure: SiteSums | None) -> Arrays:
        """Return a site's sums as they leave, by themselves or as its part of a secure sum; raises NotSpent."""

    def statistic_of_sum(self, least: int, sites: int) -> Statistic:
        """Return the statistic of a secure sum of at least `least` sites, which is over so many."""
        return self.statistic

    def known_rows(self, by_site: Mapping[str, Arrays], schema: Schema) -> dict[str, float]:
        """Return the number of rows of each site to which a promise is held; none where nothing is promised."""
        return {}


class ExactSums(StatisticProtection):
    """Exact sums of a statistic, which a policy allows or forbids."""

    @property
    def name(self) -> str:
        """Under which figures are recorded."""
        return self.study.statistic.name

    @cached_property
    def statistic(self) -> Statistic:
        """The statistic."""
        return statistic_of(self.study)

    def refusal(self, policy: Policy) -> Refusal | None:
        """Return why a site's policy forbids exact sums."""
        return policy.statistic_refusal(summed=False)

    def sums(self, session: SiteSession, secure: SiteSums | None) -> Arrays:
        """Return the sums over all rows."""
        found = self.statistic.sums(all_rows(session), session.schema)
        return {name: np.asarray(values) for name, values in found.items()}


class NoisedSums(StatisticProtection):
    """Sums of an analysis, whose noise is charged to the site's account."""

    @property
    def name(self) -> str:
        """Under which figures are recorded."""
        return ANALYSIS

    @cached_property
    def statistic(self) -> NoisedAnalysis:
        """The analysis, with the noise that the study's mechanism asks for."""
        charge = charge_of(self.study)
        return NoisedAnalysis.of_study(self.study, math.nan if charge is None else charge.release.noise)

    def refusal(self, policy: Policy) -> Refusal | None:
        """Return why a site's policy forbids noised sums."""
        return policy.analysis_refusal(summed=False)

    def sums(self, session: SiteSession, secure: SiteSums | None) -> Arrays:
        """Return the noised sums over all rows; raises NotSpent where the site's account does not allow them."""
        return self.answer(session, secure).drawn()

    def part_of_noise(self, least: int) -> NoisedAnalysis:
        """Return the analysis with a site's own part of the noise: that of all but one of `least` sites is enough.

        The one may be a site that tells the coordinator its part.
        """
        if not least:
            return self.statistic
        return replace(self.statistic, noise=self.statistic.noise / math.sqrt(least - 1))

    def statistic_of_sum(self, least: int, sites: int) -> NoisedAnalysis:
        """Return the analysis with the noise of all sites of a secure sum."""
        own = self.part_of_noise(least)
        return replace(own, noise=own.noise * math.sqrt(sites))

    def known_rows(self, by_site: Mapping[str, Arrays], schema: Schema) -> dict[str, float]:
        """Return the noised number of rows of each site."""
        return {site: self.statistic.figures([own], schema, own)["rows"]["value"] for site, own in by_site.items()}

    def answer(self, session: SiteSession, secure: SiteSums | None = None) -> NoisedAnswer:
        """Return a site's answer, by itself or as its part of a secure sum."""
        charge = charge_of(self.study)
        if charge is None:
            raise ValueError(f"study {self.study.name!r} charges nothing")
        least = 0
        facts: dict[str, Any] = {}
        if secure is not None:
            least = secure.least()
            approval = secure.keys.approval
            sites = len(secure.cohort().sites if approval is None else approval.pinned)
            facts = {"least_sites": least, "epsilon_colluding": colluding_epsilon(charge, least, sites)}
        part = Part(
            exact=np.asarray(self.statistic.sums(all_rows(session), session.schema)[ANSWER]),
            query=self.part_of_noise(least).query(session.schema),
            release=charge.release,
        )
        return NoisedAnswer(session=session, question=f"{ANALYSIS}-{least}", parts={ANSWER: part}, facts=facts)


class StatisticKind(RunKind):
    """A run that asks for sums over all rows once, and trains nothing."""

    def answer(self, request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
        """Refuse a round of training; raises NotTakingPart."""
        raise NotTakingPart(Refusal("kind-of-another-study"))

    def too_small(self, session: SiteSession) -> Refusal | None:
        """Return None: a statistic is of all rows, and has no parts."""
        return None

    def count_rows(self, session: SiteSession) -> int:
        """Return how many rows there are, held-out ones too."""
        return len(session.table.training) + len(session.table.holdout("statistic"))


def protection_of(study: Study) -> StatisticProtection:
    """Return how the sums of a study are protected."""
    return ExactSums(study) if study.analysis is None else NoisedSums(study)


def colluding_epsilon(charge: Charge, least: int, sites: int) -> float:
    """Return the ε of an answer in a sum of at least `least` of `sites`, of which a third tell their noise."""
    left = math.sqrt((least - sites // 3) / (least - 1))
    return epsilon([replace(charge.release, noise=charge.release.noise * left)], charge.delta)


def count_statistic(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too.

    Of a study with a model, all of which is charged, they are the noised counts of training rows that the encoder is
    made of.

    Raises
    ------
    NotTakingPart, NotSpent
        If the site's policy, or its account, does not allow them.
    """
    StatisticRequest.from_record(message.content)
    session = open_session()
    if covers_model(session.study):
        return StatisticReply(sums=noised_cells(session))
    protection = protection_of(session.study)
    secure = own.sums(session.study)
    # A study may ask for sums that nobody approved.
    refused = protection.refusal(session.site.policy)
    if secure is None and refused is not None:
        raise NotTakingPart(refused)
    sums = protection.sums(session, secure)
    if secure is None:
        return StatisticReply(sums=sums)
    own.under(session)
    numbers = entries(protection.statistic, sums, session.schema)
    return StatisticReply(masked=secure.masked_numbers(STATISTIC, numbers, session.seed))
    yield  # a handler is a generator, also one that asks for nothing


def is_answered(session: SiteSession) -> bool:
    """Tell whether a site has answered this very analysis over the same rows: to send it again costs nothing."""
    protection = protection_of(session.study)
    if not isinstance(protection, NoisedSums):
        return False
    answer = protection.answer(session)
    if answer.charge is None:
        return False
    # By itself or as a part of some sum: whose threshold is not known before the keys are.
    every = kept_path(answer.charge, session, f"{ANALYSIS}-*")
    return any(answer.kept(path) is not None for path in every.parent.glob(every.name))


def account_of(session: SiteSession) -> tuple[float, float]:
    """Return a site's budget of ε and what is spent of it, NaN where a study spends nothing.

    Raises
    ------
    NotSpent
        If there is no room for one round, or for the whole run where all that leaves is charged: it keeps the site out
        from the start.
    """
    spend = None if session.protection is None else session.protection.spend
    if not isinstance(spend, RoundCharge):
        return math.nan, math.nan
    return spend.figures(free=answered(session))


def answered(session: SiteSession) -> tuple[str, ...]:
    """Return the names of what a site has answered already, of this very text and over the same rows: it is free."""
    return (STATISTIC,) if is_answered(session) else cells_kept(session)


def all_rows(session: SiteSession) -> pd.DataFrame:
    """Return all rows: nothing is trained and nothing is judged, and the holdout is no other than the rest."""
    return pd.concat([session.table.training, session.table.holdout("statistic")], ignore_index=True)
