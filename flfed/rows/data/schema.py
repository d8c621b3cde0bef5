"""Schemas of the datasets.

A schema defines columns, whatever their names at an institution. A site may declare columns of its own beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic import Field as PydanticField

from flfed.errors import UsageError, nearest, unknown
from flfed.parsers import parse_toml, read_text
from flfed.rows.data.parsing.fields import has_control
from flfed.study.settings import describe_error
from flfed.words import render, usage_error

if TYPE_CHECKING:
    pass


Kind = Literal["number", "category", "flag", "date", "id", "target"]
Task = Literal["binary", "multi-class", "regression"]
LATER_TASKS = ("survival", "time-to-event", "count", "ordinal", "multi-label", "ranking", "clustering")
Settings = TypeVar("Settings", bound="Strict")


LARGEST = 1e19
"""Largest end of a range: beyond whole numbers of 64 bits; in float32 its square is still finite."""


class Strict(BaseModel):
    """A frozen table of settings, with kebab-case keys and no unknown ones."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
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
        Mandatory for numbers and for the target of a regression; inclusive, in `unit`; from -1e19 to 1e19 at most.
        Example: `range = [0, 300]`.
    values : tuple of str
        Allowed values of a category, or the classes of a target; the last class of a binary
        target is the positive one. Example: `values = ["no", "yes"]`.
    missing : tuple
        Codes that mean "not known", also hidden ones such as a cholesterol of 0. Example: `missing = [0, "?"]`.
    transform : {"none", "log1p"}
        Transform of skewed amounts before scaling.
    leak : str
        Why no study may use this column as a feature (recorded after the outcome, or only for
        some outcomes); empty when it may. Example: `leak = "known only after the outcome"`.
    typical : (low, high) or None
        Range of about 95 of 100 values of a number, in `unit`, by public knowledge and not by the
        rows; `encode.scaler = "schema"` scales by it. Absent: the range. Example: `typical = [90, 180]`.
    typical_source : str
        Source of that range; not part of the schema's hash. Example: `typical-source = "a national health survey"`.
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
        # Encoders need a range or list of values before any row is read.
        if self.kind == "number" and self.range is None:
            raise ValueError(render("rows.column.unbounded"))
        self._check_values()
        if self.range is not None and not -LARGEST <= self.range[0] < self.range[1] <= LARGEST:
            raise ValueError(render("rows.column.order", range=list(self.range)))
        if self.transform == "log1p" and (self.range is None or self.range[0] <= -1):
            raise ValueError(render("rows.column.log1p"))
        if self.typical is not None:
            self._check_typical(*self.typical)
        return self

    def _check_values(self) -> None:
        if self.kind == "category" and len(self.values) < 2:
            raise ValueError(render("rows.column.few"))
        if len(set(self.values)) != len(self.values):
            raise ValueError(render("rows.column.repeated"))
        # In files and on screens of others, control characters could forge other text.
        for place, value in enumerate(self.values, start=1):
            if has_control(value):
                raise ValueError(render("rows.column.value", place=place))

    def _check_typical(self, low: float, high: float) -> None:
        if self.range is None or not self.range[0] <= low < high <= self.range[1]:
            raise ValueError(render("rows.column.typical", typical=[low, high]))
        if not self.typical_source:
            raise ValueError(render("rows.column.sourceless"))

    def is_number(self) -> bool:
        """Return whether cells are numbers with a range: a number, or a regression's target."""
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
        Prediction of one of two classes, one of more, or a number.
    group : str
        Column of kind "id" whose rows belong to one patient or customer; empty when each row is
        its own. Rows of one group never straddle training and holdout, except in a holdout by time
        with `same_groups`. Example: `group = "patient"`.
    unlabelled : {"refuse", "leave-out"}
        Whether a row without a target breaks a rule, or is left out because its outcome is not known yet.
    unconfirmed : tuple of str
        Columns proposed from rows whose kind, range or values no person has confirmed. Not part
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
        # Planned tasks are distinguished from unknown words.
        if isinstance(task, str) and task not in tasks:
            if task in LATER_TASKS:
                raise ValueError(render("rows.schema.later", task=task))
            raise ValueError(unknown("task", task, tasks))
        return task

    @field_validator("columns")
    @classmethod
    def _plain_names(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for place, name in enumerate(columns, start=1):
            if has_control(name):
                raise ValueError(render("rows.column.name", place=place))
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        targets = [name for name, column in self.columns.items() if column.kind == "target"]
        if targets != [self.target]:
            raise ValueError(render("rows.schema.target", target=self.target, targets=targets))
        column = self.columns[self.target]
        self._check_target(column)
        if self.group and self.columns.get(self.group, column).kind != "id":
            raise ValueError(render("rows.schema.group", group=self.group))
        unknown = [name for name in self.unconfirmed if name not in self.columns]
        if unknown:
            hint = nearest(unknown[0], list(self.columns))
            raise ValueError(render("rows.schema.unconfirmed", name=unknown[0], hint=hint))
        return self

    def _check_target(self, column: Column) -> None:
        classes = len(column.values)
        if self.task == "regression" and not column.is_number():
            raise ValueError(render("rows.schema.range"))
        if self.task == "binary" and classes != 2:
            raise ValueError(render("rows.schema.binary", classes=classes))
        if self.task == "multi-class" and classes < 3:
            raise ValueError(render("rows.schema.multiclass", classes=classes))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the target, in order; none for a regression."""
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
            raise usage_error("rows.schema.empty")
        for name in chosen:
            if name not in self.columns:
                hint = nearest(name, allowed)
                raise usage_error("rows.schema.column", dataset=self.name, name=name, hint=hint)
            if self.columns[name].leak:
                raise usage_error("rows.schema.leak", name=name, leak=self.columns[name].leak)
            if name not in allowed:
                raise usage_error("rows.schema.feature", name=name, kind=self.columns[name].kind)
        # In the schema's order, whatever the order of `chosen`: inputs must be the same everywhere.
        return tuple(name for name in allowed if name in set(chosen))

    def sha256(self) -> str:
        """Return the hash of the schema's meaning: all keys but titles, descriptions and `unconfirmed`."""
        meaning = self.model_dump(mode="json", by_alias=True, exclude={"title", "description", "unconfirmed"})
        if self.unlabelled == "refuse":
            # The key is newer than approved hashes, which must not change.
            meaning.pop("unlabelled")
        # Words for people are no meaning, and an absent key does not change the hash.
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
    """Read a TOML file of settings as `kind`; errors name file, key and rule."""
    text = read_text(path)
    try:
        settings: Settings = _settings(kind, text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except ValidationError as error:
        # Of several broken rules, the first is reported with its place in the file, or a misspelt key before all.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        place = ""
        for part in first["loc"]:
            # People count the values of a list from 1.
            word = f" value {part + 1}" if isinstance(part, int) else f".{part}"
            place += word
        place = place.removeprefix(".") or kind.__name__.lower()
        rule = describe_error(error, limit=kind.model_fields.get(place.replace("-", "_"), ""))
        if first["type"] == "extra_forbidden":
            described = kind.model_json_schema()
            # A key within a table is looked for in all tables that stand within the file's own.
            tables = described["$defs"].values() if len(first["loc"]) > 1 else [described]
            keys = [*chain.from_iterable(table["properties"] for table in tables)]
            rule = f": this key is not known{nearest(str(first['loc'][-1]), keys)}"
        raise UsageError(f"{path}: {place}{rule}") from None
    return settings


@lru_cache(maxsize=64)
def _settings(kind: type[Settings], text: str) -> Settings:
    """Parse settings, once for equal texts: many sites share one object."""
    return kind.model_validate(parse_toml(text, "the file"))
