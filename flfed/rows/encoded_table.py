"""One site's table under a study: its columns, its sums and its encoded rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from flfed.rows.data.holdout import Holdout, block_numbers, elapsed_shares, for_validation, side_keys
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable, holdout_of
from flfed.rows.features.encode import (
    SIDE_BY_SIDE,
    ColumnArrays,
    Encoded,
    coded,
    codes,
    decode_target,
    encode,
    input_names,
    pooled_rows,
)
from flfed.rows.features.summarise import leaving, one_of_each, summarise
from flfed.rows.training.functional import probabilities
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, Layout, Summary, fit_encoder, schema_encoder

PARTS = ("fitted", "validation")
"""Training rows by whether a round's model is trained on them."""


@dataclass(eq=False, repr=False)
class EncodedTable:
    """One site's table, as a study reads and encodes it.

    Columns are extracted once, and rows encoded once per encoder.

    Attributes
    ----------
    site : Site
    study : Study
    table : SiteTable
    layout : Layout
        Of the study's summaries and inputs.
    schema : Schema
        Of the study's dataset.
    seed : int
        Of the repeat; draws the validation rows.
    validation_rows : int
        Number of training rows that are kept apart for validation.
    """

    site: Site
    study: Study
    table: SiteTable
    layout: Layout
    schema: Schema
    seed: int

    def __post_init__(self) -> None:
        """Draw the validation rows."""
        # A plan with validation keeps some training rows apart, drawn by the run's seed.
        self._validation = np.zeros(self.table.training_rows, dtype=bool)
        if self.study.plan.validation:
            self._validation = self._draw_validation(self.table.training_keys())
        self.validation_rows = int(self._validation.sum())
        self._encoder: Encoder | None = None
        self._encoded: dict[str, Encoded] = {}
        self._coded: list[tuple[pd.DataFrame, ColumnArrays]] = []

    def _draw_validation(self, keys: np.ndarray) -> np.ndarray:
        share = self.study.plan.validation
        return for_validation(keys, self.site.holdout, self.site.name, self.seed, share)

    @property
    def policy(self) -> Policy:
        """What the institution lets leave."""
        return self.site.policy

    @property
    def task(self) -> str:
        """The outcome: two classes, several, or a number."""
        return self.schema.task

    @property
    def classes(self) -> int:
        """How many classes the target has."""
        return len(self.schema.classes)

    def summary(self) -> Summary:
        """Return the sums over training rows that may leave."""
        return self._leaving(self.table.training, self._find_columns(self.table.training))

    def holdout_summary(self) -> Summary | None:
        """Return the holdout sums that may leave, None if too small."""
        holdout = self.table.holdout("compare")
        if len(holdout) < self.policy.least_rows():
            return None
        return self._leaving(holdout, self.coded(holdout))

    def _leaving(self, table: pd.DataFrame, rows: pd.DataFrame | ColumnArrays) -> Summary:
        minimum = None if self.policy.is_open else self.policy.cell_minimum
        return leaving(rows, self.layout, minimum, one_of_each(table, self.schema.group))

    def own_encoder(self, encoder: Encoder | None = None) -> Encoder:
        """Return the encoder of this site's training rows alone.

        Parameters
        ----------
        encoder : Encoder, optional
            Of all sites; the target's scale and the class weights stay this one's.
        """
        own = self._own_encoder
        if encoder is None:
            return own
        # The target is scaled as at all sites, so that outputs mean the same everywhere.
        center = own.center.copy()
        scale = own.scale.copy()
        center[-1] = encoder.center[-1]
        scale[-1] = encoder.scale[-1]
        return replace(own, center=center, scale=scale, class_weight=encoder.class_weight)

    @cached_property
    def _own_encoder(self) -> Encoder:
        return fit_encoder(self.layout, self.exact_summary)

    @cached_property
    def exact_summary(self) -> Summary:
        """The exact sums over training rows.

        They are for the site's own model, and for runs that hold all tables in one place.
        """
        return summarise(self.coded(self.table.training), self.layout)

    def coded(self, table: pd.DataFrame) -> ColumnArrays:
        """Extract a table's columns from pandas and keep them.

        For what comes after the rounds: the comparison encodes the same rows several times.
        """
        columns = self._find_columns(table)
        if not isinstance(columns, ColumnArrays):
            columns = coded(table, self.layout)
            self._coded.append((table, columns))
        return columns

    def _find_columns(self, table: pd.DataFrame) -> pd.DataFrame | ColumnArrays:
        """Return a table's columns if kept, else the table."""
        return next((columns for own, columns in self._coded if own is table), table)

    def in_use(self, encoder: Encoder) -> Encoder:
        """Return the encoder that this site's rows go through.

        It is that of all sites unless the study says otherwise.
        """
        if self.study.encode.scaler == "schema":
            return self._schema_encoder  # whatever was sent: no server can put rows into it
        if self.study.encode.scaler == "per-site":
            return self.own_encoder(encoder)
        return encoder

    @cached_property
    def _schema_encoder(self) -> Encoder:
        return schema_encoder(self.layout)

    def encode(self, table: pd.DataFrame, encoder: Encoder, into: np.ndarray | None = None) -> Encoded:
        """Encode mapped rows as inputs, written `into` an array where there is one.

        They have the study's class weights, and groups where one of these has several rows.
        """
        weighted = self.study.plan.class_weight == "balanced"
        rows = encode(self._find_columns(table), self.layout, encoder, weighted=weighted, into=into)
        if not self.schema.group:
            return rows
        # Groups matter only where one of them has several rows.
        group, persons = pd.factorize(table[self.schema.group])
        return rows if len(persons) == len(table) else replace(rows, group=group)

    def encode_training(self, encoder: Encoder, into: np.ndarray | None = None) -> Encoded:
        """Encode the training rows as `encode` does, with their place in the order of time.

        Rows that are there for their outcome come last; beside them those of other outcomes count 1/sample.
        """
        if self.table.training_rows > SIDE_BY_SIDE:
            self._release_training()
        x = into
        if x is None:
            x = np.empty((self.fitted_rows, len(input_names(self.layout))))
        parts = []
        start = 0
        for block in self.table.blocks_to_fit():
            parts.append(self.encode(block, encoder, into=x[start : start + len(block)]))
            start += len(block)
        rows = replace(pooled_rows(parts, x), elapsed=self._elapsed, sites=1)
        source = self.site.source
        if self.table.further is None or source.keep is None:
            return rows
        counts = np.where(rows.y == self.schema.classes.index(source.keep[1]), 1.0, 1 / source.sample)
        # Steps and penalties are those of as many rows that count 1.
        return replace(rows, weight=rows.weight * counts / counts.mean(), counts=counts)

    @property
    def fitted_rows(self) -> int:
        """Number of rows that models are fitted on."""
        return self.table.training_rows + (0 if self.table.further is None else len(self.table.further))

    def plain(self, rows: Encoded) -> Encoded:
        """Return those of `encode_training` that are a plain sample, for what takes no weights."""
        return rows if self.table.further is None else rows.take(slice(self.table.training_rows))

    @cached_property
    def _elapsed(self) -> np.ndarray | None:
        """Share of the training rows that are of earlier blocks of time than each; None of a holdout at random."""
        holdout = holdout_of(self.study, self.site)
        if isinstance(holdout, Holdout):
            return None
        return elapsed_shares(pd.concat(self.table.blocks_to_fit()), holdout, self.schema)

    def _through(self, encoder: Encoder) -> dict[str, Encoded]:
        """Return the encoded rows that are kept, all of one encoder: those of another one's numbers go."""
        # The same object needs no look at its numbers, which most rounds save.
        if encoder is not self._encoder:
            if self._encoder is None or not _same(encoder, self._encoder):
                self._encoded = {}
            self._encoder = encoder
        return self._encoded

    def blocks(self, table: pd.DataFrame) -> np.ndarray | None:
        """Return the number of each row's block, in the order of time; None of a holdout at random."""
        return block_numbers(table, holdout_of(self.study, self.site), self.schema)

    def training(self, encoder: Encoder) -> Encoded:
        """Return the encoded training rows, kept for later rounds."""
        cache = self._through(encoder)
        if "training" not in cache:
            cache["training"] = self.encode_training(self.in_use(encoder))
        return cache["training"]

    def release_rows(self) -> None:
        """Drop the encoded rows, which are made again where somebody asks for them."""
        self._encoded = {}

    def _release_training(self) -> None:
        released = self.table.release_training()
        self._coded = [(table, columns) for table, columns in self._coded if table is not released]

    def holdout_rows(self, encoder: Encoder) -> Encoded:
        """Return the encoded holdout rows, kept for later rounds: they are scored before figures of a model leave."""
        cache = self._through(encoder)
        if "holdout" not in cache:
            cache["holdout"] = self.encode(self.table.holdout("score-check"), self.in_use(encoder))
        return cache["holdout"]

    def fitted(self, encoder: Encoder) -> Encoded:
        """Return the encoded training rows without those for validation."""
        return self.round_rows(encoder)[0]

    def fitted_columns(self) -> ColumnArrays:
        """Return the columns of the rows to train on, without those for validation."""
        return self.coded(self.table.training).take(~self._validation)

    def round_rows(self, encoder: Encoder) -> tuple[Encoded, Encoded]:
        """Return the rows to train on and to score.

        They are the same rows where the plan keeps none apart, and none is there for its outcome.
        """
        if not self.validation_rows:
            rows = self.training(encoder)
            return rows, self.plain(rows)
        cache = self._through(encoder)
        if "validation" not in cache:
            if "training" in cache:
                # Rows that somebody has already are not taken apart in place.
                rows = cache.pop("training")
                parts = rows.take(~self._apart), rows.take(self._apart)
            else:
                rows = self.encode_training(self.in_use(encoder))
                parts = rows.split(self._apart)
            parts = parts[0], parts[1].take(slice(self.validation_rows))
            cache |= dict(zip(PARTS, parts, strict=True))
        return cache["fitted"], cache["validation"]

    @cached_property
    def _apart(self) -> np.ndarray:
        """Which rows of `encode_training` a round is not fitted on [rows].

        Those that validation draws among the further rows are in neither part: so the others keep their weights.
        """
        if self.table.further is None:
            return self._validation
        apart = np.zeros(len(self.table.further), dtype=bool)
        if self.validation_rows:
            apart = self._draw_validation(side_keys(self.table.further, self.schema))
        return np.concatenate([self._validation, apart])

    @property
    def scored_part(self) -> str:
        """Part of the rows that a round's model is scored on."""
        return "validation" if self.validation_rows else "training"

    def target(self, table: pd.DataFrame) -> np.ndarray:
        """Return class codes, or the target in its unit."""
        columns = self._find_columns(table)
        if isinstance(columns, ColumnArrays) and self.task != "regression":
            return columns.codes[self.schema.target].astype(np.intp)
        cells = table[self.schema.target]
        if self.task == "regression":
            return cells.to_numpy(dtype=float)
        return codes(cells, self.layout.target)

    def predictions(self, outputs: np.ndarray, encoder: Encoder) -> np.ndarray:
        """Convert outputs to probabilities, or predictions in the target's unit."""
        if self.task == "regression":
            return decode_target(outputs[:, 0], self.layout, encoder)
        return probabilities(self.task, outputs)


def _same(one: Encoder, other: Encoder) -> bool:
    """Return whether two encoders have the same numbers.

    Each message may bring an encoder of its own.
    """
    pairs = zip(one.arrays().values(), other.arrays().values(), strict=True)
    return all(mine is theirs or mine.tobytes() == theirs.tobytes() for mine, theirs in pairs)
