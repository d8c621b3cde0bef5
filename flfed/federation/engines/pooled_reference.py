"""Figures over all rows together, where an engine has the tables of all sites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import compares_models
from flfed.rows.comparison.pooled import Reference, first_searches, reference, union_scores
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Compute, run_client_by
from flfed.summaries.summary import Encoder
from flfed.updates.arrays import Arrays


class PooledReference:
    """Pooled reference of an engine with every table.

    Parameters
    ----------
    side : SiteClient
        With the open sessions.
    key : (study text, repeat)
    answer : callable
        Answers requests, one by one or together; `ModelsAhead` where models may be begun before.
    """

    def __init__(self, side: SiteClient, key: tuple[str, int], answer: Compute) -> None:
        self._side = side
        self._key = key
        self._answer = answer

    def sessions(self, sites: Sequence[str]) -> list[SiteSession]:
        """Return the open sessions of these sites.

        They are in the given order.
        """
        return [self._side.sessions[(site, *self._key)] for site in sites]

    def begin_models(self, sites: Sequence[str]) -> None:
        """Begin the own models of these sites, and the pooled one, in other processes."""
        from flfed.rows.training.answer import ModelsAhead  # it needs torch

        ahead = self._answer
        sessions = self.sessions(sites)
        if isinstance(ahead, ModelsAhead) and ahead.is_useful and compares_models(sessions[0].study):
            ahead.begin(first_searches(sessions))

    def reference(
        self, sites: list[str], arrays: Arrays, encoder: Encoder, deviation: float | None = None
    ) -> Reference:
        """Return the figures over all rows.

        `deviation` is that of the sites' own intercepts, as the sites received it.
        """
        figures: Reference = run_client_by(reference(self.sessions(sites), arrays, encoder, deviation), self._answer)
        return figures

    def primary_moved(self, sites: list[str], arrays: Arrays, encoder: Encoder, other: Arrays, exact: Encoder) -> float:
        """Return the difference in the primary metric.

        It is that of `arrays` minus that of `other`, over the union of holdouts, or NaN.
        """
        sessions = self.sessions(sites)
        first = sessions[0]
        y = np.concatenate([w.target(w.table.holdout("compare")) for w in sessions])
        metric = first.metrics[first.primary]
        # A metric that is undefined on these rows is so for both models.
        if metric.defined(y):
            return float("nan")
        used = metric.value(y, run_client_by(union_scores(sessions, arrays, encoder), self._answer))
        return float(used - metric.value(y, run_client_by(union_scores(sessions, other, exact), self._answer)))
