"""Site's answer in a study that asks for a statistic in place of a model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import Message

from flfed.federation.client.redaction import NotTakingPart
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.statistics.statistic import entries, statistic_of
from flfed.rows.training.requests import ComputeRequest
from flfed.study.statistic import is_statistic
from flfed.updates.messages.kinds import ENROL, KEYS, LIST, STATISTIC, UNMASK
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest


def count_statistic(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too; raises NotTakingPart."""
    StatisticRequest.from_record(message.content)
    session = open_session()
    secure = own.sums(session.study)
    # A study may ask for sums that nobody approved.
    if secure is None and session.site.policy.statistic_refusal(summed=False) is not None:
        raise NotTakingPart(Refusal("statistic-exact"))
    statistic = statistic_of(session.study)
    sums = {name: np.asarray(values) for name, values in statistic.sums(_rows(session), session.schema).items()}
    if secure is None:
        return StatisticReply(sums=sums)
    own.under(session)
    numbers = entries(statistic, sums, session.schema)
    return StatisticReply(masked=secure.masked_numbers(STATISTIC, numbers, session.seed))
    yield  # a handler is a generator, also one that asks for nothing


def _rows(session: SiteSession) -> pd.DataFrame:
    """Return all rows: nothing is trained and nothing is judged, and the holdout is no other than the rest."""
    return pd.concat([session.table.training, session.table.holdout("statistic")], ignore_index=True)


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
