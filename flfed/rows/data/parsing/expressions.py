"""Expressions over a table's own columns: which rows are read, and derived columns.

They are comparisons, arithmetic and parts of dates, and can do nothing else: no attribute, no other function, no code.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from flfed.errors import UsageError, count_in_words, nearest
from flfed.rows.data.parsing.cells import wall_clock

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_PARTS = ("year", "month", "day", "hour", "weekday")
"""Parts of a date; `weekday` is 0 on a Monday."""
FUNCTIONS = (*_PARTS, "days", "log", "sqrt", "abs", "missing", "column")
"""What may be called: `days(later, earlier)`, and `column("a name with blanks")`."""
NUMBERS, DATES = "is not a number in {} rows", "is not a date in {} rows"
SECONDS = 86_400
"""Of a day."""
LONGEST = 1000
"""Characters of an expression at most."""


@dataclass(frozen=True)
class Cells:
    """Cells of one column as the source gives them, with its name."""

    name: str
    cells: pd.Series


def rows_where(table: pd.DataFrame, expression: str) -> pd.DataFrame:
    """Return the rows of a table for which an expression holds.

    A comparison with a missing cell does not hold.

    Parameters
    ----------
    table : DataFrame
        In the source's own columns.
    expression : str
        Such as `hospital == "north" and age >= 18`, or `year(admitted) in (2024, 2025)`.

    Raises
    ------
    UsageError
        If it is no such expression, or names a column that is not there; no cell is quoted.

    Examples
    --------
    >>> table = pd.DataFrame({"age": ["17", "44", ""], "ward": ["A", "B", "B"]})
    >>> len(rows_where(table, "age >= 18")), len(rows_where(table, "ward == 'B' and not missing(age)"))
    (1, 1)
    """
    found = _evaluated(table, expression, "where")
    if not isinstance(found, np.ndarray) or found.dtype != bool:
        raise UsageError(f"where={expression!r} must be a comparison, such as age >= 18")
    return table[found].reset_index(drop=True)


def derived_columns(table: pd.DataFrame, expressions: Mapping[str, str]) -> pd.DataFrame:
    """Return a table with further columns, computed from its own.

    Parameters
    ----------
    table : DataFrame
    expressions : mapping of a new column to its expression
        Such as `{"bmi": "weight / (height / 100) ** 2", "stay": "days(discharged, admitted)"}`. A later one may use
        an earlier one. A comparison gives 1 or 0; what has a missing cell in it is missing.

    Raises
    ------
    UsageError
        If one is no such expression, or its column is in the table already.
    """
    for name, expression in expressions.items():
        where = f"derive[{name!r}]"
        if name in table.columns:
            raise UsageError(f"{where}: the table has a column {name!r} already")
        found = _evaluated(table, expression, where)
        if isinstance(found, np.ndarray) and found.dtype == bool:
            known = [_known(_column(one, table, where)) for one in columns_of(expression, where)]
            found = np.where(np.logical_and.reduce(known), found.astype(float), np.nan)
        cells = found.cells if isinstance(found, Cells) else pd.Series(found, index=table.index)
        table = table.assign(**{name: cells})
    return table


def columns_of(expression: str, where: str = "expression") -> list[str]:
    """Return the columns that an expression reads, but to ask whether they are missing."""
    return list(dict.fromkeys(_read_by(_parsed(expression, where))))


def _read_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "column":
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))
        elif node.func.id != "missing":
            yield from chain.from_iterable(map(_read_by, node.args))
    else:
        yield from chain.from_iterable(map(_read_by, ast.iter_child_nodes(node)))


def check_expression(expression: str, where: str) -> None:
    """Refuse a text that is no expression, before any table is read."""
    _parsed(expression, where)


@cache
def _parsed(expression: str, where: str) -> ast.expr:
    """Return the tree of an expression, all of whose parts are known."""
    try:
        if len(expression) > LONGEST:
            raise ValueError
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UsageError(f"{where}={expression[:80]!r} is no expression such as age >= 18 and sex == 'F'") from None
    for part in ast.walk(tree):
        if not isinstance(part, _KNOWN) or (isinstance(part, ast.Constant) and not _is_plain(part.value)):
            raise UsageError(
                f"{where}={expression!r}: {type(part).__name__.lower()} is not allowed; allowed are comparisons, "
                f"arithmetic, and, or, not, in, and the functions {', '.join(FUNCTIONS)}"
            )
        if isinstance(part, ast.Call):
            _check_call(part, where)
    called = [one.func.id for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)]
    if "column" not in called and sum(isinstance(one, ast.Name) for one in ast.walk(tree)) == len(called):
        raise UsageError(f"{where}={expression!r} names no column")
    return tree


_KNOWN = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, *_ARITHMETIC, ast.Compare, *_ORDER),
    *(ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.List, ast.Call),
)


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _check_call(node: ast.Call, where: str) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in FUNCTIONS:
        raise UsageError(f"{where}: the function {name!r} is not known{nearest(name, FUNCTIONS)}")
    wanted = 2 if name == "days" else 1
    if len(node.args) != wanted or node.keywords:
        raise UsageError(f"{where}: {name}(...) takes {'two columns' if wanted > 1 else 'one value'}")


def _evaluated(table: pd.DataFrame, expression: str, where: str) -> Any:
    with np.errstate(all="ignore"):
        return _value(_parsed(expression, where), table, where)


def _value(node: ast.expr, table: pd.DataFrame, where: str) -> Any:
    """Return what a part of an expression gives.

    Cells of a column, an array of numbers or of bools [rows], or a constant.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return _column(node.id, table, where)
        case ast.Tuple() | ast.List():
            return [_value(part, table, where) for part in node.elts]
        case ast.BoolOp():
            parts = [_truth(_value(part, table, where), where) for part in node.values]
            return np.logical_and.reduce(parts) if isinstance(node.op, ast.And) else np.logical_or.reduce(parts)
        case ast.UnaryOp(op=ast.Not()):
            return ~_truth(_value(node.operand, table, where), where)
        case ast.UnaryOp():
            return -_numbers(_value(node.operand, table, where), where)
        case ast.BinOp():
            sides = [_numbers(_value(part, table, where), where) for part in (node.left, node.right)]
            return _finite(_ARITHMETIC[type(node.op)](*sides))
        case ast.Compare():
            return _compared(node, table, where)
        case ast.Call():
            return _called(node, table, where)
    raise UsageError(f"{where}: {type(node).__name__.lower()} is not allowed")


