"""Recall at an alert budget.

It is the share of the events that stands among the rows that people can look at.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from flfed.rows.evaluation.weighted_metrics import Drawn, Floats, RankMetric, Score, Target, add_up, lacks_events
from flfed.study.settings import Settings


class RecallAtAlertBudget(RankMetric, Settings, where="recall_at_alert_budget"):
    """Share of the positives within an alert budget.

    The budget is the `alert_budget` of rows with the highest scores.

    Rows of equal score are looked at in random order: the value is an expectation.
    A budget that ends within a row counts that part of it. A useless score finds the budget itself.

    Parameters
    ----------
    alert_budget : float in (0, 1)
        Share of rows that can be looked at; `[compare] alert-budget` of the study.

    Source: recall in the top ranks, as Le Borgne, Siblini, Lebichot and Bontempi 2022, "Reproducible
    machine learning for credit card fraud detection: practical handbook", chapter 4, count alerts;
    ties in expectation after McSherry and Najork 2008, "Computing information retrieval performance
    measures efficiently in the presence of tied scores".
    """

    tasks = ("binary",)
    label = "recall at the alert budget (share of events among the rows looked at)"

    alert_budget: Annotated[float, Field(gt=0, lt=1)] = 0.01

    defined = staticmethod(lacks_events)

    def behind(self, y: Target, score: Score) -> tuple[float, ...]:
        """Return how many events are found, and how many are missed."""
        events = float((y == 1).sum())
        hits = self.value(y, score) * events
        return hits, events - hits

    def drawn(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights to the metric."""
        order = np.argsort(-score, kind="stable")
        falling = score[order]
        positive = (y[order] == 1)[:, None]
        # first row of each block of equal scores; a block's rows are looked at in equal parts
        starts = np.concatenate([[0], np.flatnonzero(np.diff(falling)) + 1])

        def drawn(weights: Floats) -> Floats:
            ordered = weights.T.take(order, axis=0)
            blocks = np.add.reduceat(ordered, starts, axis=0)
            ones = np.add.reduceat(ordered * positive, starts, axis=0)
            # The rest of the budget when a block's turn comes, the blocks before it taken off.
            room = self.alert_budget * blocks.sum(axis=0) - (add_up(blocks.copy()) - blocks)
            looked_at = np.clip(np.divide(room, blocks, out=np.zeros_like(blocks), where=blocks > 0), 0.0, 1.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray((looked_at * ones).sum(axis=0) / ones.sum(axis=0), dtype=float)

        return drawn
