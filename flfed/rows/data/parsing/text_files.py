"""Checks of a file before it is read as a text table.

Other formats are recognised by their first bytes and refused with advice. Lines are whole, and as long as the first:
titles, comments and sums that stand around a table, another separator and a cut line are explained. Lines are named by
number and never quoted. CSV files of public data in a zip file or wheel are read here too.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flfed.errors import count_in_words
from flfed.rows.data.parsing.limits import TEXT_GRACE, Reading
from flfed.words import render

if TYPE_CHECKING:
    pass

_MAGIC: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old-excel"),
    (b"\x00" * 12 + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", "sas"),
    (b"HEADER RECORD*******", "sas-transport"),
    ((b"$FL2", b"$FL3"), "spss"),
    (b"<stata_dta>", "stata"),
    ((b"RDX2\n", b"RDX3\n"), "r"),
    (b"PAR1\x15", "parquet"),
    (b"ARROW1\x00", "arrow"),
    (b"FEA1\x00", "feather"),
    (b"\x89HDF", "hdf5"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x00\x01\x00\x00Standard ", "access"),
    (b"%PDF", "pdf"),
    (b"{\\rtf", "rtf"),
    ((b"-----BEGIN PGP", b"\x85\x01"), "encrypted"),
    ((b"\x80\x04\x95", b"\x80\x05\x95"), "pickle"),
    ((b"\x89PNG", b"\xff\xd8\xff"), "picture"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh9", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "seven-zip"),
    (b"Rar!\x1a", "rar"),
)
_OLD_STATA = re.compile(rb"[\x69\x6c\x6e\x71-\x73][\x01\x02]\x01")
_MARKUP = (
    (re.compile(rb"<(!doctype html|html|head|body|table)\b", re.I), "html"),
    (re.compile(rb"<\?xml[^>]*>\s*(<\?mso|<workbook)", re.I), "excel-xml"),
    (re.compile(rb"<\?xml\b", re.I), "xml"),
    (re.compile(rb"""\{\s*["'}]|\[\s*[\[{]|\[\s*\]"""), "json"),
)
"""First bytes of formats that are no text table, each with its key in `[kind]` of `flfed/words/rows.toml`."""
_WIDE = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_UTF8_MARK = b"\xef\xbb\xbf"
_FIRST = 4096
PART = 1 << 20
"""Bytes unpacked at a time."""
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, NotImplementedError)


class NoTable(Exception):
    """Refusal of a file without a text table.

    Its text names the kind of file with advice, and quotes nothing of it.
    """


def content_of(path: Path, reading: Reading) -> bytes:
    """Read the bytes of a text file, unpacked where its name ends with .gz, .bz2, .xz or .zip.

    Raises
    ------
    NoTable
        If it is a file of another kind, which is named.
    UsageError
        If it has too many bytes, or its first line too many columns.
    OSError
        If it cannot be opened.
    """
    reading.check("bytes", path.stat().st_size)
    content = path.read_bytes()
    opened = _OPENERS.get(path.suffix.lower())
    if opened is not None and content:
        try:
            content = _unpacked(content, opened, reading)
        except _BROKEN:
            raise NoTable(render("rows.text.packed", ending=path.suffix)) from None
    refuse_other_kind(content, reading)
    return content


def refuse_other_kind(content: bytes, reading: Reading) -> None:
    """Refuse bytes of another kind, which is named, or with too many columns in their first line."""
    if kind := kind_of(content):
        raise NoTable(kind)
    # Checked before a parser makes a cell of each sign in a first line without end.
    end = re.search(rb"[\r\n]", content)
    first = content[: end.start()] if end else content
    reading.check("columns", 1 + max(first.count(separator.encode()) for separator in SEPARATORS))


def is_packed(path: Path) -> bool:
    """Return whether `content_of` unpacks a file."""
    return path.suffix.lower() in _OPENERS


def is_wide(encoding: str) -> bool:
    """Return whether an encoding writes a sign in two or four bytes, so that no byte alone ends a line."""
    return encoding.lower().replace("-", "").replace("_", "").startswith(("utf16", "utf32"))


def parts_of(stream: IO[bytes], rows: int, *, header: bool) -> Iterator[bytes]:
    """Yield a text file about `rows` lines at a time, each part with the header and whole rows; at least one part."""
    head = b""
    # Empty lines may precede the names.
    while header and not head.strip() and (line := _whole_lines(stream, 1)):
        head += line
    part = _whole_lines(stream, rows)
    yield head + part
    while part := _whole_lines(stream, rows):
        yield head + part


def _whole_lines(stream: IO[bytes], count: int) -> bytes:
    """Read lines, and more where the last ends within a cell in quotes, which may have several."""
    lines = list(islice(stream, count))
    within = sum(line.count(b'"') for line in lines) % 2
    while within and (line := stream.readline()):
        lines.append(line)
        within ^= line.count(b'"') % 2
    return b"".join(lines)