def _column(name: str, table: pd.DataFrame, where: str) -> Cells:
    if (table.columns == name).sum() != 1:
        raise UsageError(
            f"{where}: the table has no column {name!r}{nearest(name, [str(own) for own in table.columns])}"
        )
    return Cells(name, table[name])


def _truth(value: Any, where: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != bool:
        raise UsageError(f"{where}: and, or and not join comparisons, such as age >= 18")
    return value


def _finite(value: Any) -> Any:
    """Return numbers, missing where they are not finite."""
    return np.where(np.isfinite(value), value, np.nan) if isinstance(value, np.ndarray) else value


def _texts(cells: pd.Series) -> pd.Series:
    """Return cells as the texts that a mapping compares."""
    from flfed.rows.data.mapping import plain_text

    return plain_text(cells)


def _numbers(value: Any, where: str) -> Any:
    """Return cells as numbers [rows], NaN where missing; a number as it is."""
    if isinstance(value, Cells):
        texts = _texts(value.cells)
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float)
        _refuse(value, np.isnan(numbers) & texts.notna().to_numpy(), NUMBERS, where)
        return numbers
    if isinstance(value, np.ndarray) and value.dtype != bool:
        return value
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    raise UsageError(f"{where}: arithmetic and order need numbers")


def _dates(value: Any, where: str) -> pd.Series:
    if not isinstance(value, Cells):
        raise UsageError(f"{where}: a part of a date needs a column of dates")
    cells = value.cells if value.cells.dtype.kind == "M" else _texts(value.cells)
    dates = wall_clock(cells)
    _refuse(value, dates.isna().to_numpy() & cells.notna().to_numpy(), DATES, where)
    return dates


