"""Permutation importance of each column, on one site's holdout.

A column's values are shuffled among the rows, and the loss of the shared model is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.rows.evaluation.scoring import three_digits, too_few
from flfed.rows.features.encode import ColumnArrays, Encoded, input_slices
from flfed.rows.session import SiteSession
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.requests import Asking
from flfed.seeds import generator
from flfed.summaries.summary import Arrays, ColumnLayout, Encoder
from flfed.words import render

NO_ROWS = "no rows"
PERMUTE = "permute"
"""The purpose of these draws."""


@dataclass(frozen=True, kw_only=True)
class ColumnImportance:
    """Importance of one column, as it may leave.

    Attributes
    ----------
    column : str
    increase : float
        Mean over the permutations of the loss with this column permuted, less the loss; NaN where it stays.
    method : str
        Why it stays, or "".
    """

    column: str
    increase: float
    method: str = ""


def importances(
    session: SiteSession, table: pd.DataFrame, person: np.ndarray, arrays: Arrays, encoder: Encoder
) -> Asking[list[ColumnImportance]]:
    """Yield requests and return each column's importance, as it may leave.

    A column of the schema is permuted as a whole: all inputs that are made of it, and whether it is missing, go
    together. There are none where the study asks for no permutations.

    Parameters
    ----------
    session : SiteSession
    table : DataFrame
        The holdout.
    person : int array [rows]
        Whose each row is.
    arrays : dict of name to array
        The shared model.
    encoder : Encoder
        Of all sites.

    Guarantee: under disclosure "institution" nothing leaves of fewer than the cell minimum of rows, of as many persons,
    of each class. Nothing leaves beside a histogram of predictions. A column leaves where each value that the schema
    names for it has as many rows and persons. Of a number, as many must have other values than the commonest, so that
    permuting it moves many rows. Rows without a value count for neither, so that it does not follow whether there are
    few or none. Figures have three digits.

    Source: Breiman 2001, "Random Forests", section 10; Fisher, Rudin and Dominici 2019, equation 3.
    """
    if not session.study.compare.importance:
        return []
    stays = _reasons(session, table, person)
    rows = session.encode(table, session.in_use(encoder))
    before = np.nan
    if not all(stays.values()):
        before = yield from _loss(session, arrays, rows, rows.x)
    digits = float if session.policy.is_open else three_digits
    places = input_slices(session.layout)
    figures = []
    for number, (column, why) in enumerate(stays.items()):
        increase = np.nan
        method = why
        if not why:
            increase = digits((yield from _mean_loss(session, arrays, rows, places[column], number)) - before)
            method = "" if np.isfinite(increase) else render("figures.methods.infinite")
        elif why != NO_ROWS:  # which is no matter of policy
            method = f"withheld: {why}"
        if method:
            increase = np.nan
        figures.append(ColumnImportance(column=column, increase=increase, method=method))
    return figures


def _mean_loss(session: SiteSession, arrays: Arrays, rows: Encoded, place: slice, number: int) -> Asking[float]:
    """Yield requests and return the mean loss with the inputs at a place permuted."""
    # Each column has its own draws, so that a difference of two columns is not that of the rows in which they
    # differ alone.
    rng = generator(session.seed, site=session.site.name, purpose=PERMUTE, number=number)
    losses = []
    for _ in range(session.study.compare.importance):
        # The other columns are as they were: a copy each time.
        x = rows.x.copy()
        x[:, place] = rows.x[rng.permutation(len(rows)), place]
        losses.append((yield from _loss(session, arrays, rows, x)))
    return float(np.mean(losses))


def _loss(session: SiteSession, arrays: Arrays, rows: Encoded, x: np.ndarray) -> Asking[float]:
    outputs = yield from session.outputs(arrays, x)
    return loss_of_rows(session.task, outputs, rows.y)


def _reasons(session: SiteSession, table: pd.DataFrame, person: np.ndarray) -> dict[str, str]:
    """Return why each column's importance stays, or ""."""
    policy = session.policy
    features = session.layout.features
    if policy.is_open:
        why = "" if len(table) else NO_ROWS
        return dict.fromkeys((column.name for column in features), why)
    why = _of_all(session, table, person)
    rows = session.coded(table)
    least = policy.cell_minimum
    return {column.name: why or _of_column(column, rows, person, least) for column in features}


def _of_all(session: SiteSession, table: pd.DataFrame, person: np.ndarray) -> str:
    """Return why no column's importance may leave, or ""."""
    policy = session.policy
    y = session.target(table)
    if why := too_few(y, session.task, session.classes, policy):
        return why
    # One row of each person: several hide nobody.
    alone = np.unique(person, return_index=True)[1]
    of_each = [person[y == label] for label in range(session.classes)] if session.task != "regression" else []
    if min((len(np.unique(of)) for of in of_each), default=len(alone)) < policy.cell_minimum:
        least = policy.cell_minimum
        return render("figures.withheld.class", n=least) if of_each else render("figures.withheld.rows", n=least)
    if session.task == "binary" and policy.allows("score-histogram"):
        return render("figures.withheld.histogram")
    return ""


def _of_column(column: ColumnLayout, rows: ColumnArrays, person: np.ndarray, least: int) -> str:
    """Return why a column's importance stays, or ""."""
    if min(len(np.unique(person[of])) for of in _groups(column, rows)) >= least:
        return ""
    if column.kind == "number":
        return render("figures.withheld.commonest", n=least)
    return render("figures.withheld.value", n=least)


def _groups(column: ColumnLayout, rows: ColumnArrays) -> Iterator[np.ndarray]:
    """Yield the groups of rows that must be large, as masks."""
    if column.kind != "number":
        # A value that no row has is a small group: zero counts as few.
        yield from (rows.codes[column.name] == code for code in range(len(column.cells) - 1))
        return
    values = rows.values[column.name]
    uniques, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    commonest = uniques[counts.argmax()] if len(uniques) else np.nan
    yield ~np.isnan(values) & (values != commonest)
