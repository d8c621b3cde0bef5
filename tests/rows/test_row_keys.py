"""Keys of rows: what a plain loop gives, and nothing that depends on the file."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed import Csv, Holdout, Parquet
from flfed.rows.data import row_keys as keys_module
from flfed.rows.data.row_keys import draw_fractions, order_keys, row_keys, text_keys
from tests.rows.test_canonical import DATES, PLAIN, rows_with, table_of

WORDS = [*PLAIN, "\x00", "a\x00", "\ud800", "exactly 16 bytes", "seventeen  bytes!", "é" * 40, "x" * 3000]
ANOTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
rows = rows_with(WORDS)


def encrypt(purpose: str, blocks: list[bytes]) -> bytes:
    """Return the CBC-MAC of some blocks, by the mode CBC of the library."""
    key = hashlib.sha256(purpose.encode()).digest()[:16]
    cipher = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return (cipher.update(b"".join(blocks)) + cipher.finalize())[-16:]


def key_of_text(text: str | None) -> bytes:
    content = b"" if text is None else text.encode("utf-8", "surrogatepass")
    length = -1 if text is None else len(content)
    padded = content + bytes(-len(content) % 16)
    return encrypt("texts", [struct.pack("<qq", length, 0), padded])


def key_of_row(row: tuple, kinds: str) -> bytes:
    """Return the key of one row, cell by cell."""
    words, texts = b"", []
    for cell, kind in zip(row, kinds, strict=True):
        if kind == "O":
            texts.append(key_of_text(cell))
        elif kind == "M":
            words += struct.pack("<q", pd.Timestamp(cell).value)
        else:
            words += struct.pack("<d", float("nan") if np.isnan(cell) else cell + 0.0)
    return encrypt("rows", [key_of_text(kinds), words + bytes(-len(words) % 16), *texts])


def as_bytes(keys: np.ndarray) -> list[bytes]:
    return [key.tobytes() for key in keys]


@pytest.mark.parametrize("piece", [2**16, 4])
@settings(max_examples=40, deadline=None)
@given(rows)
def test_keys_are_those_of_a_plain_loop_over_rows_and_cells(piece, rows):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keys_module, "PIECE", piece)
        found = row_keys(table_of(rows))
    assert as_bytes(found) == [key_of_row(row, "fOMfO") for row in rows]


def test_texts_that_repeat_have_the_same_keys():
    texts = [*WORDS, *WORDS[::-1]] * 100
    assert len(texts) > keys_module.SAMPLE
    assert as_bytes(text_keys(texts)) == [key_of_text(text) for text in texts]
    plain = [text for text in texts if text != "\ud800"]
    assert as_bytes(text_keys(plain)) == [key_of_text(text) for text in plain]


@pytest.mark.parametrize("piece", [2**16, 2])
def test_texts_have_the_keys_of_a_plain_loop(monkeypatch, piece):
    monkeypatch.setattr(keys_module, "PIECE", piece)
    assert as_bytes(text_keys(WORDS)) == [key_of_text(word) for word in WORDS]
    assert len(set(as_bytes(text_keys(WORDS)))) == len(WORDS)
    assert text_keys([]).shape == (0, 2) == row_keys(table_of([(1.0, "a", DATES[1], 1.0, "b")])[:0]).shape


def test_there_is_one_zero_and_one_nan():
    table = pd.DataFrame({"x": [0.0, -0.0, np.nan, ANOTHER_NAN, 1.0]})
    assert len({*as_bytes(row_keys(table))}) == 3
    zero, minus, nan, other, _ = as_bytes(row_keys(table))
    assert zero == minus and nan == other


def test_number_and_kinds_of_columns_count():
    moments = pd.Series(DATES[1:])
    numbers = pd.DataFrame({"x": moments.to_numpy().view(np.float64)})
    tables = [
        numbers, pd.DataFrame({"x": moments}), numbers.assign(y=0.0), numbers.assign(y=0.0, z=0.0),
        pd.DataFrame({"x": ["a", "b"]}, dtype=object), pd.DataFrame({"x": ["a", "b"], "y": [None] * 2}, dtype=object),
    ]  # fmt: skip
    assert len({key for table in tables for key in as_bytes(row_keys(table))}) == 12
    # Neither the name of a column, nor a boundary between two texts, nor their order is lost.
    words = pd.DataFrame({"x": ["ab", "a", "c"], "y": ["c", "bc", "ab"]}, dtype=object)
    assert len({*as_bytes(row_keys(words))}) == 3
    np.testing.assert_array_equal(row_keys(words), row_keys(words.rename(columns={"x": "z"})))


@settings(max_examples=30, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_keys_hang_on_no_other_row_and_the_order_on_no_order_of_the_source(rows, random):
    table = table_of(rows)
    places = list(range(len(rows)))
    random.shuffle(places)
    keys = row_keys(table)
    np.testing.assert_array_equal(row_keys(table.take(places)), keys[places])
    np.testing.assert_array_equal(row_keys(table[:1]), keys[:1])
    sorted_keys, again = keys[order_keys(keys)], keys[places][order_keys(keys[places])]
    np.testing.assert_array_equal(sorted_keys, again)


def test_equal_rows_stay_in_their_order():
    keys = np.array([[7, 1], [3, 9], [7, 0], [3, 9]], dtype=np.uint64)
    assert order_keys(keys).tolist() == [1, 3, 2, 0]


def test_each_purpose_draws_for_itself():
    keys = text_keys([f"row {number}" for number in range(20_000)])
    first, again, other, third = (draw_fractions(keys, name) for name in ("holdout a", "holdout a", "holdout b", "c"))
    np.testing.assert_array_equal(first, again)
    assert ((first >= 0) & (first < 1)).all() and len(np.unique(first)) == 20_000
    for one in (first, other, third):
        assert abs(one.mean() - 0.5) < 0.01 and abs((one < 0.3).mean() - 0.3) < 0.015
    for one in (other, third):
        assert abs(np.corrcoef(first, one)[0, 1]) < 0.03
    number = int.from_bytes(encrypt("holdout a", [keys[0].tobytes()])[:8], "little")
    assert first[0] == (number >> 11) / 2**53


def files(site, folder) -> list:
    """Return the site with its rows as CSV and Parquet, and with the same rows in other orders."""
    table = site.source.table
    sources = []
    for number, own in enumerate((table, table[::-1], table.sample(frac=1, random_state=3))):
        csv, parquet = folder / f"{number}.csv", folder / f"{number}.parquet"
        own.to_csv(csv, index=False)
        own.to_parquet(parquet, index=False)
        # Categories of Parquet have codes by their first rows.
        coded = folder / f"{number}-coded.parquet"
        own.astype({"colour": pd.CategoricalDtype(pd.unique(own["colour"].dropna()))}).to_parquet(coded, index=False)
        sources += [Csv(str(csv)), Parquet(str(parquet)), Parquet(str(coded))]
    return [replace(site, source=source, holdout=Holdout(0.3, "s")) for source in sources]


def test_csv_and_parquet_in_any_order_have_one_holdout_and_one_order(small_sites, tmp_path):
    sites = files(small_sites(1, rows=200)[0], tmp_path)
    first, *others = [site.read() for site in sites]
    for other in others:
        pd.testing.assert_frame_equal(other.training, first.training)
        pd.testing.assert_frame_equal(other.holdout("test"), first.holdout("test"))


def test_keys_from_the_codes_of_categories_would_be_caught(small_sites, tmp_path, monkeypatch):
    sites = files(small_sites(1, rows=200)[0], tmp_path)

    def keys_of_codes(texts):
        return text_keys([str(code) for code in pd.factorize(np.array(texts, dtype=object))[0]])

    right = [set(site.read().holdout("test")["person"]) for site in sites]
    assert all(one == right[0] for one in right) and len(right[0]) > 20
    monkeypatch.setattr(keys_module, "text_keys", keys_of_codes)
    wrong = [set(site.read().holdout("test")["person"]) for site in sites]
    assert any(one != wrong[0] for one in wrong)
