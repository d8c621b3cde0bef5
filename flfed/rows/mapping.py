"""How an institution's columns become a schema's: rename, value map, units, decimals, limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from flfed.errors import TableError, UsageError
from flfed.rows.schema import Column, Schema

_TRAILING_ZEROS = re.compile(r"(-?\d+)\.0+")
_CENSORED = re.compile(r"\s*([<>])=?\s*")
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


@dataclass(frozen=True)
class Field:
    """Where one schema column comes from and how its cells are read.

    Parameters
    ----------
    column : str
        Name in the institution's own table.
    values : mapping of text to text, optional
        Own code to schema value, such as `{"1": "male", "0": "female"}`. Keys are compared after
        blanks are stripped and a trailing ".0" is removed. A code that is not a key is an error.
    multiply, add : float
        Unit conversion: `value * multiply + add`, such as 38.67 for cholesterol from mmol/L.
    decimal : str
        Decimal mark of numbers written as text; "," reads "6,2" as 6.2, and reports "1.234".
    censored : {"refuse", "limit"}
        `limit` reads "<0.5" as 0.5 and "> 89" as 89; `refuse` reports them.
    missing : tuple of str
        Own codes for "not known", besides the schema's.
    """

    column: str
    values: Mapping[str, str] | None = None
    multiply: float = 1.0
    add: float = 0.0
    decimal: str = "."
    censored: Literal["refuse", "limit"] = "refuse"
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings that would spoil a column without a word."""
        for key, value in (("multiply", self.multiply), ("add", self.add)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UsageError(f"Field({self.column!r}): {key}={value!r} must be a finite number")
        if self.multiply == 0:
            raise UsageError(f"Field({self.column!r}): multiply=0 would make every cell the same")
        if self.values is not None and not isinstance(self.values, Mapping):
            raise UsageError(f"Field({self.column!r}): values must map own codes to the schema's values")
        check_codes(f"Field({self.column!r})", self.missing)


def check_codes(where: str, missing: object) -> None:
    """Refuse one text where a tuple of codes is meant: "NA" would be read as "N" and "A"."""
    if isinstance(missing, str) or not isinstance(missing, (tuple, list)):
        raise UsageError(f"{where}: missing={missing!r} must be a tuple of codes, such as ('NA',)")


@dataclass(frozen=True)
class Finding:
    """One rule that a column breaks, and where. `rows` never leaves the site.

    Attributes
    ----------
    column : str
    rule : str
        A fixed phrase, as `TableError` takes it.
    rows : int array
        Row numbers in the source, from 0.
    """

    column: str
    rule: str
    rows: np.ndarray

    def error(self) -> TableError:
        """Return the error that names column, rule and count."""
        return TableError(self.column, self.rule, len(self.rows) or None)


def plain_text(cells: pd.Series) -> pd.Series:
    """Return cells as stripped text, None where empty; whole numbers without a trailing ".0".

    The same cell read from CSV, Parquet or SQL gives the same text.
    """
    if cells.dtype.kind == "f" and getattr(cells.dtype, "itemsize", 8) < 8:
        # As the shortest decimal that gives the float32: 0.1, not 0.10000000149011612.
        single = cells.to_numpy(dtype=np.float32, na_value=np.nan)
        cells = pd.Series([None if np.isnan(value) else str(value) for value in single], dtype=object)
    if isinstance(cells.dtype, np.dtype) and cells.dtype == np.float64:
        # Once for each pattern of bits, which tells -0.0 from 0.0.
        place, bits = pd.factorize(cells.to_numpy().view(np.int64))
        texts = np.array([*map(_plain_cell, bits.view(np.float64)), None], dtype=object)
        return pd.Series(texts[place], index=cells.index, name=cells.name)
    if pd.api.types.infer_dtype(cells, skipna=True) not in ("string", "integer", "boolean"):
        return cells.map(_plain_cell).astype(object)
    # Once for each value. Of other kinds, unlike texts may count as one value: -0.0 and 0.0.
    place, values = pd.factorize(cells)
    texts = np.array([*map(_plain_cell, values), None], dtype=object)
    return pd.Series(texts[place], index=cells.index, name=cells.name)


def _plain_cell(cell: Any) -> str | None:
    if cell is None or cell is pd.NaT or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return None
    if isinstance(cell, (bool, np.bool_)):
        return "1" if cell else "0"
    if isinstance(cell, (float, np.floating)):
        cell = repr(float(cell))
    text = str(cell).strip()
    whole = _TRAILING_ZEROS.fullmatch(text)
    return (whole.group(1) if whole else text) or None


def map_table(
    raw: pd.DataFrame,
    schema: Schema,
    mapping: Mapping[str, str | Field | None],
    missing: tuple[str, ...] = (),
    *,
    outcome: bool = True,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the table in the schema's columns, and every rule that it breaks.

    Parameters
    ----------
    raw : DataFrame
        As the source gives it.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
        A schema column that is not a key is read under its own name. None says that the site does
        not have it: all its cells are missing. A feature that is neither there nor None is
        reported, because a misspelt name would look the same.
    missing : tuple of str
        The source's own codes for "not known".
    outcome : bool
        Whether target and group must be there and the target known; False for rows to predict.

    Returns
    -------
    table : DataFrame, one column per schema column, index 0..n-1
        Numbers and flags are float64 with NaN where missing; categories, ids and the classes of
        a target are text or None; dates are datetime64.
    findings : list of Finding
        Empty for a table that keeps every rule. A cell that breaks one is missing in `table`.
    """
    columns = {}
    unknown = [name for name in mapping if name not in schema.columns]
    findings = [Finding(name, "is mapped but the schema has no such column", np.arange(0)) for name in unknown]
    for name, column in schema.columns.items():
        given = mapping.get(name, name)
        field = Field(given) if isinstance(given, str) else given
        found = int((raw.columns == field.column).sum()) if field is not None else 0
        if field is None or found != 1:
            rule = _why_not(name, schema, mapping, found, outcome)
            findings += [Finding(name, rule, np.arange(0))] if rule else []
            columns[name] = _empty(column, len(raw))
            continue
        columns[name], broken = _read_column(raw[field.column], name, column, field, missing)
        findings += broken
    if outcome:
        findings += _check_target(schema, columns[schema.target])
    return pd.DataFrame(columns), findings


def _why_not(
    name: str, schema: Schema, mapping: Mapping[str, str | Field | None], found: int, outcome: bool = True
) -> str:
    """Return the rule that a schema column without one own column breaks, or an empty text."""
    if found > 1:
        return "stands in the table more than once"
    if name in (schema.target, schema.group):
        return "is not in the table" if outcome else ""
    if name in mapping:
        return "" if mapping[name] is None else "is not in the table"
    return "is not in the table (map it to None if the site does not have it)" if name in schema.features() else ""


def _empty(column: Column, rows: int) -> pd.Series:
    if column.kind == "date":
        return pd.Series(pd.NaT, index=range(rows), dtype="datetime64[ns]")
    if column.kind == "flag" or column.is_number():
        return pd.Series(np.nan, index=range(rows))
    return pd.Series([None] * rows, dtype=object)


def _read_column(
    cells: pd.Series, name: str, column: Column, field: Field, missing: tuple[str, ...]
) -> tuple[pd.Series, list[Finding]]:
    """Read one column; cells that break a rule become missing and are reported."""
    cells = cells.reset_index(drop=True)
    text = plain_text(cells)
    field = replace(field, missing=(*missing, *field.missing))
    codes = {_plain_cell(code) for code in (*field.missing, *column.missing)}
    text = text.where(~text.isin(codes), None)
    findings = []
    if column.is_number() and field.decimal != "." and field.values is None:
        # "1.234" may be 1234: a person has to say so.
        grouped = text.notna() & cells.map(lambda cell: isinstance(cell, str) and "." in cell).astype(bool)
        findings += _broken(name, f"has a '.' although its decimal mark is {field.decimal!r}", grouped)
        text = text.where(~grouped, None)
    if field.values is not None:
        known = {_plain_cell(key): value for key, value in field.values.items()}
        unknown = text.notna() & ~text.isin(known)
        findings += _broken(name, "has a code that the mapping does not know", unknown)
        text = text.map(known).astype(object)
        text = text.where(text.notna(), None)
    reader = _number if column.is_number() else {"flag": _flag, "date": _date}.get(column.kind, _text)
    values, found = reader(text, name, column, field)
    return values, findings + found


def _broken(name: str, rule: str, bad: pd.Series) -> list[Finding]:
    return [Finding(name, rule, np.flatnonzero(bad))] if bad.any() else []


def _number(text: pd.Series, name: str, column: Column, field: Field) -> tuple[pd.Series, list[Finding]]:
    findings = []
    if field.decimal != ".":
        text = text.str.replace(field.decimal, ".", regex=False)
    limits = text.str.match(_CENSORED, na=False).astype(bool)
    if field.censored == "limit":
        text = text.str.replace(_CENSORED, "", regex=True)
    else:
        findings += _broken(name, "has limits such as '<' or '>' (set censored)", limits)
        text = text.where(~limits, None)
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    findings += _broken(name, "is not a number", text.notna() & numbers.isna())
    # By value as well as by text: "-9,00" is the code "-9".
    hidden = pd.to_numeric(pd.Series([*field.missing, *column.missing], dtype=object), errors="coerce").dropna()
    numbers = numbers.mask(numbers.isin(hidden.astype(float)))
    if (field.multiply, field.add) != (1.0, 0.0):
        numbers = numbers * field.multiply + field.add
    low, high = column.range or (-np.inf, np.inf)
    # A tolerance of a billionth of the range: a unit conversion may end a hair outside.
    slack = 1e-9 * (high - low)
    outside = numbers.notna() & ~numbers.between(low - slack, high + slack)
    findings += _broken(name, f"is outside the schema's range {low:g} to {high:g} {column.unit}".rstrip(), outside)
    return numbers.mask(outside).clip(low, high), findings


def _flag(text: pd.Series, name: str, column: Column, field: Field) -> tuple[pd.Series, list[Finding]]:
    lower = text.str.lower()
    flags = lower.map({**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}).astype(float)
    return flags, _broken(name, "is not a flag (0 or 1, yes or no)", text.notna() & flags.isna())


def _text(text: pd.Series, name: str, column: Column, field: Field) -> tuple[pd.Series, list[Finding]]:
    if not column.values:
        return text, []
    unknown = text.notna() & ~text.isin(column.values)
    return text.where(~unknown, None), _broken(name, "has a value that the schema does not allow", unknown)


def _date(text: pd.Series, name: str, column: Column, field: Field) -> tuple[pd.Series, list[Finding]]:
    # In UTC where the cell names a time zone.
    dates = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    dates = dates.dt.tz_localize(None).astype("datetime64[ns]")
    return dates, _broken(name, "is not a date such as 2026-01-31", text.notna() & dates.isna())


def _check_target(schema: Schema, target: pd.Series) -> list[Finding]:
    if schema.unlabelled == "leave-out":
        return []
    return _broken(schema.target, "has no value (rows without an outcome cannot be used)", target.isna())
