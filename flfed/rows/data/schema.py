"""Schemas of the datasets.

They say what columns mean, whatever an institution calls them; a site may declare columns of its own beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic import Field as PydanticField

from flfed.errors import UsageError, nearest
from flfed.parsers import parse_toml, read_text
from flfed.rows.data.parsing.fields import Field, has_control

if TYPE_CHECKING:
    import pandas as pd


Kind = Literal["number", "category", "flag", "date", "id", "target"]
Task = Literal["binary", "multi-class", "regression"]
LATER_TASKS = ("survival", "time-to-event", "count", "ordinal", "multi-label", "ranking", "clustering")
CONTROL = "line break or another control character"
Settings = TypeVar("Settings", bound="Strict")


class Strict(BaseModel):
    """A frozen table of settings.

    Its keys are kebab-case and all known.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Column(Strict):
    """One column of a schema.

    Attributes
    ----------
    kind : {"number", "category", "flag", "date", "id", "target"}
        `flag` holds 0 or 1; `date` and `id` are never features.
    description : str
        For people; not part of the schema's hash. Example: `description = "Blood pressure at rest"`.
    unit : str
        Such as "mmHg" or "years"; empty for none. Example: `unit = "mmHg"`.
    range : (low, high)
        Mandatory for numbers and for the target of a regression; inclusive, in `unit`. Example: `range = [0, 300]`.
    values : tuple of str
        Allowed values of a category, or the classes of a target; the last class of a binary
        target is the positive one. Example: `values = ["no", "yes"]`.
    missing : tuple
        Codes that mean "not known", also hidden ones such as a cholesterol of 0. Example: `missing = [0, "?"]`.
    transform : {"none", "log1p"}
        What the encoder does before scaling, for skewed amounts.
    leak : str
        Why no study may use this column as a feature (recorded after the outcome, or only for
        some outcomes); empty when it may. Example: `leak = "known only after the outcome"`.
    typical : (low, high) or None
        Where about 95 of 100 values of a number lie, in `unit`, by public knowledge and not by the
        rows: what `encode.scaler = "schema"` scales by. Absent: the range. Example: `typical = [90, 180]`.
    typical_source : str
        Where that is known from; not part of the schema's hash. Example: `typical-source = "a national health survey"`.
    """

    kind: Kind
    description: str = ""
    unit: str = ""
    range: tuple[float, float] | None = None
    values: tuple[str, ...] = ()
    missing: tuple[str | float, ...] = ()
    transform: Literal["none", "log1p"] = "none"
    leak: str = ""
    typical: tuple[float, float] | None = None
    typical_source: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        # A range or list of values must be known before any row is read: encoders are made of it.
        if self.kind == "number" and self.range is None:
            raise ValueError("a number needs a range")
        self._check_values()
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)} must go from low to high")
        if self.transform == "log1p" and (self.range is None or self.range[0] <= -1):
            raise ValueError("transform log1p needs a range above -1")
        if self.typical is not None:
            self._check_typical(*self.typical)
        return self

    def _check_values(self) -> None:
        if self.kind == "category" and len(self.values) < 2:
            raise ValueError("a category needs at least two allowed values")
        if len(set(self.values)) != len(self.values):
            raise ValueError("an allowed value stands twice")
        # Values and names stand in files and on screens of others, where these could pass for something else.
        for place, value in enumerate(self.values, start=1):
            if has_control(value):
                raise ValueError(f"allowed value {place} has a {CONTROL}")

    def _check_typical(self, low: float, high: float) -> None:
        if self.range is None or not self.range[0] <= low < high <= self.range[1]:
            raise ValueError(f"typical {[low, high]} must go from low to high, within the range of a number")
        if not self.typical_source:
            raise ValueError("typical needs typical-source: where that is known from, other than from the rows")

    def is_number(self) -> bool:
        """Tell whether cells are numbers with a range.

        So it is for a number, or a regression's target.
        """
        return self.range is not None

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Return `values` after the column's transform; any shape."""
        return np.log1p(values) if self.transform == "log1p" else values


