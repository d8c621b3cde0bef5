"""Parquet files and workbooks, read within limits."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError
from flfed.parsers import DAMAGED, foreign_parser
from flfed.rows.data.parsing.limits import XML_GRACE, Reading
from flfed.rows.data.parsing.text_files import kind_of

if TYPE_CHECKING:
    import pandas as pd

SHEET_ROWS = 1_048_576
"""No sheet of Excel has more."""
TIMED_ROWS = 1_000
BATCH = 1_000_000
"""Rows of which a text's place in a list of texts is read at a time."""


def read_parquet(path: Path, reading: Reading) -> pd.DataFrame:
    """Read a Parquet file, whose last bytes tell how large it is."""
    import pandas as pd
    import pyarrow.parquet as pq

    reading.check("bytes", path.stat().st_size)
    with _parquet_parser(path), pq.ParquetFile(path) as file:
        metadata = file.metadata
    reading.check_shape(metadata.num_rows, metadata.num_columns)
    rows = 0
    cells = 0
    size = 0
    repeated = set[str]()
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        chunks = [group.column(place) for place in range(group.num_columns)]
        # A list in a cell has more values than the table has rows.
        rows += max([group.num_rows, *(chunk.num_values for chunk in chunks)])
        cells += sum(chunk.num_values for chunk in chunks)
        size += sum(chunk.total_uncompressed_size for chunk in chunks)
        repeated |= {chunk.path_in_schema for chunk in chunks if _may_repeat(chunk, reading.limits.bytes)}
    reading.check("rows", rows)
    reading.check("cells", cells)
    reading.check("bytes", size)
    if repeated:
        _check_texts(path, sorted(repeated), reading)
    with _parquet_parser(path):
        return pd.read_parquet(path)


@contextmanager
def _parquet_parser(path: Path) -> Iterator[None]:
    """Turn what a call of the library ends with into a sentence; no code of flfed's belongs into the block."""
    from pyarrow import ArrowException

    try:
        with foreign_parser("", *DAMAGED, ArrowException):
            yield
    except UsageError:
        raise UsageError(f"{path}: cannot be read as Parquet: {why_no_parquet(path)}") from None


def _may_repeat(chunk: Any, most: int) -> bool:
    """Tell whether texts that are written once in a file could fill memory once each row has its own."""
    texts = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
    return bool(texts and chunk.num_values * chunk.total_uncompressed_size > most)


def _check_texts(path: Path, names: list[str], reading: Reading) -> None:
    """Refuse columns whose texts, each of them repeated in all of its rows, have too many bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = 0
    with pq.ParquetFile(path, read_dictionary=names) as file:
        batches = file.iter_batches(BATCH, columns=names)
        while True:
            with _parquet_parser(path):
                batch = next(batches, None)
            if batch is None:
                break
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    lengths = pc.binary_length(column.dictionary)
                    size += pc.sum(lengths.take(column.indices)).as_py() or 0
            reading.check("bytes", size)
            reading.check_time()


def why_no_parquet(path: Path) -> str:
    """Return why a file is not readable Parquet.

    It says what the file is, by its first and last bytes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    if not content.startswith(b"PAR1"):
        return kind_of(content) or "it is text: read it with Csv(...)"
    return "it is damaged" if content.endswith(b"PAR1") else "its end is missing: fetch the file anew"


def read_sheet(path: Path, sheet: str, reading: Reading, refusal: str) -> pd.DataFrame:
    """Read a sheet of a workbook, the first one where `sheet` is "".

    A zip's directory tells its bytes, and more of them are never unpacked. Rows are counted as they come: a cell far
    to the right, and one far below, would make a table of all that lies between. `refusal` is said of a damaged file.
    """
    import pandas as pd

    with foreign_parser(refusal, *DAMAGED), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        reading.check_unpacked(member.file_size, member.compress_size, XML_GRACE)
    reading.check("bytes", sum(member.file_size for member in members))
    with foreign_parser(refusal, *DAMAGED):
        workbook = pd.ExcelFile(path, engine="openpyxl")
    with workbook:
        with foreign_parser(refusal, *DAMAGED):
            chosen = sheet or workbook.sheet_names[0]
            source = workbook.book[chosen]
        # pandas takes the rows from here; a sheet of pictures has none. Their limits raise an error that passes.
        if hasattr(source, "iter_rows"):
            rows = source.iter_rows
            source.iter_rows = lambda: _within(rows(), reading)
        with foreign_parser(refusal, *DAMAGED):
            table: pd.DataFrame = workbook.parse(chosen, dtype=object, keep_default_na=False, na_values=[""])
    return table


def _within(rows: Iterator[Sequence[Any]], reading: Reading) -> Iterator[Sequence[Any]]:
    """Yield rows of cells, as long as the table that they make is within limits.

    pandas leaves out empty cells and rows at the end, and fills up all rows to the longest.
    """
    width = 0
    for number, row in enumerate(rows, start=1):
        if number > SHEET_ROWS:
            raise ValueError("more rows than a sheet can have")
        if number % TIMED_ROWS == 0:
            reading.check_time()
        used = _used(row)
        if used:
            width = max(width, used)
            reading.check_shape(number, width)
        yield row


def _used(row: Sequence[Any]) -> int:
    """Return the place of the last cell that is not empty, counted from 1; 0 where all are."""
    for place in range(len(row), 0, -1):
        if row[place - 1].value not in (None, ""):
            return place
    return 0
