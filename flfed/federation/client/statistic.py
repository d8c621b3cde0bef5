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
from flfed.rows.statistics.statistic import statistic_of
from flfed.rows.training.requests import ComputeRequest
from flfed.study.statistic import is_statistic
from flfed.updates.messages.kinds import ENROL, STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest


def count_statistic(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, StatisticReply]:
    """Return the sums of the study's statistic over all rows, held-out ones too."""
    StatisticRequest.from_record(message.content)
    session = open_session()
    # Nothing is trained and nothing is judged: the holdout is no other than the rest.
    rows = pd.concat([session.table.training, session.table.holdout("statistic")], ignore_index=True)
    sums = statistic_of(session.study).sums(rows, session.schema)
    return StatisticReply(sums={name: np.asarray(values) for name, values in sums.items()})
    yield  # a handler is a generator, also one that asks for nothing


def opened_for(kind: str, open_session: Callable[[], SiteSession]) -> SiteSession:
    """Return the session for a message; raises NotTakingPart for one that its study does not ask.

    A study of a statistic asks for nothing else, and any other study for none.
    """
    session = open_session()
    if kind != ENROL and (kind == STATISTIC) != is_statistic(session.study):
        raise NotTakingPart(Refusal("kind-of-another-study"))
    return session


def too_small(session: SiteSession) -> Refusal | None:
    """Return which part of the rows is too small; a statistic is of all rows, and has no parts."""
    return None if is_statistic(session.study) else session.too_small()