def _unpacked(content: bytes, opened: Opener, reading: Reading) -> bytes:
    """Return unpacked bytes, counted before they are held in memory."""
    size = 0
    with opened(io.BytesIO(content)) as stream:
        while part := stream.read(PART):
            size += len(part)
            reading.check_unpacked(size, len(content), TEXT_GRACE)
            reading.check_time()
    with opened(io.BytesIO(content)) as stream:
        whole: bytes = stream.read()
    return whole


def kind_of(content: bytes) -> str:
    """Return the kind of a file by its bytes, with advice; "" where it may be text.

    Examples
    --------
    >>> kind_of(b"%PDF-1.7"), kind_of(b"age,sex")
    ('it is a PDF: ask for the table itself', '')
    """
    if not content:
        return "it is empty"
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return render(f"rows.kind.{kind}")
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(content)
    if content[257:262] == b"ustar":
        return render("rows.kind.tar")
    if _OLD_STATA.match(content):
        return render("rows.kind.stata")
    # Markup may follow blanks and a mark of the encoding, unlike the bytes of other formats.
    first = content.removeprefix(_UTF8_MARK)[:_FIRST].lstrip()
    for pattern, kind in _MARKUP:
        if pattern.match(first):
            return render(f"rows.kind.{kind}")
    return ""


def wrong_encoding(content: bytes, encoding: str) -> str:
    r"""Return why bytes are not text of an encoding; "" where they may be.

    Examples
    --------
    >>> wrong_encoding(b"\xff\xfea\x00", "utf-8")
    "it is in utf-16: set encoding='utf-16', or save it in UTF-8"
    """
    plain = encoding.lower().replace("_", "-")
    if is_wide(encoding):
        return ""
    # A mark at the beginning is more reliable than any setting.
    for mark, name in _WIDE.items():
        if content.startswith(mark):
            return render("rows.text.wide", encoding=name)
    if b"\x00" in content:
        return render("rows.text.nul")
    is_utf8 = plain in ("utf-8", "utf8", "utf-8-sig")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return render("rows.text.foreign") if is_utf8 else ""
    # Text of a one-byte encoding is hardly ever valid UTF-8.
    return "" if is_utf8 or content.isascii() else render("rows.text.utf8")


def _open_member(content: io.BytesIO) -> IO[bytes]:
    archive = zipfile.ZipFile(content)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise NoTable(render("rows.text.archive", files=len(names)))
    if archive.getinfo(names[0]).flag_bits & 1:
        raise NoTable(render("rows.text.encrypted"))
    return archive.open(names[0])


Opener = Callable[[io.BytesIO], Any]
_OPENERS: dict[str, Opener] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_member,
}


