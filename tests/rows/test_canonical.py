"""Rows as text: what a plain loop over the cells gives, in pieces too."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.data.holdout import canonical_rows, row_texts

DATES = [pd.NaT, pd.Timestamp("2026-01-02"), pd.Timestamp("2026-01-02T03:04:05.678")]
PLAIN = ["", "a", "ab", "b", "a b", "ä", None]
CONTROL = [*PLAIN, "\x01", "a\x1f", "a\x1e", "a\n"]
numbers = st.sampled_from([0.0, -0.0, 1.0, 10.0, 0.1, 1 / 3, 1e22, -1e-7, float("nan"), float("inf")])


def rows_with(words: list[str | None]) -> st.SearchStrategy[list[tuple]]:
    cells = st.sampled_from(words)
    return st.lists(st.tuples(numbers, cells, st.sampled_from(DATES), numbers, cells), min_size=1, max_size=25)


rows = st.one_of(rows_with(PLAIN), rows_with(CONTROL))


def table_of(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["x", "word", "seen", "z", "id"], dtype=object)
    return table.astype({"x": float, "word": object, "seen": "datetime64[ns]", "z": float, "id": object})


def plain(row: tuple) -> str:
    """Return a row as text, cell by cell; adding 0.0 turns -0.0 into 0.0."""
    return "\x1f".join(
        ("" if np.isnan(cell) else repr(cell + 0.0))
        if isinstance(cell, float)
        else ("" if cell is None or cell is pd.NaT else str(cell))
        for cell in row
    )


@settings(max_examples=50, deadline=None)
@given(rows)
def test_a_row_as_text_is_that_of_its_cells_in_turn(rows):
    assert canonical_rows(table_of(rows)) == [plain(row) for row in rows]


def test_a_large_table_is_made_text_piece_by_piece(monkeypatch):
    table = table_of([(float(n % 7), "a", DATES[n % 3], n / 3, "b") for n in range(50)])
    whole = canonical_rows(table)
    monkeypatch.setattr("flfed.rows.data.holdout.CELLS_AT_ONCE", 35)
    assert canonical_rows(table) == whole
    assert len(set(whole)) == 50


def test_texts_that_differ_after_a_nul_or_in_a_lone_surrogate_are_different_rows():
    cells = ["P1", "P1\0x", "P1\0y", "P1", "\ud800", "'\\ud800'", None, ""]
    texts = row_texts(pd.DataFrame({"pid": pd.Series(cells, dtype=object)}))
    assert texts == ["2:P1", "4:P1\0x", "4:P1\0y", "2:P1", "1:\ud800", "8:'\\ud800'", "", "0:"]
    mixed = pd.DataFrame({"flag": [True, False], "count": [1, 2]})
    assert row_texts(mixed) == ["True\x1f1", "False\x1f2"]
