"""Checks of a file before it is read as a text table.

What is no text table is known by its first bytes, and words say what to do with it. Lines are whole, and as long as
the first. A CSV file of public data that stands in a zip file or wheel is read here, too.
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
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flfed.errors import UsageError
from flfed.rows.data.parsing.cells import refuse_cells
from flfed.rows.data.parsing.limits import TEXT_GRACE, Reading

if TYPE_CHECKING:
    import pandas as pd


SAVE_AS = "save it as CSV in UTF-8"
_MAGIC: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"it is a workbook of an older Excel: {SAVE_AS}"),
    (b"\x00" * 12 + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", "it is a table of SAS: export it as CSV in UTF-8"),
    (b"HEADER RECORD*******", "it is a transport file of SAS: export it as CSV in UTF-8"),
    ((b"$FL2", b"$FL3"), "it is a table of SPSS: export it as CSV in UTF-8"),
    (b"<stata_dta>", "it is a table of Stata: export it as CSV in UTF-8"),
    ((b"RDX2\n", b"RDX3\n"), "it is a file of R: write it with write.csv"),
    (b"PAR1\x15", "it is Parquet: read it with Parquet(...), and call it .parquet"),
    (b"ARROW1\x00", "it is an Arrow file: save it as Parquet or CSV"),
    (b"FEA1\x00", "it is a Feather file: save it as Parquet or CSV"),
    (b"\x89HDF", "it is an HDF5 file: save it as Parquet or CSV"),
    (b"SQLite format 3\x00", "it is an SQLite database: read it with Sql(...)"),
    (b"\x00\x01\x00\x00Standard ", "it is an Access database: export the table as CSV in UTF-8"),
    (b"%PDF", "it is a PDF: ask for the table itself"),
    (b"{\\rtf", f"it is a text document: {SAVE_AS}"),
    ((b"-----BEGIN PGP", b"\x85\x01"), "it is encrypted: decrypt it first"),
    (
        (b"\x80\x04\x95", b"\x80\x05\x95"),
        "it is a pickle, which can run code when it is opened, so none is read; save it as Parquet",
    ),
    ((b"\x89PNG", b"\xff\xd8\xff"), "it is a picture: ask for the table itself"),
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
    if kind := kind_of(content):
        raise NoTable(kind)
    # A first line without end is looked at before any parser makes a cell of each sign.
    first = re.split(rb"[\r\n]", content, maxsplit=1)[0]
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
    if content[257:262] == b"ustar":
        return "it is a tar archive: unpack it, and name the file that is meant"
    if _OLD_STATA.match(content):
        return "it is a table of Stata: export it as CSV in UTF-8"
    # Markup may follow blanks and a mark of the encoding, unlike the bytes of other formats.
    first = content.removeprefix(_UTF8_MARK)[:_FIRST].lstrip()
    return next((words for pattern, words in _MARKUP if pattern.match(first)), "")


def wrong_encoding(content: bytes, encoding: str) -> str:
    r"""Return why bytes are not text of an encoding.

    "" where they may be.

    Examples
    --------
    >>> wrong_encoding(b"\xff\xfea\x00", "utf-8")
    "it is in utf-16: give encoding='utf-16', or save it in UTF-8"
    """
    plain = encoding.lower().replace("_", "-")
    if plain.startswith(("utf-16", "utf-32", "utf16", "utf32")):
        return ""
    # A mark at the beginning says the encoding better than any setting.
    for mark, name in _WIDE.items():
        if content.startswith(mark):
            return f"it is in {name}: give encoding={name!r}, or save it in UTF-8"
    if b"\x00" in content:
        return "it holds NUL bytes: it is in utf-16 without a mark, or damaged"
    is_utf8 = plain in ("utf-8", "utf8", "utf-8-sig")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        wrong = "it is not in UTF-8: save it in UTF-8, or give its encoding, of Windows often 'cp1252'"
        return wrong if is_utf8 else ""
    # Text of a one-byte encoding is by chance as good as never valid UTF-8.
    return "" if is_utf8 or content.isascii() else "it is in UTF-8: leave encoding out"


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
_BIG_ENDIAN = {b"\xfe\xff": "utf-16-be", b"\x00\x00\xfe\xff": "utf-32-be"}
_END_SIGN = re.compile(rb"(?<=[\r\n])\x1a[\x1a\r\n]*\Z")


def without_end_sign(content: bytes) -> bytes:
    """Remove the end sign of MS-DOS from a file.

    It stands on a line of its own at the end.
    """
    return _END_SIGN.sub(b"", content)


def ends(content: bytes, encoding: str) -> bool:
    """Tell whether the last line of a file has an end."""
    encoding = next((name for mark, name in _BIG_ENDIAN.items() if content.startswith(mark)), encoding)
    last = content[-8:].decode(encoding, errors="ignore").rstrip(" \x1a")
    return last.endswith(("\n", "\r"))


def records_of(content: bytes, encoding: str, separator: str) -> Iterator[Record]:
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


def first_records(content: bytes, encoding: str, separator: str) -> list[Record]:
    """Return the cells of the first lines that are not empty."""
    return [record for record in islice(records_of(content, encoding, separator), FIRST_LINES) if record]


def table_format(content: bytes, cells: int = 0) -> tuple[str, str]:
    """Return the separator and the encoding that fit a file best.

    The separator cuts the first lines into alike cells, into so many where `cells` says how many there are. Blanks
    come last, but before a sign where they align columns and cut more cells.

    Raises
    ------
    NoTable
        If no sign and no blanks cut the lines, or they have another number of cells.
    """
    encoding = _likely_encoding(content)
    try:
        fitting = widths_of(content, encoding, (*SEPARATORS, BLANKS))
        text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding)
        aligned = all("  " in line.strip() for line in islice(text, FIRST_LINES))
    except UnicodeError:
        raise NoTable("it is neither in UTF-8 nor in cp1252: save it in UTF-8") from None
    except csv.Error:
        raise NoTable(TOO_LONG) from None
    chosen = _likeliest(fitting, aligned=aligned)
    if cells in fitting.values():
        chosen = next(separator for separator, width in fitting.items() if width == cells)
    elif cells and fitting:
        raise NoTable(f"its lines have {fitting[chosen]} cells, and {cells} names were given")
    if not fitting and (why := _why_none_fits(content, encoding)):
        raise NoTable(why)
    return chosen, encoding


def _likely_encoding(content: bytes) -> str:
    encoding = next((name for mark, name in _WIDE.items() if content.startswith(mark)), "utf-8-sig")
    return "cp1252" if encoding == "utf-8-sig" and wrong_encoding(content, encoding) else encoding


def _likeliest(fitting: dict[str, int], *, aligned: bool) -> str:
    """Return the likeliest of the separators that fit, each with its number of cells."""
    if aligned and all(width < fitting.get(BLANKS, 0) for sign, width in fitting.items() if sign != BLANKS):
        return BLANKS
    return next(iter(fitting), ",")


def _why_none_fits(content: bytes, encoding: str) -> str:
    """Return why no separator cuts lines into alike cells; "" where a comma at least cuts some."""
    records = {one: first_records(content, encoding, one) for one in (*SEPARATORS, BLANKS)}
    if not all(records.values()):
        return "it has no line"
    for lines in records.values():
        if len(lines[0]) > 1 and {len(record) for record in lines[1:]} == {len(lines[0]) + 1}:
            return "its first column has no name, as R writes row names: write it with row.names = FALSE"
    if max(map(len, records[","])) > 1:
        return ""
    return "no comma, semicolon, tab, | or blank cuts its lines into alike cells: save it as CSV in UTF-8"


def widths_of(content: bytes, encoding: str, separators: Sequence[str]) -> dict[str, int]:
    """Return the separators that cut the first lines into alike cells, two or more, with how many."""
    width_by_separator = {}
    for separator in separators:
        widths = {len(record) for record in first_records(content, encoding, separator)}
        if len(widths) == 1 and widths != {1}:
            width_by_separator[separator] = widths.pop()
    return width_by_separator


def cells_of(path: Path, member: str = "") -> pd.DataFrame:
    """Return the cells of a CSV file as texts.

    Parameters
    ----------
    path : Path
    member : str
        Where `path` is a zip file or a wheel: the file in it, which may be compressed by gzip (`.gz`).

    Raises
    ------
    UsageError
        If `path` is no such file.
    """
    import pandas as pd

    source: Any = path
    how: dict[str, Any] = {"encoding": "utf-8-sig"}
    if member:
        try:
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read(member))
        except (zipfile.BadZipFile, KeyError):
            raise UsageError(f"{path}: is no zip file with {member}") from None
        how = {"compression": "gzip"} if member.endswith(".gz") else {}
    cells: pd.DataFrame = pd.read_csv(source, dtype=str, keep_default_na=False, **how)
    return cells


def numbers_of(cells: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers; an empty cell is missing, any other that is no number raises TableError."""
    import pandas as pd

    numbers = pd.to_numeric(cells[name], errors="coerce")
    refuse_cells(name, "is not a number", numbers.isna() & (cells[name].str.strip() != ""))
    return numbers
