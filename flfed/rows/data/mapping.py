"""Mapping of an institution's columns to a schema.

Columns are renamed; values, units, decimals and limits are converted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.data.parsing.arrow_reader import (
    are_plain_identifiers,
    coded_texts,
    has_marks_of_decimals,
    read_plain_numbers,
    texts_of,
)
from flfed.rows.data.parsing.cells import (
    EXACT,
    NO_IDENTIFIER,
    VALUELESS,
    Broken,
    Texts,
    read_dates,
    read_marks,
    spoiled,
    table_of,
    unquoted,
)
from flfed.rows.data.parsing.fields import (
    ABSENT,
    ABSENT_RULES,
    MAY_BE_ABSENT,
    NO_COLUMN,
    NO_GROUP,
    NOT_NUMBER,
    REPEATED,
    ColumnMapping,
    Entry,
    Field,
    Finding,
    did_you_mean,
    own_name,
    where_names_stand,
)
from flfed.rows.data.schema import Column, Schema
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd

_TRAILING_ZEROS = re.compile(r"(-?\d+)\.0+")
_IN_BRACKETS = re.compile(r"<[A-Za-z/ ]*>")
_CENSORED = re.compile(r"\s*([<>])=?\s*")
PIECE = 2**16
CELLS_AT_ONCE = 2**20
"""Numbers read in one piece: a small table at once, a large one column by column."""
NO_OUTCOME = "has no value (rows without an outcome cannot be used)"
EXACT_SINGLE = 2.0**24
"""From here on single precision rounds whole numbers."""
OUTSIDE = "is outside the schema's range"
"""Beginning of the rule that such a number breaks; the range follows."""
ROUNDED = "has whole numbers that floating point rounded (have the source give them whole, or as text)"
NOT_NUMBERS = "is yes or no where a number is meant"
_TRUE = {"1", "true", "yes"}
_FALSE = {"0", "false", "no"}


def plain_text(cells: pd.Series) -> pd.Series:
    """Return cells as stripped text, None where empty, whole numbers without a trailing ".0".

    The same cell read from CSV, Parquet or SQL gives the same text.
    """
    import pandas as pd

    place, values = _once(cells)
    texts = np.array([*map(_plain_cell, values), None], dtype=object)
    return pd.Series(texts[place], index=cells.index, name=cells.name, dtype=object)


def _once(cells: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """Return the place of each cell's value [rows], -1 where missing, and the distinct values."""
    texts = texts_of(cells)
    if texts is None:
        return _distinct(cells)
    place, distinct = coded_texts(texts)
    return place, distinct.to_pylist()


def _distinct(cells: pd.Series) -> tuple[np.ndarray, list[Any]]:
    import pandas as pd

    if cells.dtype.kind == "f" and getattr(cells.dtype, "itemsize", 8) < 8:
        # As the shortest decimal that gives the float32: 0.1, not 0.10000000149011612.
        single = cells.to_numpy(dtype=np.float32, na_value=np.nan)
        return np.arange(len(single)), [None if np.isnan(value) else float(str(value)) for value in single]
    if isinstance(cells.dtype, np.dtype):
        if cells.dtype == np.float64:
            # Once for each pattern of bits, which distinguishes -0.0 from 0.0.
            place, bits = pd.factorize(cells.to_numpy().view(np.int64))
            return place, bits.view(np.float64).tolist()
        if cells.dtype.kind == "M":
            place, dates = pd.factorize(cells)
            return place, list(dates)
    objects = cells.to_numpy() if cells.dtype == object else cells
    kinds = getattr(cells.dtype, "categories", objects)
    if pd.api.types.infer_dtype(kinds, skipna=True) not in ("string", "integer", "boolean"):
        return np.arange(len(cells)), list(cells)
    # Once for each value. In other kinds, values with different texts may be equal: -0.0 and 0.0.
    place, values = pd.factorize(objects)
    return place, list(values)


def _plain_cell(cell: Any) -> str | None:
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if not isinstance(cell, str):
        cell = _as_text(cell)
    text = unquoted((cell or "").strip())
    if text.endswith("0") and (whole := _TRAILING_ZEROS.fullmatch(text)):
        return whole[1]
    return text or None


