"""Population stability: groups of training rows, and the index."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.features.summarise import layout_of, leaving, summarise
from flfed.summaries.stability import LEAST_ROWS, Group, group_cells, stability_index, training_groups
from flfed.summaries.summary import Layout, merge
from tests.conftest import small_table


def test_groups_of_a_number_are_the_deciles_of_even_counts_and_the_rest() -> None:
    counts = np.append(np.full(50, 20), 0)
    *groups, others = group_cells(counts, np.ones(51, bool), 1000, is_ordered=True)
    assert [group.rows for group in groups] == [100] * 10
    assert groups[3].cells == (15, 16, 17, 18, 19)
    assert others == Group((50,), LEAST_ROWS)


def small_layout() -> Layout:
    """Return the layout of the dataset "small"."""
    schema = datasets.load("small").schema
    return layout_of(schema, schema.features())


def test_values_under_ten_rows_are_joined_and_no_count_below_ten_is_written(small_sites) -> None:
    small_sites(1)
    layout = small_layout()
    table = small_table(300, 1)
    table["colour"] = ["red"] * 150 + ["green"] * 144 + ["blue"] * 6
    table["x2"] = table["x2"].fillna(0.0)
    table.loc[table.index[:4], "x2"] = np.nan
    groups = training_groups(layout, summarise(table, layout))
    # The six, and no missing value, are the rest: "blue" is the last value.
    assert {group.cells: group.rows for group in groups["colour"]} == {(0,): 150, (1,): 144, (2, 3): LEAST_ROWS}
    assert groups["x2"][-1].rows == LEAST_ROWS and groups["x2"][-1].cells[-1] == 64
    # Two small values of nine rows each are one group.
    table["colour"] = ["red"] * 282 + ["green"] * 9 + ["blue"] * 9
    assert Group((1, 2), 18) in training_groups(layout, summarise(table, layout))["colour"]


def test_cells_that_a_site_suppresses_are_one_group_and_all_rows_are_counted(small_sites) -> None:
    small_sites(1)
    layout = small_layout()
    tables = [small_table(400, seed) for seed in (1, 2, 3)]
    merged = merge([leaving(table, layout, 10) for table in tables])
    groups = training_groups(layout, merged)
    for _, column, place in layout.places():
        if column is layout.target:
            continue
        exact = summarise(pd.concat(tables), layout).cells[place]
        of = groups[column.name]
        assert all(group.rows == max(exact[list(group.cells)].sum(), LEAST_ROWS) for group in of), column.name
        suppressed = set(np.flatnonzero(merged.cells_known[place] != 3).tolist())
        assert not suppressed or any(suppressed <= set(group.cells) for group in of), column.name
        assert sorted(cell for group in of for cell in group.cells) == list(range(len(column.cells)))


def test_an_index_equals_the_sum_by_hand() -> None:
    groups = tuple(Group((cell,), rows) for cell, rows in enumerate((400, 400, 200)))
    p, q = (np.array([30, 50, 20]) + 0.5) / 101.5, (np.array([400, 400, 200]) + 0.5) / 1001.5
    assert stability_index(groups, np.array([30, 50, 20])) == pytest.approx(((p - q) * np.log(p / q)).sum(), abs=1e-15)
    assert stability_index(groups[:1], np.array([30])) is None and stability_index(groups, np.zeros(3)) is None


def test_few_training_rows_count_only_where_they_became_more() -> None:
    groups = (Group((0,), 500), Group((1,), 500), Group((2,), LEAST_ROWS))
    assert stability_index(groups, np.array([100, 100, 0])) < 0.01
    assert stability_index(groups, np.array([70, 70, 60])) > 0.25
    assert stability_index(groups, np.array([0, 0, 200])) > 1
