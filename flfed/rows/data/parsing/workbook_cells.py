"""Cells of a workbook that have no value of their own: merged ones, and formulas that nothing computed.

Both read as empty, so that a table would lose them without a word. They are marked, and the mapping refuses the marks.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from flfed.parsers import DAMAGED, foreign_parser
from flfed.rows.data.parsing.cells import MERGED_CELL, UNSTORED_CELL

_WANTED = (b"mergeCell", b"<f", b":f>", b":f ")
"""What a sheet has that has such cells; a namespace may stand before."""
_CELL = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
Range = tuple[int, int, int, int]
"""First column and row, last column and row, from 1."""


@dataclass
class ValuelessCells:
    """Cells without a value of their own.

    Attributes
    ----------
    formulas : list of (column, row)
        From 1.
    merged : list of Range
        Each with the one cell that has the value, at its beginning.
    """

    formulas: list[tuple[int, int]] = field(default_factory=list)
    merged: list[Range] = field(default_factory=list)


def mark_valueless(table: pd.DataFrame, parts: Callable[[], Iterator[bytes]], refusal: str) -> pd.DataFrame:
    """Return a sheet's table with marks in its empty cells that are merged, or hold a formula without a value.

    Parameters
    ----------
    table : DataFrame
        As read, its names in the sheet's first row.
    parts : callable
        Gives the sheet's XML, part by part.
    refusal : str
        Said of a damaged file.
    """
    if not _holds_any(parts()):
        return table
    found = _valueless(parts(), refusal)
    empty = table.isna().to_numpy()
    cells = table.to_numpy(dtype=object, copy=True)
    rows, columns = cells.shape
    # The names stand in row 1, so that the first row of cells is row 2.
    for column, row in found.formulas:
        if 2 <= row <= rows + 1 and column <= columns and empty[row - 2, column - 1]:
            cells[row - 2, column - 1] = UNSTORED_CELL
    for first_column, first_row, last_column, last_row in found.merged:
        block = (slice(max(first_row - 2, 0), max(last_row - 1, 0)), slice(first_column - 1, last_column))
        cells[block] = pd.DataFrame(cells[block]).mask(empty[block], MERGED_CELL).to_numpy()
    marked = pd.DataFrame(cells, columns=table.columns, index=table.index)
    marked.attrs = table.attrs
    return marked


def _holds_any(parts: Iterable[bytes]) -> bool:
    end = b""
    for part in parts:
        if any(wanted in end + part for wanted in _WANTED):
            return True
        end = part[-16:]
    return False


def _valueless(parts: Iterable[bytes], refusal: str) -> ValuelessCells:
    found = ValuelessCells()
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser()
    for part in parts:
        with foreign_parser(refusal, *DAMAGED):
            parser.feed(part)
            events: Iterator[Any] = parser.read_events()
            elements = [element for _, element in events]
        for element in elements:
            _add(element, found)
    return found


def _add(element: ElementTree.Element, found: ValuelessCells) -> None:
    """Add a cell or range of a sheet's XML where it has no value."""
    kind = _kind(element)
    if kind == "row":
        element.clear()
    elif kind == "mergeCell":
        first, _, last = element.get("ref", "").partition(":")
        begin = _place(first)
        end = _place(last or first)
        if begin and end:
            found.merged.append((*begin, *end))
    elif kind == "c":
        inner = {_kind(part): part.text for part in element}
        # A formula that gave an empty text has a value: an empty one, and is of that type.
        place = _place(element.get("r", ""))
        if place and "f" in inner and not inner.get("v") and element.get("t") != "str":
            found.formulas.append(place)


def _place(name: str) -> tuple[int, int] | None:
    """Return the column and the row of a cell's name, from 1; None of a damaged name.

    Examples
    --------
    >>> _place("AB12"), _place("12")
    ((28, 12), None)
    """
    found = _CELL.fullmatch(name)
    if found is None:
        return None
    column = 0
    for letter in found[1]:
        column = 26 * column + ord(letter) - ord("A") + 1
    return column, int(found[2])


def _kind(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
