"""Odds ratio of an outcome between two groups, such as the arms of a trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.statistics.statistic import WHOLE, Shapes, Sums, added, column_of
from flfed.summaries.drift import NORMAL_975
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema


class OddsRatio:
    """The 2 × 2 table of the outcome by group, and what follows from it.

    Parameters
    ----------
    by : str
        Flag or category of two values: the second is compared with the first, which is the reference.
        Example: `by = "arm"`.

    Reveals: of each group, how many rows have the outcome and how many have not, exactly; and how many rows lack the
    group.

    Notes
    -----
    Odds ratio a d / (b c). Its 95 % interval after Woolf is exp(log ratio ± 1.96 √(1/a + 1/b + 1/c + 1/d)), the p-value
    Wald's of the same. With an empty cell there is none. Pearson's χ² of the table has no correction for continuity.
    All rows are one table: no hospital's own odds are held fixed, as the ratio of `mantel-haenszel` does. Source: B.
    Woolf 1955, "On estimating the relation between blood group and disease".
    """

    label = "odds ratio of the outcome between two groups"

    def __init__(self, *, by: str) -> None:
        self.by = by

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return group and outcome.

        Raises UsageError where they have other than two values.
        """
        name = column_of(self.by, schema, where="by", kinds=("flag", "category"))
        if len(values_of(schema, name)) != 2 or schema.task != "binary":
            raise usage_error("study.statistic.values", name=name)
        return name, schema.target

    def shapes(self, schema: Schema) -> Shapes:
        """Return the table [group, outcome], and the rows without a group."""
        return {"table": ((2, 2), WHOLE), "missing": ((1,), WHOLE)}

    def largest(self, schema: Schema) -> Sums:
        """Return nothing: all sums are counts."""
        return {}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return how many rows of each group have each outcome."""
        groups = table[self.by]
        outcomes = table[schema.target]
        counts = []
        for one in cells_of(schema, self.by):
            counts.append([int(((groups == one) & (outcomes == outcome)).sum()) for outcome in schema.classes])
        missing = [int(groups.isna().sum())]
        return {"table": np.array(counts, dtype=np.uint64), "missing": np.array(missing, dtype=np.uint64)}

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return the groups' rows and events, the odds ratio with interval and p-value, and Pearson's χ²."""
        sums = added(sites)
        (d, c), (b, a) = sums["table"].astype(int).tolist()
        figures = self.groups(sums, schema)
        # Of an empty row or column of the table there is no test either.
        if margins := (a + b) * (c + d) * (a + c) * (b + d):
            chi2 = (a + b + c + d) * (a * d - b * c) ** 2 / margins
            figures["pearson"] = {"chi2": {"value": chi2}, "p": {"value": math.erfc(math.sqrt(chi2 / 2))}}
        if not min(a, b, c, d):
            return figures | {"odds-ratio": None, "why": render("study.statistic.ratio")}
        log = math.log(a * d / (b * c))
        sd = math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
        p = math.erfc(abs(log) / sd / math.sqrt(2))
        return figures | {"odds-ratio": ratio_of(log, sd), "p": {"value": p}}

    def groups(self, sums: Sums, schema: Schema) -> dict[str, Any]:
        """Return each group's rows and events, and the rows without a group."""
        groups = []
        for value, (others, events) in zip(values_of(schema, self.by), sums["table"].astype(int).tolist(), strict=True):
            groups.append({"group": value, "rows": others + events, "events": events})
        return {"by": self.by, "groups": groups, "rows-without-a-group": int(sums["missing"][0])}


def ratio_of(log: float, sd: float) -> dict[str, float]:
    """Return a ratio with its 95 % interval, of its logarithm and the standard error of that."""
    return {
        "value": math.exp(log),
        "low": math.exp(log - NORMAL_975 * sd),
        "high": math.exp(log + NORMAL_975 * sd),
    }


def cells_of(schema: Schema, name: str) -> tuple[Any, ...]:
    """Return how a mapped table has the `values_of` a column: those of a flag are 0 and 1."""
    return (0, 1) if schema.columns[name].kind == "flag" else values_of(schema, name)


def values_of(schema: Schema, name: str) -> tuple[str, ...]:
    """Return the values of a category, or of a flag as words."""
    column = schema.columns[name]
    return column.values if column.kind == "category" else ("no", "yes")
