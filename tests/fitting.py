"""Coefficients over visits, in one process: sums in the clear, or as the ring of secure sums adds them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

from flfed.refusals import NotTakingPart
from flfed.rows.data.schema import Schema
from flfed.rows.statistics.statistic import Sums, Visit, VisitedStatistic, added, entries, of_entries
from flfed.updates.masks.ring import Ring, ring_of_counts

Fitted = tuple[dict[str, Any], list[Visit]]
Weigh = Callable[[pd.DataFrame], float]


def fitted(
    statistic: VisitedStatistic,
    tables: Sequence[pd.DataFrame],
    schema: Schema,
    *,
    ring: Ring | None = None,
    weigh: Weigh = lambda table: 1.0,
) -> Fitted:
    """Return the figures of a statistic, and its visits; sums are in the clear without a ring.

    `weigh` is for faults: by which a site's sums of numbers are multiplied.
    """
    point: Any = statistic.first(schema)
    visits: list[Visit] = []
    now = statistic
    while point is not None:
        now = statistic.at(point)
        try:
            own = [weighted(now.sums(table, schema), weigh(table)) for table in tables]
        except NotTakingPart:
            visits.append(Visit(point, {}))
        else:
            visits.append(Visit(point, summed(now, own, schema, ring)))
        point = statistic.next(visits, schema)
    return now.figures([visits[-1].sums], schema, visits[-1].sums), visits


def weighted(sums: Sums, weight: float) -> Sums:
    return {name: values * weight if values.dtype == float else values for name, values in sums.items()}


def summed(now: VisitedStatistic, own: Sequence[Sums], schema: Schema, ring: Ring | None) -> Sums:
    if ring is None:
        return added(own)
    encoded = [ring.encode(entries(now, sums, schema), np.random.default_rng(1)) for sums in own]
    assert all(isinstance(one, np.ndarray) for one in encoded)
    return of_entries(now, ring.decode(ring.add(encoded)), schema)


def ring_of(tables: Sequence[pd.DataFrame]) -> Ring:
    """Return the ring of such sites, whose bands are powers of ten."""
    return ring_of_counts(len(tables), 10 ** len(str(max(map(len, tables)))) - 1)


def design(table: pd.DataFrame, of: Sequence[str], schema: Schema) -> pd.DataFrame:
    """Return the columns as a regression of another package takes them, after ones."""
    columns: dict[str, Any] = {"intercept": np.ones(len(table))}
    for name in of:
        if schema.columns[name].kind == "category":
            columns |= {f"{name}={value}": (table[name] == value) * 1.0 for value in schema.columns[name].values[1:]}
        else:
            columns[name] = table[name].astype(float)
    return pd.DataFrame(columns)


def glm(outcome: Any, columns: pd.DataFrame, family: Any, **options: Any) -> Any:
    """Return the fit of statsmodels, to the end."""
    more = {key: options.pop(key) for key in ("offset",) if key in options}
    return sm.GLM(outcome, columns, family=family, **more).fit(tol=1e-14, maxiter=100, **options)


def distances(figures: dict[str, Any], fit: Any) -> dict[str, float]:
    """Return how far coefficients are from another fit, in the larger of coefficient and error; and errors, ends, p."""
    names = list(figures["coefficients"])
    ours = {key: np.array([of[key] for of in figures["coefficients"].values()]) for key in ("value", "standard-error")}
    ours |= {key: np.array([of[key] for of in figures["coefficients"].values()]) for key in ("low", "p")}
    values, errors = fit.params[names].to_numpy(), fit.bse[names].to_numpy()
    return {
        "coefficients": float((np.abs(ours["value"] - values) / np.maximum(np.abs(values), errors)).max()),
        "errors": float(np.abs(ours["standard-error"] / errors - 1).max()),
        "low": float((np.abs(ours["low"] - fit.conf_int().loc[names, 0]) / errors).max()),
        "p": float(np.abs(ours["p"] - fit.pvalues[names]).max()),
    }
