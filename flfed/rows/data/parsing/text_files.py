"""Checks of a file before it is read as a text table.

Other formats are recognised by their first bytes and refused with advice. Lines are whole, and as long as the first.
CSV files of public data in a zip file or wheel are read here too.
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

from flfed.rows.data.parsing.cells import refuse_cells
from flfed.rows.data.parsing.fields import NOT_NUMBER
from flfed.rows.data.parsing.limits import TEXT_GRACE, Reading
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd


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
    if kind := kind_of(content):
        raise NoTable(kind)
    # Checked before a parser makes a cell of each sign in a first line without end.
    end = re.search(rb"[\r\n]", content)
    first = content[: end.start()] if end else content
    reading.check("columns", 1 + max(first.count(separator.encode()) for separator in SEPARATORS))
    return content


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
    if plain.startswith(("utf-16", "utf-32", "utf16", "utf32")):
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
    """Return the cells of the first lines that are not empty."""
    return [record for record in islice(records_of(content, encoding, separator), FIRST_LINES) if record]


def table_format(content: bytes, cells: int = 0) -> tuple[str, str]:
    """Return the separator and the encoding that fit a file best.

    The separator splits each of the first lines into the same number of cells, `cells` if not 0. Blanks come last,
    but before a sign where they align columns and give more cells.

    Raises
    ------
    NoTable
        If neither a sign nor blanks split the lines so, or the number of cells is not `cells`.
    """
    encoding = _likely_encoding(content)
    try:
        fitting = widths_of(content, encoding, (*SEPARATORS, BLANKS))
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
    """Return why no separator splits all lines into as many cells; "" where a comma splits some."""
    records = {one: first_records(content, encoding, one) for one in (*SEPARATORS, BLANKS)}
    if not all(records.values()):
        return render("rows.text.empty")
    for lines in records.values():
        if len(lines[0]) > 1 and {len(record) for record in lines[1:]} == {len(lines[0]) + 1}:
            return render("rows.text.unnamed")
    return "" if max(map(len, records[","])) > 1 else render("rows.text.separator")


def widths_of(content: bytes, encoding: str, separators: Sequence[str]) -> dict[str, int]:
    """Return the separators that split every first line into as many cells, with their number."""
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
            raise usage_error("rows.text.member", path=path, member=member) from None
        how = {"compression": "gzip"} if member.endswith(".gz") else {}
    cells: pd.DataFrame = pd.read_csv(source, dtype=str, keep_default_na=False, **how)
    return cells


def numbers_of(cells: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers; an empty cell is missing, any other that is no number raises TableError."""
    import pandas as pd

    numbers = pd.to_numeric(cells[name], errors="coerce")
    refuse_cells(name, NOT_NUMBER, numbers.isna() & (cells[name].str.strip() != ""))
    return numbers
