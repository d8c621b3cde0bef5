"""Parquet files and workbooks, read within limits.

Cells of a workbook that are merged, or hold a formula without a stored value, read as empty, so that a table would lose
them silently. They are marked, and the mapping refuses the marks.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from flfed.errors import UsageError
from flfed.parsers import DAMAGED, foreign_parser
from flfed.rows.data.parsing.arrow_reader import as_frame, coded_columns, to_pandas
from flfed.rows.data.parsing.cells import EXACT, MERGED_CELL, UNSTORED_CELL
from flfed.rows.data.parsing.fields import HIDDEN, SHEETS
from flfed.rows.data.parsing.limits import XML_GRACE, Reading
from flfed.rows.data.parsing.text_files import kind_of
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd

SHEET_ROWS = 1_048_576
"""Largest number of rows of a sheet of Excel."""
TIMED_ROWS = 1_000
BATCH = 65_536
"""Rows read at a time."""
TEXTS_BATCH = 1_000_000
"""Rows read at a time as codes of a dictionary of texts."""
SHEET_COLUMNS = 16_384
"""Largest number of cells in a row of a sheet."""
PART = 1_000_000
"""Bytes of a sheet's XML that are parsed at a time."""
LONGEST_TAG = 100
NAMED = 12
"""Largest number of sheets of a workbook that are named."""
_HIDDEN_ROW = re.compile(rb'<(?:\w+:)?row\b[^>]*\bhidden="(?:1|true)"')
_ROW_OR_CELL = re.compile(rb"<(?:\w+:)?(row|c)[\s/>]")


def read_parquet(path: Path, reading: Reading, *, compact: bool = False) -> pd.DataFrame:
    """Read a Parquet file, after a check of its size in its last bytes; with `compact` as `as_frame` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    repeated = _check_declared(path, reading)
    # Otherwise they are checked alone.
    batches = [batch for batch in _read_repeated(path, repeated, reading) if compact]
    columns = {}
    with _parquet_parser(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = schema.names
        if batches and len(set(names)) == len(names):
            # Bytes, texts within lists, and the index of a frame of pandas are read as they are.
            index = (schema.pandas_metadata or {}).get("index_columns", [])
            texts = [field.name for field in schema if field.type == pa.string() and field.name not in index]
            columns = coded_columns(batches, [name for name in texts if name in repeated])
    others = [name for name in names if name not in columns] if columns else None
    table = _read_batches(path, others, reading)
    with _parquet_parser(path):
        if columns:
            columns |= dict(zip(table.column_names, table.columns, strict=True))
            table = pa.Table.from_arrays([columns[name] for name in names], names, metadata=schema.metadata)
        return as_frame(table) if compact else to_pandas(table)


def _read_repeated(path: Path, names: list[str], reading: Reading) -> Iterator[Any]:
    """Yield columns as codes of texts, and refuse those with too many bytes once repeated in all of their rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = 0
    with _parquet_parser(path):
        file = pq.ParquetFile(path, read_dictionary=names)
    with file:
        for batch in _batches(path, file.iter_batches(TEXTS_BATCH, columns=names)):
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    with _parquet_parser(path):
                        lengths = pc.binary_length(column.dictionary).take(column.indices)
                    size += max(pc.sum(lengths).as_py() or 0, column.nbytes)
            reading.check("bytes", size)
            reading.check_time()
            yield batch


