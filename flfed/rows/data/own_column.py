"""Columns that a site has beside those of a dataset's schema, declared in its package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from flfed.errors import UsageError
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OwnColumn:
    """A column of one site, which the dataset's schema does not have.

    It is read, checked and frozen with the others and stays at the site: no message has it, and neither the holdout
    nor the keys of rows depend on it.

    Parameters
    ----------
    column : str or Field
        The column in the site's own table. Example: `column="TROP_T"`.
    kind : {"number", "flag", "category"}
        A flag is 0 or 1. Example: `kind="flag"`.
    range : (low, high), optional
        Of a number, in `unit`, inclusive. Example: `range=(0, 25_000)`.
    values : tuple of str
        Of a category, at least two. Example: `values=("none", "mild", "severe")`.
    unit : str
        Example: `unit="ng/L"`.
    transform : {"none", "log1p"}
        What is done to a skewed number before it is scaled. Example: `transform="log1p"`.

    Raises
    ------
    UsageError
        For a number without a range, a category without values, or a range that does not go from low to high.
    """

    column: str | Field
    kind: Literal["number", "flag", "category"]
    range: tuple[float, float] | None = None
    values: tuple[str, ...] = ()
    unit: str = ""
    transform: Literal["none", "log1p"] = "none"
    meaning: Column = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a declaration that says too little to read the column."""
        if self.kind not in ("number", "flag", "category"):
            raise UsageError(f"own column: kind={self.kind!r} must be 'number', 'flag' or 'category'")
        if not isinstance(self.column, (str, Field)):
            raise UsageError(f"own column: column={self.column!r} must be a column's name or a Field")
        if self.kind != "number" and self.range is not None:
            raise UsageError(f"own column: a {self.kind} has no range")
        if self.kind != "category" and self.values:
            raise UsageError(f"own column: a {self.kind} has no values")
        given = {"kind": self.kind, "range": self.range, "values": self.values, "unit": self.unit}
        try:
            meaning = Column.model_validate({**given, "transform": self.transform})
        except ValidationError as error:
            raise UsageError(f"own column: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        object.__setattr__(self, "meaning", meaning)


def with_own(schema: Schema, own: Mapping[str, OwnColumn], site: str) -> Schema:
    """Return a schema that has a site's own columns after its own.

    Raises
    ------
    UsageError
        If one of them has the name of a column of the schema.
    """
    if not own:
        return schema
    taken = [name for name in own if name in schema.columns]
    if taken:
        raise UsageError(
            f"site {site!r}: own[{taken[0]!r}] is a column of dataset {schema.name!r} already: map it in mapping, or "
            "give it another name"
        )
    return schema.model_copy(update={"columns": {**schema.columns, **{name: one.meaning for name, one in own.items()}}})


def declared(own: Mapping[str, OwnColumn]) -> dict[str, dict[str, object]]:
    """Return what own columns mean, as plain values: what a snapshot was frozen with."""
    return {
        name: one.meaning.model_dump(mode="json", by_alias=True, exclude_defaults=True) for name, one in own.items()
    }


def own_of(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return the site's own columns of a mapped table."""
    return table[[name for name in table.columns if name not in schema.columns]]


def of_schema(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return a mapped table without the site's own columns."""
    return table if table.shape[1] == len(schema.columns) else table[list(schema.columns)]
