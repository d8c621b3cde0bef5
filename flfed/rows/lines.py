"""The lines of a file of separated text: are they all as long as the first, and whole."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from flfed.errors import count_in_words

BLANKS = r"\s+"
"""The one separator that is more than a sign: any number of blanks."""
SEPARATORS = (",", ";", "\t", "|")
FIRST_LINES = 20
"""Lines in which another separator is looked for."""
UNCLOSED = "a quote is opened and never closed"
Record = list[str]
_QUOTED_CELL = re.compile(r'(?:"(?:[^"]|"")*"|\S)+')
"""Between blanks, of which those within quotes are of the cell."""
LONGEST_CELL = 2**27
"""Signs of a cell that may be a text; Python's own limit of 131,072 is in reach of a letter."""


@dataclass(frozen=True)
class Lines:
    """What was counted of the lines of a file.

    Attributes
    ----------
    width : int
        Cells of the first line, or of the names that are given; 0 where there is no line.
    shorter, longer : int
        Lines after the first with fewer cells, and with more that are not empty.
    swallowed : int
        Cells that hold as many line ends and separators as whole lines have: a stray quote joined those.
    last_short : bool
        Whether the last line has fewer cells.
    ended : bool
        Whether the last line has an end.
    named : bool
        Whether the first line holds just the names that are given.
    """

    width: int
    shorter: int
    longer: int
    swallowed: int
    last_short: bool
    ended: bool
    named: bool

    @property
    def cut(self) -> bool:
        """Tell whether the file ends in the middle of a line."""
        return self.last_short and not self.ended


def lines_of(content: bytes, encoding: str, separator: str, columns: Sequence[str] | None = None) -> Lines:
    """Count the lines of a file; `separator` is one sign, or `BLANKS`.

    Raises
    ------
    csv.Error
        If a cell is too long for one: a quote is opened and never closed.
    UnicodeError
        If the bytes are not of that encoding.
    """
    width, shorter, longer, swallowed, last_short, named = len(columns or ()), 0, 0, 0, False, False
    quoted, first = b'"' in content, True
    for record in _records(content, encoding, separator):
        if len(record) < 2 and not "".join(record).strip():
            continue  # an empty line, which pandas leaves out
        if first and columns:
            named = [cell.strip() for cell in record] == list(columns)
        if first and not columns:
            width = len(record)
        elif len(record) != width:
            shorter += len(record) < width
            longer += len(record) > width and any(cell.strip() for cell in record[width:])
        last_short = len(record) < width
        swallowed += quoted and any("\n" in cell and _is_lines(cell, separator, width) for cell in record)
        first = False
    return Lines(0 if first else width, shorter, longer, swallowed, last_short, _ends(content, encoding), named)


def _is_lines(cell: str, separator: str, width: int) -> bool:
    """Tell whether a quoted cell is the rest of one line and the start of another."""
    return width >= 3 and cell.count(separator) == cell.count("\n") * (width - 1)


def _ends(content: bytes, encoding: str) -> bool:
    last = content[-8:].decode(encoding, errors="ignore").rstrip(" \x1a")
    return last.endswith(("\n", "\r"))


def why_uneven(lines: Lines, content: bytes, encoding: str, separator: str) -> str:
    """Return what is wrong with the lines of a file and what to do, "" where they are even; quotes none of them."""
    if not lines.width:
        return "it has no line"
    if lines.named:
        return "its first line holds the names: leave columns out"
    if lines.width == 1 or lines.shorter or lines.longer:
        other = _other_separator(content, encoding, separator)
        if other is not None:
            return f"its cells are separated by {other!r}: give separator={other!r}, or save it with {separator!r}"
    if lines.swallowed:
        return f"{UNCLOSED}, and joins lines"
    if lines.longer and title_lines(content, encoding, separator):
        return "a title stands above the line of names: remove what is above it"
    if lines.longer:
        many = count_in_words(lines.longer)
        return f"{many} lines have more cells than the first: is a cell with {separator!r} in it not quoted?"
    if lines.cut and lines.shorter == 1:
        return "its last line is cut: fetch the file anew"
    if lines.shorter:
        cut = "; the last one is cut" if lines.cut else ""
        return f"{count_in_words(lines.shorter)} lines have fewer cells than the first{cut}: fetch or export it anew"
    return ""


def _records(content: bytes, encoding: str, separator: str) -> Iterator[Record]:
    text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    if separator == BLANKS:
        return (_QUOTED_CELL.findall(line) for line in text)
    return csv.reader(text, delimiter=separator)


def _first_records(content: bytes, encoding: str, separator: str) -> list[Record]:
    return [record for record in islice(_records(content, encoding, separator), FIRST_LINES) if record]


def title_lines(content: bytes, encoding: str, separator: str) -> bool:
    """Tell whether the first line is shorter than those that follow, which are alike."""
    records = _first_records(content, encoding, separator)
    widths = Counter(map(len, records[1:])).most_common(1)
    return bool(widths) and len(records[0]) < widths[0][0] and len(records[0]) <= max(2, widths[0][0] // 3)


def _other_separator(content: bytes, encoding: str, separator: str) -> str | None:
    """Return the sign that cuts the first lines into the same number of cells, two or more; None where none does."""
    for other in SEPARATORS:
        if other == separator:
            continue
        widths = {len(record) for record in _first_records(content, encoding, other)}
        if len(widths) == 1 and widths != {1}:
            return other
    return None
