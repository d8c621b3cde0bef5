"""Plain text tables in Arrow's columns, and plain numbers and identifiers read many at a time.

Each function returns None, or False, where anything looks odd. The careful reader then takes the
file or the column, and names rule and count. No error of Arrow leaves, since it quotes a cell.
"""

from __future__ import annotations

import codecs
import csv
import re
import string
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.data.parsing.cells import EXACT_DIGITS, exceeds_floats
from flfed.rows.data.parsing.limits import Reading
from flfed.rows.data.parsing.text_files import SEPARATORS

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1 << 22
LONGEST_CELL = 100_000
"""The careful reader refuses longer cells as a quote that is never closed."""
LARGEST_PART = 1 << 31
LONGEST_NUMBER = 25
_UTF8 = ("utf-8", "utf8", "utf-8-sig")
_DIGITS = string.digits.encode()
_LETTERS = (string.ascii_letters + string.digits + "_").encode()
_WORDS = ("null", "nan", "none", "nil", "nat", "inf", "-inf")
LONGEST_DATE = 7
"""Signs of the longest text that a spreadsheet makes of an identifier: "31-Dec." """


def read_plain_csv(
    content: bytes,
    encoding: str,
    separator: str,
    columns: Sequence[str] | None,
    reading: Reading,
    *,
    block: int = BLOCK,
) -> pd.DataFrame | None:
    """Parse a plain CSV file as columns of Arrow's texts; None where it is not plain.

    A plain file is in UTF-8 without NUL bytes. All of its lines have as many cells as there are
    names, which differ, and quotes only around whole cells of one line. It is far from the limits.

    Parameters
    ----------
    content : bytes
    encoding, separator, columns
        As of `Csv`.
    reading : Reading
    block : int
        Bytes that are parsed at a time.
    """
    start = _start_of_rows(content, encoding, separator, columns)
    if start < 0:
        return None
    names = list(columns or _first_line(content[:start], separator))
    quoted = content.find(b'"', start) >= 0
    if _is_large(content, len(names), reading) or not _has_plain_signs(content, separator, quoted):
        return None
    table = _parse(content, start, names, separator, quoted, reading, block)
    # A cell in quotes may hold several lines.
    lines = content.count(b"\n", start) + (not content.endswith(b"\n"))
    if table is None or not table.num_rows or (quoted and table.num_rows != lines):
        return None
    return as_frame(table) if max(map(_longest, table.columns)) <= LONGEST_CELL else None


def _parse(
    content: bytes,
    start: int,
    names: list[str],
    separator: str,
    quoted: bool,
    reading: Reading,
    block: int,
) -> Any:
    """Return the rows from a place on as an Arrow table of texts; None where they are uneven."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    blocks = arrow_csv.ReadOptions(use_threads=False, block_size=block, column_names=names)
    quote = '"' if quoted else False
    signs = arrow_csv.ParseOptions(delimiter=separator, quote_char=quote, double_quote=False)
    texts = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[])
    try:
        buffer = pa.BufferReader(pa.py_buffer(content).slice(start))
        batches = arrow_csv.open_csv(buffer, blocks, signs, texts)
        return pa.Table.from_batches(reading.within_time(batches), batches.schema)
    except pa.ArrowException:
        return None


def _first_line(content: bytes, separator: str) -> list[str]:
    line = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [""])
    except csv.Error:
        return [""]


def _start_of_rows(content: bytes, encoding: str, separator: str, columns: Sequence[str] | None) -> int:
    """Return the place of the first row: behind a plain header, or of a line that is no header.

    -1 where the first line is anything else.
    """
    if not _is_utf8(content, encoding) or separator not in SEPARATORS:
        return -1
    end = content.find(b"\n") + 1
    first = _first_line(content[:end], separator)
    stripped = [name.strip() for name in first]
    if not _are_names(columns or first, first):
        return -1
    if columns:
        mark = len(codecs.BOM_UTF8) * content.startswith(codecs.BOM_UTF8)
        return -1 if stripped == list(columns) else mark
    return end if all(stripped) and stripped[0] == first[0] else -1


def _is_utf8(content: bytes, encoding: str) -> bool:
    """Return whether a file is to be read as UTF-8, with a mark at its beginning if that is named."""
    plain = encoding.lower().replace("_", "-")
    return plain == "utf-8-sig" or (plain in _UTF8 and not content.startswith(codecs.BOM_UTF8))


def _are_names(names: Sequence[str], first: Sequence[str]) -> bool:
    """Return whether names differ, and are as many as the cells of a first line, at least two."""
    return 1 < len(names) == len(set(names)) == len(first) and "\ufeff" not in first[0]


def _has_plain_signs(content: bytes, separator: str, quoted: bool) -> bool:
    """Return whether there is no NUL byte or lone CR, and each quote begins or ends a cell."""
    if b"\0" in content or (b"\r" in content and content.count(b"\r") != content.count(b"\r\n")):
        return False
    if not quoted:
        return True
    ends = (separator.encode(), b"\n", b"\r\n")
    opening = sum(content.count(before + b'"') for before in ends[:2]) + content.startswith(b'"')
    closing = sum(content.count(b'"' + after) for after in ends) + content.endswith(b'"')
    # One that did both would hide another that does neither.
    lone = any(before + b'"' + after in content for before, after in product(ends[:2], ends))
    return opening == closing and opening + closing == content.count(b'"') and not lone


def _is_large(content: bytes, columns: int, reading: Reading) -> bool:
    """Return whether a file may exceed a limit, counted in lines."""
    lines = content.count(b"\n") + 1
    limits = reading.limits
    return columns > limits.columns or lines > limits.rows or lines * columns > limits.cells


def as_frame(table: Any) -> pd.DataFrame:
    """Return an Arrow table whose texts stay in Arrow's columns; all others are those of pandas."""
    import pandas as pd
    import pyarrow as pa

    # A Parquet file may hold other bytes than UTF-8, which would raise once a text is read.
    table.validate(full=True)
    return to_pandas(table, {kind: pd.ArrowDtype(kind) for kind in (pa.string(), _codes())})


