"""A site's Parquet files as blocks of rows, with the side of each row and the sums of each side.

Rows are not sorted: they come in the order of the files. Whether a row is held out does not depend on that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.holdout import for_validation, row_keys
from flfed.rows.data.parquet_blocks import ParquetBlocks, first_error
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.site import Site
from flfed.rows.features.encode import ColumnArrays, coded, joined
from flfed.rows.features.summarise import summarise
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Layout, Summary, merge

SAMPLE = 200_000
"""Training rows that are held in memory, for a site's own intercept and for choosing settings."""
FITTED, VALIDATION, HOLDOUT, LEFT_OUT = range(4)
TRAINING = (FITTED, VALIDATION)


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
        self._files = ParquetBlocks(self.site, self.schema)
        sides = [np.empty(0, dtype=np.uint8)]
        sums = defaultdict[int, list[Summary]](list)
        sample = []
        findings: list[Finding] = []
        rng = generator(self.seed, site=self.site.name, purpose="streamed-sample")
        chance = SAMPLE / max(1, self._files.rows)
        for _, table, broken in self._files.tables(self.schema):
            findings += broken
            if findings:
                continue
            own = self._sides_of(table)
            rows = coded(table, self.layout)
            sides.append(own)
            sample.append(rows.take((rng.random(len(table)) < chance) & np.isin(own, TRAINING)))
            for side in np.unique(own).tolist():
                sums[side].append(summarise(rows.take(own == side), self.layout))
        if not sample and not findings:
            findings = [Finding(self.schema.target, "has no rows: the table is empty", np.arange(0))]
        if findings:
            raise first_error(findings)
        self.sides = np.concatenate(sides)
        self._sums = dict(sums)
        self.sample = joined(sample)

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
        needed = self.schema.model_copy(update={"columns": columns})
        for start, table, _ in self._files.tables(needed, rng):
            own = self.sides[start : start + len(table)]
            chosen = np.isin(own, sides)
            if chosen.any():
                yield coded(table, self.layout).take(chosen), own[chosen]


def _one_site(parts: Sequence[Summary], layout: Layout) -> Summary:
    """Return the sums of blocks as those of one site.

    U and V of missingness are those of all rows together where the outcome is a class; of a number, and the strength
    of a column, they are means over blocks.
    """
    known = ("moments_known", "cells_known", "leaks_known", "sites")
    whole = replace(merge(parts), **{name: getattr(parts[0], name) for name in known})
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