def _zip_kind(content: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except _BROKEN:
        return render("rows.kind.damaged")
    if any(name.startswith("xl/") for name in names):
        return render("rows.kind.excel")
    if "mimetype" in names or "content.xml" in names or any(name.startswith("word/") for name in names):
        return render("rows.kind.office")
    return render("rows.kind.zip")


BLANKS = r"\s+"
"""The only separator of several signs: any number of blanks."""
SEPARATORS = (",", ";", "\t", "|")
FIRST_LINES = 20
"""Lines that are tried with another separator."""
LINE = 1 << 24
"""Largest number of signs in one line, including cells with line breaks."""
Record = list[str]
_BIG_ENDIAN = {b"\xfe\xff": "utf-16-be", b"\x00\x00\xfe\xff": "utf-32-be"}
_END_SIGN = re.compile(rb"(?<=[\r\n])\x1a[\x1a\r\n]*\Z")


def without_end_sign(content: bytes) -> bytes:
    """Remove the end sign of MS-DOS from the last line of a file."""
    # The pattern would be tried at each byte.
    return _END_SIGN.sub(b"", content) if b"\x1a" in content else content


def ends(content: bytes, encoding: str) -> bool:
    """Return whether the last line of a file has a line break."""
    encoding = next((name for mark, name in _BIG_ENDIAN.items() if content.startswith(mark)), encoding)
    return content[-8:].decode(encoding, errors="ignore").rstrip(" \x1a").endswith(("\n", "\r"))


def records_of(content: bytes, encoding: str, separator: str) -> Iterator[Record]:
    """Yield the cells of each line, and refuse a line without end before the parser reads all of it."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    length = 0

    def bounded() -> Iterator[str]:
        nonlocal length
        while line := text.readline(LINE + 1):
            length += len(line)
            if length > LINE:
                raise NoTable(render("rows.text.line", signs=LINE))
            yield line

    if separator == BLANKS:
        plain = (line.replace("\t", " ").strip(" \r\n") + "\n" for line in bounded())
        records = csv.reader(plain, delimiter=" ", skipinitialspace=True)
    else:
        records = csv.reader(bounded(), delimiter=separator)
    for record in records:
        yield record
        length = 0


def first_records(content: bytes, encoding: str, separator: str) -> list[Record]:
    """Return the cells of the first lines."""
    return [*islice(records_of(content, encoding, separator), FIRST_LINES)]


def with_empty_lines(content: bytes, skip: int, encoding: str) -> bytes:
    """Return a file with empty lines in place of its first ones: later lines keep their numbers."""
    if not skip:
        return content
    text = content.decode(encoding)
    first = re.match(rf"(?:[^\r\n]*(?:\r\n|\r|\n)){{{skip}}}", text)
    return ("\n" * skip + text[first.end() :] if first else "").encode(encoding.removesuffix("-sig"))


def lines_above(records: Sequence[Sequence[str]]) -> int:
    """Return how many lines stand above the names of columns, by the cells of the first lines of a table.

    At most two cells of such a line are filled, or a quarter of the table's, or it begins with #.

    Examples
    --------
    >>> lines_above([["Export", "", ""], [], ["age", "sex", "died"], ["54", "m", "no"], ["61", "f", "yes"]])
    2
    """
    filled = [sum(map(bool, map(str.strip, record))) for record in records]
    width = max(filled[len(filled) // 2 :], default=0)
    most = max(min(2, (width - 1) // 2), width // 4)
    are_names = [
        cells > most and (width <= cells <= len(records[-1]) or not record[0].lstrip().startswith("#"))
        for record, cells in zip(records, filled, strict=True)
    ]
    # Names have a row below them.
    return are_names.index(True) if any(are_names[:-1]) else 0


def table_format(content: bytes, cells: int, skip: int | None = None) -> tuple[str, str, int]:
    """Return the separator and the encoding that fit a file best, and the lines above its names.

    The separator splits each of the first lines from the names on into the same number of cells, `cells` if not 0.
    Blanks come last, but before a sign where they align columns and give more cells.

    Raises
    ------
    NoTable
        If neither a sign nor blanks split the lines so, or the number of cells is not `cells`.
    """
    encoding = _likely_encoding(content)
    try:
        skips = dict.fromkeys((*SEPARATORS, BLANKS), skip or 0)
        fitting = widths_of(content, encoding, skips)
        if skip is None and not cells:
            skips = {one: lines_above(first_records(content, encoding, one)) for one in fitting or skips}
            fitting = fitting or widths_of(content, encoding, skips)
            # By a decimal comma, the names would be one more line above the rows.
            fitting = {one: fitting[one] for one in fitting if skips[one] == min(skips[other] for other in fitting)}
        text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding)
        aligned = all("  " in line.strip() for line in islice(text, FIRST_LINES))
    except UnicodeError:
        raise NoTable(render("rows.text.encoding")) from None
    except csv.Error:
        raise NoTable(render("rows.parser.long")) from None
    chosen = _likeliest(fitting, aligned=aligned)
    if cells in fitting.values():
        chosen = next(separator for separator, width in fitting.items() if width == cells)
    elif cells and fitting:
        raise NoTable(render("rows.text.names", cells=fitting[chosen], names=cells))
    if not fitting and (why := _why_none_fits(content, encoding)):
        raise NoTable(why)
    return chosen, encoding, skips.get(chosen, 0)


def _likely_encoding(content: bytes) -> str:
    encoding = next((name for mark, name in _WIDE.items() if content.startswith(mark)), "utf-8-sig")
    return "cp1252" if encoding == "utf-8-sig" and wrong_encoding(content, encoding) else encoding


def _likeliest(fitting: dict[str, int], *, aligned: bool) -> str:
    """Return the likeliest of the separators that fit, each with its number of cells."""
    if aligned and all(width < fitting.get(BLANKS, 0) for sign, width in fitting.items() if sign != BLANKS):
        return BLANKS
    return next(iter(fitting), ",")


def _why_none_fits(content: bytes, encoding: str) -> str:
    """Return why no separator splits all lines into as many cells; "" where a comma splits some."""
    records = {one: [*filter(None, first_records(content, encoding, one))] for one in (*SEPARATORS, BLANKS)}
    if not all(records.values()):
        return render("rows.text.empty")
    for lines in records.values():
        if len(lines[0]) > 1 and {len(record) for record in lines[1:]} == {len(lines[0]) + 1}:
            return render("rows.text.unnamed")
    return "" if max(map(len, records[","])) > 1 else render("rows.text.separator")


def widths_of(content: bytes, encoding: str, skips: Mapping[str, int]) -> dict[str, int]:
    """Return the separators that split every first line, from `skips` on, into as many cells, with their number."""
    width_by_separator = {}
    for separator, skip in skips.items():
        widths = {len(record) for record in first_records(content, encoding, separator)[skip:] if record}
        if len(widths) == 1 and widths != {1}:
            width_by_separator[separator] = widths.pop()
    return width_by_separator


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
            self.begins.add(shape(record[0]))
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
    return [shape(part[0]) for part in parts[1:]]


def shape(cell: str) -> str:
    """Return the shape of a cell: letters as a, digits as 9.

    Examples
    --------
    >>> shape("P-0071"), shape("sent home")
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
    if lines.longer and (skip := lines_above(first_records(content, encoding, separator))):
        return render("findings.lines.title", skip=skip)
    return _around_the_table(lines, separator)


def _other_separator(content: bytes, encoding: str, separator: str, *, blanks: bool) -> str | None:
    """Return another separator that fits the first lines, or None. Blanks are tried where `blanks` is true."""
    others = (*SEPARATORS, BLANKS) if blanks else SEPARATORS
    return next(iter(widths_of(content, encoding, {other: 0 for other in others if other != separator})), None)


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
