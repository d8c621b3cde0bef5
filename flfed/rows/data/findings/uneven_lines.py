"""Lines of a text file that are longer or shorter than the first, with advice.

Titles, comments and sums stand around a table; a separator changes; a line is cut. Lines are named by number and never
quoted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from flfed.errors import count_in_words
from flfed.rows.data.parsing.limits import Reading
from flfed.rows.data.parsing.text_files import (
    BLANKS,
    SEPARATORS,
    Record,
    ends,
    first_records,
    records_of,
    widths_of,
)
from flfed.words import render

CHECKED = 1000
"""Lines between two checks of the limits."""
LOOKED_AT = 2000
"""Lines whose first cells show how a line of the file begins."""
UNEVEN = 50
"""Largest number of uneven lines that are examined."""
FOOTER = 5
"""Largest number of lines behind the last row that hold a sum or a note."""
_COMMENT = re.compile(r"\s*(#|//|--|%|;)")


@dataclass(frozen=True)
class Uneven:
    """A line with more or fewer cells than the first.

    Attributes
    ----------
    number : int
        In the file, from 1.
    comment : bool
        Whether it begins like a comment, or is a rule.
    other : str
        Another separator that splits it into as many cells as the first line; "" for none.
    """

    number: int
    comment: bool
    other: str


@dataclass
class Lines:
    """Counts of the lines of a file.

    Attributes
    ----------
    separator : str
    width : int
        Cells of the first line, or number of the names in `columns`; 0 where there is no line.
    shorter, longer : int
        Lines after the first with fewer cells, and with more that are not empty.
    swallowed : int
        Cells that hold whole lines, joined by a stray quote: they begin as the file's other lines do.
    last_short : bool
        Whether the last line has fewer cells.
    ended : bool
        Whether the last line has a line break.
    named : bool
        Whether the first line repeats the names in `columns`.
    uneven : list of Uneven
        The first of the lines that are shorter or longer.
    trailing : int
        Shorter lines behind the last even one.
    """

    separator: str
    width: int
    shorter: int = 0
    longer: int = 0
    swallowed: int = 0
    trailing: int = 0
    last_short: bool = False
    ended: bool = False
    named: bool = False
    uneven: list[Uneven] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        """Return whether the file ends within a line."""
        return self.last_short and not self.ended

    def begin(self, record: Record, columns: Sequence[str] | None) -> None:
        """Take the width from the first line, or compare it with `columns`."""
        if columns:
            self.named = list(map(str.strip, record)) == list(columns)
        else:
            self.width = len(record)

    def add(self, number: int, record: Record) -> None:
        """Count a line."""
        self.last_short = len(record) < self.width
        self.trailing = self.trailing + 1 if self.last_short else 0
        if len(record) == self.width:
            return
        # Spreadsheets append commas, so empty cells at the end make no line longer.
        over = any(cell.strip() for cell in record[self.width :])
        self.shorter += self.last_short
        self.longer += over
        if len(self.uneven) < UNEVEN and (over or self.last_short):
            text = self.separator.join(record)
            comment = bool(_COMMENT.match(text)) and not text.startswith(self.separator)
            others = (sign for sign in SEPARATORS if sign != self.separator and text.count(sign) == self.width - 1)
            self.uneven.append(Uneven(number, comment, next(others, "")))


def lines_of(
    content: bytes, encoding: str, separator: str, reading: Reading, columns: Sequence[str] | None = None
) -> Lines:
    """Count the lines of a file.

    `separator` is one sign, or `BLANKS`.

    Raises
    ------
    UsageError
        If there are more lines or cells than the limits allow.
    csv.Error
        If a cell is too long for one, or a quote is opened and never closed.
    UnicodeError
        If the bytes are not of that encoding.
    """
    lines = Lines(separator, len(columns or ()))
    quotes = _Quotes(separator, there=b'"' in content)
    first = True
    following = 1
    count = 0
    for count, record in enumerate(records_of(content, encoding, separator), start=int(bool(columns))):
        if count % CHECKED == 0 or len(record) > lines.width:
            reading.check("columns", len(record))
            reading.check_shape(count, lines.width)
            reading.check_time()
        number = following
        following += quotes.lines(record)
        if len(record) < 2 and not "".join(record).strip():
            continue  # an empty line, which pandas leaves out
        if first:
            lines.begin(record, columns)
        lines.add(number, record)
        quotes.add(record, lines.width, first=first)
        first = False
    reading.check_shape(count, lines.width)
    if first:
        lines.width = 0
    lines.swallowed = quotes.swallowed()
    lines.ended = ends(content, encoding)
    return lines


class _Quotes:
    """Detects cells in which a stray quote swallowed whole lines, by how the first lines of the file begin."""

    def __init__(self, separator: str, *, there: bool) -> None:
        self.separator = separator
        self.there = there
        self.begins = set[str]()
        self.joined: list[list[str]] = []

    def lines(self, record: Record) -> int:
        """Count the lines of a record: a cell in quotes may have several."""
        return 1 + sum(cell.count("\n") for cell in record) if self.there else 1

    def add(self, record: Record, width: int, *, first: bool) -> None:
        """Record the beginning of a line and the lines that its cells join."""
        if not self.there:
            return
        if not first and len(self.begins) < LOOKED_AT:
            self.begins.add(_shape(record[0]))
        if width < 3:
            return
        for at, cell in enumerate(record):
            if "\n" in cell and (starts := _joined(cell, at, self.separator, width)):
                self.joined.append(starts)

    def swallowed(self) -> int:
        """Count the cells whose lines begin as the file's others do."""
        return sum(2 * sum(map(self.begins.__contains__, starts)) >= len(starts) for starts in self.joined)


