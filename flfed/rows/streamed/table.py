"""A site's Parquet files as blocks of rows, with the side of each row and the sums of each side.

Rows are not sorted: they come in the order of the files. Whether a row is held out does not depend on that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.holdout import for_validation, row_keys
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import Finding, own_name
from flfed.rows.data.parsing.parquet_and_excel import column_kinds, read_group, row_groups
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Parquet
from flfed.rows.features.encode import ColumnArrays, coded, joined
from flfed.rows.features.summarise import summarise
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Layout, Summary, merge
from flfed.words import usage_error

LARGEST_GROUP = 1_000_000
"""Rows of the largest row group that is read."""
SAMPLE = 200_000
"""Training rows that are held in memory, for a site's own intercept and for choosing settings."""
FITTED, VALIDATION, HOLDOUT, LEFT_OUT = range(4)
TRAINING = (FITTED, VALIDATION)


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file, its rows, and the number of its first row in the table."""

    path: Path
    number: int
    rows: int
    start: int


@dataclass(eq=False)
class StreamedTable:
    """A site's rows under a study, block by block.

    Attributes
    ----------
    site : Site
        Whose source is streamed.
    study : Study
    layout : Layout
    seed : int
        Of the repeat; draws the validation rows and the sample.
    repeat : int
        Of the holdout.
    sides : uint8 array [rows]
        Where each row of the files belongs.
    sample : ColumnArrays
        At most about `SAMPLE` training rows, all where there are no more.
    """

    site: Site
    study: Study
    layout: Layout
    seed: int
    repeat: int
    sides: np.ndarray = field(init=False)
    sample: ColumnArrays = field(init=False)

    def __post_init__(self) -> None:
        """Read all rows once: check them, find their sides, and add them up."""
        self.schema = datasets.load(self.site.dataset).schema
        self._check_kinds()
        sides = []
        sums = defaultdict[int, list[Summary]](list)
        sample = []
        findings = dict[tuple[str, str], list[np.ndarray]]()
        rng = generator(self.seed, site=self.site.name, purpose="streamed-sample")
        chance = SAMPLE / max(1, sum(group.rows for group in self._groups))
        for table, broken in self._tables(self.schema, None):
            for finding in broken:
                findings.setdefault((finding.column, finding.rule), []).append(finding.rows)
            if findings:
                continue
            sides.append(self._sides_of(table))
            rows = coded(table, self.layout)
            drawn = rng.random(len(table)) < chance
            sample.append(rows.take(drawn & np.isin(sides[-1], TRAINING)))
            for side in np.unique(sides[-1]).tolist():
                sums[side].append(summarise(rows.take(sides[-1] == side), self.layout))
        for (column, rule), places in findings.items():
            raise Finding(column, rule, np.concatenate(places)).error()
        if not sides:
            raise Finding(self.schema.target, "has no rows: the table is empty", np.arange(0)).error()
        self.sides = np.concatenate(sides)
        self._sums = dict(sums)
        self.sample = joined(sample)

    @cached_property
    def _source(self) -> Parquet:
        source = self.site.source_knowing(self.schema)
        if not isinstance(source, Parquet):
            raise TypeError("only Parquet files are streamed")
        return source

    @cached_property
    def _groups(self) -> list[RowGroup]:
        groups = []
        start = 0
        for path in self._source.files(datasets.load(self.site.dataset).folders(self.site.folder)):
            for number, rows in enumerate(row_groups(path)):
                if rows > LARGEST_GROUP:
                    raise usage_error("rows.streamed.group", path=path, rows=rows, most=LARGEST_GROUP)
                groups.append(RowGroup(path, number, rows, start))
                start += rows
        return groups

    def _check_kinds(self) -> None:
        """Refuse texts where numbers or dates are meant: how they are written follows from the whole column."""
        import pyarrow as pa

        for path in {group.path for group in self._groups}:
            kinds = column_kinds(path)
            for name, column in self.schema.columns.items():
                kind = kinds.get(own_name(self.site.columns.get(name, name)) or "")
                if kind is not None and (column.is_number() or column.kind == "date"):
                    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
                        raise usage_error("rows.streamed.text", path=path, column=name)

    def _tables(
        self, schema: Schema, rng: np.random.Generator | None
    ) -> Iterator[tuple[pd.DataFrame, list[Finding]]]:
        """Yield the mapped rows of a schema's columns, `attrs` with the number of the first one, and findings."""
        order = np.arange(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        own = [own_name(self.site.columns.get(name, name)) for name in schema.columns]
        mapping = {name: entry for name, entry in self.site.mapping.items() if name in schema.columns}
        if schema is self.schema:
            mapping = dict(self.site.mapping)
        for place in order.tolist():
            group = self._groups[place]
            start = group.start
            there = column_kinds(group.path)
            columns = [name for name in dict.fromkeys(own) if name in there]
            for raw in read_group(group.path, group.number, columns):
                table, findings = map_table(raw, schema, mapping, self._source.missing)
                table.attrs["start"] = start
                yield table, [replace(one, rows=one.rows + start) for one in findings]
                start += len(table)

    def _sides_of(self, table: pd.DataFrame) -> np.ndarray:
        """Return the side of each row: a function of the row alone."""
        sides = np.full(len(table), LEFT_OUT, dtype=np.uint8)
        whole = table[self.schema.target].notna().to_numpy()
        if self.study.encode.rows == "complete":
            features = self.schema.features(self.study.dataset.features)
            whole &= table[list(features)].notna().all(axis=1).to_numpy(dtype=bool)
        rows = table[whole]
        _, test = self.site.holdout.split(rows, self.schema, self.repeat)
        own = np.where(test, HOLDOUT, FITTED).astype(np.uint8)
        share = self.study.plan.validation
        if share:
            keys = row_keys(rows, self.schema)
            chosen = for_validation(keys, self.site.holdout, self.site.name, self.seed, share)
            own[chosen & ~test] = VALIDATION
        sides[whole] = own
        return sides

    def summary(self, sides: Sequence[int]) -> Summary:
        """Return the exact sums over the rows of some sides."""
        return _one_site([part for side in sides for part in self._sums.get(side, ())], self.layout)

    def count(self, sides: Sequence[int]) -> int:
        """Return the number of rows of some sides."""
        return int(np.isin(self.sides, sides).sum())

    def blocks(
        self, sides: Sequence[int], rng: np.random.Generator | None = None
    ) -> Iterator[tuple[ColumnArrays, np.ndarray]]:
        """Yield the rows of some sides in one pass over the files, and the side of each.

        The row groups come in an order that `rng` draws, if it is given.
        """
        columns = {column.name: self.schema.columns[column.name] for column in self.layout.columns}
        needed = self.schema.model_copy(update={"columns": columns, "group": ""})
        for table, _ in self._tables(needed, rng):
            start = table.attrs["start"]
            own = self.sides[start : start + len(table)]
            chosen = np.isin(own, sides)
            if chosen.any():
                yield coded(table, self.layout).take(chosen), own[chosen]


def _one_site(parts: Sequence[Summary], layout: Layout) -> Summary:
    """Return the sums of blocks as those of one site.

    U and V of missingness are those of all rows together where the outcome is a class; of a number, and the strength
    of a column, they are means over blocks.
    """
    ones = {name: np.ones_like(getattr(parts[0], name)) for name in ("moments_known", "cells_known", "leaks_known", "sites")}
    whole = replace(merge(parts), **ones)
    if layout.task == "regression":
        return whole
    leaks = whole.leaks.copy()
    for number, column in enumerate(layout.features):
        place = layout.slices()[column.name]
        target = layout.slices()[layout.target.name]
        both = np.zeros(layout.outcomes)
        for part in parts:
            missing = part.cells[place][-1]
            both += part.leaks[number, :, 0] + missing * _classes(part, target, layout) / part.rows[0]
        rows = whole.rows[0]
        share = whole.cells[place][-1] / rows
        events = _classes(whole, target, layout)
        if share:
            leaks[number, :, 0] = both - share * events
            leaks[number, :, 1] = events * (1 - events / rows) * rows * share * (1 - share) / max(rows - 1, 1)
    return replace(whole, leaks=leaks)


def _classes(summary: Summary, target: slice, layout: Layout) -> np.ndarray:
    """Return the rows of each class whose share is looked at."""
    classes = summary.cells[target][:-1]
    return classes if layout.task == "multi-class" else classes[1:2]
