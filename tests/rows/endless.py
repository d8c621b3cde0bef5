"""Files and queries that are small, or never end, and would fill any memory once they are read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"
CONTENT = "http://schemas.openxmlformats.org/package/2006/content-types"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{CONTENT}"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{OFFICE}/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>'
    '<sheet name="s" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{OFFICE}/worksheet" '
    'Target="worksheets/s.xml"/></Relationships>',
}
MEASURE = """
import json, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000,) * 2)
done = subprocess.run(sys.argv[1:], capture_output=True, text=True, timeout=120)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, done.stderr, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""


@dataclass
class Done:
    """What a command did: its exit code and output, the seconds of the processor and the most bytes that it took."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int


def measured(*command: str, folder: Path) -> Done:
    """Run flfed's command in a process of its own, which is a child of a small one: its memory is counted alone."""
    program = str(Path(sys.executable).with_name("flfed"))
    words = [sys.executable, "-c", MEASURE, program, *command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return Done(*json.loads(done.stdout))


def write_sheet(path: Path, rows: Iterable[str]) -> None:
    """Write a workbook of one sheet, whose rows are XML."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in PARTS.items():
            archive.writestr(name, content)
        with archive.open("xl/worksheets/s.xml", "w") as stream:
            for part in (f'<worksheet xmlns="{SHEET}"><sheetData>', *rows, "</sheetData></worksheet>"):
                stream.write(part.encode())


def write_many_rows(path: Path) -> None:
    """Write 80 million rows of one value, in less than a megabyte."""
    cells = pa.array(np.zeros(1_000_000, dtype=np.int8))
    with pq.ParquetWriter(path, pa.schema({"x": cells.type}), compression="zstd") as writer:
        for _ in range(80):
            writer.write_table(pa.table({"x": cells}), row_group_size=1_000_000)


def write_list(path: Path) -> None:
    """Write one row, whose cell is a list of 11 million numbers."""
    numbers = pa.array(np.zeros(11_000_000, dtype=np.int8))
    pq.write_table(pa.table({"x": pa.ListArray.from_arrays(pa.array([0, len(numbers)]).cast("int32"), numbers)}), path)


def write_long_text(path: Path) -> None:
    """Write a text of a million letters once, which a million rows have."""
    places = pa.array(np.zeros(1_000_000, dtype=np.int32))
    table = pa.table({"x": pa.DictionaryArray.from_arrays(places, pa.array(["x" * 1_000_000]))})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=10_000_000, store_schema=False)


def write_much_xml(path: Path) -> None:
    """Write 400 MB of XML, in two megabytes."""
    write_sheet(path, ["<row><c><v>1</v></c><c><v>2</v></c></row>" * 25_000] * 400)


def write_cells(path: Path) -> None:
    """Write a row of four million cells, in less than 100 kB."""
    write_sheet(path, ["<row>", *["<c/>" * 250_000] * 16, "</row>"])


def write_far_cell(path: Path, cell: str = "XFD1048576") -> None:
    """Write the first cell of a sheet and another one, by default the last that there can be."""
    row = cell.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    first = '<row r="1"><c r="A1"><v>1</v></c></row>'
    write_sheet(path, [first, f'<row r="{row}"><c r="{cell}"><v>1</v></c></row>'])


def write_wide(path: Path) -> None:
    """Write two million columns."""
    names = ",".join(f"c{number}" for number in range(2_000_000))
    path.write_text(f"{names}\n{','.join('1' * 2_000_000)}\n")


def write_packed_text(path: Path) -> None:
    """Write 500 MB of lines, packed some hundred times."""
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b"x,y\n")
        for _ in range(500):
            stream.write(b"1,0\n" * 250_000)


def write_fixed_bytes(path: Path) -> None:
    """Write rows of one value of ten thousand bytes, whose length the schema has."""
    value = pa.array([b"x" * 10_000] * 5_000, pa.binary(10_000))
    pq.write_table(pa.table({"x": value}), path, use_dictionary=True, compression="zstd")


def write_false_size(path: Path, size: int = 1_000) -> None:
    """Write repeated texts, and a footer that says that they take few bytes once unpacked."""
    table = pa.table({"x": ["x" * 10_000] * 5_000, "y": range(5_000)})
    pq.write_table(table, path, use_dictionary=["x"], compression="zstd")
    true = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    content = path.read_bytes()
    assert content.count(varint(true)) >= 1
    head, _, tail = content.rpartition(varint(true))
    path.write_bytes(head + varint(size, length=len(varint(true))) + tail)


def varint(number: int, length: int = 0) -> bytes:
    """Return a number as Thrift's compact protocol writes it, with leading zeros up to a length."""
    left = 2 * number
    found = bytearray()
    while left > 127 or len(found) + 1 < length:
        found.append(left % 128 | 128)
        left //= 128
    found.append(left)
    return bytes(found)


def write_long_row(path: Path, cells: int = 20_000) -> None:
    """Write a sheet of one row, whose cells are all in one place."""
    rng = np.random.default_rng(0)
    places = rng.integers(1, 9, cells).astype(str)
    write_sheet(path, ['<row r="1">', *('<c r="A' + place + '"/>' for place in places), "</row>"])
