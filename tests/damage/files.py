"""Files that are no table, are packed, or are in another encoding."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tempfile
import zipfile
from pathlib import Path

from tests.damage.tables import FOUND, Case, Damage, as_parquet, content, frame, typed


def zipped(*names: str, body: bytes | None = None) -> Damage:
    """Return what packs the table into a zip, once under each name."""

    def damage(text: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(name, text.encode() if body is None else body)
        return out.getvalue()

    return damage


def encrypted(text: str) -> bytes:
    """Return a zip whose one file says that it is encrypted."""
    data = bytearray(zipped("rows.csv")(text))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def database(text: str) -> bytes:
    """Return the table in SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.db"
        connection = sqlite3.connect(path)
        typed(text).to_sql("rows", connection, index=False)
        connection.close()
        return path.read_bytes()


def encoded(encoding: str) -> Damage:
    """Return what writes the table in another encoding."""
    return lambda text: text.encode(encoding)


MAGIC = {
    "an old workbook of Excel (.xls)": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500, "a workbook of an older Excel"),
    "a table of SAS (.sas7bdat)": (b"\0" * 12 + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf\xbd\x92" + b"\0" * 99, "a table of SAS"),
    "a transport file of SAS (.xpt)": (b"HEADER RECORD*******LIBRARY HEADER RECORD!!!!!!!", "a transport file of SAS"),
    "a table of SPSS (.sav)": (b"$FL2@(#) SPSS DATA FILE" + b"\0" * 99, "a table of SPSS"),
    "a packed table of SPSS (.zsav)": (b"$FL3@(#) SPSS DATA FILE" + b"\0" * 99, "a table of SPSS"),
    "a table of Stata": (b"<stata_dta><header><release>118</release>", "a table of Stata"),
    "a table of an older Stata": (b"\x72\x02\x01\x00" + b"\0" * 99, "a table of Stata"),
    "a workspace of R": (b"RDX3\nX\n" + b"\0" * 99, "a file of R"),
    "an Arrow file": (b"ARROW1\0\0" + b"\0" * 99, "an Arrow file"),
    "a Feather file": (b"FEA1\0\0\0\0" + b"\0" * 99, "a Feather file"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "an HDF5 file"),
    "an Access database": (b"\0\x01\0\0Standard ACE DB\0" + b"\0" * 99, "an Access database"),
    "a PDF": (b"%PDF-1.7\n1 0 obj\n", "a PDF"),
    "a text document (.rtf)": (b"{\\rtf1\\ansi age", "a text document"),
    "a file that PGP encrypted": (b"-----BEGIN PGP MESSAGE-----\n", "it is encrypted"),
    "a picture (PNG)": (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "a picture"),
    "a picture (JPEG)": (b"\xff\xd8\xff\xe0" + b"\0" * 99, "a picture"),
    "a zstd file": (b"\x28\xb5\x2f\xfd" + b"\0" * 99, "compressed by zstd"),
    "a 7-Zip archive": (b"7z\xbc\xaf\x27\x1c" + b"\0" * 99, "a 7-Zip archive"),
    "a RAR archive": (b"Rar!\x1a\x07" + b"\0" * 99, "a RAR archive"),
    "bytes without any sense": (bytes(range(1, 256)) * 9, "not in UTF-8"),
    "an empty file": (b"", "it is empty"), "a file of empty lines": (b"\n\n\n", "it has no line"),
    "a page of HTML, such as that of a login": (b"<!DOCTYPE html>\n<html><body>Sign in", "a page of HTML"),
    "a table of HTML that is called a workbook": (b"  <table><tr><td>age</td></tr></table>", "a page of HTML"),
    "XML": (b'<?xml version="1.0"?>\n<rows></rows>', "it is XML"),
    "a workbook of Excel in XML": (b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>', "Excel in XML"),
}  # fmt: skip

KINDS = [
    *(Case(about, content(data), "refused", says) for about, (data, says) in MAGIC.items()),
    Case("a workbook of Excel (.xlsx)", zipped("xl/workbook.xml", "[Content_Types].xml"), "refused", "workbook of Excel"),
    Case("a sheet of OpenOffice", zipped("mimetype", "content.xml"), "refused", "an office document"),
    Case("a document of Word", zipped("word/document.xml"), "refused", "an office document"),
    Case("Parquet under the name of CSV", lambda text: as_parquet(frame(text)), "refused", "it is Parquet"),
    Case("an SQLite database", database, "refused", "an SQLite database"),
    Case("a pickle under the name of CSV", lambda text: pickle.dumps(frame(text)), "refused", "a pickle, which can run code"),
    Case("JSON", lambda text: json.dumps(frame(text).to_dict("records")).encode(), "refused", "it is JSON"),
    Case("JSON, an object a line", lambda text: frame(text).to_json(orient="records", lines=True).encode(), "refused", "it is JSON"),
    Case("no file at all", lambda text: text.encode(), "refused", "is not in", source='Csv("row.csv")', predicted=None),
    Case("a folder", lambda text: text.encode(), "refused", "is not in", source='Csv("..")', predicted=None),
    Case("a pickle by its name", lambda text: b"x", "refused", "a pickle can run code", file="rows.pkl", predicted=None),
]  # fmt: skip

PACKED = [
    Case("packed by gzip under another name", lambda text: gzip.compress(text.encode()), "refused", "by gzip under another name"),
    Case("packed by bzip2 under another name", lambda text: bz2.compress(text.encode()), "refused", "by bzip2 under another name"),
    Case("packed by xz under another name", lambda text: lzma.compress(text.encode()), "refused", "by xz under another name"),
    Case("a zip under another name", zipped("rows.csv"), "refused", "a zip under another name"),
    Case("a zip of two files", zipped("a.csv", "b.csv"), "refused", "a zip of 2 files", file="rows.zip"),
    Case("a zip of no file", zipped(), "refused", "a zip of 0 files", file="rows.zip"),
    Case("a zip of a workbook", zipped("a.xlsx", body=zipped("xl/workbook.xml")("")), "refused", "workbook of Excel", file="rows.zip"),
    Case("an encrypted zip", encrypted, "refused", "an encrypted zip", file="rows.zip"),
    Case("a zip that is cut", lambda text: zipped("rows.csv")(text)[:-40], "refused", "damaged, or cut", file="rows.zip"),
    Case("gzip that is cut", lambda text: gzip.compress(text.encode())[:-40], "refused", "damaged, or cut", file="rows.csv.gz"),
    Case("CSV that is called .gz", lambda text: text.encode(), "refused", "damaged, or cut", file="rows.csv.gz"),
    Case("CSV in gzip", lambda text: gzip.compress(text.encode()), "read", file="rows.csv.gz"),
    Case("CSV in bzip2", lambda text: bz2.compress(text.encode()), "read", file="rows.csv.bz2"),
    Case("CSV in xz", lambda text: lzma.compress(text.encode()), "read", file="rows.csv.xz"),
    Case("CSV in a zip", zipped("rows.csv"), "read", file="rows.zip"),
    Case("CSV in a zip that a Mac made", zipped("rows.csv", "__MACOSX/._rows.csv"), "read", file="rows.zip"),
]  # fmt: skip

ENCODINGS = [
    Case("UTF-16 with a mark", encoded("utf-16"), "refused", "it is in utf-16", predicted=FOUND),
    Case("UTF-16, big end first", lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "refused", "it is in utf-16", predicted=FOUND),
    Case("UTF-16 without a mark", encoded("utf-16-le"), "refused", "NUL bytes"),
    Case("UTF-32", encoded("utf-32"), "refused", "it is in utf-32", predicted=FOUND),
    Case("UTF-16, and the package says so", encoded("utf-16"), "read", source='Csv("rows.csv", encoding="utf-16")', predicted=None),
    Case("UTF-8, and the package says UTF-16", encoded("utf-8"), "refused", "not in that encoding", source='Csv("rows.csv", encoding="utf-16")', predicted=None),
    Case("of Windows (cp1252)", encoded("cp1252"), "refused", "it is not in UTF-8", predicted=FOUND),
    Case("of Windows, and the package says so", encoded("cp1252"), "read", source='Csv("rows.csv", encoding="cp1252")', predicted=None),
    Case("UTF-8, and the package says latin-1", encoded("utf-8"), "refused", "it is in UTF-8", source='Csv("rows.csv", encoding="latin-1")', predicted=None),
    Case("an encoding that is none", encoded("utf-8"), "refused", "no such encoding is known", source='Csv("rows.csv", encoding="utf-9")', predicted=None),
    Case("UTF-8 with a mark", encoded("utf-8-sig"), "read"),
    Case("a NUL byte in a cell", lambda text: text.replace("female", "fem\0ale", 1).encode(), "refused", "NUL bytes"),
    Case("signs that were lost before", lambda text: text.replace("ö", "\ufffd").encode(), "refused", "lost in another encoding"),
]  # fmt: skip
