"""Site's answer in a study with a statistic or an analysis.

They are one kind of run, with two protections, in place of a model.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flfed.federation.client.masked import SiteSums
from flfed.federation.client.protection import run_charge, run_charges
from flfed.federation.client.released.noised_answer import draw_once, noised_counts
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal, refuse
from flfed.rows.session import SiteSession
from flfed.rows.statistics.newton import has_own_fits, own_fit
from flfed.rows.statistics.noised_analysis import ANSWER, NoisedAnalysis
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import Statistic, VisitedStatistic, entries
from flfed.rows.training.requests import ComputeRequest
from flfed.study.kinds import ANALYSIS
from flfed.study.study import Study
from flfed.updates.arrays import Arrays
from flfed.updates.messages.summarise import STATISTIC, StatisticReply, StatisticRequest

LARGEST_SHARE = 0.1
"""Most that one row may have of what its site's sums are made of: see a statistic's `largest_share`."""


@dataclass(frozen=True)
class ExactSums:
    """Exact sums of a statistic over all rows of a site.

    Attributes
    ----------
    study : Study
    point : dict of name to array
        The numbers at which a visit requests the sums; none of a statistic with one visit.
    """

    study: Study
    point: Arrays = field(default_factory=dict)

    @cached_property
    def statistic(self) -> Statistic:
        """The statistic, with its noise where it has any."""
        statistic = statistic_of(self.study)
        if self.point and isinstance(statistic, VisitedStatistic):
            return statistic.at(self.point)
        return statistic

    def row_refusal(self, session: SiteSession) -> Refusal | None:
        """Return why sums at these numbers do not leave an institution, or None.

        A coordinator can choose coefficients at which a sum over many rows is the values of one.
        """
        statistic = self.statistic
        if session.site.policy.is_open or not isinstance(statistic, VisitedStatistic):
            return None
        if statistic.largest_share(all_rows(session), session.schema) <= LARGEST_SHARE:
            return None
        if any(values.any() for values in self.point.values()):
            return Refusal("row-outweighs")
        # At coefficients of 0 every run begins.
        return Refusal("row-outweighs-first")

    def refusal(self, session: SiteSession) -> Refusal | None:
        """Return why a site's policy forbids its sums to leave alone, or None."""
        return session.site.policy.statistic_refusal(summed=False)

    def sums(self, session: SiteSession, secure: SiteSums | None) -> Arrays:
        """Return the outbound sums: alone, or for a secure sum."""
        sums = self.statistic.sums(all_rows(session), session.schema)
        return {name: np.asarray(values) for name, values in sums.items()}

    def own_fit(self, session: SiteSession) -> Arrays:
        """Return a fit to the site's rows alone, where its policy lets one leave; else nothing."""
        statistic = self.statistic
        if has_own_fits(statistic) and session.site.policy.is_open:
            return own_fit(statistic, all_rows(session), session.schema)
        return {}

    def statistic_of_sum(self, sites: int) -> Statistic:
        """Return the statistic of a secure sum over so many sites, with the noise of all of them."""
        return self.statistic


class NoisedSums(ExactSums):
    """Sums of an analysis, with the noise of the study's budget.

    The noise is drawn once for a run.
    """

    @cached_property
    def statistic(self) -> NoisedAnalysis:
        """The counts, with the noise of an answer that leaves alone."""
        return NoisedAnalysis.of_study(self.study, run_charges(self.study)[STATISTIC].noise)

    def refusal(self, session: SiteSession) -> Refusal | None:
        """Return None: the answer has noise."""
        return None

    def sums(self, session: SiteSession, secure: SiteSums | None) -> Arrays:
        """Return the site's one answer, alone or as its part of a secure sum; raises NotSpent."""
        cohort = None if secure is None else secure.keys.cohort()
        query = self.part_of_noise(0 if cohort is None else len(cohort.sites)).query(session.schema)
        exact = self.statistic.sums(all_rows(session), session.schema)
        # With other sites the same noise would cancel in the difference of two sums.
        request = "" if cohort is None else cohort.pins[:16]
        return draw_once(session, ANALYSIS, exact, {ANSWER: query}, request)

    def part_of_noise(self, sites: int) -> NoisedAnalysis:
        """Return the analysis with a site's own part of the noise of a sum over so many; of 0, the whole noise.

        That of all but one is enough. The one may be a site that reveals its part to the coordinator.
        """
        if not sites:
            return self.statistic
        return replace(self.statistic, noise=self.statistic.noise / math.sqrt(sites - 1))

    def statistic_of_sum(self, sites: int) -> NoisedAnalysis:
        """Return the analysis with the noise of all sites of a secure sum."""
        own = self.part_of_noise(sites)
        return replace(own, noise=own.noise * math.sqrt(sites))


def protection_of(study: Study, point: Arrays | None = None) -> ExactSums:
    """Return how the sums of a study's statistic at a visit's numbers, or of its analysis, are protected."""
    return ExactSums(study, point or {}) if study.analysis is None else NoisedSums(study)


def count_statistic(
    request: StatisticRequest, session: SiteSession, own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too.

    In a study with a model and covering noise, they are the noised counts of training rows by class.

    Raises
    ------
    NotTakingPart, NotSpent
        If the site's policy, or its account, does not allow them.
    """
    if session.study.covers_model:
        return StatisticReply(sums=noised_counts(session))
    original_request, request = request, own.completed(request, session)
    protection = protection_of(session.study, request.point)
    secure = own.sums(session.study)
    if secure is None:
        # A study may request sums without an approval.
        refuse(protection.refusal(session))
    refuse(protection.row_refusal(session))
    sums = protection.sums(session, secure)
    if secure is None:
        fit = protection.own_fit(session) if request.round <= 0 else {}
        return StatisticReply(sums=sums, fit=fit)
    own.under(session)
    numbers = entries(protection.statistic, sums, session.schema)
    visit = original_request if request.point else None
    return StatisticReply(masked=secure.masked_counts(numbers, STATISTIC, visit))
    yield  # a handler is a generator, also one without requests


def account_of(session: SiteSession) -> tuple[float, float]:
    """Return a site's budget of ε and the spent part of it.

    It is NaN where a study spends nothing.

    Raises
    ------
    NotSpent
        If there is no room for the whole run: then the site does not take part at all.
    """
    charge = run_charge(session.protection)
    return (math.nan, math.nan) if charge is None else charge.figures()


def all_rows(session: SiteSession) -> pd.DataFrame:
    """Return all rows.

    Without training and comparison, the holdout is like the other rows.
    """
    return pd.concat([session.table.training, session.table.holdout("statistic")], ignore_index=True)
