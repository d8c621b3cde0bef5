"""One site's work on one study whose table is larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flfed.rows.baselines import LocalModel, network_predictor
from flfed.rows.data import datasets
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.evaluation.streamed import ScoreSums
from flfed.rows.features.encode import ColumnArrays, Encoded, EncodedBlocks, encode
from flfed.rows.session import SiteSession
from flfed.rows.streamed.table import HOLDOUT, TRAINING, StreamedTable
from flfed.rows.study_model import study_layout
from flfed.rows.training.requests import Asking
from flfed.rows.training.tuning.best_model import linear_family
from flfed.rows.training.tuning.linear import Predictor, tuned_on_blocks
from flfed.seeds import Draws, generator
from flfed.study.study import Study
from flfed.study.tables import SiteModelKind
from flfed.summaries.score_bins import ScoreBins
from flfed.summaries.summary import Arrays, Encoder, Summary

CHOOSING = 20_000
"""Most rows on which the penalty of an own model is chosen."""


@dataclass(frozen=True, eq=False)
class Side:
    """Rows of one side of a streamed table, in place of a data frame of them."""

    table: StreamedTable
    side: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.count(self.side)


@dataclass(frozen=True, eq=False)
class Arm:
    """A model of a comparison: its encoder, its outputs, and what is added to them without a change of order."""

    encoder: Encoder
    outputs: Predictor
    shift: float = 0.0


class StreamedSession(SiteSession):
    """One site's side of one study, whose rows are read again in each pass.

    Parameters are those of `SiteSession`, without a table.
    """

    def __init__(self, site: Site, study: Study, repeat: int = 0, *, draws: Draws | None = None) -> None:
        schema = datasets.load(study.dataset.name).schema
        drawn = repeat if site.policy.resplit else 0
        self.rows = StreamedTable(site, study_layout(study, schema), study.seed + repeat, drawn)
        training: Any = Side(self.rows, TRAINING)
        holdout: Any = Side(self.rows, HOLDOUT)
        super().__init__(site, study, repeat, table=SiteTable(training, schema, holdout), draws=draws)

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

    def encode(self, table: Any, encoder: Encoder) -> Any:
        """Return the rows of a side, encoded block by block in each pass; others at once."""
        if not isinstance(table, Side):
            return self._encode_rows(table, encoder)

        def blocks(rng: np.random.Generator | None) -> Iterator[Encoded]:
            for rows in self.rows.blocks(table.side, rng):
                yield self._encode_rows(rows, encoder)

        return EncodedBlocks(len(table), blocks)

    def _encode_rows(self, rows: ColumnArrays, encoder: Encoder) -> Encoded:
        return encode(rows, self.layout, encoder, weighted=self.study.plan.class_weight == "balanced")

    def training(self, encoder: Encoder) -> Encoded:
        """Return a sample of the training rows, by which a model is adjusted to the site."""
        return self._encode_rows(self.rows.sample, self.in_use(encoder))

    def model_rows(self, encoder: Encoder) -> tuple[Any, Any]:
        """Return the rows to train on; no round's model is scored, which would take another pass."""
        rows = self.encode(self.table.training, self.in_use(encoder))
        return rows, rows

    def measured(self, *_: Any, **__: Any) -> Asking[Any]:
        """Return no scores of a round."""
        return None
        yield  # a handler is a generator, also one without requests

    def local_model(self, own: SiteModelKind | None = None) -> Asking[LocalModel]:
        """Tune a linear model on this site's training rows alone, which is made once.

        Its penalty is chosen on `CHOOSING` rows of the sample at most; all rows are fitted.
        """
        own = own or self.study.compare.site_model
        if own not in self._local:
            encoder = self.own_encoder()
            few = self._encode_rows(self.rows.sample, encoder)
            few = few.take(np.arange(0, len(few), -(-len(few) // CHOOSING)))
            rng = generator(self.seed, site=self.site.name, purpose="folds")
            model = tuned_on_blocks(self.encode(self.table.training, encoder), few, self.task, rng)
            family = linear_family(self.task) if own == "best" else None
            self._local[own] = LocalModel(encoder, model, family)
        return self._local[own]
        yield  # as above

    def compared(
        self, arrays: Arrays, encoder: Encoder, sd: float | None, bins: ScoreBins, rng: np.random.Generator
    ) -> Asking[ScoreSums]:
        """Yield requests and return the sums of all models' scores on the holdout, from two passes."""
        shared = self.in_use(encoder)
        outputs = network_predictor(self.model, arrays)
        local = yield from self.local_model()
        personalised = yield from self.personalised(arrays, encoder, sd)
        arms = {"global": Arm(shared, outputs), "local-only": Arm(local.encoder, local.outputs)}
        arms["personalised"] = Arm(shared, personalised)
        if self.own_arrays.model is None:
            row = self.training(encoder).x[:1]
            arms["personalised"] = Arm(shared, outputs, float((personalised(row) - outputs(row))[0, 0]))
        if self.study.compare.site_model == "best":
            arms["local-only-same"] = arms["local-only"]
        centre = float(self.own_encoder().center[-1]) if self.task == "regression" else 0.0
        sums = ScoreSums(self.metrics, list(arms), bins, centre, rng)
        binary = self.task == "binary"
        for rows in self.rows.blocks(HOLDOUT):
            odds = {name: self._outputs(rows, arm) for name, arm in arms.items()}
            scores = {name: self.predictions(odds[name] + arm.shift, arm.encoder) for name, arm in arms.items()}
            places = sums.bin_places(list(odds.values())) if binary else ()
            sums.add(self._targets(rows), scores, places)
        placements = sums.placements()
        for rows in self.rows.blocks(HOLDOUT) if binary else ():
            places = sums.bin_places([self._outputs(rows, arm) for arm in arms.values()])
            sums.add_pairs(self._targets(rows), places, placements)
        return sums

    def _outputs(self, rows: ColumnArrays, arm: Arm) -> np.ndarray:
        return arm.outputs(self._encode_rows(rows, arm.encoder).x)

    def _targets(self, rows: ColumnArrays) -> np.ndarray:
        """Return class codes, or the target in its unit."""
        name = self.schema.target
        return rows.values[name] if self.task == "regression" else rows.codes[name].astype(np.intp)


def open_session(site: Site, study: Study, repeat: int, draws: Draws) -> SiteSession:
    """Return a site's session of a study, which reads its rows at once, or block by block where they are streamed."""
    kind = StreamedSession if site.is_streamed else SiteSession
    return kind(site, study, repeat, draws=draws)