class Schema(Strict):
    """A named table schema: columns, target, task.

    Attributes
    ----------
    format : {1}
        Version of the file's format.
    name : str
        The folder's name: a-z, 0-9 and single hyphens. Example: `name = "heart-disease"`.
    title : str
        For people; not part of the schema's hash. Example: `title = "Coronary artery disease"`.
    description : str
        For people; not part of the schema's hash. Example: `description = "One row a patient, at admission"`.
    columns : dict of name to Column, in the order of the file
        A table for each column; the order is that of the model's inputs.
        Example: `columns.age = { kind = "number", range = [0, 120], unit = "years" }`.
    target : str
        Name of the one column of kind "target". Example: `target = "disease"`.
    task : {"binary", "multi-class", "regression"}
        What is predicted: one of two classes, one of more, or a number.
    group : str
        Column of kind "id" whose rows belong to one patient or customer; empty when each row is
        its own. Rows of one group never straddle training and holdout, but for a holdout by time
        that says `same_groups`. Example: `group = "patient"`.
    unlabelled : {"refuse", "leave-out"}
        Whether a row without a target breaks a rule, or is one whose outcome is not known yet.
    unconfirmed : tuple of str
        Columns that were proposed from rows and that no person has confirmed: their kind, range or values. Not part
        of the schema's hash. While a feature is among them, its range is no public knowledge.
        Example: `unconfirmed = ["age", "chol"]`.
    """

    format: Literal[1] = 1
    name: str = PydanticField(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = ""
    description: str = ""
    task: Task
    target: str
    group: str = ""
    unlabelled: Literal["refuse", "leave-out"] = "refuse"
    unconfirmed: tuple[str, ...] = ()
    columns: dict[str, Column]

    @field_validator("task", mode="before")
    @classmethod
    def _check_task(cls, task: object) -> object:
        tasks = get_args(Task)
        # Tasks that are planned are told apart from words that mean nothing.
        if isinstance(task, str) and task not in tasks:
            why = "is not available in this version" if task in LATER_TASKS else f"is not known{nearest(task, tasks)}"
            raise ValueError(f"{task!r} {why.rstrip('.')}; it may be {', '.join(tasks[:-1])} or {tasks[-1]}")
        return task

    @field_validator("columns")
    @classmethod
    def _plain_names(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for place, name in enumerate(columns, start=1):
            if has_control(name):
                raise ValueError(f"the name of column {place} has a {CONTROL}")
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        targets = [name for name, column in self.columns.items() if column.kind == "target"]
        if targets != [self.target]:
            raise ValueError(f"target {self.target!r} must be the one column of kind 'target', not {targets}")
        column = self.columns[self.target]
        self._check_target(column)
        if self.group and self.columns.get(self.group, column).kind != "id":
            raise ValueError(f"group {self.group!r} must be a column of kind 'id'")
        unknown = [name for name in self.unconfirmed if name not in self.columns]
        if unknown:
            raise ValueError(
                f"unconfirmed names {unknown[0]!r}, which is no column{nearest(unknown[0], list(self.columns))}"
            )
        return self

    def _check_target(self, column: Column) -> None:
        classes = len(column.values)
        if self.task == "regression" and not column.is_number():
            raise ValueError("the target of a regression needs a range")
        if self.task == "binary" and classes != 2:
            raise ValueError(f"a binary target needs two values, not {classes}")
        if self.task == "multi-class" and classes < 3:
            raise ValueError(f"a multi-class target needs three values or more, not {classes}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the target, in order.

        There are none for a regression.
        """
        return () if self.task == "regression" else self.columns[self.target].values

    def features(self, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the feature columns, in the schema's order.

        Parameters
        ----------
        chosen : sequence of str, optional
            Narrows the allowed ones; the default is all.

        Raises
        ------
        UsageError
            For no names, or a name that is unknown, no feature, or a leak column.
        """
        allowed = [
            name
            for name, column in self.columns.items()
            if column.kind in ("number", "category", "flag") and not column.leak
        ]
        if chosen is None:
            return tuple(allowed)
        if not chosen:
            raise UsageError("features: must name at least one column")
        for name in chosen:
            if name not in self.columns:
                raise UsageError(f"features: dataset {self.name!r} has no column {name!r}{nearest(name, allowed)}")
            if self.columns[name].leak:
                raise UsageError(f"features: column {name!r} leaks the target: {self.columns[name].leak}")
            if name not in allowed:
                raise UsageError(f"features: column {name!r} is of kind {self.columns[name].kind!r}, no feature")
        # The schema's order holds, however the names were given: inputs must be the same everywhere.
        return tuple(name for name in allowed if name in set(chosen))

    def unconfirmed_features(self, chosen: Sequence[str] | None = None) -> list[str]:
        """Return the columns in use that no person has confirmed, features and target."""
        return [name for name in (*self.features(chosen), self.target) if name in self.unconfirmed]

    def sha256(self) -> str:
        """Return the hash of the schema's meaning.

        Everything is in it but titles, descriptions and what is unconfirmed.
        """
        meaning = self.model_dump(mode="json", by_alias=True, exclude={"title", "description", "unconfirmed"})
        if self.unlabelled == "refuse":
            # As before there was a choice: hashes that were approved stay what they were.
            meaning.pop("unlabelled")
        # Words for people are no meaning, and a key that is not set leaves the hash as it was.
        for column in meaning["columns"].values():
            column.pop("description")
            column.pop("typical-source")
            if column["typical"] is None:
                column.pop("typical")
            column["leak"] = bool(column["leak"])
        # A list, because the order of the columns is the order of the model's inputs.
        meaning["columns"] = list(meaning["columns"].items())
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def read_schema(path: Path) -> Schema:
    """Read and check a `schema.toml`.

    Raises
    ------
    UsageError
        If the file is not TOML or breaks a rule: names the file, the place and the rule.
    """
    return parse_settings(Schema, path)


def parse_settings(kind: type[Settings], path: Path) -> Settings:
    """Read a TOML file of our own settings.

    They are returned as `kind`; errors name file, key and rule.
    """
    text = read_text(path)
    try:
        settings: Settings = _settings(kind, text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except ValidationError as error:
        # Of several broken rules the first is told, with its place in the file.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or kind.__name__.lower()
        rule = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: {place}: {rule}") from None
    return settings


@lru_cache(maxsize=64)
def _settings(kind: type[Settings], text: str) -> Settings:
    """Parse settings, once for equal texts.

    The same text, read for each of many sites, gives the same object.
    """
    return kind.model_validate(parse_toml(text, "the file"))


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
        declaration = {name: getattr(self, name) for name in ("kind", "range", "values", "unit", "transform")}
        try:
            meaning = Column.model_validate(declaration)
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
