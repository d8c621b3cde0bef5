"""Checks of a file before it is read as a text table.

What is no text table is known by its first bytes, and words say what to do with it. Lines are whole, and as long as
the first.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from flfed.errors import count_in_words
from flfed.rows.data.parsing.limits import TEXT_GRACE, Reading

TEXT = ""
SAVE_AS = "save it as CSV in UTF-8"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"it is a workbook of an older Excel: {SAVE_AS}"),
    (b"\x00" * 12 + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", "it is a table of SAS: export it as CSV in UTF-8"),
    (b"HEADER RECORD*******", "it is a transport file of SAS: export it as CSV in UTF-8"),
    (b"$FL2", "it is a table of SPSS: export it as CSV in UTF-8"),
    (b"$FL3", "it is a table of SPSS: export it as CSV in UTF-8"),
    (b"<stata_dta>", "it is a table of Stata: export it as CSV in UTF-8"),
    (b"RDX2\n", "it is a file of R: write it with write.csv"),
    (b"RDX3\n", "it is a file of R: write it with write.csv"),
    (b"PAR1\x15", "it is Parquet: read it with Parquet(...), and call it .parquet"),
    (b"ARROW1\x00", "it is an Arrow file: save it as Parquet or CSV"),
    (b"FEA1\x00", "it is a Feather file: save it as Parquet or CSV"),
    (b"\x89HDF", "it is an HDF5 file: save it as Parquet or CSV"),
    (b"SQLite format 3\x00", "it is an SQLite database: read it with Sql(...)"),
    (b"\x00\x01\x00\x00Standard ", "it is an Access database: export the table as CSV in UTF-8"),
    (b"%PDF", "it is a PDF: ask for the table itself"),
    (b"{\\rtf", f"it is a text document: {SAVE_AS}"),
    (b"-----BEGIN PGP", "it is encrypted: decrypt it first"),
    (b"\x85\x01", "it is encrypted: decrypt it first"),
    (b"\x80\x04\x95", "it is a pickle, which can run code when it is opened, so none is read; save it as Parquet"),
    (b"\x80\x05\x95", "it is a pickle, which can run code when it is opened, so none is read; save it as Parquet"),
    (b"\x89PNG", "it is a picture: ask for the table itself"),
    (b"\xff\xd8\xff", "it is a picture: ask for the table itself"),
    (b"\x1f\x8b", "it is compressed by gzip under another name: unpack it, or let its name end with .gz"),
    (b"BZh9", "it is compressed by bzip2 under another name: unpack it, or let its name end with .bz2"),
    (b"\xfd7zXZ\x00", "it is compressed by xz under another name: unpack it, or let its name end with .xz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive: unpack it"),
    (b"Rar!\x1a", "it is a RAR archive: unpack it"),
)
_OLD_STATA = re.compile(rb"[\x69\x6c\x6e\x71-\x73][\x01\x02]\x01")
_MARKUP = (
    (re.compile(rb"<(!doctype html|html|head|body|table)\b", re.I), f"it is a page of HTML: {SAVE_AS}"),
    (re.compile(rb"<\?xml[^>]*>\s*(<\?mso|<workbook)", re.I), f"it is a workbook of Excel in XML: {SAVE_AS}"),
    (re.compile(rb"<\?xml\b", re.I), f"it is XML: {SAVE_AS}"),
    (re.compile(rb"""\{\s*["'}]|\[\s*[\[{]|\[\s*\]"""), "it is JSON: save it as CSV in UTF-8, a line a row"),
)
_WIDE = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_UTF8_MARK = b"\xef\xbb\xbf"
_FIRST = 4096
PART = 1 << 20
"""Bytes that are unpacked at a time."""
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, NotImplementedError)


class NoTable(Exception):
    """The refusal of a file without a text table.

    Its text says what the file is and what to do, and quotes nothing of it.
    """