def _as_text(cell: Any) -> str | None:
    """Return the text of a cell of another type, None where it is missing."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None
    if isinstance(cell, (bool, np.bool_)):
        return str(int(cell))
    if isinstance(cell, (float, np.floating)):
        return repr(float(cell))
    if isinstance(cell, Decimal):
        # A number has no zeros after its last decimal, and no powers of ten.
        return None if cell.is_nan() else re.sub(r"(\.\d*?)0+$", r"\1", f"{cell:f}").removesuffix(".")
    import pandas as pd  # not for every number

    return None if cell is pd.NaT or cell is pd.NA else str(cell)


def map_table(
    raw: pd.DataFrame, schema: Schema, mapping: ColumnMapping, missing: tuple[str, ...] = (), *, outcome: bool = True
) -> tuple[pd.DataFrame, list[Finding]]:
    """Map a table to the schema's columns, and report every rule that it breaks.

    Parameters
    ----------
    raw : DataFrame
        As the source gives it.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
        A schema column that is not a key is read under its own name. None means that the site does
        not have it: all its cells are missing. A feature that is neither in the table nor None is
        reported, because a misspelt name would look the same.
    missing : tuple of str
        The source's own codes for "not known".
    outcome : bool
        Whether target and group are required, each target with a value; False for rows to predict.

    Returns
    -------
    table : DataFrame, one column per schema column, index 0..n-1
        Numbers and flags are float64 with NaN where missing; categories, ids and the classes of
        a target are text or None; dates are datetime64.
    findings : list of Finding
        Empty for a table that keeps every rule. A cell that breaks one is missing in `table`.

    Raises
    ------
    UsageError
        If a column without listed values has `other`.
    """
    refuse_other(schema, mapping)
    columns: dict[str, np.ndarray] = {}
    # A misspelt name in the mapping would otherwise leave its column unread silently.
    findings = [
        Finding(name, "is mapped but the schema has no such column", np.arange(0))
        for name in mapping
        if name not in schema.columns
    ]
    fields = {name: _field(mapping.get(name, name), missing) for name in schema.columns}
    there = Counter[Any](raw.columns)
    once = {name: field for name, field in fields.items() if field is not None and there[field.column] == 1}
    # Columns that are numbers already are read in bulk, which is faster with the same result.
    numbers = _numbers_at_once(raw, schema, once)
    absent = _absent(raw, schema, mapping, fields, there, outcome)
    for name, column in schema.columns.items():
        if name not in once:
            findings += absent.get(name, [])
            columns[name] = empty_cells(column, len(raw))
            continue
        # A cell that breaks a rule is missing from here on, and noted with its row.
        columns[name], broken = numbers.get(name) or read_column(raw[once[name].column], name, column, once[name])
        findings += broken
    if outcome:
        findings += _without_value(schema, {name: columns[name] for name in once}, findings)
    return table_of(columns, copy=False), findings


def refuse_other(schema: Schema, mapping: ColumnMapping) -> None:
    """Refuse `other` of a column without listed values: it would stand for every cell, such as every identifier."""
    for name, column in schema.columns.items():
        entry = mapping.get(name)
        listed = column.kind in ("category", "target") and not column.is_number()
        if isinstance(entry, Field) and entry.other is not None and not listed:
            raise usage_error("rows.field.other", column=name, other=entry.other, kind=column.kind)


def _field(entry: Entry, missing: tuple[str, ...]) -> Field | None:
    """Return a mapping's entry as a Field, with the source's codes for "not known"."""
    if entry is None:
        return None
    field = Field(entry) if isinstance(entry, str) else entry
    return replace(field, missing=(*missing, *field.missing))


def _absent(
    raw: pd.DataFrame,
    schema: Schema,
    mapping: ColumnMapping,
    fields: Mapping[str, Field | None],
    there: Mapping[Any, int],
    outcome: bool,
) -> dict[str, list[Finding]]:
    """Report the columns that are absent or repeated, with a likely cause."""
    rules = {name: _why_not(name, schema, mapping, there[own_name(field)], outcome) for name, field in fields.items()}
    # Where every column is absent, the first line probably holds no names.
    none = there.keys().isdisjoint(map(own_name, fields.values())) and not set(ABSENT_RULES).isdisjoint(rules.values())
    findings = {}
    for name, rule in rules.items():
        own = own_name(fields[name])
        hint = ""
        if own is not None and rule in ABSENT_RULES:
            hint = did_you_mean(own, raw.columns)
        if none and rule and not hint:
            rule = NO_COLUMN
            hint = where_names_stand(raw, [field.column for field in fields.values() if field])
        if rule:
            findings[name] = [Finding(name, rule, np.arange(0), hint)]
    return findings


def _why_not(name: str, schema: Schema, mapping: ColumnMapping, own_columns: int, outcome: bool) -> str:
    """Return the rule that a schema column without just one own column breaks, or ""."""
    if own_columns == 1:
        return ""
    if own_columns > 1:
        return REPEATED
    if name in (schema.target, schema.group):
        return ABSENT if outcome else ""
    if name in mapping:
        return "" if mapping[name] is None else ABSENT
    return MAY_BE_ABSENT if name in schema.features() else ""


def empty_cells(column: Column, rows: int) -> np.ndarray:
    """Return a column of missing cells, in its own type [rows]."""
    if column.kind == "date":
        return np.full(rows, np.datetime64("NaT"), dtype="datetime64[ns]")
    if column.kind == "flag" or column.is_number():
        return np.full(rows, np.nan)
    return np.full(rows, None, dtype=object)


Read = tuple[np.ndarray, list[Finding]]
"""A column in the schema's type [rows], and its findings."""


