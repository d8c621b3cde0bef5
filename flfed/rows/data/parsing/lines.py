"""Checks of the lines of separated text.

They ask whether all lines are as long as the first, and whole.
"""

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
TOO_LONG = "a cell has more than 131,072 signs: leave its column out, or close the quote that opens it"
Record = list[str]
LOOKED_AT = 2000
"""Lines whose first cells tell what a line begins like."""
_BIG_ENDIAN = {b"\xfe\xff": "utf-16-be", b"\x00\x00\xfe\xff": "utf-32-be"}
_END_SIGN = re.compile(rb"(?<=[\r\n])\x1a[\x1a\r\n]*\Z")


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
        Cells that hold whole lines, which begin as the file's others do: a stray quote joined those.
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
        """Tell whether the file ends within a line."""
        return self.last_short and not self.ended


def lines_of(content: bytes, encoding: str, separator: str, columns: Sequence[str] | None = None) -> Lines:
    """Count the lines of a file.

    `separator` is one sign, or `BLANKS`.

    Raises
    ------
    csv.Error
        If a cell is too long for one, or a quote is opened and never closed.
    UnicodeError
        If the bytes are not of that encoding.
    """
    width = len(columns or ())
    shorter = 0
    longer = 0
    swallowed = 0
    last_short = False
    named = False
    quoted, first = b'"' in content, True
    begins, joined = set[str](), list[list[str]]()
    for record in _records(content, encoding, separator):
        if len(record) < 2 and not "".join(record).strip():
            continue  # an empty line, which pandas leaves out
        if first and columns:
            named = [cell.strip() for cell in record] == list(columns)
        if first and not columns:
            width = len(record)
        elif len(record) != width:
            shorter += len(record) < width
            # Longer lines count only where what is over is not empty, as spreadsheets append commas.
            longer += len(record) > width and any(cell.strip() for cell in record[width:])
        last_short = len(record) < width
        # Whether a quote swallowed lines is judged by how the first lines of the file begin.
        if quoted and not first and len(begins) < LOOKED_AT:
            begins.add(_shape(record[0]))
        if quoted and width >= 3:
            joined += [_joined(cell, at, separator, width) for at, cell in enumerate(record) if "\n" in cell]
        first = False
    swallowed = sum(bool(starts) and 2 * sum(map(begins.__contains__, starts)) >= len(starts) for starts in joined)
    return Lines(0 if first else width, shorter, longer, swallowed, last_short, _ends(content, encoding), named)


def _joined(cell: str, at: int, separator: str, width: int) -> list[str]:
    """Return the beginnings of lines that a cell joins.

    They are of a quoted cell, as shapes; there are none where it is a text with line breaks.

    Such a cell is the rest of one line from column `at` on, whole lines, and the start of another up to that column.
    """
    parts = [part.split() if separator == BLANKS else part.split(separator) for part in cell.split("\n")]
    wanted = [width - at, *[width] * (len(parts) - 2), at + 1]
    return [_shape(part[0]) for part in parts[1:]] if [len(part) for part in parts] == wanted else []


def _shape(cell: str) -> str:
    """Return what a cell looks like.

    Examples
    --------
    >>> _shape("P-0071"), _shape("sent home")
    ('a-9', 'a a')
    """
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", cell.strip()[:100]))


def without_end_sign(content: bytes) -> bytes:
    """Remove the end sign of MS-DOS from a file.

    It stands on a line of its own at the end.
    """
    return _END_SIGN.sub(b"", content)


def _ends(content: bytes, encoding: str) -> bool:
    encoding = next((name for mark, name in _BIG_ENDIAN.items() if content.startswith(mark)), encoding)
    last = content[-8:].decode(encoding, errors="ignore").rstrip(" \x1a")
    return last.endswith(("\n", "\r"))


def why_uneven(lines: Lines, content: bytes, encoding: str, separator: str) -> str:
    """Return why lines are uneven, and what helps.

    "" where they are even. None of them is quoted.
    """
    if not lines.width:
        return "it has no line"
    if lines.named:
        return "its first line holds the names: leave columns out"
    # The most likely cause comes first: a wrong separator makes every line uneven.
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
        plain = (line.replace("\t", " ").strip(" \r\n") + "\n" for line in text)
        return csv.reader(plain, delimiter=" ", skipinitialspace=True)
    return csv.reader(text, delimiter=separator)


def _first_records(content: bytes, encoding: str, separator: str) -> list[Record]:
    return [record for record in islice(_records(content, encoding, separator), FIRST_LINES) if record]


def title_lines(content: bytes, encoding: str, separator: str) -> bool:
    """Tell whether a title precedes the column names.

    Then the first line is shorter than those that follow, which are alike.
    """
    records = _first_records(content, encoding, separator)
    widths = Counter(map(len, records[1:])).most_common(1)
    return bool(widths) and len(records[0]) < widths[0][0] and len(records[0]) <= max(2, widths[0][0] // 3)


def _other_separator(content: bytes, encoding: str, separator: str) -> str | None:
    """Return a separator that fits the first lines better.

    It cuts them into the same number of cells, two or more. None where no sign does.
    """
    for other in SEPARATORS:
        if other == separator:
            continue
        widths = {len(record) for record in _first_records(content, encoding, other)}
        if len(widths) == 1 and widths != {1}:
            return other
    return None
