"""A streamed table under a study: the side of each row, the sums of each side, and a sample.

Rows are not sorted: they come in the order of the files. Whether a row is held out does not depend on that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.parquet_blocks import ParquetBlocks, together
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.site import Site
from flfed.rows.features.encode import ColumnArrays, coded, joined
from flfed.rows.features.summarise import summarise
from flfed.seeds import generator
from flfed.summaries.summary import Layout, Summary, merge

SAMPLE = 200_000
"""Training rows that are held in memory, for a site's own intercept and for choosing settings."""
TRAINING, HOLDOUT, LEFT_OUT = range(3)


@dataclass(eq=False)
class StreamedTable:
    """A site's rows under a study, block by block.

    Attributes
    ----------
    site : Site
        Whose source is streamed.
    layout : Layout
    seed : int
        Draws the sample.
    repeat : int
        Of the holdout.
    sides : uint8 array [rows]
        Where each row of the files belongs.
    sums : dict of side to Summary
        Exact.
    sample : ColumnArrays
        At most about `SAMPLE` training rows, all where there are no more.
    """

    site: Site
    layout: Layout
    seed: int
    repeat: int
    sides: np.ndarray = field(init=False)
    sums: dict[int, Summary] = field(init=False)
    sample: ColumnArrays = field(init=False)

    def __post_init__(self) -> None:
        """Read all rows once: check them, find their sides, and add them up."""
        self.schema = datasets.load(self.site.dataset).schema
        self._files = ParquetBlocks(self.site, self.schema)
        sides = []
        sums = defaultdict[int, list[Summary]](list)
        sample = []
        findings: list[Finding] = []
        rng = generator(self.seed, site=self.site.name, purpose="streamed-sample")
        chance = SAMPLE / max(1, sum(group.rows for group in self._files.groups))
        for _, table, broken in self._files.tables(self.schema):
            findings += broken
            if findings:
                continue
            own = self._sides_of(table)
            rows = coded(table, self.layout)
            sides.append(own)
            sample.append(rows.take((rng.random(len(table)) < chance) & (own == TRAINING)))
            for side in np.unique(own).tolist():
                sums[side].append(summarise(rows.take(own == side), self.layout))
        if not sides and not findings:
            findings = [Finding(self.schema.target, "has no rows: the table is empty", np.arange(0))]
        if findings:
            raise together(findings)[0].error()
        self.sides = np.concatenate(sides)
        self.sums = {side: _of_one_site(parts) for side, parts in sums.items()}
        self.sample = joined(sample)

    def _sides_of(self, table: pd.DataFrame) -> np.ndarray:
        """Return the side of each row, which is a function of the row alone; LEFT_OUT without an outcome."""
        sides = np.full(len(table), LEFT_OUT, dtype=np.uint8)
        labelled = table[self.schema.target].notna().to_numpy()
        _, test = self.site.holdout.split(table[labelled], self.schema, self.repeat)
        sides[labelled] = np.where(test, HOLDOUT, TRAINING)
        return sides

    def count(self, side: int) -> int:
        """Return the number of rows of a side."""
        return int((self.sides == side).sum())

    def blocks(self, side: int, rng: np.random.Generator | None = None) -> Iterator[ColumnArrays]:
        """Yield the rows of a side in one pass over the files; `rng` draws the order of the row groups."""
        columns = {column.name: self.schema.columns[column.name] for column in self.layout.columns}
        needed = self.schema.model_copy(update={"columns": columns})
        for start, table, _ in self._files.tables(needed, rng):
            chosen = self.sides[start : start + len(table)] == side
            yield coded(table, self.layout, binned=False).take(chosen)


def _of_one_site(parts: list[Summary]) -> Summary:
    """Return the sums of blocks as those of one site; missingness and strength are looked at within blocks."""
    of_first = ("moments_known", "cells_known", "leaks_known", "sites")
    return replace(merge(parts), **{name: getattr(parts[0], name) for name in of_first})
