"""A site's noised answers about a model.

They are counts for encoder and scores, under covering noise.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from flfed.federation.client.released.noised_answer import noised_holdout_counts
from flfed.federation.client.site_run import SiteRun
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_counts import weights_of
from flfed.rows.training.requests import ComputeRequest
from flfed.summaries.noised_scores import (
    FIRST,
    SCORES,
    first_counts,
    score_counts,
)
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import Arrays, byte_array
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest


def is_last(reply: object) -> bool:
    """Return whether a reply is the last of a study.

    The last one has counts by class and score.
    """
    return isinstance(reply, ScoresReply) and reply.counts.ndim == 2


def count_scores(
    request: ScoresRequest, session: SiteSession, own: SiteRun
) -> Generator[ComputeRequest, Any, ScoresReply]:
    """Return noised counts of holdout rows by score.

    Where bins are given they are by class and score. Raises NotSpent where not allowed.
    """
    encoder = session.in_use(request.encoder)
    holdout = session.table.holdout("scores")
    rows = session.encode(holdout, encoder)
    odds = yield from _log_odds(session, request.arrays, rows.x)
    weights = weights_of(holdout, session.schema, by_person=session.study.by_person)
    of_model = arrays_sha256({**request.arrays, **encoder.arrays()})
    if request.edges is None:
        name = FIRST
        exact = first_counts(odds, weights)
    else:
        name = SCORES
        exact = score_counts(odds, rows.y.astype(np.int64), weights, request.edges)
        of_model = arrays_sha256({"edges": request.edges, "of": byte_array(bytes.fromhex(of_model))})
    counts = noised_holdout_counts(session, name, of_model, exact)
    return ScoresReply(counts=counts)


def _log_odds(session: SiteSession, arrays: Arrays, x: np.ndarray) -> Generator[ComputeRequest, Any, np.ndarray]:
    outputs = yield from session.outputs(arrays, x)
    return np.ravel(outputs).astype(np.float64)
