"""One site's work on one study whose table is larger than memory.

Rows are not sorted: they come in the order of the files. Whether a row is held out does not depend on that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flfed.rows.baselines import LocalModel, network_predictor
from flfed.rows.data.parquet_blocks import ParquetBlocks, together
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.evaluation.streamed import ScoreSums
from flfed.rows.features.encode import (
    MOST_ROWS,
    ColumnArrays,
    Encoded,
    EncodedBlocks,
    coded,
    encode,
    joined,
    one_hot_basis,
)
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.study_model import study_layout, study_schema
from flfed.rows.training.requests import Asking, Predictor
from flfed.rows.training.tuned_linear import linear_family, tuned_on_blocks
from flfed.seeds import Draws, generator
from flfed.study.study import Study
from flfed.summaries.score_bins import ScoreBins
from flfed.summaries.summary import Arrays, Encoder, Summary, merge

SAMPLE = 200_000
"""Training rows that are held in memory, for a site's own intercept and for choosing settings."""
TRAINING, HOLDOUT, LEFT_OUT = range(3)
Models = dict[str, tuple[Encoder, Predictor]]
"""Encoder and outputs of each model that is compared."""


@dataclass(eq=False)
class StreamedTable:
    """A site's rows under a study, block by block.

    Attributes
    ----------
    site : Site
        Whose source is streamed.
    study : Study
    repeat : int
        Of the holdout, where the site's policy allows.
    sides : uint8 array [rows]
        Where each row of the files belongs.
    sums : dict of side to Summary
        Exact.
    sample : ColumnArrays
        At most about `SAMPLE` training rows, all where there are no more.
    """

    site: Site
    study: Study
    repeat: int
    sides: np.ndarray = field(init=False)
    sums: dict[int, Summary] = field(init=False)
    sample: ColumnArrays = field(init=False)

    def __post_init__(self) -> None:
        """Read all rows once: check them, find their sides, and add them up."""
        self.schema = study_schema(self.study)
        self.layout = study_layout(self.study, self.schema)
        self._files = ParquetBlocks(self.site, self.schema)
        sides = []
        sums = defaultdict[int, list[Summary]](list)
        sample = []
        findings: list[Finding] = []
        rng = generator(self.study.seed + self.repeat, site=self.site.name, purpose="streamed-sample")
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
        drawn = self.repeat if self.site.policy.resplit else 0
        _, test = self.site.holdout.split(table[labelled], self.schema, drawn)
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


@dataclass(frozen=True, eq=False)
class Side:
    """Rows of one side of a streamed table, in place of a data frame of them."""

    table: StreamedTable
    side: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.count(self.side)


