"""Cells that follow from a site's sums: found by arithmetic, checked by trying all tables, none at an institution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from flfed.rows.attacks.summary_reconstruction import SummaryReconstruction, derive_counts, find_leaking_rows
from flfed.rows.comparison.attack_runner import Attacked
from flfed.rows.data.policy import Policy
from flfed.rows.features.encode import coded
from flfed.rows.features.summarise import disclose, summarise
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.summaries.summary import ColumnLayout, Layout

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


@pytest.mark.parametrize("disclosure", ["open", "institution"])
def test_the_attack_on_a_site_counts_rows_and_expects_none_of_an_institution(small_sites, small_study, disclosure):
    work = SiteSession(small_sites(1, rows=90, policy=Policy(disclosure=disclosure))[0], Study.parse(small_study))
    attacked = Attacked(session=work, arrays={}, encoder=work.own_encoder())
    (found,) = run_client(SummaryReconstruction().findings(attacked))
    assert found.rows == len(work.table.training) and not found.beyond
    if disclosure == "institution":
        assert (found.value, found.promise) == (0.0, 0.0)
    else:  # who is alone in a bin of x1 or x2
        alone = np.zeros(found.rows, dtype=bool)
        for name, (low, high) in {"x1": (0, 100), "x2": (-5, 5)}.items():
            bins = pd.cut(work.table.training[name], np.linspace(low, high, 65), labels=False)
            alone |= bins.map(bins.value_counts()).eq(1).to_numpy()
        assert found.value == pytest.approx(alone.mean()) and found.value > 0.1 and np.isnan(found.promise)
