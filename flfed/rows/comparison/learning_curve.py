"""Reruns with few rows of one site.

It has what a rerun for the learning curve works on, and its figures.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flfed.rows.comparison.compare import arm_scores, groups_of
from flfed.rows.data.site import SiteTable
from flfed.rows.evaluation.intervals import NAN, compare
from flfed.rows.evaluation.scoring import COUNTS, withheld
from flfed.rows.features.columns import ColumnArrays
from flfed.rows.session import Arrays, SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.seeds import generator
from flfed.summaries.summary import Encoder

ADJUSTED, ALONE = "personalised", "local-only"
DIFFERENCE = f"{ADJUSTED} - {ALONE}"


@dataclass(frozen=True)
class Judged:
    """Figure on one holdout.

    The interval is NaN where none was asked for.
    """

    value: float
    low: float = NAN
    high: float = NAN


def again(session: SiteSession) -> SiteSession:
    """Return a session for one more federation.

    It has the same table, whose rows are to be encoded anew.

    Another federation has another encoder, and may run beside the first.
    """
    return _with_table(session, session.table, session.coded(session.table.training))


def _with_table(session: SiteSession, table: SiteTable, training: ColumnArrays) -> SiteSession:
    """Return a session with another table.

    Its training rows are coded already.
    """
    repeat = session.seed - session.study.seed
    found = SiteSession(session.site, session.study, repeat, table=table, validation_only=True)
    # The coded rows are handed over, so that a rerun codes nothing again.
    found.keep(table.training, training)
    return found


def order_of_rows(session: SiteSession) -> np.ndarray:
    """Return the training rows in random order.

    The first n of it are kept. It is int [rows].

    Where rows have groups (patients, customers) the order is of groups, so that few rows are those
    of few patients; the last one may be kept in part.
    """
    table = session.table.training
    rng = generator(session.seed, site=session.site.name, purpose="learning-curve")
    groups = groups_of(session, table)
    if groups is None:
        return rng.permutation(len(table))
    place = rng.permutation(int(groups.max()) + 1)
    return np.argsort(place[groups], kind="stable")


def cut(session: SiteSession, order: np.ndarray, rows: int) -> SiteSession:
    """Return a session with fewer training rows.

    They are the first `rows` in `order`, with the same holdout.

    The rows stay sorted as they were, so that batches are those of a table that never had others.
    """
    kept = np.sort(order[:rows])
    training = session.table.training.iloc[kept].reset_index(drop=True)
    coded = session.coded(session.table.training).take(kept)
    return _with_table(session, replace(session.table, training=training, opened=[]), coded)


def judge(
    session: SiteSession, arrays: Arrays, encoder: Encoder, sd: float | None = None, *, intervals: bool
) -> Generator[ComputeRequest, Any, dict[str, Judged]]:
    """Yield requests and return the primary metric.

    It is the study's, by arm, with the paired difference.

    Parameters
    ----------
    session : SiteSession
    arrays : dict of name to array
        The final global model.
    encoder : Encoder
        Of all sites.
    sd : float, optional
        Prior deviation of a site's own intercept, as it was estimated over sites.
    intervals : bool
        Whether each figure gets the interval of this holdout: where it is the same in every draw.

    Notes
    -----
    Empty where the metric is undefined on this holdout or may not leave the site. An accuracy never
    leaves one with small cells: two over the same rows say how many rows two models call differently.
    """
    table = session.table.holdout("learning-curve")
    policy, name = session.site.policy, session.primary
    y, metric = session.target(table), session.metrics[name]
    if metric.defined(y) or (name in COUNTS and policy.disclosure != "open"):
        return {}
    scores = yield from arm_scores(session, table, arrays, encoder, sd)
    budget = session.study.compare.alert_budget
    if any(withheld(name, y, score, session.task, policy, budget) for score in scores.values()):
        return {}
    # Over several draws the spread between them counts, and not that within one.
    if not intervals:
        found = {arm: Judged(metric.value(y, score)) for arm, score in scores.items()}
        return found | {DIFFERENCE: Judged(found[ADJUSTED].value - found[ALONE].value)}
    rng = generator(session.seed, site=session.site.name, purpose="bootstrap")
    groups = groups_of(session, table)
    draws = session.study.compare.draws
    pair = (ADJUSTED, ALONE)
    arms, differences = compare({name: metric}, y, scores, [pair], rng, draws=draws, groups=groups)
    change = differences[name][pair]
    return {arm: Judged(e.value, e.low, e.high) for arm, e in arms[name].items()} | {
        DIFFERENCE: Judged(change.value, change.low, change.high)
    }
