"""One site's work on one study whose table is larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flfed.refusals import Refusal
from flfed.rows.baselines import LocalModel, network_predictor
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.data.sources import Parquet
from flfed.rows.features.encode import ColumnArrays, Encoded, EncodedBlocks, encode
from flfed.rows.features.summarise import disclose
from flfed.rows.session import SiteSession
from flfed.rows.streamed.table import FITTED, HOLDOUT, TRAINING, VALIDATION, StreamedTable
from flfed.rows.study_model import study_layout
from flfed.seeds import Draws
from flfed.study.kinds import is_statistic
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, Summary, merge


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of some sides of a streamed table, in place of a data frame of them."""

    table: StreamedTable
    sides: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.count(self.sides)


def is_streamed(site: Site) -> bool:
    """Return whether a site's rows are read block by block."""
    return isinstance(site.source, Parquet) and site.source.streamed


class StreamedSession(SiteSession):
    """One site's side of one study, whose rows are read again in each pass.

    Parameters are those of `SiteSession`, without a table.
    """

    def __init__(self, site: Site, study: Study, repeat: int = 0, *, draws: Draws | None = None) -> None:
        schema = datasets.load(study.dataset.name).schema
        drawn = repeat if site.policy.resplit else 0
        self.rows = StreamedTable(site, study, study_layout(study, schema), study.seed + repeat, drawn)
        training: Any = Part(self.rows, TRAINING)
        holdout: Any = Part(self.rows, (HOLDOUT,))
        table = SiteTable(training=training, schema=schema, _holdout=holdout)
        super().__init__(site, study, repeat, table=table, draws=draws)

    def __post_init__(self) -> None:
        """Count the validation rows."""
        self._validation_rows = self.rows.count([VALIDATION])

    @cached_property
    def exact_summary(self) -> Summary:
        """The exact sums over training rows."""
        return self.rows.summary(TRAINING)

    def summary(self) -> Summary:
        """Return the sums over training rows that may leave."""
        return self._disclosed(self.exact_summary)

    def holdout_summary(self) -> Summary | None:
        """Return the holdout sums that may leave, None if too small."""
        if self.rows.count([HOLDOUT]) < self.policy.least_rows():
            return None
        return self._disclosed(self.rows.summary([HOLDOUT]))

    def _disclosed(self, exact: Summary) -> Summary:
        return exact if self.policy.is_open else disclose(exact, self.layout, self.policy.cell_minimum)

    def encode(self, table: Any, encoder: Encoder) -> Any:
        """Return the rows of a part, encoded block by block in each pass."""
        if not isinstance(table, Part):
            return super().encode(table, encoder)

        def blocks(rng: np.random.Generator | None) -> Iterator[Encoded]:
            for rows, _ in self.rows.blocks(table.sides, rng):
                yield self._encoded_block(rows, encoder)

        return EncodedBlocks(len(table), blocks)

    def _encoded_block(self, rows: ColumnArrays, encoder: Encoder) -> Encoded:
        return encode(rows, self.layout, encoder, weighted=self.study.plan.class_weight == "balanced")

    def training(self, encoder: Encoder) -> Any:
        """Return the training rows."""
        return self.encode(self.table.training, self.in_use(encoder))

    def round_rows(self, encoder: Encoder) -> tuple[Any, Any]:
        """Return the rows to train on and to score."""
        sides = [(FITTED,), (VALIDATION,)] if self._validation_rows else [TRAINING, TRAINING]
        fitted, scored = (self.encode(Part(self.rows, part), self.in_use(encoder)) for part in sides)
        return fitted, scored
