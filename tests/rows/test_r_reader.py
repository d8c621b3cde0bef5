"""Data frames of R's `save`: the International Stroke Trial as R itself writes it, and a file made value by value."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data.readers.r_data import HEADER, RData

PAIRS, INTEGER, REAL, TEXT, LIST, NOTHING = 2, 13, 14, 16, 19, 254
OBJECT, ATTRIBUTES, TAG = 0x100, 0x200, 0x400


def whole(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}i", *numbers)


def cell(text: str | None, flags: int = 9, encoding: str = "utf-8") -> bytes:
    if text is None:
        return whole(flags, -1)
    content = text.encode(encoding)
    return whole(flags, len(content)) + content


def texts(*cells: bytes) -> bytes:
    return whole(TEXT, len(cells)) + b"".join(cells)


def tagged(name: str, item: bytes) -> bytes:
    return whole(PAIRS | TAG) + whole(1) + cell(name) + item


def frame(columns: list[bytes], names: bytes) -> bytes:
    """Return the file of one data frame `d`, as R's manual of internals describes it."""
    item = whole(LIST | OBJECT | ATTRIBUTES, len(columns)) + b"".join(columns)
    attributes = tagged("names", names) + whole(NOTHING)
    return HEADER + whole(2, 0, 0) + tagged("d", item + attributes) + whole(NOTHING)


def written(folder: Path) -> Path:
    missing = -(2**31)
    levels = texts(cell("low"), cell("höch", 9 | 0x4000, "latin-1"))
    # The name "levels" stands here for the first time, a second factor would refer to it.
    factor = whole(INTEGER | OBJECT | ATTRIBUTES, 3, 2, missing, 1) + tagged("levels", levels) + whole(NOTHING)
    # The third symbol of the file: "d", "levels", "names" in the order of reading.
    again = whole(INTEGER | OBJECT | ATTRIBUTES, 3, 1, 1, 2)
    again += whole(PAIRS | TAG) + whole(255 | 2 << 8) + levels + whole(NOTHING)
    columns = [
        factor, again, whole(INTEGER, 3, 7, missing, -1), whole(INTEGER, 3, 1, 2, 3),
        whole(REAL, 3) + struct.pack(">3d", 0.5, float("nan"), -2.0), texts(cell("ä"), cell(None), cell("")),
    ]  # fmt: skip
    names = texts(*(cell(name) for name in ("dose", "again", "gaps", "whole", "real", "text")))
    path = folder / "d.rda"
    path.write_bytes(gzip.compress(frame(columns, names)))
    return path


def test_numbers_factors_and_texts_come_as_r_has_them(tmp_path: Path):
    table = RData(file=written(tmp_path).name, name="d").read((tmp_path,))
    assert table["dose"].tolist() == ["höch", None, "low"]
    assert table["again"].tolist() == ["low", "low", "höch"]
    assert table["whole"].tolist() == [1, 2, 3] and table["whole"].dtype.kind == "i"
    pd.testing.assert_series_equal(table["gaps"], pd.Series([7.0, None, -1.0], name="gaps"))
    pd.testing.assert_series_equal(table["real"], pd.Series([0.5, None, -2.0], name="real"))
    assert table["text"].tolist() == ["ä", None, ""]


def test_another_file_and_another_name_are_refused_in_a_sentence(tmp_path: Path):
    path = written(tmp_path)
    with pytest.raises(UsageError, match="has no data frame 'other'"):
        RData(file=path.name, name="other").read((tmp_path,))
    (tmp_path / "new.rda").write_bytes(b"RDX3\nX\n" + bytes(20))
    with pytest.raises(UsageError, match="is not written by R's save with version = 2"):
        RData(file="new.rda", name="d").read((tmp_path,))
    complex_numbers = frame([whole(15, 1) + bytes(16)], texts(cell("z")))
    (tmp_path / "complex.rda").write_bytes(complex_numbers)
    with pytest.raises(UsageError, match="R's type 15"):
        RData(file="complex.rda", name="d").read((tmp_path,))


def test_the_stroke_trial_is_the_table_that_r_writes_as_csv(test_data: Path):
    table = RData(file="IST.rda", name="IST").read((test_data / "ist",))
    expected = pd.read_csv(test_data / "ist" / "IST.csv", dtype=str, keep_default_na=False)
    assert list(table) == list(expected) and table.shape == (19_435, 112)
    for name, cells in expected.items():
        ours = table[name]
        if ours.dtype.kind in "if":
            pd.testing.assert_series_equal(ours.astype(float), pd.to_numeric(cells, errors="coerce").astype(float))
        else:
            # write.csv wrote R's NA as an empty cell.
            assert ours.fillna("").tolist() == cells.tolist(), name