def content_of(path: Path, reading: Reading) -> bytes:
    """Read the bytes of a text file.

    They are unpacked where its name ends with .gz, .bz2, .xz or .zip.

    Raises
    ------
    NoTable
        If it is something else; says what.
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
            raise NoTable(f"it ends with {path.suffix} and cannot be unpacked: it is damaged, or cut") from None
    kind = kind_of(content)
    if kind != TEXT:
        raise NoTable(kind)
    # A first line without end is looked at before any parser makes a cell of each sign.
    end = re.search(rb"[\r\n]", content)
    first = content[: end.start()] if end else content
    reading.check("columns", 1 + max(first.count(separator.encode()) for separator in SEPARATORS))
    return content


def _unpacked(content: bytes, opened: Opener, reading: Reading) -> bytes:
    """Return unpacked bytes, which are counted before they are kept."""
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
    """Return a file's kind and what to do.

    It is told by the file's bytes, and is "" where it may be text.

    Examples
    --------
    >>> kind_of(b"%PDF-1.7"), kind_of(b"age,sex")
    ('it is a PDF: ask for the table itself', '')
    """
    if not content:
        return "it is empty"
    for magic, words in _MAGIC:
        if content.startswith(magic):
            return words
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(content)
    if _OLD_STATA.match(content):
        return "it is a table of Stata: export it as CSV in UTF-8"
    # Markup may follow blanks and a mark of the encoding, unlike the bytes of other formats.
    first = content.removeprefix(_UTF8_MARK)[:_FIRST].lstrip()
    return next((words for pattern, words in _MARKUP if pattern.match(first)), TEXT)


def wrong_encoding(content: bytes, encoding: str) -> str:
    r"""Return why bytes are not text of an encoding.

    "" where they may be.

    Examples
    --------
    >>> wrong_encoding(b"\xff\xfea\x00", "utf-8")
    "it is in utf-16: give encoding='utf-16', or save it in UTF-8"
    """
    plain = encoding.lower().replace("_", "-")
    wide = plain.startswith(("utf-16", "utf-32", "utf16", "utf32"))
    # A mark at the beginning says the encoding better than any setting.
    if not wide:
        for mark, name in _WIDE.items():
            if content.startswith(mark):
                return f"it is in {name}: give encoding={name!r}, or save it in UTF-8"
        if b"\x00" in content:
            return "it holds NUL bytes: it is in utf-16 without a mark, or damaged"
    if plain in ("utf-8", "utf8", "utf-8-sig"):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return "it is not in UTF-8: save it in UTF-8, or give its encoding, of Windows often 'cp1252'"
        return ""
    if not wide and not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return ""
        # Text of a one-byte encoding is by chance as good as never valid UTF-8.
        return "it is in UTF-8: leave encoding out"
    return ""


def _open_member(content: io.BytesIO) -> IO[bytes]:
    archive = zipfile.ZipFile(content)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise NoTable(f"it is a zip of {len(names)} files: unpack it, and name the one that is meant")
    if archive.getinfo(names[0]).flag_bits & 1:
        raise NoTable("it is an encrypted zip: unpack it first")
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
        return "it is a zip, and damaged or cut"
    if any(name.startswith("xl/") for name in names):
        return f"it is a workbook of Excel: {SAVE_AS}"
    if "mimetype" in names or "content.xml" in names or any(name.startswith("word/") for name in names):
        return f"it is an office document: {SAVE_AS}"
    return "it is a zip under another name: unpack it"


BLANKS = r"\s+"
"""The one separator that is more than a sign: any number of blanks."""
SEPARATORS = (",", ";", "\t", "|")
FIRST_LINES = 20
"""Lines in which another separator is looked for."""
UNCLOSED = "a quote is opened and never closed"
LINE = 1 << 24
"""Signs of one line, cells with line breaks included."""
TOO_LONG_LINE = f"a line has more than {LINE:,} signs: close the quote that opens it, or leave columns out"
TOO_LONG = "a cell has more than 131,072 signs: leave its column out, or close the quote that opens it"
Record = list[str]
CHECKED = 1000
"""Lines after which limits are looked at."""
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


def lines_of(
    content: bytes, encoding: str, separator: str, reading: Reading, columns: Sequence[str] | None = None
) -> Lines:
    """Count the lines of a file.

    `separator` is one sign, or `BLANKS`.

    Raises
    ------
    UsageError
        If they are more, or have more cells, than is read.
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
    count = 0
    quoted, first = b'"' in content, True
    begins, joined = set[str](), list[list[str]]()
    for count, record in enumerate(_records(content, encoding, separator), start=1 if columns else 0):
        if count % CHECKED == 0 or len(record) > width:
            reading.check("columns", len(record))
            reading.check_shape(count, width)
            reading.check_time()
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
            starts = (_joined(cell, at, separator, width) for at, cell in enumerate(record) if "\n" in cell)
            joined += filter(None, starts)
        first = False
    reading.check_shape(count, width)
    swallowed = sum(2 * sum(map(begins.__contains__, starts)) >= len(starts) for starts in joined)
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
        other = _other_separator(content, encoding, separator, blanks=lines.width == 1)
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
    if lines.shorter and separator == BLANKS:
        few = count_in_words(lines.shorter)
        return f"{few} lines have fewer cells than the first, for between blanks no empty cell is seen: save it as CSV"
    if lines.shorter:
        cut = "; the last one is cut" if lines.cut else ""
        return f"{count_in_words(lines.shorter)} lines have fewer cells than the first{cut}: fetch or export it anew"
    return ""