def read_column(cells: pd.Series, name: str, column: Column, field: Field) -> Read:
    """Read one column, each value once.

    Cells that break a rule become missing and are reported, by the column's `name` in the schema.
    """
    import pandas as pd

    codes = {_plain_cell(code) for code in (*field.missing, *column.missing)}
    # Dates of a database or of Parquet need no reading.
    if column.kind == "date" and cells.dtype == np.dtype("datetime64[ns]") and not codes:
        return cells.to_numpy(copy=True), []
    if column.kind == "date" and isinstance(cells.dtype, np.dtype | pd.DatetimeTZDtype) and cells.dtype.kind == "M":
        field = replace(field, date="")  # no text to be read
    if (plain := _read_plain(texts_of(cells), name, column, field, codes)) is not None:
        return plain
    place, values = _once(cells)
    # Missing cells get a value of their own at the end, to be read like all others.
    if (place < 0).any():
        place = np.where(place < 0, len(values), place)
        values = [*values, None]
    texts = _plain_texts(values, codes, cells.dtype, column, field)
    _replace_codes(texts, column, field)
    read = _read_texts(texts, place, column, field)
    rows = [(rule, np.flatnonzero(bad[place])) for rule, bad in texts.broken]
    return read[place], [Finding(name, rule, where, _why_unfit(column, field)) for rule, where in rows if len(where)]


def _why_unfit(column: Column, field: Field) -> str:
    """Return that a mapping's entry does not fit the schema's kind, or ""."""
    import pandas as pd

    values = [*map(_plain_cell, (field.values or {}).values())]
    converts = (field.multiply, field.add) != (1.0, 0.0)
    broken = values and read_column(pd.Series(values, dtype=object), "", column, Field(""))[1]
    if broken or (converts and not column.is_number()):
        return render("rows.field.unfit", kind=column.kind)
    return ""


def _read_plain(cells: Any, name: str, column: Column, field: Field, codes: set[str | None]) -> Read | None:
    """Read a column of plain numbers or identifiers at once; None for others.

    The result is that of reading each text.

    Parameters
    ----------
    cells : ChunkedArray or None
        From `texts_of`.
    name, column, field
    codes : set of str or None
        Texts for "not known".
    """
    if cells is None or field.values is not None or field.other is not None:
        return None
    words = [code for code in codes if code is not None]
    if column.kind == "id" and not column.values:
        return _read_identifiers(cells, words)
    if not column.is_number():
        return None
    numbers = _read_decimals(cells, field, words)
    return None if numbers is None else _read_numbers(numbers, name, column, field)


def _read_identifiers(cells: Any, words: Sequence[str]) -> Read | None:
    place, distinct = coded_texts(cells)
    if (place < 0).any() or not are_plain_identifiers(distinct, words):
        return None
    return np.array(distinct.to_pylist(), dtype=object)[place], []


def _read_decimals(cells: Any, field: Field, words: Sequence[str]) -> np.ndarray | None:
    """Read plain numbers whose marks stand before decimals, and not between thousands."""
    if field.thousands or field.decimal not in (".", ","):
        return None
    numbers = read_plain_numbers(cells, words, field.decimal)
    if numbers is None or field.thousands is not None:
        return numbers
    before_decimals = has_marks_of_decimals(cells, field.decimal, lambda text: _plain_cell(text) in words)
    return numbers if before_decimals else None


