"""Expressions over a table's own columns: conditions for rows, and derived columns.

They consist of comparisons, arithmetic and parts of dates alone: no attribute, no other function, no code.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, reduce
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from flfed.errors import TableError, UsageError, nearest
from flfed.parsers import foreign_parser
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.cells import wall_clock
from flfed.rows.data.parsing.fields import NOT_NUMBER
from flfed.words import render, usage_error

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
"""Functions that may be called, such as `days(later, earlier)` and `column("a name with blanks")`."""
Codes = Mapping[str, Sequence[object]]
"""Codes for "not known" by column."""
NO_CODES: Codes = MappingProxyType({})
LONGEST = 1000
DEEPEST = 200
"""Largest number of characters of an expression, and of levels of its tree."""
SHOWN = 80
"""Characters of an expression that a refusal quotes."""


@dataclass(frozen=True)
class SourceColumn:
    """One column of a source, with codes for "not known" as missing."""

    name: str
    cells: pd.Series

    @cached_property
    def texts(self) -> pd.Series:
        """The cells as the texts that a mapping compares, None where missing."""
        return plain_text(self.cells)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The cells as numbers [rows], NaN where they are none."""
        return pd.to_numeric(self.texts, errors="coerce").to_numpy(dtype=float)


@dataclass(frozen=True)
class Scope:
    """Table and codes of an expression.

    Attributes
    ----------
    table : DataFrame
    missing : sequence of str
        The source's codes for "not known".
    computed : collection of str
        Derived columns, which have no codes.
    codes : mapping of column to sequence of str
        Further codes by column.
    """

    table: pd.DataFrame
    missing: Sequence[str]
    computed: Collection[str] = ()
    codes: Codes = field(default_factory=dict)

    def column(self, name: str) -> SourceColumn:
        """Return a column without codes."""
        if (self.table.columns == name).sum() != 1:
            hint = nearest(name[:SHOWN], [str(own) for own in self.table.columns])
            raise usage_error("rows.expression.column", name=_shown(name), hint=hint)
        cells = self.table[name]
        markers = [*self.missing, *self.codes.get(name, ())]
        if markers and name not in self.computed:
            codes = plain_text(pd.Series(markers, dtype=object)).dropna()
            hidden = plain_text(cells).isin(codes)
            if hidden.any():
                # As objects, since whole numbers beside a missing cell would become floats.
                if cells.dtype.kind != "M":
                    cells = cells.astype(object)
                cells = cells.where(~hidden)
        return SourceColumn(name, cells)


@contextmanager
def at_place(where: str) -> Iterator[None]:
    """Put the place of an expression before a refusal."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def rows_where(
    table: pd.DataFrame,
    expression: str,
    missing: Sequence[str] = (),
    computed: Collection[str] = (),
    codes: Codes = NO_CODES,
) -> pd.DataFrame:
    """Return the rows of a table for which an expression holds.

    A comparison with a missing cell does not hold, nor one with an undefined result such as `1 / 0`.

    Parameters
    ----------
    table : DataFrame
        In the source's own columns.
    expression : str
        Such as `hospital == "north" and age >= 18`, or `year(admitted) in (2024, 2025)`.
    missing : sequence of str
        The source's codes for "not known".
    computed : collection of str
        Derived columns, which have no codes.
    codes : mapping of column to sequence, optional
        Further codes for "not known" by column.

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
    tree = parse_expression(expression, "where")
    matches = _evaluated(tree, Scope(table, missing, computed, codes), "where")
    if not isinstance(matches, np.ndarray) or matches.dtype != bool:
        raise usage_error("rows.expression.comparison", expression=_shown(expression))
    return table[matches].reset_index(drop=True)


def derived_columns(
    table: pd.DataFrame,
    expressions: Mapping[str, str],
    missing: Sequence[str] = (),
    codes: Codes = NO_CODES,
) -> pd.DataFrame:
    """Return a table with further columns, computed from its own.

    Parameters
    ----------
    table : DataFrame
    expressions : mapping of a new column to its expression
        Such as `{"bmi": "weight / (height / 100) ** 2", "stay": "days(discharged, admitted)"}`. A later one may use
        an earlier one. A comparison gives 1 or 0. The value is missing where one of its cells is, or where
        arithmetic is undefined.
    missing : sequence of str
        The source's codes for "not known".
    codes : mapping of column to sequence, optional
        Further codes by column.

    Raises
    ------
    UsageError
        If one is no such expression, or its column is in the table already.
    """
    own = set(table.columns)
    for name, expression in expressions.items():
        where = f"derive[{name!r}]"
        if name in table.columns:
            raise usage_error("rows.expression.taken", where=where, name=name)
        tree = parse_expression(expression, where)
        scope = Scope(table, missing, expressions.keys() - own, codes)
        cells = _evaluated(tree, scope, where)
        if isinstance(cells, np.ndarray) and cells.dtype == bool:
            comparable: Any = True
            for node in ast.walk(tree):
                if isinstance(node, ast.Compare):
                    for side in (node.left, *node.comparators):
                        comparable = comparable & _has_value(_evaluated(side, scope, where))
            cells = np.where(comparable, cells.astype(float), np.nan)
        if not isinstance(cells, (SourceColumn, np.ndarray)):
            raise usage_error("rows.expression.values", where=where, expression=_shown(expression))
        if isinstance(cells, SourceColumn):
            cells = cells.cells
        table = table.assign(**{name: cells})
    return table


