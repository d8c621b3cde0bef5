"""Figures of a model that is one too many for a site: with noise, charged to the account of its test rows."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from flwr.app import Message

from flfed.federation.client.protection import round_charge
from flfed.federation.client.released.noised_answer import noised_holdout_counts
from flfed.federation.client.site_run import SiteRun, compared_model
from flfed.rows.session import SiteSession
from flfed.rows.statistics.private.model_counts import weights_of
from flfed.rows.training.requests import ComputeRequest, ScoreRequest
from flfed.study.coverage import by_person
from flfed.summaries.noised_scores import (
    FIRST_SHARE,
    METHOD,
    METRICS,
    ScoreCounts,
    choose_edges,
    first_counts,
    number_of_bins,
    score_counts,
)
from flfed.summaries.summary import arrays_sha256
from flfed.updates.accounting import Release
from flfed.updates.budget_shares import gaussian_releases
from flfed.updates.messages.compare import CompareRequest, Figure

LATER_EPSILON = 1.0
"""ε that the figures of one such model cost, at the delta of the site's policy."""
LATER_FIRST, LATER_SCORES = "later-first", "later-scores"
"""Names of both answers on the ledger: counts by predicted probability, and by class and bin of these."""


def later_releases(delta: float) -> tuple[Release, Release]:
    """Return what both answers cost: together `LATER_EPSILON` at a delta.

    Examples
    --------
    >>> [release.noise for release in later_releases(1e-5)]
    [8.343, 4.172]
    """
    first, second = gaussian_releases((FIRST_SHARE, 1 - FIRST_SHARE), LATER_EPSILON, delta)
    return first, second


def later_figures(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, tuple[Figure, ...]]:
    """Yield requests and return the noised figures of the model that a comparison asks for.

    None where the outcome is not binary, the rows are lost in the noise, or the site has no budget for them.

    Parameters
    ----------
    message : Message
        Of a comparison that the site has answered before, to its own people.
    open_session : callable
    own : SiteRun

    Raises
    ------
    NotSpent
        If the budget does not allow them, or the ledger cannot be written.
    """
    request, session = CompareRequest.from_record(message.content), open_session()
    charge, policy = round_charge(session.protection), session.site.policy
    if charge is None or policy.epsilon is None or session.task != "binary":
        return ()
    arrays = compared_model(request, session, own)
    encoder, holdout = session.in_use(request.encoder), session.table.holdout("later-figures")
    rows = session.encode(holdout, encoder)
    outputs = yield ScoreRequest(model=session.model, arrays=session.own_arrays.at_site(arrays), x=rows.x)
    odds, classes = np.ravel(outputs).astype(np.float64), rows.y.astype(np.int64)
    weights = weights_of(holdout, session.schema, by_person=by_person(session.study))
    releases = later_releases(policy.delta)
    of_model = arrays_sha256({**arrays, **encoder.arrays()})
    first = noised_holdout_counts(session, LATER_FIRST, of_model, first_counts(odds, weights), releases[0])
    edges = choose_edges(first, releases[0].noise, number_of_bins(float(first.sum()), releases[1].noise))
    if edges is None:
        return ()
    exact = score_counts(odds, classes, weights, edges)
    counts = ScoreCounts(
        counts=noised_holdout_counts(session, LATER_SCORES, of_model, exact, releases[1]),
        deviation=releases[1].noise,
        edges=edges,
        first=first,
        first_deviation=releases[0].noise,
    )
    found = ((name, figure(counts)) for name, figure in METRICS.items() if name in session.metrics)
    return tuple(
        Figure(
            metric=name, arm="global", value=one.value, low=one.low, high=one.high, extra=one.variance, method=METHOD
        )
        for name, one in found
        if one is not None
    )
