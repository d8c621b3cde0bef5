"""Rows that repeat others: copies, and the same person and day with another outcome."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.schema import Schema

TIMES = 3
"""Copies are told where they are so many times the pairs of rows that are alike by chance."""


def copies(texts: pd.DataFrame) -> Iterator[str]:
    """Yield how many rows are copies of another one in every column."""
    # Few columns give equal rows by chance, which are no copies.
    many = int(texts.dropna(how="all").duplicated().sum())
    if many > TIMES * pairs_by_chance(texts):
        yield f"{count_in_words(many)} rows are copies of another row in every column: was something exported twice?"


def contradictions(table: pd.DataFrame, schema: Schema) -> Iterator[str]:
    """Yield how many rows are like another one in all but their class.

    Parameters
    ----------
    table : DataFrame
        In the schema's columns.
    schema : Schema
        Of a regression nothing is told: what is measured twice differs.
    """
    others = _compared_columns(schema)
    named = [name for name in others if schema.columns[name].kind == "id" and table[name].notna().any()]
    # Without identifiers two people may well be alike in all that a table has.
    if schema.task == "regression" or not named:
        return
    known = table[table[schema.target].notna() & table[others].notna().any(axis=1)]
    alike = known[known.duplicated(others, keep=False)]
    if alike.empty:
        return
    classes = alike.groupby(others, dropna=False, observed=True)[schema.target].transform("nunique")
    many = int((classes > 1).sum())
    if many > 2 * TIMES * pairs_by_chance(known[others]):
        yield (
            f"{count_in_words(many)} rows are like another row in everything but {schema.target!r}: "
            "which of them holds?"
        )


def pairs_by_chance(cells: pd.DataFrame) -> float:
    """Return the expected number of equal pairs of rows.

    It is that of columns that have nothing to do with each other.
    """
    alike_in_each = [
        float(np.square(column.value_counts(normalize=True, dropna=False)).sum()) for _, column in cells.items()
    ]
    return len(cells) * (len(cells) - 1) / 2 * math.prod(alike_in_each)


def _compared_columns(schema: Schema) -> list[str]:
    others = [name for name in schema.columns if name != schema.target and not schema.columns[name].leak]
    if schema.group:  # other identifiers may number the rows
        others = [name for name in others if name == schema.group or schema.columns[name].kind != "id"]
    return others
