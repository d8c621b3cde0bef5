"""One site's work on one study.

Its open table, its encoded rows and what its handlers answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flfed import registry
from flfed.refusals import Refusal
from flfed.rows.baselines import Trainable, best, fine_tuned, network_predictor, tuned
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout, for_validation
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.evaluation.scoring import Measured, RoundFigures, RowScores, metrics_of, primary_of, too_few
from flfed.rows.features.columns import ColumnArrays, coded, codes
from flfed.rows.features.encode import Encoded, EncodedCache, decode_target, encode
from flfed.rows.features.summarise import layout_of, leaving, one_of_each, summarise
from flfed.rows.own_intercept import own_intercept, own_offset, site_deviation
from flfed.rows.training.losses import probabilities
from flfed.rows.training.private.noise import Protection
from flfed.rows.training.requests import ComputeRequest, FitRequest, Fitted, MeasureRequest, ScoreRequest, Term
from flfed.rows.training.tuning.linear import Predictor
from flfed.seeds import Draws
from flfed.study.study import Study
from flfed.study.tables import Own, OwnFamily
from flfed.summaries.summary import Encoder, Layout, Summary, arrays_sha256, fit_encoder, schema_encoder

Arrays = dict[str, np.ndarray]
FIT = "fit"
"""The purpose of what a site draws in a round."""
Asking = Generator[ComputeRequest, Any, Any]


@dataclass(frozen=True, eq=False)
class LocalModel:
    """A model of one site alone, with its encoder.

    `family` is None where the model is of the study's own kind.
    """

    encoder: Encoder
    outputs: Predictor
    family: OwnFamily | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """One round of training at a site.

    It also says how the incoming model did there.

    Attributes
    ----------
    delta : dict of name to array
        Local minus global; empty where nothing was trained.
    rows : int
        Rows trained on.
    scores : RowScores or None
        On validation rows, or on training rows where the plan keeps none.
    holdout : RowScores or None
        On holdout rows, where the study asks for that curve.
    """

    delta: Arrays
    rows: int
    loss: float
    steps: int
    scores: RowScores | None
    holdout: RowScores | None


def study_layout(study: Study, schema: Schema) -> Layout:
    """Return the layout of a study's summaries and inputs."""
    features = schema.features(study.dataset.features)
    return layout_of(schema, features, missing_indicator=study.encode.missing_indicator)


def study_trainable(study: Study, schema: Schema, model: Any, *, seed: int, site: str = "") -> Trainable:
    """Return training settings for one site, or for all."""
    classes = len(schema.classes)
    return Trainable(
        model=model, task=schema.task, classes=classes, plan=study.plan, rounds=study.rounds, seed=seed, site=site
    )


def study_table(study: Study, site: Site, repeat: int = 0) -> SiteTable:
    """Read a site's table as a study asks.

    The study says which rows and split by whom. `repeat` is as for `SiteSession`.
    """
    features = datasets.load(study.dataset.name).schema.features(study.dataset.features)
    complete = features if study.encode.rows == "complete" else ()
    if not study.split.fixed:
        return site.read(repeat, complete=complete)
    published = registry.load("split", study.split.fixed)()
    return site.read(repeat if study.split.redraw else 0, complete=complete, published=published)


def study_refusal(study: Study, site: Site) -> Refusal | None:
    """Return why the site's policy forbids a study's rows.

    It is None where the policy allows them. No row is read.
    """
    return site.policy.refusal(complete=study.encode.rows == "complete", published=bool(study.split.fixed))


def redraws(study: Study, site: Site) -> bool:
    """Tell whether repeats hold out other rows."""
    if study.split.fixed:
        return study.split.redraw
    # By time the holdout is the same in every repeat.
    return site.policy.resplit and isinstance(site.holdout, Holdout)