def _joined(cell: str, at: int, separator: str, width: int) -> list[str]:
    """Return the beginnings, as shapes, of the lines that a quoted cell joins.

    Such a cell holds the rest of one line from column `at` on, whole lines, and the start of another up to that column.
    A text with line breaks joins none.
    """
    sign = None if separator == BLANKS else separator
    parts = [part.split(sign) for part in cell.split("\n")]
    if [*map(len, parts)] != [width - at, *[width] * (len(parts) - 2), at + 1]:
        return []
    return [_shape(part[0]) for part in parts[1:]]


def _shape(cell: str) -> str:
    """Return the shape of a cell: letters as a, digits as 9.

    Examples
    --------
    >>> _shape("P-0071"), _shape("sent home")
    ('a-9', 'a a')
    """
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", cell.strip()[:100]))


def why_uneven(lines: Lines, content: bytes, encoding: str, separator: str) -> str:
    """Return why lines are uneven, with advice; "" where they are even.

    No line is quoted.
    """
    if not lines.width:
        return render("rows.text.empty")
    if lines.named:
        return render("findings.lines.named")
    # The most likely cause comes first: a wrong separator makes every line uneven.
    if lines.width == 1 or lines.shorter or lines.longer:
        other = _other_separator(content, encoding, separator, blanks=lines.width == 1)
        if other is not None:
            return render("findings.lines.separator", other=other, separator=separator)
    if lines.swallowed:
        return render("findings.lines.joined")
    if lines.longer and title_lines(content, encoding, separator):
        return render("findings.lines.title")
    return _around_the_table(lines, separator)


def _other_separator(content: bytes, encoding: str, separator: str, *, blanks: bool) -> str | None:
    """Return another separator that fits the first lines, or None. Blanks are tried where `blanks` is true."""
    others = (*SEPARATORS, BLANKS) if blanks else SEPARATORS
    return next(iter(widths_of(content, encoding, [other for other in others if other != separator])), None)


def _by_length(lines: Lines, separator: str) -> str:
    """Return that some lines are longer or shorter, with advice."""
    first = lines.uneven[0].number
    if lines.longer:
        return render("findings.lines.longer", lines=count_in_words(lines.longer), first=first, separator=separator)
    few = count_in_words(lines.shorter)
    if separator == BLANKS:
        return render("findings.lines.blanks", lines=few)
    if lines.cut:
        return render("findings.lines.incomplete", lines=few, first=first)
    return render("findings.lines.shorter", lines=few, first=first)


def _around_the_table(lines: Lines, separator: str) -> str:
    """Return the reason of uneven lines: comments, another separator, or another length; "" where none is uneven."""
    if not lines.uneven:
        return ""
    number = lines.uneven[0].number
    more = lines.shorter + lines.longer - 1
    if all(line.comment for line in lines.uneven):
        if more:
            return render("findings.lines.comments", number=number, more=more)
        return render("findings.lines.comment", number=number)
    other = lines.uneven[0].other
    if other and all(line.other == other for line in lines.uneven):
        return render("findings.lines.separators", number=number, other=other, separator=separator)
    return _footer(lines, separator) or _by_length(lines, separator)


def _footer(lines: Lines, separator: str) -> str:
    """Return the reason of uneven lines behind the last row; "" where others are uneven too."""
    number = lines.uneven[0].number
    behind = lines.shorter == lines.trailing and lines.shorter <= FOOTER
    # Between blanks, an empty cell makes a row shorter too.
    if lines.longer or not behind or separator == BLANKS:
        return ""
    if lines.cut:
        return render("findings.lines.cut", number=number)
    if lines.shorter == 1:
        return render("findings.lines.footer", number=number)
    return render("findings.lines.footers", number=number)


def title_lines(content: bytes, encoding: str, separator: str) -> bool:
    """Return whether a title precedes the column names.

    If so, the first line is shorter than those that follow, which are alike.
    """
    records = first_records(content, encoding, separator)
    widths = Counter(map(len, records[1:])).most_common(1)
    return bool(widths) and len(records[0]) < widths[0][0] and len(records[0]) <= max(2, widths[0][0] // 3)
