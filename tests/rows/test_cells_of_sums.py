"""Cells that follow from a site's sums: found by arithmetic, checked by trying all tables, none at an institution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from flfed.rows.features.encode import ColumnArrays, coded
from flfed.rows.features.summarise import disclose, summarise
from flfed.summaries.summary import ColumnLayout, Layout, Summary

NAN = float("nan")
FEW = 2
"""Values of a number that follow from their count, sum and sum of squares; of three there is a circle of solutions."""

FLAG = ColumnLayout(name="f", kind="flag", cells=("0", "1", "missing"))
COLOUR = ColumnLayout(name="c", kind="category", cells=("red", "green", "blue", "missing"))
EDGES = tuple(np.linspace(0, 64, 65).tolist())
SIZE = ColumnLayout(name="n", kind="number", cells=(*map(str, range(64)), "missing"), edges=EDGES)
TARGET = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
LAYOUT = Layout(features=(FLAG, COLOUR, SIZE), target=TARGET, task="binary")


def rows(**columns: list[object]) -> pd.DataFrame:
    """Return a table in LAYOUT's columns; what is not given is the same for two halves of the rows."""
    count = len(next(iter(columns.values())))
    half = np.arange(count) % 2
    plain = {
        "f": half.astype(float), "c": np.where(half, "red", "blue"), "n": 10.5 + 20.0 * half,
        "y": np.where(half, "yes", "no"),
    }  # fmt: skip
    return pd.DataFrame(plain | columns)


def find_leaking_rows(summary: Summary, layout: Layout, rows: ColumnArrays, *, grouped: bool = False) -> np.ndarray:
    """Return which rows have a cell given away.

    It follows from the summary, bool [rows].

    Parameters
    ----------
    summary : Summary
        Of one site: what it sends.
    layout : Layout
    rows : ColumnArrays
        The rows that it is of, to see whose the cells are. The attack itself reads the summary alone.
    grouped : bool
        Whether several rows are of one person: the missingness test is then of a draw of one row each, whose
        table does not follow from the counts of all rows.
    """
    leaking_rows = np.zeros(rows.rows, dtype=bool)
    total = float(summary.rows[0])
    for number, column in enumerate(layout.columns):
        counts, derivable = derive_counts(summary, layout, number)
        # Who is alone in a cell is found, and a cell of all rows is everybody's.
        telling = derivable & ((counts == 1) | (counts == total))
        telling[-1] = False  # that a value is missing is no value
        leaking_rows |= telling[rows.codes[column.name]]
        present = rows.codes[column.name] != len(column.cells) - 1
        if _few_values(summary, column, number):
            leaking_rows |= present
        if number < len(layout.features) and not grouped:
            missing = counts[-1] if derivable[-1] else NAN
            leaking_rows |= _find_leaking_outcomes(summary, layout, number, missing, rows, ~present)
    return leaking_rows