def _read_texts(texts: Texts, place: np.ndarray, column: Column, field: Field) -> np.ndarray:
    """Return texts in the type of the column's kind; `place` has the text of each row."""
    if column.kind == "date":
        rows = np.bincount(place, minlength=len(texts.cells))
        dates, bad, rule = read_dates(texts.cells, field.date, rows)
        texts.remove(bad, rule)
        return np.where(bad, np.datetime64("NaT"), dates)
    if column.is_number():
        return _number(texts, column, field)
    if column.kind == "flag":
        return _flag(texts)
    if column.kind == "id":
        for rule, broken in spoiled(texts.cells):
            texts.remove(broken, rule)
    if column.values:
        rule = "has a value that the schema does not allow"
        texts.refuse(lambda text: text not in column.values, rule)
    return np.array(texts.cells, dtype=object)


def _plain_texts(values: Sequence[Any], codes: set[str | None], dtype: Any, column: Column, field: Field) -> Texts:
    """Return values as texts, without codes for "not known" and without marks that are no value."""
    texts = Texts(list(map(_plain_cell, values)))
    texts.change(lambda text: None if text in codes else text)
    for mark, rule in VALUELESS.items():
        texts.refuse(mark.__eq__, rule)
    if column.kind == "id" or column.values:
        # Two people, or two codes, may have become one.
        largest = EXACT_SINGLE if dtype.kind == "f" and getattr(dtype, "itemsize", 8) < 8 else EXACT
        long = [isinstance(value, float) and largest <= abs(value) < np.inf for value in values]
        texts.remove(np.array(long, dtype=bool) & ~texts.missing(), ROUNDED)
    # Only numbers written as text have marks of decimals and thousands.
    if column.range is not None and field.values is None and dtype.kind != "f":
        # In a range of 0 to 1, numbers may be true and false.
        if column.range[1] > 1:
            texts.remove([isinstance(value, (bool, np.bool_)) for value in values], NOT_NUMBERS)
        read_marks(values, texts, column, field)
    return texts


def _replace_codes(texts: Texts, column: Column, field: Field) -> None:
    """Replace an institution's own codes by the schema's values."""
    # A code that is not in the mapping is reported, and never passed on unchanged.
    if field.values is not None:
        mapping = {
            _plain_cell(key): value if isinstance(value, str) else _plain_cell(value)
            for key, value in field.values.items()
        }
        if field.other is None:
            rule = "has a code that the mapping does not know"
            texts.refuse(lambda text: text not in mapping, rule)
        texts.change(lambda text: mapping.get(text, text))
    if field.other is not None:
        allowed = {value: value for value in column.values}
        texts.change(lambda text: allowed.get(text, field.other))


def _number(texts: Texts, column: Column, field: Field) -> np.ndarray:
    if field.decimal != ".":
        texts.change(lambda text: text.replace(field.decimal, "."))
    # A number follows a limit; "<NA>" is a program's word.
    texts.refuse(_IN_BRACKETS.fullmatch, NO_IDENTIFIER)
    if field.censored == "limit":
        texts.change(lambda text: _CENSORED.sub("", text))
    else:
        rule = "has limits such as '<' or '>' (set censored)"
        texts.refuse(lambda text: text.startswith(("<", ">")), rule)
    numbers = _to_numbers(texts.cells)
    texts.remove(np.isnan(numbers) & ~texts.missing(), NOT_NUMBER)
    # By value as well as by text: "-9,00" is the code "-9".
    return _within_range(numbers, column, field, texts.broken)


def _within_range(numbers: np.ndarray, column: Column, field: Field, broken: Broken) -> np.ndarray:
    """Convert numbers [n] to the unit and check the range; NaN for codes and outside, which is noted."""
    # Codes count in the source's own unit, before any conversion.
    if field.missing or column.missing:
        hidden = _to_numbers([*field.missing, *column.missing])
        numbers = np.where(np.isin(numbers, hidden[~np.isnan(hidden)]), np.nan, numbers)
    # A division by zero: nobody knows the number, and `oddities` counts it.
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    if (field.multiply, field.add) != (1.0, 0.0):
        numbers = numbers * field.multiply + field.add
    low, high = column.range or (-np.inf, np.inf)
    # A tolerance of a billionth of the range: a unit conversion may end just outside.
    slack = 1e-9 * (high - low)
    outside = (numbers < low - slack) | (numbers > high + slack)
    if outside.any():
        broken.append((f"{OUTSIDE} {low:.12g} to {high:.12g} {column.unit}".rstrip(), outside))
        numbers = np.where(outside, np.nan, numbers)
    return np.asarray(np.clip(numbers, low, high))