class StreamedSession(SiteSession):
    """One site's side of one study, whose rows are read again in each pass.

    Parameters are those of `SiteSession`, without a table.
    """

    def __init__(self, site: Site, study: Study, repeat: int = 0, *, draws: Draws | None = None) -> None:
        self.rows = StreamedTable(site, study, repeat)
        training: Any = Side(self.rows, TRAINING)
        holdout: Any = Side(self.rows, HOLDOUT)
        table = SiteTable(lambda _: training, len(training), self.rows.schema, holdout)
        super().__init__(site, study, repeat, table=table, draws=draws)

    @cached_property
    def exact_summary(self) -> Summary:
        """The exact sums over training rows."""
        return self.rows.sums[TRAINING]

    def summary(self) -> Summary:
        """Return the sums over training rows, which leave an open site."""
        return self.exact_summary

    def holdout_summary(self) -> Summary | None:
        """Return the holdout sums, None without a row."""
        return self.rows.sums.get(HOLDOUT)

    def encode(self, table: Any, encoder: Encoder, into: np.ndarray | None = None) -> Any:
        """Return the rows of a side, encoded block by block in each pass; others at once."""
        if not isinstance(table, Side):
            weighted = self.study.plan.class_weight == "balanced"
            return encode(table, self.layout, encoder, weighted=weighted, into=into)

        def blocks(rng: np.random.Generator | None) -> Iterator[Encoded]:
            for rows in self.rows.blocks(table.side, rng):
                yield self.encode(rows, encoder)

        return EncodedBlocks(len(table), blocks)

    def training(self, encoder: Encoder) -> Any:
        """Return a sample of the training rows, by which a model is adjusted to the site."""
        return self.encode(self.rows.sample, self.in_use(encoder))

    def model_rows(self, encoder: Encoder) -> tuple[Any, Any]:
        """Return the rows to train on; no round's model is scored, which would take another pass."""
        rows = self.encode(self.table.training, self.in_use(encoder))
        return rows, rows

    def measured(self, *_: Any, **__: Any) -> Asking[Any]:
        """Return no scores of a round."""
        return None
        yield  # a handler is a generator, also one without requests

    def local_model(self, *, same: bool = False, half: bool = False) -> Asking[LocalModel]:
        """Tune a linear model on this site's training rows alone, which is made once.

        Its penalty is chosen on `MOST_ROWS` rows of the sample at most; all rows are fitted.
        """
        if (same, half) not in self._local:
            encoder = self.own_encoder()
            few = self.encode(self.rows.sample, encoder)
            few = few.take(np.arange(0, len(few), -(-len(few) // MOST_ROWS)))
            rng = generator(self.seed, site=self.site.name, purpose="folds")
            basis = one_hot_basis(self.layout, encoder)
            rows = self.encode(self.table.training, encoder).times(basis)
            model = tuned_on_blocks(rows, few.times(basis), self.task, rng).before(basis)
            family = None
            if not same and self.study.compare.site_model == "best":
                family = linear_family(self.task)
            self._local[same, half] = LocalModel(encoder, model, family)
        return self._local[same, half]
        yield  # as above

    def compared(
        self, arrays: Arrays, encoder: Encoder, sd: float | None, bins: ScoreBins, rng: np.random.Generator
    ) -> Asking[ScoreSums]:
        """Yield requests and return the sums of all models' scores on the holdout, from two passes."""
        models = yield from self._models(arrays, encoder, sd)
        binary = self.task == "binary"
        ranked = self._ranked(models) if binary else []
        centre = 0.0 if binary else float(self.own_encoder().center[-1])
        sums = ScoreSums(self.metrics, list(models), bins, centre, rng)
        for paired in (False, True)[: 1 + binary]:
            placements = sums.placements()
            for rows in self.rows.blocks(HOLDOUT):
                y = rows.codes[self.schema.target].astype(np.intp) if binary else rows.values[self.schema.target]
                outputs = self._outputs(rows, models)
                places = sums.bin_places([outputs[name] for name in ranked])
                if paired:
                    sums.add_pairs(y, places, placements)
                else:
                    scores = {name: self.predictions(outputs[name], used) for name, (used, _) in models.items()}
                    sums.add(y, scores, places)
        return sums

    def _ranked(self, models: Models) -> list[str]:
        """Return by whose outputs each model ranks rows."""
        # An intercept of the site's own moves no row before another.
        ranked_as = {} if self.own_arrays.model is not None else {"personalised": "global"}
        return [ranked_as.get(name, name) for name in models]

    def _outputs(self, rows: ColumnArrays, models: Models) -> Arrays:
        """Return the outputs of each model for a block of rows, encoded once for each encoder."""
        x = {used: self.encode(rows, used).x for used in {used for used, _ in models.values()}}
        return {name: predict(x[used]) for name, (used, predict) in models.items()}

    def _models(self, arrays: Arrays, encoder: Encoder, sd: float | None) -> Asking[Models]:
        """Yield requests and return encoder and outputs of each model that is compared."""
        shared = self.in_use(encoder)
        local = yield from self.local_model()
        models = {
            "global": (shared, network_predictor(self.model, arrays)),
            "local-only": (local.encoder, local.outputs),
        }
        models["personalised"] = (shared, (yield from self.personalised(arrays, encoder, sd)))
        if self.study.compare.site_model == "best":
            models["local-only-same"] = models["local-only"]
        return models


def open_session(site: Site, study: Study, repeat: int = 0, draws: Draws | None = None) -> SiteSession:
    """Return a site's session of a study, which reads its rows at once, or block by block where they are streamed."""
    kind = StreamedSession if site.is_streamed else SiteSession
    return kind(site, study, repeat, draws=draws)