def _records(content: bytes, encoding: str, separator: str) -> Iterator[Record]:
    """Yield the cells of each line; a line without end is refused before the parser has all of it."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    length = 0

    def bounded() -> Iterator[str]:
        nonlocal length
        while line := text.readline(LINE + 1):
            length += len(line)
            if length > LINE:
                raise NoTable(TOO_LONG_LINE)
            yield line

    if separator == BLANKS:
        plain = (line.replace("\t", " ").strip(" \r\n") + "\n" for line in bounded())
        records = csv.reader(plain, delimiter=" ", skipinitialspace=True)
    else:
        records = csv.reader(bounded(), delimiter=separator)
    for record in records:
        yield record
        length = 0


def _first_records(content: bytes, encoding: str, separator: str) -> list[Record]:
    return [record for record in islice(_records(content, encoding, separator), FIRST_LINES) if record]


def title_lines(content: bytes, encoding: str, separator: str) -> bool:
    """Tell whether a title precedes the column names.

    Then the first line is shorter than those that follow, which are alike.
    """
    records = _first_records(content, encoding, separator)
    widths = Counter(map(len, records[1:])).most_common(1)
    return bool(widths) and len(records[0]) < widths[0][0] and len(records[0]) <= max(2, widths[0][0] // 3)


def table_format(content: bytes, cells: int = 0) -> tuple[str, str]:
    """Return the separator and the encoding that fit a file best.

    The separator cuts the first lines into alike cells, into so many where `cells` says how many there are. Blanks
    come last, but before a sign where they align columns and cut more cells.

    Raises
    ------
    NoTable
        If no sign and no blanks cut the lines, or they have another number of cells.
    """
    encoding = next((name for mark, name in _WIDE.items() if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and wrong_encoding(content, encoding):
        encoding = "cp1252"
    try:
        fitting = _widths(content, encoding, (*SEPARATORS, BLANKS))
        text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding)
        aligned = all("  " in line.strip() for line in islice(text, FIRST_LINES))
    except UnicodeError:
        raise NoTable("it is neither in UTF-8 nor in cp1252: save it in UTF-8") from None
    except csv.Error:
        raise NoTable(TOO_LONG) from None
    chosen = next(iter(fitting), ",")
    if aligned and all(width < fitting.get(BLANKS, 0) for separator, width in fitting.items() if separator != BLANKS):
        chosen = BLANKS
    if cells in fitting.values():
        chosen = next(separator for separator, width in fitting.items() if width == cells)
    elif cells and fitting:
        raise NoTable(f"its lines have {fitting[chosen]} cells, and {cells} names were given")
    if not fitting and (why := _why_none_fits(content, encoding)):
        raise NoTable(why)
    return chosen, encoding


def _why_none_fits(content: bytes, encoding: str) -> str:
    """Return why no separator cuts lines into alike cells; "" where a comma at least cuts some."""
    records = {one: _first_records(content, encoding, one) for one in (*SEPARATORS, BLANKS)}
    if not all(records.values()):
        return "it has no line"
    for lines in records.values():
        if len(lines[0]) > 1 and {len(record) for record in lines[1:]} == {len(lines[0]) + 1}:
            return "its first column has no name, as R writes row names: write it with row.names = FALSE"
    if max(map(len, records[","])) > 1:
        return ""
    return "no comma, semicolon, tab, | or blank cuts its lines into alike cells: save it as CSV in UTF-8"


def _widths(content: bytes, encoding: str, separators: Sequence[str]) -> dict[str, int]:
    """Return the separators that cut the first lines into alike cells, two or more, with how many."""
    found = {}
    for separator in separators:
        widths = {len(record) for record in _first_records(content, encoding, separator)}
        if len(widths) == 1 and widths != {1}:
            found[separator] = widths.pop()
    return found


def _other_separator(content: bytes, encoding: str, separator: str, *, blanks: bool) -> str | None:
    """Return another separator that fits the first lines, with `blanks` these too; None where none does."""
    others = (*SEPARATORS, BLANKS) if blanks else SEPARATORS
    return next(iter(_widths(content, encoding, [other for other in others if other != separator])), None)
