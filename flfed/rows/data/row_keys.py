"""Keys of rows: AES-128 CBC-MACs over typed columns, in place of each row's text.

Equal rows have equal keys, and others practically never. A key does not depend on the order of the
rows, on other rows, or on the file's format.

The message of a row begins with the kinds of its columns. Numbers and dates follow, two a block of
16 bytes, then each text as a block: the key of the text's bytes after their number. So no message is
the beginning of another one. There is one zero and one NaN, and a missing text differs from an empty one.

Each purpose has a cipher of its own. The keys themselves are under a public one: somebody who may
write rows could make two of them alike, which would then be on one side of the holdout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 16
PIECE = 2**16
"""Rows that are encrypted together: their blocks fit into a processor's cache."""
SAMPLE = 1000
"""First texts of a column that show whether its texts repeat."""
WORD = np.dtype("<u8")
TEXT = "O"
MISSING = -1
"""Length of a missing text."""
_HEADS = np.where(np.arange(BLOCK) < np.arange(BLOCK + 1)[:, None], 255, 0).astype(np.uint8)
"""Masks of a block's first 0 to 16 bytes."""


class _Mac:
    """One CBC-MAC for each row of a piece, under the cipher of a purpose."""

    def __init__(self, purpose: str, rows: int) -> None:
        key = hashlib.sha256(purpose.encode("utf-8", "surrogatepass")).digest()[:BLOCK]
        self._cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        # The cipher asks for room of almost one block more.
        self._room = np.zeros((rows + 1, 2), WORD)

    def begin(self, first: np.ndarray) -> np.ndarray:
        """Return the states [rows, 2] after their first blocks, in memory that the next call takes again."""
        states = self._room[: len(first)]
        states[:] = first
        return self.encrypt(states)

    def encrypt(self, states: np.ndarray) -> np.ndarray:
        """Encrypt the states that `begin` gave, each with its next block added."""
        room = self._room[: len(states) + 1].reshape(-1).view(np.uint8)
        self._cipher.update_into(room[: BLOCK * len(states)].data, room.data)
        return states


def row_keys(table: pd.DataFrame) -> np.ndarray:
    """Return the keys of the rows of a mapped table; uint64 [rows, 2]."""
    kinds = "".join(_kind(dtype) for dtype in table.dtypes)
    cells = [table.iloc[:, at].to_numpy() for at in range(len(kinds))]
    mac = _Mac("rows", min(PIECE, len(table)))
    keys = np.tile(text_keys([kinds]), (len(table), 1))
    _add_words(keys, [own for own, kind in zip(cells, kinds, strict=True) if kind != TEXT], mac)
    for own in (own for own, kind in zip(cells, kinds, strict=True) if kind == TEXT):
        blocks = text_keys(own)
        for piece in _pieces(len(table)):
            keys[piece] = mac.begin(keys[piece] ^ blocks[piece])
    return keys


def _add_words(keys: np.ndarray, words: list[np.ndarray], mac: _Mac) -> None:
    """Add numbers and dates to the keys of rows, two columns a block."""
    for piece in _pieces(len(keys)):
        states = mac.begin(keys[piece])
        for place, own in enumerate(words):
            states[:, place % 2] ^= _word(own[piece])
            if place % 2 or place == len(words) - 1:
                mac.encrypt(states)
        keys[piece] = states


def text_keys(texts: Any) -> np.ndarray:
    """Return the keys of texts, each by its length in bytes and these; uint64 [texts, 2].

    `texts` is a sequence of str or None.
    """
    array = _as_arrow(texts)
    if len(array) <= SAMPLE or len(array[:SAMPLE].unique()) > SAMPLE // 2:
        return _keys_of(array)
    # The code of a category depends on the file, and has no part in its key.
    coded = array.dictionary_encode()
    codes = coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
    keys = np.concatenate([_keys_of(coded.dictionary), _keys_of(_as_arrow([None]))])
    return np.asarray(keys.take(codes, axis=0))


def _keys_of(array: Any) -> np.ndarray:
    lengths, starts, content = _bytes_of(array)
    keys = np.empty((len(lengths), 2), WORD)
    mac = _Mac("texts", min(PIECE, len(keys)))
    # Every place in the bytes begins a block, the last ones are filled with zeros.
    blocks = np.ndarray(len(content) + 1, f"V{BLOCK}", content + bytes(BLOCK), strides=1)
    for piece in _pieces(len(keys)):
        heads = np.zeros((len(lengths[piece]), 2), WORD)
        heads[:, 0] = lengths[piece].astype(WORD)
        keys[piece] = mac.begin(heads)
        for done in range(0, max(0, lengths[piece].max()), BLOCK):
            rows = np.flatnonzero(lengths[piece] > done) + piece.start
            parts = blocks[starts[rows] + done].view(np.uint8).reshape(-1, BLOCK)
            parts &= _HEADS[np.minimum(lengths[rows] - done, BLOCK)]
            keys[rows] = mac.begin(keys[rows] ^ parts.view(WORD))
    return keys


def draw_fractions(keys: np.ndarray, purpose: str) -> np.ndarray:
    """Return a number in [0, 1) for each key [rows], under the cipher of a purpose and its salt."""
    shares = np.empty(len(keys))
    mac = _Mac(purpose, min(PIECE, len(keys)))
    for piece in _pieces(len(keys)):
        shares[piece] = (mac.begin(keys[piece])[:, 0] >> np.uint64(11)) * 2.0**-53
    return shares


def order_keys(keys: np.ndarray) -> np.ndarray:
    """Return the order of rows by their keys [rows, 2], stable."""
    order = np.argsort(keys[:, 0])
    first = keys[:, 0].take(order)
    if (first[1:] != first[:-1]).all():
        return order
    return np.lexsort((keys[:, 1], keys[:, 0]))


def _pieces(rows: int) -> Iterator[slice]:
    for start in range(0, rows, PIECE):
        yield slice(start, min(start + PIECE, rows))


def _kind(dtype: Any) -> str:
    return str(dtype.kind) if dtype.kind in (TEXT, "M") else "f"


def _word(cells: np.ndarray) -> np.ndarray:
    """Return numbers or dates as words of eight bytes [rows]."""
    if cells.dtype.kind == "M":
        return cells.astype("datetime64[ns]").view(WORD)
    # Adding 0.0 turns -0.0 into 0.0.
    numbers = cells.astype("<f8") + 0.0
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(WORD)


def _as_arrow(texts: Any) -> Any:
    """Return texts as an Arrow array, of bytes where one has half of a pair of signs."""
    import pyarrow as pa

    try:
        return pa.array(texts, pa.large_string(), from_pandas=True)
    except UnicodeEncodeError:
        return pa.array(map(_encode, texts), pa.large_binary())


def _encode(text: Any) -> bytes | None:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None


def _bytes_of(array: Any) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Return the number of bytes of each text of an Arrow array, where they begin, and the bytes of all."""
    _, places, content = array.buffers()
    ends = np.frombuffer(places, np.int64)[: len(array) + 1]
    missing = array.is_null().to_numpy(zero_copy_only=False)
    written = b"" if content is None else content.to_pybytes()
    return np.where(missing, MISSING, np.diff(ends)), ends[:-1], written