@cache
def parse_expression(expression: str, where: str) -> ast.expr:
    """Return the tree of an expression, or refuse one with parts that are not allowed."""
    shown = _shown(expression)
    refusal = render("rows.expression.malformed", where=where, expression=shown)
    if len(expression) > LONGEST:
        raise UsageError(refusal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of "1or": Python's advice on code
        with foreign_parser(refusal, SyntaxError):
            tree = ast.parse(expression.strip(), mode="eval").body
    if _depth(tree) > DEEPEST:
        raise usage_error("rows.expression.deep", where=where, expression=shown, levels=DEEPEST)
    for part in ast.walk(tree):
        if not isinstance(part, _ALLOWED_NODES) or (isinstance(part, ast.Constant) and not _is_plain(part.value)):
            kind = type(part).__name__.lower()
            names = ", ".join(FUNCTIONS)
            raise usage_error("rows.expression.forbidden", where=where, expression=shown, kind=kind, functions=names)
        if isinstance(part, ast.Call):
            _check_call(part, where)
    if _names_no_column(tree):
        raise usage_error("rows.expression.columnless", where=where, expression=shown)
    return tree


def _names_no_column(tree: ast.expr) -> bool:
    names = [one.id for one in ast.walk(tree) if isinstance(one, ast.Name)]
    called = sum(isinstance(one, ast.Call) for one in ast.walk(tree))
    return "column" not in names and len(names) == called


def _shown(text: str) -> str:
    quoted = repr(text)
    return quoted if len(quoted) <= SHOWN else f"{quoted[:SHOWN]}…{quoted[-1]}"


def _depth(tree: ast.expr) -> int:
    """Return the number of levels of a tree."""
    levels = 0
    nodes = list[ast.AST]([tree])
    while nodes:
        levels = levels + 1
        nodes = list(chain.from_iterable(map(ast.iter_child_nodes, nodes)))
    return levels


_ALLOWED_NODES = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, *_ARITHMETIC, ast.Compare, *_ORDER),
    *(ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.List, ast.Call),
)


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _check_call(node: ast.Call, where: str) -> None:
    name = ast.unparse(node.func)
    if name not in FUNCTIONS:
        hint = nearest(name[:SHOWN], FUNCTIONS)
        raise usage_error("rows.expression.function", where=where, name=_shown(name), hint=hint)
    wanted = 2 if name == "days" else 1
    if len(node.args) != wanted or node.keywords:
        values = "two columns" if wanted > 1 else "one value"
        raise usage_error("rows.expression.arguments", where=where, name=name, values=values)


def _evaluated(tree: ast.expr, scope: Scope, where: str) -> Any:
    with at_place(where), np.errstate(all="ignore"):
        return _value(tree, scope)


def _value(node: ast.expr, scope: Scope) -> Any:
    """Return the value of a part of an expression.

    It is a column, an array of numbers or of bools [rows], a text, a number, or a list of these.
    """
    match node:
        case ast.Constant():
            return node.value if isinstance(node.value, str) else _finite(_number(node.value))
        case ast.Name():
            return scope.column(node.id)
        case ast.Tuple() | ast.List():
            return [_value(part, scope) for part in node.elts]
        case ast.BoolOp():
            parts = [_truth(_value(part, scope)) for part in node.values]
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            return reduce(join, parts)
        case ast.UnaryOp(op=ast.Not()):
            return ~_truth(_value(node.operand, scope))
        case ast.UnaryOp():
            return -_numbers(_value(node.operand, scope))
        case ast.BinOp():
            sides = [_numbers(_value(part, scope)) for part in (node.left, node.right)]
            return _finite(_ARITHMETIC[type(node.op)](*sides))
        case ast.Compare():
            return _compared(node, scope)
        case ast.Call():
            return _called(node, scope)
    raise usage_error("rows.expression.part", kind=type(node).__name__.lower())


