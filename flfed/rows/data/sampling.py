"""A sample of a site's rows, read batch by batch.

Whether a row is in it follows from a keyed hash of the row alone, or of its person where the schema names a group. So
a sample is what remains of the whole table once the others are left out, whatever the batches.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.errors import UsageError
from flfed.rows.data.holdout import AnyHoldout, side_keys
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.cells import with_long_objects
from flfed.rows.data.parsing.fields import ColumnMapping, Field, Finding, own_name
from flfed.rows.data.parsing.limits import Reading
from flfed.rows.data.row_keys import draw_fractions, order_keys, row_keys
from flfed.rows.data.schema import Schema
from flfed.rows.data.sources import Folders, Source

if TYPE_CHECKING:
    import pandas as pd

BATCH = 2**16
"""Rows that are read at a time."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """The rows of a sample.

    Attributes
    ----------
    rows : DataFrame
        As they are mapped, in the source's order.
    findings : list of Finding
        Rules that rows of the whole table break, with their numbers in it.
    """

    rows: pd.DataFrame
    findings: list[Finding]


def drawn(keys: np.ndarray, source: Source, holdout: AnyHoldout) -> np.ndarray:
    """Return which rows are in a source's plain sample, by their `side_keys`; bool [rows].

    The draw has a purpose of its own under the holdout's salt: it says nothing of a row's side.
    """
    return draw_fractions(keys, f"sample {getattr(holdout, 'salt', '')}") < source.sample


def has_same_rows(table: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two mapped tables have the same rows, in any order: that of a query is the database's."""
    first, second = (keys[order_keys(keys)] for keys in map(row_keys, (table, other)))
    return np.array_equal(first, second)


def sample_in_words(share: float, keep: tuple[str, str] | None) -> str:
    """Return what the rows of a source with a `sample`, and perhaps a `keep`, are."""
    kept = f", with all rows of {keep[0]} = {keep[1]} for training" if keep else ""
    return f"sample of {share:g} of the table{kept}"


def read_sample(
    source: Source,
    folders: Folders,
    schema: Schema,
    mapping: ColumnMapping,
    holdout: AnyHoldout,
    *,
    outcome: bool,
    batch: int = BATCH,
) -> Sampled:
    """Read a source's sample, and check the rules of single cells on all rows.

    Rules of a whole column, such as what a mark in its numbers means, are for `map_table` of the sample.

    Parameters
    ----------
    source : Source
        With a `sample`.
    folders : tuple of Path
    schema : Schema
    mapping, outcome
        As `map_table` takes them.
    holdout : holdout
        Whose salt draws the rows.
    batch : int
        Rows that are read at a time.

    Raises
    ------
    UsageError
        If `keep` names no class of the schema, or the rows that are used exceed a limit.
    """
    import pandas as pd

    kept_class = _kept_class(source, schema)
    reading = Reading("the sample of the table", source.limits)
    parts = []
    findings: dict[tuple[str, str], Finding] = {}
    read = used = size = 0
    for own in source.batches(folders, batch):
        raw = source.prepared(own)
        table, broken = map_table(raw, schema, _decimal(mapping, schema, raw), source.missing, outcome=outcome)
        for one in broken:
            before = findings.get((one.column, one.rule), replace(one, rows=one.rows[:0]))
            findings[one.column, one.rule] = replace(before, rows=np.concatenate([before.rows, one.rows + read]))
        # A row that breaks a rule may be without its person.
        keys = row_keys(table) if broken else side_keys(table, schema)
        chosen = drawn(keys, source, holdout) | (table[schema.target] == kept_class).to_numpy(dtype=bool)
        parts.append(with_long_objects(raw[chosen]))
        read += len(raw)
        used += int(chosen.sum())
        size += int(parts[-1].memory_usage(index=False).sum())
        reading.check_shape(used, raw.shape[1])
        reading.check("bytes", size)
    with warnings.catch_warnings():
        # Of columns that are empty in a part; the mapping reads each cell by itself.
        warnings.simplefilter("ignore", FutureWarning)
        rows = pd.concat(parts, ignore_index=True)
    rows.attrs = own.attrs
    order = list(schema.columns)
    place = {name: at for at, name in enumerate(order)}
    return Sampled(rows, sorted(findings.values(), key=lambda one: place.get(one.column, -1)))


def _kept_class(source: Source, schema: Schema) -> str | None:
    """Return the class of a source's `keep`, None without; refuse one that the schema does not have."""
    if source.keep is None:
        return None
    column, value = source.keep
    if column != schema.target or value not in schema.classes:
        classes = ", ".join(map(repr, schema.classes)) or "none, for it is a number"
        raise UsageError(
            f"keep={source.keep!r} must name the target of dataset {schema.name!r}, {schema.target!r}, and one of its "
            f"classes: {classes}"
        )
    return value


def _decimal(mapping: ColumnMapping, schema: Schema, raw: pd.DataFrame) -> ColumnMapping:
    """Return a mapping that takes each mark in a number for that of decimals.

    What it means otherwise follows from the whole column.
    """
    changed: dict[str, Any] = dict(mapping)
    for name, column in schema.columns.items():
        entry = mapping.get(name, name)
        if column.range is not None and own_name(entry) in raw.columns:
            field = Field(entry) if isinstance(entry, str) else entry
            if field is not None and field.thousands is None:
                changed[name] = replace(field, thousands="")
    return changed
