"""Site's answer in a study that asks for a statistic or an analysis in place of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
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
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.private.analysis import ANSWER, NoisedAnalysis
from flfed.rows.statistics.statistic import Statistic, entries
from flfed.rows.training.requests import ComputeRequest
from flfed.study.coverage import covers_model, is_covered
from flfed.study.statistic import ANALYSIS, is_statistic
from flfed.study.study import Study
from flfed.updates.accounting import epsilon
from flfed.updates.messages.kinds import STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest

ANY_ROWS = (0, 2**32 - 1)
"""Band of a study whose every answer is noised: of so many rows, clipped sums are exact in a secure sum of up to 2,000
sites."""


def asked_statistic(study: Study) -> Statistic:
    """Return a study's statistic, or its analysis with the noise that the study's mechanism asks for."""
    return statistic_of(study) if study.analysis is None else asked_analysis(study)


def asked_analysis(study: Study) -> NoisedAnalysis:
    """Return a study's analysis with the noise that the study's mechanism asks for."""
    charge = charge_of(study)
    return NoisedAnalysis.of_study(study, math.nan if charge is None else charge.release.noise)


def noise_of_sum(analysis: NoisedAnalysis, least: int) -> NoisedAnalysis:
    """Return an analysis with a site's own part of the noise: that of all but one of `least` sites is enough.

    The one may be a site that tells the coordinator its part.
    """
    return analysis if not least else replace(analysis, noise=analysis.noise / math.sqrt(least - 1))


def colluding_epsilon(charge: Charge, least: int, sites: int) -> float:
    """Return the ε of an answer in a sum of at least `least` of `sites`, of which a third tell their noise."""
    left = math.sqrt((least - sites // 3) / (least - 1))
    return epsilon([replace(charge.release, noise=charge.release.noise * left)], charge.delta)


def count_statistic(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too; raises NotTakingPart.

    Those of an analysis have noise, and raise NotSpent where the site's account does not allow it. Of a study with a
    model, all of which is charged, they are the noised counts of training rows that the encoder is made of.
    """
    StatisticRequest.from_record(message.content)
    session = open_session()
    if covers_model(session.study):
        return StatisticReply(sums=noised_cells(session))
    secure, analysis = own.sums(session.study), session.study.analysis is not None
    # A study may ask for sums that nobody approved.
    policy = session.site.policy
    refused = policy.analysis_refusal(summed=False) if analysis else policy.statistic_refusal(summed=False)
    if secure is None and refused is not None:
        raise NotTakingPart(refused)
    statistic = statistic_of(session.study)
    if analysis:
        sums = analysis_answer(session, secure).drawn()
    else:
        sums = {name: np.asarray(values) for name, values in statistic.sums(all_rows(session), session.schema).items()}
    if secure is None:
        return StatisticReply(sums=sums)
    own.under(session)
    numbers = entries(statistic, sums, session.schema)
    return StatisticReply(masked=secure.masked_numbers(STATISTIC, numbers, session.seed))
    yield  # a handler is a generator, also one that asks for nothing


def analysis_answer(session: SiteSession, sums: SiteSums | None = None) -> NoisedAnswer:
    """Return a site's answer to an analysis, by itself or as its part of a secure sum."""
    analysis, charge = asked_analysis(session.study), charge_of(session.study)
    if charge is None:
        raise ValueError(f"study {session.study.name!r} charges nothing")
    least, facts = 0, dict[str, Any]()
    if sums is not None:
        least = sums.least()
        sites = len(sums.cohort().sites if sums.keys.approval is None else sums.keys.approval.pinned)
        facts = {"least_sites": least, "epsilon_colluding": colluding_epsilon(charge, least, sites)}
    return NoisedAnswer(
        session=session,
        question=f"{ANALYSIS}-{least}",
        parts={
            ANSWER: Part(
                exact=np.asarray(analysis.sums(all_rows(session), session.schema)[ANSWER]),
                query=noise_of_sum(analysis, least).query(session.schema),
                release=charge.release,
            )
        },
        facts=facts,
    )


def is_answered(session: SiteSession) -> bool:
    """Tell whether a site has answered this very analysis over the same rows: to send it again costs nothing."""
    if session.study.analysis is None:
        return False
    asked = analysis_answer(session)
    if asked.charge is None:
        return False
    # By itself or as a part of some sum: whose threshold is not known before the keys are.
    every = kept_path(asked.charge, session, f"{ANALYSIS}-*")
    return any(asked.kept(path) is not None for path in every.parent.glob(every.name))


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


def rows_band(session: SiteSession) -> tuple[int, int]:
    """Return the power of ten in which the number of rows lies, of all rows where a statistic is asked for.

    Where all that leaves is charged, the number of rows is one of the noised answers, and the band is that of any
    table.
    """
    if is_covered(session.study):
        return ANY_ROWS
    low = 10 ** (len(str(rows_asked(session))) - 1)
    return low, 10 * low - 1


def rows_asked(session: SiteSession) -> int:
    """Return how many rows a study sums over, or trains on."""
    others = len(session.table.holdout("statistic")) if is_statistic(session.study) else 0
    return len(session.table.training) + others


def too_small(session: SiteSession) -> Refusal | None:
    """Return which part of the rows is too small; a statistic is of all rows, and has no parts."""
    return None if is_statistic(session.study) else session.too_small()