def _read_batches(path: Path, names: list[str] | None, reading: Reading) -> Any:
    """Read columns, or all, part by part as Arrow's table, since the file's last bytes may declare a wrong size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    size = 0
    with pq.ParquetFile(path) as file:
        for batch in _batches(path, file.iter_batches(BATCH, columns=names)):
            parts.append(batch)
            size += batch.nbytes
            reading.check("bytes", size)
            reading.check_time()
        schema = file.schema_arrow if names is None else None
        with _parquet_parser(path):
            return pa.Table.from_batches(parts, schema=schema)


def _check_declared(path: Path, reading: Reading) -> list[str]:
    """Check the size that a file's last bytes declare, and return the columns whose texts are stored once."""
    import pyarrow.parquet as pq

    reading.check("bytes", path.stat().st_size)
    with _parquet_parser(path), pq.ParquetFile(path) as file:
        metadata = file.metadata
        lengths = [max(0, file.schema.column(place).length or 0) for place in range(len(file.schema))]
    reading.check_shape(metadata.num_rows, metadata.num_columns)
    rows = 0
    cells = 0
    size = 0
    repeated = set[str]()
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        chunks = [group.column(place) for place in range(group.num_columns)]
        values = [chunk.num_values for chunk in chunks]
        # A list in a cell has more values than the table has rows.
        rows += max([group.num_rows, *values])
        cells += sum(values)
        size += sum(chunk.total_uncompressed_size for chunk in chunks)
        # A value that is stored once may occur in each row.
        size += sum(count * length for count, length in zip(values, lengths, strict=True))
        texts = [chunk for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
        repeated |= {chunk.path_in_schema for chunk in texts if chunk.has_dictionary_page}
    reading.check("rows", rows)
    reading.check("cells", cells)
    reading.check("bytes", size)
    return sorted(repeated)


def parquet_batches(path: Path, reading: Reading, rows: int) -> Iterator[pd.DataFrame]:
    """Yield a Parquet file `rows` rows at a time, at least one table; little more than these is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _parquet_parser(path):
        file = pq.ParquetFile(path, buffer_size=PART)
    with file:
        schema = file.schema_arrow
        reading.check("columns", len(schema))
        batches = _batches(path, file.iter_batches(rows, use_threads=False))
        for batch in reading.within_time(batches if file.metadata.num_rows else [None]):
            with _parquet_parser(path):
                frame = to_pandas(pa.Table.from_batches([] if batch is None else [batch], schema))
            yield frame


def _batches(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the rows of a file part by part."""
    while True:
        with _parquet_parser(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _parquet_parser(path: Path) -> Iterator[None]:
    """Turn an error of the library into a sentence; no code of flfed belongs into the block."""
    from pyarrow import ArrowException

    try:
        with foreign_parser("", *DAMAGED, ArrowException):
            yield
    except UsageError:
        raise usage_error("rows.source.parquet", path=path, reason=why_no_parquet(path)) from None


def why_no_parquet(path: Path) -> str:
    """Return why a file is not readable Parquet, by its first and last bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return render("rows.source.closed", reason=error.strerror)
    if not content.startswith(b"PAR1"):
        return kind_of(content) or render("rows.source.text")
    return "it is damaged" if content.endswith(b"PAR1") else render("rows.source.cut")


def read_sheet(path: Path, sheet: str, reading: Reading, refusal: str) -> pd.DataFrame:
    """Read all cells of a sheet of a workbook, the first one where `sheet` is "".

    A zip's directory declares its bytes, and no more are unpacked. Rows are counted one by one, since a cell far to the
    right and another far below would make a huge table. `refusal` is the error of a damaged file.
    """
    with foreign_parser(refusal, *DAMAGED), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        reading.check_unpacked(member.file_size, member.compress_size, XML_GRACE)
    reading.check("bytes", sum(member.file_size for member in members))
    # A parser holds a whole row in memory.
    for member in members:
        if _longest_row(_parts(path, member, refusal)) > SHEET_COLUMNS:
            raise usage_error("rows.source.row", refusal=refusal, cells=SHEET_COLUMNS)
    with _TimedFile(path, reading) as file:
        table, part = _parse_sheet(file, sheet, reading, refusal)
    entries = [member for member in members if member.filename == part]
    if not entries:
        return table
    table.attrs[HIDDEN] = sum(len(_HIDDEN_ROW.findall(part)) for part in _parts(path, entries[0], refusal))
    return _mark_valueless(table, lambda: reading.within_time(_parts(path, entries[0], refusal)), refusal)


def _parse_sheet(file: IO[bytes], sheet: str, reading: Reading, refusal: str) -> tuple[pd.DataFrame, str]:
    """Return a sheet's table and the name of its part of the workbook."""
    import pandas as pd

    with foreign_parser(refusal, *DAMAGED):
        workbook = pd.ExcelFile(file, engine="openpyxl")
    with workbook:
        with foreign_parser(refusal, *DAMAGED):
            chosen = sheet or workbook.sheet_names[0]
            source = workbook.book[chosen]
        # pandas takes the rows from here; a sheet of pictures has none. An exceeded limit raises through pandas.
        if hasattr(source, "iter_rows"):
            rows = source.iter_rows
            source.iter_rows = lambda: _within(rows(), reading)
        with foreign_parser(refusal, *DAMAGED):
            table: pd.DataFrame = pd.read_excel(
                workbook, sheet_name=chosen, header=None, dtype=object, keep_default_na=False, na_values=[""]
            )
        if not sheet and workbook.sheet_names[1:]:
            table.attrs[SHEETS] = tuple(map(str, workbook.sheet_names[:NAMED]))
    return table, str(getattr(source, "_worksheet_path", ""))


class _TimedFile(io.FileIO):
    """A file whose reading obeys the seconds of a table's limits."""

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._reading = reading

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, or refuse after the end of the time."""
        self._reading.check_time()
        return super().read(size) or b""


def _parts(path: Path, member: zipfile.ZipInfo, refusal: str) -> Iterator[bytes]:
    """Yield a member of a zip, part by part."""
    # Errors of the code that consumes a part are not raised here.
    with foreign_parser(refusal, *DAMAGED), zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        while part := stream.read(PART):
            yield part


def _longest_row(parts: Iterator[bytes]) -> int:
    """Return the largest number of cells of a row in a sheet's XML, or the first above `SHEET_COLUMNS`."""
    most = 0
    cells: int | None = None
    rest = b""
    for new in parts:
        part = rest + new
        end = part.rfind(b"<")
        for tag in _ROW_OR_CELL.finditer(part, 0, max(end, 0)):
            if tag[1] != b"c":
                cells = 0
            elif cells is not None:  # other parts have such elements, and no rows
                cells += 1
                most = max(most, cells)
        # The beginning of a tag that may continue in the next part.
        rest = part[end : end + LONGEST_TAG] if end >= 0 else b""
        if most > SHEET_COLUMNS:
            break
    return most


def _within(rows: Iterator[Sequence[Any]], reading: Reading) -> Iterator[Sequence[Any]]:
    """Yield rows of cells while their table is within limits.

    pandas leaves out empty cells and rows at the end, and fills up all rows to the longest.
    """
    width = 0
    for number, row in enumerate(rows, start=1):
        if number > SHEET_ROWS:
            raise ValueError("too many rows")
        if number % TIMED_ROWS == 0:
            reading.check_time()
        for cell in row:
            # Of a rounded number pandas would make a whole one, and of an error such as #N/A an empty cell.
            if cell.data_type == "e" or (isinstance(cell.value, float) and abs(cell.value) >= EXACT):
                cell.data_type = "s"
        used = max((place for place, cell in enumerate(row, 1) if cell.value not in (None, "")), default=0)
        if used:
            width = max(width, used)
            reading.check_shape(number, width)
        yield row


def grid_text(cell: object) -> str:
    """Return a cell of a sheet as text; "" where it has no value."""
    text = "" if cell is None or cell != cell else str(cell)
    return "" if text in (MERGED_CELL, UNSTORED_CELL) else text


_WANTED = (b"mergeCell", b"<f", b":f>", b":f ")
"""Texts in the XML of a sheet with cells to mark; a namespace may precede them."""
_RANGE = re.compile(r"[A-Z]{1,3}[1-9][0-9]{0,6}(:[A-Z]{1,3}[1-9][0-9]{0,6})?")
Valueless = list[tuple[str, str]]
"""Cells without a value: their range, such as A2 or A2:B3, and its mark."""


def _mark_valueless(table: pd.DataFrame, parts: Callable[[], Iterator[bytes]], refusal: str) -> pd.DataFrame:
    """Return a sheet's table with marks in empty cells that are merged, or hold a formula without a value.

    Parameters
    ----------
    table : DataFrame
        All cells, as read.
    parts : callable
        Yields the sheet's XML, part by part.
    refusal : str
        Error of a damaged file.
    """
    import pandas as pd
    from openpyxl.utils import range_boundaries

    if not _holds_any(parts()):
        return table
    empty = table.isna().to_numpy()
    cells = table.to_numpy(dtype=object, copy=True)
    for place, mark in _valueless(parts(), refusal):
        try:
            first_column, first_row, last_column, last_row = range_boundaries(place)
        except ValueError:
            continue  # a damaged name
        block = (slice(first_row - 1, last_row), slice(first_column - 1, last_column))
        cells[block] = np.where(empty[block], np.array(mark, dtype=object), cells[block])
    marked = pd.DataFrame(cells, columns=table.columns, index=table.index)
    marked.attrs = table.attrs
    return marked


def _holds_any(parts: Iterable[bytes]) -> bool:
    end = b""
    for part in parts:
        if any(wanted in end + part for wanted in _WANTED):
            return True
        end = part[-16:]
    return False


def _valueless(parts: Iterable[bytes], refusal: str) -> Valueless:
    cells: Valueless = []
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser()
    for part in parts:
        with foreign_parser(refusal, *DAMAGED):
            parser.feed(part)
            events: Iterator[Any] = parser.read_events()
            elements = [element for _, element in events]
        for element in elements:
            _add(element, cells)
    return cells


def _add(element: ElementTree.Element, cells: Valueless) -> None:
    """Add a cell or range of a sheet's XML that has no value."""
    kind = _kind(element)
    if kind == "row":
        element.clear()
    elif kind == "mergeCell":
        place = element.get("ref", "")
        if _RANGE.fullmatch(place):
            cells.append((place, MERGED_CELL))
    elif kind == "c":
        inner = {_kind(part): part.text for part in element}
        place = element.get("r", "")
        # A formula whose result is an empty text has a value, and the type "str".
        if "f" in inner and not inner.get("v") and element.get("t") != "str" and _RANGE.fullmatch(place):
            cells.append((place, UNSTORED_CELL))


def _kind(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