def derive_counts(summary: Summary, layout: Layout, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one column's counts that follow.

    They are those of the cells that follow from the summary, and which do, [cells] each.

    A cell that was not given follows where it is the only one, or where the others have at least as
    many rows as are left over.
    """
    place = list(layout.slices().values())[number]
    is_released = summary.cells_known[place] > 0
    lower = summary.lower[place]
    # A target is never missing, whether or not it says so.
    possible = np.ones(len(is_released), dtype=bool)
    possible[-1] = number < len(layout.features) or bool(is_released[-1])
    # One hidden cell is the rest, and several follow where their lower bounds use it up.
    hidden = ~is_released & possible
    left = float(summary.left[number])
    if hidden.sum() == 1 or left <= lower[hidden].sum():
        counts = np.where(hidden, np.where(hidden.sum() == 1, left, lower), summary.cells[place])
        return counts, np.ones(len(is_released), dtype=bool)
    return np.where(is_released, summary.cells[place], NAN), is_released


def _few_values(summary: Summary, column: ColumnLayout, number: int) -> bool:
    """Return whether a number's values follow.

    They would from its count, sum and sum of squares. Coarse sums give none.
    """
    # Under "institution" the moments are those of bins, each group of them at least the minimum of rows.
    return column.kind == "number" and bool(summary.moments_known[number]) and 0 < summary.moments[number, 0] <= FEW


def _find_leaking_outcomes(
    summary: Summary, layout: Layout, number: int, missing: float, rows: ColumnArrays, gap: np.ndarray
) -> np.ndarray:
    """Return the rows whose outcome follows.

    A column is missing in them, and the class follows from the missingness test, bool [rows].
    """
    leaking_rows = np.zeros(rows.rows, dtype=bool)
    classes, derivable = derive_counts(summary, layout, len(layout.features))
    # Without all counts of the classes the table does not follow.
    if layout.task == "regression" or not missing > 0 or not derivable[:-1].all():
        return leaking_rows
    wanted = range(layout.outcomes) if layout.task == "multi-class" else (1,)
    for outcome, code in enumerate(wanted):
        if not summary.leaks_known[number, outcome, 0]:
            continue
        # U is the number in the cell less what independence expects.
        both = round(float(summary.leaks[number, outcome, 0] + missing * classes[code] / summary.rows[0]))
        own = rows.codes[layout.target.name] == code
        if both in (1, missing):
            leaking_rows |= gap & own
        if layout.task == "binary" and missing - both in (1, missing):
            leaking_rows |= gap & ~own
    return leaking_rows


def told(table: pd.DataFrame, minimum: int = 0) -> list[int]:
    """Return the rows of which a cell is given away, under "institution" where there is a minimum."""
    summary = summarise(table, LAYOUT)
    sent = disclose(summary, LAYOUT, minimum) if minimum else summary
    return np.flatnonzero(find_leaking_rows(sent, LAYOUT, coded(table, LAYOUT))).tolist()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"f": [0, 1] * 6}, []), ({"c": ["red", "blue"] * 5 + ["green", "red"]}, [10]),
        ({"n": [5.5, 40.5] * 5 + [60.5, 5.5]}, [10]), ({"f": [1.0] * 12}, list(range(12))),
        ({"n": [np.nan] * 10 + [3.1, 3.2]}, [10, 11]), ({"n": [np.nan] * 9 + [3.1, 3.2, 3.3]}, []),
        ({"f": [np.nan] * 12}, []),
        ({"f": [np.nan, 0, 1] * 4, "y": ["yes", "no", "no"] * 4}, [0, 3, 6, 9]),
        ({"f": [np.nan, 0, 1] * 4, "y": ["yes", "no", "yes", "yes", "no", "no"] + ["no", "no", "yes"] * 2}, []),
        ({"f": [np.nan, 0, 1] * 4, "y": ["yes", "no", "no"] + ["no", "no", "yes"] * 3}, [0]),
    ],
    ids=["none", "value", "bin", "all", "two-values", "three-values", "gap", "missing-all", "missing-2", "missing-1"],
)  # fmt: skip
def test_what_exact_sums_give_away(columns, expected):
    assert told(rows(**columns)) == expected


def test_two_values_do_follow_from_their_count_sum_and_sum_of_squares():
    table = rows(n=[np.nan] * 10 + [3.1, 3.2])
    count, total, squares = summarise(table, LAYOUT).moments[2]
    spread = np.sqrt(squares / count - (total / count) ** 2)
    values = SIZE.middle + SIZE.half * (total / count + np.array([-spread, spread]))
    np.testing.assert_allclose(values, [3.1, 3.2], atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_under_institution_nothing_follows_by_arithmetic_and_from_the_same_exact_sums_much_does(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(6, 60))
    table = rows(
        f=rng.choice([0.0, 1.0, np.nan], count, p=[0.9, 0.05, 0.05]),
        c=rng.choice(["red", "green", "blue"], count, p=[0.9, 0.06, 0.04]),
        n=rng.choice([np.nan, 1.5, 30.5, 60.5], count, p=[0.3, 0.6, 0.06, 0.04]) + rng.random(count),
        y=rng.choice(["no", "yes"], count, p=[0.8, 0.2]),
    )
    assert told(table, minimum=3) == []
    assert len(told(table)) > 0  # bins of one row


def tables(total: int, cells: int) -> Iterator[tuple[int, ...]]:
    """Yield all counts of so many cells that add up to a total."""
    if cells == 1:
        yield (total,)
        return
    for first in range(total + 1):
        yield from ((first, *rest) for rest in tables(total - first, cells - 1))


def of_counts(column: ColumnLayout, counts: tuple[int, ...]) -> pd.DataFrame:
    """Return a table whose one column has these counts."""
    values = [0.0, 1.0, np.nan] if column.kind == "flag" else [*column.cells[:-1], None]
    return rows(**{column.name: [value for value, number in zip(values, counts, strict=True) for _ in range(number)]})


@pytest.mark.studies
@pytest.mark.parametrize(("column", "number"), [(FLAG, 0), (COLOUR, 1)], ids=["flag", "category"])
def test_all_small_tables_agree_with_what_is_said_to_follow_and_the_rule_of_suppression_gives_no_more(column, number):
    place = LAYOUT.slices()[column.name]
    for total in (4, 7, 12):
        seen: dict[bytes, list[tuple[int, ...]]] = defaultdict(list)
        followed: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for counts in tables(total, len(column.cells)):
            sent = disclose(summarise(of_counts(column, counts), LAYOUT), LAYOUT, 3)
            parts = sent.cells[place], sent.cells_known[place], sent.lower[place], sent.left[[number]]
            key = np.concatenate(parts).tobytes()
            seen[key].append(counts)
            followed[key] = derive_counts(sent, LAYOUT, number)
        for key, possible in seen.items():
            every, (counts, known) = np.array(possible), followed[key]
            # Sound: what is said to follow is the same in all tables that send this.
            np.testing.assert_array_equal(every[:, known], np.tile(counts[known], (len(every), 1)))
            # And whoever knows the rule finds no cell of one row, or of all, either.
            same = (every == every[0]).all(axis=0)[:-1]
            assert not np.isin(every[0][:-1][same], [1, total]).any(), possible
