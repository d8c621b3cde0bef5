"""A site's Parquet files, mapped block by block: rows of a table that need not fit into memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import Finding, own_name
from flfed.rows.data.parsing.parquet_and_excel import column_texts, read_group, row_groups
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
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

    @cached_property
    def groups(self) -> list[RowGroup]:
        """All row groups, in the order of the files."""
        source: Any = self.site.source
        groups = []
        start = 0
        for path in source.files(datasets.load(self.site.dataset).folders(self.site.folder)):
            for number, rows in enumerate(row_groups(path)):
                if rows > LARGEST_GROUP:
                    raise usage_error("rows.streamed.group", path=path, rows=rows, most=LARGEST_GROUP)
                groups.append(RowGroup(path, number, rows, start))
                start += rows
        return groups

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
        own = {name: own_name(mapping.get(name, name)) for name in schema.columns}
        typed = [own[name] for name, column in schema.columns.items() if column.is_number() or column.kind == "date"]
        for place in order.tolist():
            group = self.groups[place]
            start = group.start
            for raw in read_group(group.path, group.number, _columns_there(group.path, own.values(), typed)):
                table, findings = map_table(raw, schema, mapping, self.site.source.missing)
                yield start, table, [replace(one, rows=one.rows + start) for one in findings]
                start += len(table)


def _columns_there(path: Path, own: Collection[str | None], typed: Sequence[str | None]) -> list[str]:
    """Return which of the site's own columns a file has.

    Raises UsageError for texts of numbers and dates: how they are written would follow from the whole column.
    """
    columns = {name: texts for name, texts in column_texts(path).items() if name in own}
    for name, texts in columns.items():
        if texts and name in typed:
            raise usage_error("rows.streamed.text", path=path, column=name)
    return list(columns)


def together(findings: list[Finding]) -> list[Finding]:
    """Return the findings of all blocks, one for each rule of a column."""
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    for one in findings:
        rows.setdefault((one.column, one.rule), []).append(one.rows)
    return [Finding(column, rule, np.concatenate(places)) for (column, rule), places in rows.items()]
