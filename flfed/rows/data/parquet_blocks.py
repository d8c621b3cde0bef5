"""A site's Parquet files, mapped block by block: rows of a table that need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import Finding, own_name
from flfed.rows.data.parsing.parquet_and_excel import column_kinds, read_group, row_groups
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Parquet
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

LARGEST_GROUP = 1_000_000
"""Rows of the largest row group that is read."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file, its rows, and the number of its first row in the table."""

    path: Path
    number: int
    rows: int
    start: int


@dataclass(frozen=True)
class ParquetBlocks:
    """A streamed site's files.

    Attributes
    ----------
    site : Site
    schema : Schema
        Of the site's dataset.
    """

    site: Site
    schema: Schema

    def __post_init__(self) -> None:
        """Refuse texts where numbers or dates are meant: how they are written follows from a whole column."""
        import pyarrow as pa

        for path in {group.path for group in self.groups}:
            kinds = column_kinds(path)
            for name, column in self.schema.columns.items():
                kind = kinds.get(own_name(self.site.columns.get(name, name)) or "")
                typed = column.is_number() or column.kind == "date"
                if kind is not None and typed and not (pa.types.is_primitive(kind) or pa.types.is_decimal(kind)):
                    raise usage_error("rows.streamed.text", path=path, column=name)

    @cached_property
    def groups(self) -> list[RowGroup]:
        """All row groups, in the order of the files."""
        source = self._source
        groups = []
        start = 0
        for path in source.files(datasets.load(self.site.dataset).folders(self.site.folder)):
            for number, rows in enumerate(row_groups(path)):
                if rows > LARGEST_GROUP:
                    raise usage_error("rows.streamed.group", path=path, rows=rows, most=LARGEST_GROUP)
                groups.append(RowGroup(path, number, rows, start))
                start += rows
        return groups

    @property
    def rows(self) -> int:
        """Number of rows of all files."""
        return sum(group.rows for group in self.groups)

    @cached_property
    def _source(self) -> Parquet:
        source = self.site.source_knowing(self.schema)
        if not isinstance(source, Parquet):
            raise TypeError("only Parquet files are streamed")
        return source

    def tables(
        self, schema: Schema, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame, list[Finding]]]:
        """Yield blocks of mapped rows in one pass: the number of the first row, the rows, and findings.

        Parameters
        ----------
        schema : Schema
            That of the site, or a part of its columns.
        rng : Generator, optional
            Draws the order of the row groups; without it they come as in the files.
        """
        order = np.arange(len(self.groups)) if rng is None else rng.permutation(len(self.groups))
        mapping = dict(self.site.mapping)
        if schema is not self.schema:
            mapping = {name: entry for name, entry in mapping.items() if name in schema.columns}
        own = dict.fromkeys(own_name(mapping.get(name, name)) for name in schema.columns)
        for place in order.tolist():
            group = self.groups[place]
            start = group.start
            there = column_kinds(group.path)
            columns = [name for name in own if name in there]
            for raw in read_group(group.path, group.number, columns):
                table, findings = map_table(raw, schema, mapping, self._source.missing)
                yield start, table, [replace(one, rows=one.rows + start) for one in findings]
                start += len(table)


def first_error(findings: list[Finding]) -> Exception:
    """Return the error of the rule that a table breaks first, with its rows in all blocks."""
    first = findings[0]
    rows = [one.rows for one in findings if (one.column, one.rule) == (first.column, first.rule)]
    return replace(first, rows=np.concatenate(rows)).error()
