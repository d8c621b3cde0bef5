"""Site's answer in a study that asks for a statistic in place of a model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from flwr.app import Message

from flfed.federation.client.noised_answer import all_rows, noised_sums
from flfed.federation.client.redaction import NotTakingPart
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.statistics.statistic import entries, statistic_of
from flfed.rows.training.requests import ComputeRequest
from flfed.study.statistic import is_statistic
from flfed.updates.messages.kinds import ENROL, KEYS, LIST, STATISTIC, UNMASK
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest

ANY_ROWS = (0, 2**32 - 1)
"""Band of an analysis: of so many rows, clipped sums are exact in a secure sum of up to 2,000 sites."""


def count_statistic(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too; raises NotTakingPart.

    Those of an analysis have noise, and raise NotSpent where the site's account does not allow it.
    """
    StatisticRequest.from_record(message.content)
    session = open_session()
    secure, analysis = own.sums(session.study), session.study.analysis is not None
    # A study may ask for sums that nobody approved.
    policy = session.site.policy
    refused = policy.analysis_refusal(summed=False) if analysis else policy.statistic_refusal(summed=False)
    if secure is None and refused is not None:
        raise NotTakingPart(refused)
    statistic = statistic_of(session.study)
    if analysis:
        sums = noised_sums(session, secure)
    else:
        sums = {name: np.asarray(values) for name, values in statistic.sums(all_rows(session), session.schema).items()}
    if secure is None:
        return StatisticReply(sums=sums)
    own.under(session)
    numbers = entries(statistic, sums, session.schema)
    return StatisticReply(masked=secure.masked_numbers(STATISTIC, numbers, session.seed))
    yield  # a handler is a generator, also one that asks for nothing


def rows_band(session: SiteSession) -> tuple[int, int]:
    """Return the power of ten in which the number of rows lies, of all rows where a statistic is asked for.

    Of an analysis the number of rows is one of its noised answers, and the band is that of any table.
    """
    if session.study.analysis is not None:
        return ANY_ROWS
    low = 10 ** (len(str(rows_asked(session))) - 1)
    return low, 10 * low - 1


def rows_asked(session: SiteSession) -> int:
    """Return how many rows a study sums over, or trains on."""
    others = len(session.table.holdout("statistic")) if is_statistic(session.study) else 0
    return len(session.table.training) + others


def opened_for(kind: str, open_session: Callable[[], SiteSession]) -> SiteSession:
    """Return the session for a message; raises NotTakingPart for one that its study does not ask.

    A study of a statistic asks for nothing else, but what its secure sums take, and any other study for none.
    """
    session = open_session()
    if kind not in (ENROL, KEYS, LIST, UNMASK) and (kind == STATISTIC) != is_statistic(session.study):
        raise NotTakingPart(Refusal("kind-of-another-study"))
    return session


def too_small(session: SiteSession) -> Refusal | None:
    """Return which part of the rows is too small; a statistic is of all rows, and has no parts."""
    return None if is_statistic(session.study) else session.too_small()