def _refuse(value: Cells, bad: np.ndarray, rule: str, where: str) -> None:
    if bad.any():
        raise UsageError(f"{where}: column {value.name!r} {rule.format(count_in_words(int(bad.sum())))}")


def _compared(node: ast.Compare, table: pd.DataFrame, where: str) -> np.ndarray:
    """Return where a chain of comparisons holds [rows]."""
    sides = [_value(part, table, where) for part in (node.left, *node.comparators)]
    parts = [
        _holds(type(op), left, right, where) for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)
    ]
    return np.asarray(np.logical_and.reduce([np.broadcast_to(part, len(table)) for part in parts]))


def _holds(op: type[ast.cmpop], left: Any, right: Any, where: str) -> Any:
    if op in (ast.In, ast.NotIn):
        if not isinstance(right, list) or not right:
            raise UsageError(f"{where}: in needs a list of values, such as ('A', 'B')")
        inside = np.logical_or.reduce([_equal(left, one, where) for one in right])
        return inside if op is ast.In else ~inside & _known(left)
    if op in (ast.Eq, ast.NotEq):
        return (
            _equal(left, right, where) if op is ast.Eq else ~_equal(left, right, where) & _known(left) & _known(right)
        )
    dates = [isinstance(side, str) for side in (left, right)]
    if any(dates):
        # A text beside an order is a date: admitted >= "2024-01-31".
        times = [
            _moment(side, where).to_datetime64() if text else _dates(side, where).to_numpy()
            for side, text in zip((left, right), dates, strict=True)
        ]
        return _ORDER[op](*times)
    return _ORDER[op](_numbers(left, where), _numbers(right, where))


def _moment(text: str, where: str) -> pd.Timestamp:
    found = wall_clock(pd.Series([text], dtype=object))
    if found.isna().any():
        raise UsageError(f"{where}: {text!r} is no date such as 2026-01-31")
    return pd.Timestamp(found.iloc[0])


def _known(value: Any) -> Any:
    if isinstance(value, Cells):
        return _texts(value.cells).notna().to_numpy()
    return ~np.isnan(value) if isinstance(value, np.ndarray) and value.dtype != bool else True


def _equal(left: Any, right: Any, where: str) -> np.ndarray:
    """Return where two sides are equal: as texts beside a text, else as numbers."""
    if isinstance(right, Cells) and not isinstance(left, Cells):
        left, right = right, left
    if isinstance(left, Cells) and isinstance(right, (str, Cells)):
        texts = _texts(left.cells)
        other = _texts(right.cells) if isinstance(right, Cells) else right.strip()
        return (texts == other).to_numpy(dtype=bool) & texts.notna().to_numpy()
    return np.asarray(_numbers(left, where) == _numbers(right, where))


def _called(node: ast.Call, table: pd.DataFrame, where: str) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    values = [_value(part, table, where) for part in node.args]
    if name == "column":
        if not isinstance(values[0], str):
            raise UsageError(f"{where}: column(...) takes a name in quotation marks")
        return _column(values[0], table, where)
    if name == "missing":
        if not isinstance(values[0], Cells):
            raise UsageError(f"{where}: missing(...) takes a column")
        return ~_known(values[0])
    if name in _PARTS:
        return getattr(_dates(values[0], where).dt, name).to_numpy(dtype=float)
    if name == "days":
        later, earlier = (_dates(value, where) for value in values)
        return (later - earlier).dt.total_seconds().to_numpy(dtype=float) / SECONDS
    numbers = _numbers(values[0], where)
    return _finite({"log": np.log, "sqrt": np.sqrt, "abs": np.abs}[name](numbers))