def _truth(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != bool:
        raise usage_error("rows.expression.truth")
    return value


def _number(value: Any) -> np.float64:
    """Return a number as a float, whose arithmetic raises no error and takes no time."""
    try:
        return np.float64(value)
    except OverflowError:
        return np.float64(np.inf)


def _finite(value: Any) -> Any:
    """Return numbers, missing where they are not finite."""
    return np.where(np.isfinite(value), value, np.nan)


def _numbers(value: Any) -> Any:
    """Return cells as numbers [rows], NaN where missing; a number unchanged."""
    if isinstance(value, SourceColumn):
        _refuse(value, np.isnan(value.numbers) & value.texts.notna().to_numpy(), NOT_NUMBER)
        return _finite(value.numbers)
    if _is_number(value):
        return value
    raise usage_error("rows.expression.numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.floating)) and value.dtype != bool


def _dates(value: Any) -> pd.Series:
    if not isinstance(value, SourceColumn):
        raise usage_error("rows.expression.dates")
    cells = value.cells if value.cells.dtype.kind == "M" else value.texts
    dates = wall_clock(cells)
    _refuse(value, dates.isna().to_numpy() & cells.notna().to_numpy(), "is not a date")
    return dates


def _refuse(value: SourceColumn, bad: np.ndarray, rule: str) -> None:
    if bad.any():
        raise UsageError(str(TableError(value.name, rule, int(bad.sum()))))


def _compared(node: ast.Compare, scope: Scope) -> np.ndarray:
    """Return where a chain of comparisons holds [rows]."""
    sides = [_value(part, scope) for part in (node.left, *node.comparators)]
    matches = np.ones(len(scope.table), dtype=bool)
    for op, (left, right) in zip(node.ops, pairwise(sides), strict=True):
        matches = matches & _holds(type(op), left, right)
    return matches


def _holds(op: type[ast.cmpop], left: Any, right: Any) -> Any:
    if op in _ORDER:
        read = _times if isinstance(left, str) or isinstance(right, str) else _numbers
        return _ORDER[op](read(left), read(right))
    others = [right]
    if op in (ast.In, ast.NotIn):
        if not isinstance(right, list) or not right:
            raise usage_error("rows.expression.list")
        others = right
    equal = _is_one_of(left, others)
    return equal if op in (ast.In, ast.Eq) else ~equal & _has_value(left) & _has_value(right)


def _is_one_of(left: Any, others: list[Any]) -> Any:
    """Return where a side equals one of some [rows]; a long list of texts, such as diagnoses, is looked up at once."""
    is_plain = isinstance(left, SourceColumn) and left.cells.dtype.kind != "M"
    if is_plain and all(isinstance(one, str) for one in others):
        return left.texts.isin(plain_text(pd.Series(others, dtype=object)).dropna()).to_numpy()
    return reduce(operator.or_, [_equal(left, one) for one in others])


def _times(side: Any) -> Any:
    """Return dates of a column, or of a text that is compared with one: admitted >= "2024-01-31"."""
    return _moment(side).to_datetime64() if isinstance(side, str) else _dates(side).to_numpy()


def _moment(text: str) -> pd.Timestamp:
    moments = wall_clock(pd.Series([text], dtype=object))
    if moments.isna().any():
        raise usage_error("rows.expression.date", text=_shown(text))
    return pd.Timestamp(moments.iloc[0])


def _has_value(value: Any) -> Any:
    """Return where a value is not missing, or where no value of a list is."""
    if isinstance(value, list):
        return reduce(operator.and_, map(_has_value, value))
    if isinstance(value, SourceColumn):
        return value.texts.notna().to_numpy()
    return ~np.isnan(value) if _is_number(value) else True


def _equal(left: Any, right: Any) -> np.ndarray:
    """Return where two sides are equal: as texts beside a text, else as numbers."""
    if isinstance(right, SourceColumn) and not isinstance(left, SourceColumn):
        left, right = right, left
    if isinstance(left, SourceColumn) and isinstance(right, (str, SourceColumn)):
        if isinstance(right, SourceColumn):
            other: Any = right.texts
        elif left.cells.dtype.kind == "M":
            return (_dates(left) == _moment(right)).to_numpy(dtype=bool)
        else:
            # A constant is read as a cell, so that "1.0" matches it.
            other = plain_text(pd.Series([right], dtype=object)).iloc[0]
        return np.asarray(left.texts == other, dtype=bool) & left.texts.notna().to_numpy()
    return np.asarray(_numbers(left) == _numbers(right))


def _called(node: ast.Call, scope: Scope) -> Any:
    name = ast.unparse(node.func)
    values = [_value(part, scope) for part in node.args]
    first = values[0]
    if name == "column":
        if not isinstance(first, str):
            raise usage_error("rows.expression.name")
        return scope.column(first)
    if name == "missing":
        if not isinstance(first, SourceColumn):
            raise usage_error("rows.expression.missing")
        return ~_has_value(first)
    if name in _PARTS:
        return getattr(_dates(first).dt, name).to_numpy(dtype=float)
    if name == "days":
        # In microseconds, since a span of three centuries has too many nanoseconds.
        later, earlier = (_dates(value).to_numpy().astype("datetime64[us]") for value in values)
        return (later - earlier) / np.timedelta64(1, "D")
    return _finite({"log": np.log, "sqrt": np.sqrt, "abs": np.abs}[name](_numbers(first)))