def _to_numbers(texts: Sequence[object]) -> np.ndarray:
    """Parse texts as numbers [texts], NaN where pandas cannot."""
    import pandas as pd

    return np.asarray(pd.to_numeric(np.array(texts, dtype=object), errors="coerce"), dtype=float)


def _numbers_at_once(raw: pd.DataFrame, schema: Schema, fields: Mapping[str, Field]) -> dict[str, Read]:
    """Read columns that are numbers already, with the result of reading their texts."""
    kinds = dict(zip(raw.columns, raw.dtypes, strict=True))
    plain = [
        name
        for name, field in fields.items()
        if schema.columns[name].is_number() and field.values is None and field.decimal in (".", ",")
        and kinds[field.column] == np.float64
    ]  # fmt: skip
    readings = {}
    # As many columns at a time as fit into one piece of memory.
    at_once = max(1, CELLS_AT_ONCE // max(1, len(raw)))
    for start in range(0, len(plain), at_once):
        some = plain[start : start + at_once]
        cells = raw[[fields[name].column for name in some]].to_numpy(dtype=np.float64)
        for name, numbers in zip(some, _as_read_from_text(np.ascontiguousarray(cells.T)), strict=True):
            readings[name] = _read_numbers(numbers, name, schema.columns[name], fields[name])
    return readings


def _read_numbers(numbers: np.ndarray, name: str, column: Column, field: Field) -> Read:
    """Return a column of numbers in the schema's unit and range."""
    broken: Broken = []
    inside = _within_range(numbers, column, field, broken)
    return inside, [Finding(name, rule, np.flatnonzero(bad)) for rule, bad in broken]


def _as_read_from_text(numbers: np.ndarray) -> np.ndarray:
    """Return floats as read from their shortest decimal, in the same shape.

    The number is the same from CSV, Parquet and SQL. Reading is exact for decimals of up to 15 digits, 9 of them after
    the point, and may be off in the last bits for longer ones. Keys of rows depend on its result.
    """
    import pandas as pd

    flat = numbers.ravel()
    # Pieces fit into a processor's cache.
    starts = range(0, len(flat), PIECE)
    long = np.concatenate([np.arange(0), *(start + _long_numbers(flat[start : start + PIECE]) for start in starts)])
    if not len(long):
        return numbers
    place, bits = pd.factorize(flat[long].view(np.int64))
    values = bits.view(np.float64)
    # Whole numbers lose their "0.0" first, as in every source.
    read_as = _plain_cell if (values == np.rint(values)).any() else repr
    texts = list(map(read_as, values.tolist()))
    read = numbers.copy()
    read.ravel()[long] = _to_numbers(texts)[place]
    return read


def _long_numbers(numbers: np.ndarray) -> np.ndarray:
    """Return the places of numbers with more digits than are read exactly."""
    scaled = np.rint(numbers * 1e9)
    # An integer below 1e15 over a power of ten is rounded once, like text of as few digits.
    short = (np.abs(scaled) < 1e15) & (scaled / 1e9 == numbers)
    return np.flatnonzero(~short & np.isfinite(numbers))


def _flag(texts: Texts) -> np.ndarray:
    codebook = {**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}
    flags = np.array([codebook.get((text or "").lower(), np.nan) for text in texts.cells], dtype=float)
    texts.remove(np.isnan(flags) & ~texts.missing(), "is not a flag (0 or 1, yes or no)")
    return flags


def _without_value(schema: Schema, columns: Mapping[str, np.ndarray], findings: Sequence[Finding]) -> list[Finding]:
    """Report rows without an outcome or group that no finding has reported already."""
    import pandas as pd

    rules = {}
    if schema.unlabelled == "refuse":
        rules[schema.target] = NO_OUTCOME
    if schema.group:
        rules[schema.group] = NO_GROUP
    gaps = []
    for name, rule in rules.items():
        if name in columns:
            reported_rows = [np.arange(0), *(finding.rows for finding in findings if finding.column == name)]
            missing = np.setdiff1d(np.flatnonzero(pd.isna(columns[name])), np.concatenate(reported_rows))
            if len(missing):
                gaps.append(Finding(name, rule, missing))
    return gaps