class SiteSession:
    """One site's side of one study.

    It reads the table once and encodes it once per encoder.

    Parameters
    ----------
    site : Site
    study : Study
    repeat : int, >= 0
        From 1 on seeds differ, and the holdout where the site's policy allows.
    table : SiteTable, optional
        The site's table where it was read before; else it is read now.
    draws : Draws, optional
        Of the study's fits, where sites share one: what each draws does not depend on it.
    protection : Protection, optional
        How rows are protected while they are trained on; else they are not.
    """

    def __init__(
        self,
        site: Site,
        study: Study,
        repeat: int = 0,
        *,
        table: SiteTable | None = None,
        draws: Draws | None = None,
        protection: Protection | None = None,
    ) -> None:
        self.site = site
        self.study = study
        self.seed = study.seed + repeat
        self._draws, self.protection = draws or Draws(self.seed, FIT), protection
        self.schema = datasets.load(study.dataset.name).schema
        self.task, self.classes = self.schema.task, len(self.schema.classes)
        self.layout = study_layout(study, self.schema)
        self.model = study.model.build("model")
        self.metrics = metrics_of(self.task, study.compare.alert_budget)
        self.primary = primary_of(self.task, study.compare.primary, study.compare.alert_budget)
        self.table = study_table(study, site, repeat) if table is None else table
        # A plan with validation keeps some training rows apart, drawn by the run's seed.
        keys = self.table.training_keys() if study.plan.validation else []
        held = for_validation(keys, site.holdout, site.name, self.seed, study.plan.validation)
        self._held = held if keys else np.zeros(len(self.table.training), dtype=bool)
        self._encoded = EncodedCache()
        self._figures: dict[str, RoundFigures] = {}
        self._local: dict[Own, LocalModel] = {}
        self._coded: list[tuple[pd.DataFrame, ColumnArrays]] = []
        self._personal: dict[tuple[str, str, float | None], Predictor] = {}

    def parts(self) -> dict[str, pd.DataFrame]:
        """Return the rows that sums are over, by part.

        Fitted and validation rows are parts of their own where the plan keeps them apart.
        """
        found = {"training": self.table.training, "holdout": self.table.holdout("row-set")}
        if self._held_rows:
            found |= {"fitted": self.table.training[~self._held], "validation": self.table.training[self._held]}
        return found

    def too_small(self) -> Refusal | None:
        """Return which part of the rows is too small.

        It is None where none is too small to be counted for others.

        The exact number of rows of each part crosses with updates and figures, and an update
        from few rows gives them away.
        """
        held = int(self._held.sum())
        parts = {"training": len(self.table.training) - held, "holdout": self.table.holdout_rows}
        if self.study.plan.validation:
            parts["validation"] = held
        least = self.site.policy.least_rows()
        small = [part for part, rows in parts.items() if rows < least]
        return Refusal("too-few-rows", least=least, parts=" and ".join(small)) if small else None

    def summary(self) -> Summary:
        """Return the sums over training rows that may leave."""
        return self._leaving(self.table.training, self._known(self.table.training))

    def holdout_summary(self) -> Summary | None:
        """Return the holdout sums that may leave, None if too small."""
        held = self.table.holdout("compare")
        if len(held) < self.site.policy.least_rows():
            return None
        return self._leaving(held, self.coded(held))

    def _leaving(self, table: pd.DataFrame, rows: pd.DataFrame | ColumnArrays) -> Summary:
        minimum = None if self.site.policy.disclosure == "open" else self.site.policy.cell_minimum
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
        center, scale = own.center.copy(), own.scale.copy()
        center[-1], scale[-1] = encoder.center[-1], encoder.scale[-1]
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
        known = self._known(table)
        if not isinstance(known, ColumnArrays):
            known = coded(table, self.layout)
            self.keep(table, known)
        return known

    def keep(self, table: pd.DataFrame, known: ColumnArrays) -> None:
        """Keep columns of a table that are known already.

        From then on they are the columns of just this table.
        """
        self._coded.append((table, known))

    def _known(self, table: pd.DataFrame) -> pd.DataFrame | ColumnArrays:
        """Return a table's columns if kept, else the table."""
        return next((found for own, found in self._coded if own is table), table)

    def in_use(self, encoder: Encoder) -> Encoder:
        """Return the encoder that this site's rows go through.

        It is that of all sites unless the study says otherwise.
        """
        if self.study.encode.scaler == "schema":
            return self._schema_encoder  # whatever was sent: no server can put rows into it
        return self.own_encoder(encoder) if self.study.encode.scaler == "per-site" else encoder

    @cached_property
    def _schema_encoder(self) -> Encoder:
        return schema_encoder(self.layout)

    def encode(self, table: pd.DataFrame, encoder: Encoder) -> Encoded:
        """Encode mapped rows as inputs.

        They have the study's class weights, and groups where one of these has several rows.
        """
        rows = encode(self._known(table), self.layout, encoder, weighted=self.study.plan.class_weight == "balanced")
        if not self.schema.group:
            return rows
        # Groups matter only where one of them has several rows.
        group, persons = pd.factorize(table[self.schema.group])
        return rows if len(persons) == len(table) else replace(rows, group=group)

    def training(self, encoder: Encoder) -> Encoded:
        """Return the encoded training rows, kept for later rounds."""
        kept = self._encoded.through(encoder)
        if "training" not in kept:
            kept["training"] = self.encode(self.table.training, self.in_use(encoder))
        return kept["training"]

    def fitted(self, encoder: Encoder) -> Encoded:
        """Return the encoded training rows without those for validation."""
        return self._parts(encoder)[0]

    def _parts(self, encoder: Encoder) -> tuple[Encoded, Encoded]:
        """Return the rows to train on and to score.

        They are the same rows where the plan keeps none apart.
        """
        if not self._held_rows:
            rows = self.training(encoder)
            return rows, rows
        kept = self._encoded.through(encoder)
        if "validation" not in kept:
            rows = self.training(encoder)
            kept |= {"fitted": rows.take(~self._held), "validation": rows.take(self._held)}
            del kept["training"]  # made again after the rounds: else every row would be kept twice
        return kept["fitted"], kept["validation"]

    def target(self, table: pd.DataFrame) -> np.ndarray:
        """Return class codes, or the target in its unit."""
        known = self._known(table)
        if isinstance(known, ColumnArrays) and self.task != "regression":
            return known.codes[self.schema.target].astype(np.intp)
        cells = table[self.schema.target]
        return cells.to_numpy(dtype=float) if self.task == "regression" else codes(cells, self.layout.target)

    @cached_property
    def _held_rows(self) -> int:
        return int(self._held.sum())

    def predictions(self, outputs: np.ndarray, encoder: Encoder) -> np.ndarray:
        """Convert outputs to probabilities, or predictions in the target's unit."""
        if self.task == "regression":
            return decode_target(outputs[:, 0], self.layout, encoder)
        return probabilities(self.task, outputs)

    def train(
        self,
        arrays: Arrays,
        encoder: Encoder,
        *,
        round: int,
        rounds: int,
        lr_scale: float = 1.0,
        fit: bool = True,
        score: bool = True,
        terms: tuple[Term, ...] = (),
    ) -> Generator[ComputeRequest, Any, Trained]:
        """Score the incoming model and train from it.

        Yields the requests and returns what came of them.

        `terms` are the strategy's client half: gradients that are added in every step.
        """
        (rows, scored), held = self._parts(encoder), None
        scores = (yield from self._score(arrays, encoder, scored)) if score else None
        if score and self.study.compare.holdout_curve:
            held = yield from self._score_holdout(arrays, encoder)
        # A site that only scores draws nothing and spends nothing.
        if not fit:
            return Trained({}, len(rows), 0.0, 0, scores, held)
        rng, protection = self._draws.of(self.site.name, round), self.protection
        if protection is not None:
            protection.spend(round)  # on the disk before anything is computed
        fitted: Fitted = yield FitRequest(
            model=self.model,
            task=self.task,
            arrays=arrays,
            rows=rows,
            plan=self.study.plan,
            lr=self.study.plan.lr * self.study.plan.factor(round, rounds) * lr_scale,
            rng=rng,
            terms=terms,
            delta=True,
            private=None if protection is None else protection.steps,
            chance=None if protection is None else protection.chance(rng),
        )
        return Trained(fitted.arrays, len(rows), fitted.loss, fitted.steps, scores, held)

    def _score(self, arrays: Arrays, encoder: Encoder, rows: Encoded) -> Asking:
        """Score validation rows, or training rows without any."""
        kind, chosen = ("validation", self._held) if self._held_rows else ("training", slice(None))
        return (
            yield from self._score_rows(kind, arrays, encoder, rows, lambda: self.target(self.table.training)[chosen])
        )

    def _score_holdout(self, arrays: Arrays, encoder: Encoder) -> Asking:
        table, kept = self.table.holdout("holdout-curve"), self._encoded.through(encoder)
        if "holdout" not in kept:
            kept["holdout"] = self.encode(table, self.in_use(encoder))
        return (yield from self._score_rows("holdout", arrays, encoder, kept["holdout"], lambda: self.target(table)))

    def _score_rows(
        self, kind: str, arrays: Arrays, encoder: Encoder, rows: Encoded, target: Callable[[], np.ndarray]
    ) -> Asking:
        # What does not change with the round is computed once for each kind of rows.
        if kind not in self._figures:
            budget = self.study.compare.alert_budget
            self._figures[kind] = RoundFigures(
                kind, target(), task=self.task, classes=self.classes, metric=self.primary,
                policy=self.site.policy, alert_budget=budget,
            )  # fmt: skip
        figures = self._figures[kind]
        measured: Measured = yield MeasureRequest(
            model=self.model,
            task=self.task,
            arrays=arrays,
            rows=rows,
            precision=self.study.plan.precision,
            area=figures.area,
            histogram=figures.histogram,
        )
        return figures.of(measured, lambda outputs: self.predictions(outputs, encoder))

    def trainable(self) -> Trainable:
        """Return the settings for training on this site alone."""
        return study_trainable(self.study, self.schema, self.model, seed=self.seed, site=self.site.name)

    @property
    def own(self) -> Own:
        """The kind of this site's own model.

        It is the best that the site finds alone, or one of the study's own kind.
        """
        return self.study.compare.own_of(linear=self.model.linear)

    def local_model(self, own: Own | None = None) -> Generator[ComputeRequest, Any, LocalModel]:
        """Tune a model on this site's training rows alone.

        Yields the requests and returns the model, which is made once.

        `own` is of what kind; None means what the study says.
        """
        own = own or self.own
        if own not in self._local:
            encoder = self.own_encoder()
            rows = self.encode(self.table.training, encoder)
            if own == "same":
                self._local[own] = LocalModel(encoder, (yield from tuned(rows, self.trainable())))
            else:
                rival = yield from best(rows, self.trainable())
                self._local[own] = LocalModel(encoder, rival.outputs, rival.family)
        return self._local[own]

    def personalised(
        self, arrays: Arrays, encoder: Encoder, sd: float | None = None
    ) -> Generator[ComputeRequest, Any, Predictor]:
        """Fit the global model to this site.

        Yields the requests and returns the function of its outputs.

        A linear model gets the site's own intercept, by the prior deviation `sd` where one is given; others are
        fine-tuned. Made once for the same arrays and encoder, by their hashes, and deviation.
        """
        key = (arrays_sha256(arrays), encoder.sha256(), sd)
        if key not in self._personal:
            self._personal = {key: (yield from self._made_personal(arrays, encoder, sd))}
        return self._personal[key]

    def _made_personal(
        self, arrays: Arrays, encoder: Encoder, sd: float | None
    ) -> Generator[ComputeRequest, Any, Predictor]:
        # A copy: what is kept must not change with the caller's arrays.
        rows, arrays = self.training(encoder), {name: value.copy() for name, value in arrays.items()}
        if not self.model.linear:
            tuned_arrays = yield from fine_tuned(rows, arrays, self.trainable())
            return network_predictor(self.model, tuned_arrays)
        outputs = yield ScoreRequest(model=self.model, arrays=arrays, x=rows.x)
        # The estimate over all sites holds here only as far as this site's rows do not contradict it.
        own = None if sd is None else site_deviation(outputs, rows.y, self.task, sd)
        shift = own_intercept(outputs, rows.y, self.task, own)
        plain = network_predictor(self.model, arrays)
        return lambda x: plain(x) + shift

    def offset(
        self, arrays: Arrays, encoder: Encoder
    ) -> Generator[ComputeRequest, Any, tuple[np.ndarray, np.ndarray] | None]:
        """Estimate the site's intercept, relative to the model's.

        Yields the requests and returns the offset and its standard error.

        Over all training rows; None where that may not leave, or is not known: a study that adjusts otherwise or
        promises something of the rows, too few rows of a class.
        """
        if not self.study.adjusts_intercept() or self.protection is not None:
            return None
        rows = self.training(encoder)
        if too_few(rows.y, self.task, self.classes, self.site.policy):
            return None
        outputs = yield ScoreRequest(model=self.model, arrays=arrays, x=rows.x)
        return own_offset(outputs, rows.y, self.task)
