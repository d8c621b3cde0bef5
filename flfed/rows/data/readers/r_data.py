"""The reader of a data frame that R wrote with `save`, such as `IST.rda`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flfed.rows.data.sources import Folders, find_file
from flfed.words import usage_error

HEADER = b"RDX2\nX\n"
"""Beginning of the second version of the format, big-endian."""
SYMBOL = 1
PAIRS = 2
LOGICAL = 10
INTEGER = 13
REAL = 14
TEXT = 16
LIST = 19
NOTHING = 254
REFERENCE = 255
"""Kinds of an item, as R numbers them."""
ATTRIBUTES = 0x200
TAG = 0x400
LATIN_1 = 0x4000
PAIR = struct.Struct(">ii")
MISSING = -(2**31)
"""R's missing whole number."""
DECOMPRESS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"BZh", bz2.decompress),
    (b"\x1f\x8b", gzip.decompress),
    (b"\xfd7zXZ", lzma.decompress),
)


@dataclass(kw_only=True)
class RData:
    """Table of the data frame in a file of R: `save(..., version = 2)`.

    Parameters
    ----------
    file : str
        One of the dataset's files.
    name : str
        The data frame's name in it. Example: `name = "IST"`.
    """

    file: str
    name: str

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the table: numbers as numbers, factors and texts as texts, R's NA as missing.

        Raises
        ------
        UsageError
            If the file is not of this format, or has no such data frame.
        """
        content = find_file(self.file, folders).read_bytes()
        for mark, decompress in DECOMPRESS:
            if content.startswith(mark):
                content = decompress(content)
        if not content.startswith(HEADER):
            raise usage_error("rows.reader.r-data", file=self.file)
        # Behind the header stand three versions of R.
        objects, _ = _Items(content, len(HEADER) + 12).read()
        if self.name not in (objects or {}):
            raise usage_error("rows.reader.r-name", **vars(self))
        columns, attributes = objects[self.name]
        names, _ = attributes["names"]
        return pd.DataFrame(dict(zip(names, map(_column, columns), strict=True)))


def _column(item: tuple[Any, Any]) -> Any:
    """Return the cells of a column."""
    cells, attributes = item
    if isinstance(cells, list) or cells.dtype.kind == "f":
        return cells
    if attributes and "levels" in attributes:
        levels = np.array([*attributes["levels"][0], None], dtype=object)
        # A missing cell has the last place.
        return levels[np.where(cells == MISSING, 0, cells) - 1]
    return np.where(cells == MISSING, np.nan, cells) if (cells == MISSING).any() else cells


@dataclass
class _Items:
    """Items of R's serialisation, one after the other; each is a value and its attributes."""

    content: bytes
    place: int
    symbols: list[Any] = field(default_factory=list)

    def read(self) -> tuple[Any, Any]:
        """Return the next item."""
        flags = self._whole()
        kind = flags & 0xFF
        if kind == NOTHING:
            return None, None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1], None
        if kind == SYMBOL:
            self.symbols += self._texts(1)
            return self.symbols[-1], None
        if kind == PAIRS:
            return self._pairs(flags), None
        value = self._vector(kind)
        attributes = self.read()[0] if flags & ATTRIBUTES else None
        return value, attributes

    def _pairs(self, flags: int) -> dict[str, Any]:
        """Return a list of pairs as names and items."""
        pairs = {}
        while flags & 0xFF == PAIRS:
            if flags & ATTRIBUTES:
                self.read()
            name = self.read()[0] if flags & TAG else ""
            pairs[name] = self.read()
            flags = self._whole()
        return pairs

    def _vector(self, kind: int) -> Any:
        count = self._whole()
        if kind == TEXT:
            return self._texts(count)
        if kind == LIST:
            return [self.read() for _ in range(count)]
        if kind not in (LOGICAL, INTEGER, REAL):
            raise usage_error("rows.reader.r-kind", kind=kind)
        number = ">f8" if kind == REAL else ">i4"
        dtype = np.dtype(number)
        cells = np.frombuffer(self.content, dtype, count, self.place)
        self.place += cells.nbytes
        return cells.astype(dtype.newbyteorder("="))

    def _texts(self, count: int) -> list[Any]:
        """Return some texts, None for a missing one; each has flags and its number of bytes before it."""
        texts: list[Any] = []
        place = self.place
        for _ in range(count):
            flags, size = PAIR.unpack_from(self.content, place)
            place += PAIR.size
            text = None
            if size >= 0:
                encoding = "latin-1" if flags & LATIN_1 else "utf-8"
                text = self.content[place : place + size].decode(encoding, "replace")
                place += size
            texts.append(text)
        self.place = place
        return texts

    def _whole(self) -> int:
        (number,) = struct.unpack_from(">i", self.content, self.place)
        self.place += 4
        return int(number)