def to_pandas(table: Any, kinds: Mapping[Any, Any] | None = None) -> pd.DataFrame:
    """Return an Arrow table as pandas has it, with long whole numbers unrounded beside gaps."""
    import pandas as pd
    import pyarrow as pa

    frame: pd.DataFrame = table.to_pandas(types_mapper=(kinds or {}).get)
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    columns = [cells for name, cells in zip(table.column_names, table.columns, strict=True) if name not in index]
    whole: dict[Any, Any] = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    for place, cells in enumerate(columns):
        if cells.type in whole and frame.dtypes.iloc[place].kind == "f" and exceeds_floats(frame.iloc[:, place]):
            frame.isetitem(place, whole[cells.type].__from_arrow__(cells))
    return frame


def _codes() -> Any:
    """Return the Arrow type of texts as codes of a dictionary: no other program writes codes of 64 bits."""
    import pyarrow as pa

    return pa.dictionary(pa.int64(), pa.string())


def coded_columns(batches: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return columns of texts as codes, those whose dictionary has no text of no row; of more than 2 GB none."""
    import pyarrow as pa

    columns = {}
    table = pa.Table.from_batches(batches).select(names)
    small = table.unify_dictionaries() if table.nbytes < LARGEST_PART else table.select([])
    for name, column in zip(small.column_names, small.columns, strict=True):
        coded = column.combine_chunks()
        codes = pa.DictionaryArray.from_arrays(coded.indices.cast(pa.int64()), coded.dictionary)
        texts = pa.chunked_array([codes])
        if _are_codes(texts):
            columns[name] = texts
    return columns


def _are_codes(column: Any) -> bool:
    """Return whether a column is one array of codes, whose dictionary has no text of no row."""
    if column.type != _codes() or column.num_chunks != 1:
        return False
    (coded,) = column.chunks
    used = np.bincount(coded.indices.drop_null(), minlength=len(coded.dictionary)) > 0
    return bool(used.all()) and not coded.dictionary.null_count


def texts_of(cells: pd.Series) -> Any:
    """Return a column's texts as Arrow's ChunkedArray of strings or of their codes; None for any other column."""
    import pandas as pd
    import pyarrow as pa

    if not isinstance(cells.dtype, pd.ArrowDtype):
        return None
    texts = pa.chunked_array(cells.array.__arrow_array__())
    return texts if pa.types.is_string(texts.type) or _are_codes(texts) else None


def coded_texts(texts: Any) -> tuple[np.ndarray, Any]:
    """Return the code of each text [rows], -1 where missing, and the distinct texts."""
    import pyarrow as pa

    # Arrow unifies the texts of many parts slowly, but one part holds at most 2 GB.
    if texts.num_chunks > 1 and texts.nbytes < LARGEST_PART:
        texts = pa.chunked_array([texts.combine_chunks()])
    encoded = texts.dictionary_encode().unify_dictionaries().combine_chunks()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), encoded.dictionary


def _written_texts(chunk: Any) -> Any:
    """Return an array of strings, or of codes the dictionary."""
    return getattr(chunk, "dictionary", chunk)


def read_plain_numbers(texts: Any, codes: Sequence[str], mark: str) -> np.ndarray | None:
    """Read numbers of digits, one sign and one mark of decimals, as the careful reader does [rows].

    NaN where a text is empty or one of `codes`; None where any other text is no such number, or -0.
    """
    parts = []
    for chunk in texts.chunks:
        numbers = _numbers(_written_texts(chunk), codes, mark)
        if numbers is None:
            return None
        if hasattr(chunk, "dictionary"):
            numbers = np.append(numbers, np.nan)[chunk.indices.fill_null(-1)]
        parts.append(numbers)
    return np.concatenate([np.empty(0), *parts])


def _numbers(chunk: Any, codes: Sequence[str], mark: str) -> np.ndarray | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    signs = _DIGITS + b"-" + mark.encode()
    if codes and bytes_of(chunk).translate(None, signs):
        is_code = pc.is_in(chunk, value_set=pa.array(codes, pa.string()))
        chunk = pc.if_else(is_code, pa.scalar(None, pa.string()), chunk)
    content = bytes_of(chunk)
    lengths = _lengths(chunk)
    if content.translate(None, signs) or lengths.max(initial=0) > LONGEST_NUMBER:
        return None
    # The same texts again, where an empty one is missing.
    bits = np.packbits(lengths > 0, bitorder="little")
    offsets = _offsets(chunk)
    buffers = list(map(pa.py_buffer, (bits, offsets - offsets[0], content.replace(mark.encode(), b"."))))
    chunk = pa.Array.from_buffers(pa.string(), len(chunk), buffers)
    try:
        numbers = pc.cast(chunk, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return None
    return _as_pandas_reads(numbers, chunk, np.flatnonzero(lengths > EXACT_DIGITS))


def _as_pandas_reads(numbers: np.ndarray, texts: Any, long: np.ndarray) -> np.ndarray | None:
    """Return numbers with the last bits that pandas gives to `long` texts; None for -0.

    Keys of rows depend on these bits.
    """
    import pandas as pd
    import pyarrow as pa

    if (np.signbit(numbers) & (numbers == 0)).any():
        return None
    if not len(long):
        return numbers
    written = texts.take(pa.array(long)).to_pylist()
    if not all("." in text for text in written):
        return None
    numbers = numbers.copy()
    numbers[long] = pd.to_numeric(np.array(written, dtype=object))
    return numbers


def has_marks_of_decimals(texts: Any, mark: str, is_code: Callable[[str], bool]) -> bool:
    """Return whether marks stand before decimals.

    There is no mark, or one that cannot stand between thousands.
    """
    chunks = [chunk for chunk in map(_written_texts, texts.chunks) if mark.encode() in bytes_of(chunk)]
    grouped = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+")
    for chunk in chunks:
        for text in chunk.to_pylist():
            if text and mark in text and not grouped.fullmatch(text) and not is_code(text):
                return True
    return not chunks


def are_plain_identifiers(distinct: Any, codes: Sequence[str]) -> bool:
    """Return whether distinct texts [values] are identifiers of letters, digits, "_" and "-".

    None is empty, one of `codes`, or an identifier that another program spoiled.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    content = bytes_of(distinct)
    shortest = _lengths(distinct).min(initial=LONGEST_CELL)
    if distinct.null_count or shortest == 0 or content.translate(None, _LETTERS + b"-"):
        return False
    if b"-" in content and shortest <= LONGEST_DATE:
        return False
    long = np.flatnonzero(_lengths(distinct) > EXACT_DIGITS)
    if len(long) and all(text.endswith("0") for text in distinct.take(pa.array(long)).to_pylist()):
        return False  # a spreadsheet may have rounded them
    words = pa.array([*_WORDS], pa.string())
    is_word = pc.any(pc.is_in(pc.ascii_lower(distinct), value_set=words)).as_py()
    is_code = pc.any(pc.is_in(distinct, value_set=pa.array(codes, pa.string()))).as_py()
    return not is_word and not is_code


def may_hold(cells: pd.Series, signs: str) -> bool:
    """Return whether a cell of a column may have all these lower-case signs, in either case."""
    texts = texts_of(cells)
    if texts is None or not signs.isascii():
        return True
    parts = [bytes_of(_written_texts(chunk)) for chunk in texts.chunks]
    if not all(map(bytes.isascii, parts)):
        return True
    wanted = signs.encode()
    return any(_holds_all(part.lower(), wanted) for part in parts)


def _holds_all(content: bytes, signs: bytes) -> bool:
    return all(sign in content for sign in signs)


def bytes_of(texts: Any) -> bytes:
    """Return the bytes of all texts of an Arrow array, one after the other."""
    offsets = _offsets(texts)
    data = texts.buffers()[2]
    if data is None:
        return b""
    return bytes(memoryview(data)[offsets[0] : offsets[-1]])


def _offsets(texts: Any) -> np.ndarray:
    """Return where each text begins, and where the last ends; int32 [texts + 1]."""
    if texts.buffers()[1] is None:
        return np.zeros(len(texts) + 1, dtype=np.int32)
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)
    return offsets[texts.offset : texts.offset + len(texts) + 1]


def _lengths(texts: Any) -> np.ndarray:
    """Return the bytes of each text [texts], 0 where missing."""
    import pyarrow.compute as pc

    if texts.null_count:
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False))
    return np.diff(_offsets(texts))


def _longest(column: Any) -> int:
    return max((int(_lengths(chunk).max(initial=0)) for chunk in column.chunks), default=0)
