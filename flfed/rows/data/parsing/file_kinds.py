"""Recognition of files that are no text tables.

They are known by their first bytes, and words say what to do with them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

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
_ENDINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, NotImplementedError)


class NoTable(Exception):
    """The refusal of a file without a text table.

    Its text says what the file is and what to do, and quotes nothing of it.
    """


def content_of(path: Path) -> bytes:
    """Read the bytes of a text file.

    They are unpacked where its name ends with .gz, .bz2, .xz or .zip.

    Raises
    ------
    NoTable
        If it is something else; says what.
    OSError
        If it cannot be opened.
    """
    content = path.read_bytes()
    unpack = _unzipped if path.suffix.lower() == ".zip" else _ENDINGS.get(path.suffix.lower())
    if unpack is not None:
        try:
            content = unpack(content)
        except _BROKEN:
            raise NoTable(f"it ends with {path.suffix} and cannot be unpacked: it is damaged, or cut") from None
    kind = kind_of(content)
    if kind != TEXT:
        raise NoTable(kind)
    return content


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


def _unzipped(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise NoTable(f"it is a zip of {len(names)} files: unpack it, and name the one that is meant")
        if archive.getinfo(names[0]).flag_bits & 1:
            raise NoTable("it is an encrypted zip: unpack it first")
        return archive.read(names[0])


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
