"""One site's work on one study.

Its open table, its encoded rows and what its handlers answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from flfed.refusals import Refusal
from flfed.rows.baselines import LocalModel, Trainable, fine_tuned, local_model, network_predictor
from flfed.rows.data.site import Site, SiteTable, study_table
from flfed.rows.encoded_table import EncodedTable
from flfed.rows.evaluation.scoring import Measured, RoundFigures, metrics_of, primary_of, too_few
from flfed.rows.features.encode import Encoded
from flfed.rows.own_parts import (
    NOTHING_ADDED,
    AddedGradients,
    OwnArrays,
    narrowed,
    own_intercept,
    own_offset,
    site_deviation,
    widened,
)
from flfed.rows.statistics.boosted_trees import SiteTrees
from flfed.rows.study_model import first_model, frozen_arrays, study_layout, study_schema, study_trainable
from flfed.rows.training.private_noise import Protection
from flfed.rows.training.requests import (
    Asking,
    FitRequest,
    Fitted,
    MeasureRequest,
    Predictor,
    Request,
    ScoreRequest,
    Term,
)
from flfed.seeds import Draws
from flfed.study.study import Study
from flfed.summaries.score_bins import RowScores
from flfed.summaries.summary import Arrays, Encoder, arrays_sha256

FIT = "fit"
"""The purpose of what a site draws in a round."""


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
    lr : float
        Learning rate of the round; 0 where nothing was trained.
    own : dict of name to array
        What the site has of its own of the model after the round; empty without.
    """

    delta: Arrays
    rows: int
    loss: float | None
    steps: int
    scores: RowScores | None
    lr: float = 0.0
    own: Arrays = field(default_factory=dict)


class SiteSession(EncodedTable):
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
        self.repeat = repeat
        seed = study.seed + repeat
        schema = study_schema(study)
        if table is None:
            table = study_table(study, site, repeat)
        super().__init__(site, study, table, study_layout(study, schema), schema, seed)
        self.protection = protection
        self.own_arrays = OwnArrays()
        self.trees: SiteTrees | None = None
        self.draws = draws or Draws(seed, FIT)
        self.model = study.model.build("model")
        self.metrics = metrics_of(self.task, study.compare.alert_budget)
        self.primary = primary_of(self.task, study.compare.primary, study.compare.alert_budget)
        self._figures: dict[str, RoundFigures] = {}
        self._local: dict[bool, LocalModel] = {}
        self._personal: dict[tuple[str, str, float | None], Predictor] = {}

    def too_small(self) -> Refusal | None:
        """Return which part of the rows is too small to be counted for others, or None.

        The exact number of rows of each part crosses, and an update from few people gives them away. An analysis under
        noise has no parts, and a party with columns alone none before the rows in common are known.
        """
        if not self.site.has_outcome or (self.study.is_statistic and (self.study.is_covered or self.policy.is_open)):
            return None
        least = self.policy.least_rows()
        small = [part for part, people in self._people_by_part().items() if people < least]
        if not small:
            return None
        named = " and ".join(small)
        if least == 1:
            return Refusal("no-rows", parts=named)
        return Refusal("too-few-people" if self.schema.group else "too-few-rows", least=least, parts=named)

    def _people_by_part(self) -> dict[str, int]:
        """Return how many people each part of the rows is of; without a group each row is a person."""
        table = self.table
        rows = {"training": table.training_rows - self.validation_rows, "holdout": table.holdout_rows}
        if self.study.is_statistic or not self.study.train:
            rows = {"scored": table.training_rows + table.holdout_rows}
        elif self.site.holds_nothing_out():
            del rows["holdout"]
        if self.study.plan.validation:
            rows["validation"] = self.validation_rows
        if not self.schema.group or self.policy.is_open:
            return rows
        training, holdout = (side[self.schema.group].to_numpy() for side in (table.training, table.holdout("people")))
        groups = {"training": training, "holdout": holdout, "scored": np.concatenate([training, holdout])}
        if self.study.plan.validation:
            groups |= {"training": training[~self._validation], "validation": training[self._validation]}
        return {part: len(set(groups[part])) for part in rows}

    @cached_property
    def is_judged(self) -> bool:
        """Whether any figure over test rows may leave: else no model of the site's own is made for one."""
        if self.policy.is_open:
            return True
        return not too_few(self.target(self.table.holdout("compare")), self.task, self.classes, self.policy)

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
        correction: Arrays | None = None,
        own: AddedGradients = NOTHING_ADDED,
    ) -> Asking[Trained]:
        """Score the incoming model and train from it.

        Yields the requests and returns what came of them.

        `terms` are the strategy's client half: gradients that are added in every step. Those of `correction` are
        constant, by the names of the model's arrays. Those of `own` are for the site's own model, where it has one.
        """
        arrays = self.own_arrays.at_site(arrays)
        rows, scored = self.round_rows(encoder)
        protection = self.protection
        # An update stands for the rows that are known under noise, where no exact number may leave.
        row_count = len(rows)
        if self.table.further is not None:
            row_count = self.table.training_rows - self.validation_rows
        if protection is not None and protection.units is not None:
            row_count = int(protection.units.units)
        scores = None
        if score:
            scores = yield from self.measured(self.scored_part, arrays, encoder, scored)
        # A site that only scores draws nothing and spends nothing.
        if not fit:
            return Trained({}, row_count, 0.0, 0, scores)
        if protection is not None:
            protection.spend(round)  # on the disk before anything is computed
        lr = self.study.plan.lr * self.study.plan.factor(round, rounds) * lr_scale
        shared = AddedGradients(terms=terms, correction=correction or {})
        fits: list[Request] = [self._round_fit(arrays, rows, round, lr, shared)]
        if self.own_arrays.model is not None:
            fits.append(self._round_fit(self.own_arrays.model, rows, round, lr, own))
        # Side by side, so that an engine may stack each with those of other sites.
        replies: list[Fitted] = yield fits
        delta, beside = (widened(fitted.arrays, arrays) for fitted in (replies[0], replies[-1]))
        delta, own_part = self.own_arrays.parted(arrays, delta, beside)
        return Trained(delta, row_count, replies[0].loss, replies[0].steps, scores, lr, own_part)

    def _round_fit(self, arrays: Arrays, rows: Encoded, round: int, lr: float, added: AddedGradients) -> FitRequest:
        """Return the request of a round's fit, of the part of the hidden units that the site trains."""
        request = self.fit_request(arrays, rows, self.draws.of(self.site.name, round), lr=lr, terms=added.terms)
        return narrowed(replace(request, correction=added.correction), self.width)

    @property
    def width(self) -> float:
        """The share of the model's hidden units that the site trains.

        All of a model that has none.
        """
        return 1.0 if self.model.linear or self.layout.plain else self.policy.width

    def fit_request(
        self, arrays: Arrays, rows: Encoded, rng: np.random.Generator, *, lr: float, terms: tuple[Term, ...] = ()
    ) -> FitRequest:
        """Return the request of a round's update.

        It is under the site's protection where there is one.
        """
        protection = self.protection
        request = FitRequest(
            model=self.model,
            task=self.task,
            arrays=arrays,
            rows=rows,
            plan=self.study.plan,
            lr=lr,
            rng=rng,
            terms=terms,
            frozen=frozen_arrays(self.study, self.model),
            delta=True,
        )
        if protection is None:
            return request
        chance = protection.chance(rng)
        return replace(request, private=protection.steps, chance=chance, units=protection.units)

    def measured(
        self, kind: str, arrays: Arrays, encoder: Encoder, rows: Encoded, model: Any = None
    ) -> Asking[RowScores]:
        """Score training rows of a kind, "training" or "validation", by the study's model or another one.

        Yields the request and returns the scores that may leave.
        """
        # What does not change with the round is computed once for each kind of rows.
        if kind not in self._figures:
            target = rows.y
            if self.task == "regression":
                target = self.target(self.table.training)
                target = target[self._validation] if kind == "validation" else target
            self._figures[kind] = RoundFigures(
                kind, target, task=self.task, classes=self.classes, metric=self.primary, policy=self.policy,
                alert_budget=self.study.compare.alert_budget,
            )  # fmt: skip
        figures = self._figures[kind]
        measured: Measured = yield MeasureRequest(
            model=model or self.model,
            task=self.task,
            arrays=arrays,
            rows=rows,
            precision=self.study.plan.precision,
            area=figures.area,
            histogram=figures.histogram,
        )
        return figures.of(measured, lambda outputs: self.predictions(outputs, encoder))

    def drawn_model(self) -> Arrays:
        """Return the random initial arrays of the study's model for the session's repeat."""
        return first_model(self.study, self.schema, self.repeat)

    def trainable(self) -> Trainable:
        """Return the settings for training on this site alone."""
        return study_trainable(self.study, self.schema, self.model, seed=self.seed, site=self.site.name)

    def local_model(self, *, same: bool = False) -> Asking[LocalModel]:
        """Tune a model on this site's training rows alone.

        Yields the requests and returns the model, which is made once.

        It is of the kind that the study says, with `same` of the study's own.
        """
        if same not in self._local:
            encoder = self.own_encoder()
            rows = self.encode_training(encoder)
            kind = "same" if same else self.study.compare.site_model
            naive = self.study.compare.naive_forecasts
            self._local[same] = yield from local_model(
                rows, self.trainable(), self.layout, encoder, kind, naive, self.policy.least_rows()
            )
        return self._local[same]

    def outputs(self, arrays: Arrays, x: np.ndarray) -> Asking[np.ndarray]:
        """Yield one request and return the outputs of the study's model for inputs."""
        outputs: np.ndarray = yield ScoreRequest(model=self.model, arrays=arrays, x=x)
        return outputs

    def personalised(self, arrays: Arrays, encoder: Encoder, sd: float | None = None) -> Asking[Predictor]:
        """Fit the global model to this site.

        Yields the requests and returns the function of its outputs.

        A linear model, or trees, get the site's own intercept, by the prior deviation `sd` where one is given; others
        are fine-tuned. Made once for the same arrays and encoder, by their hashes, and deviation. Where the site has a
        model of its own beside the shared one, it is that.
        """
        if self.own_arrays.model is not None:
            return network_predictor(self.model, self.own_arrays.model)
        arrays = self.own_arrays.at_site(arrays)
        key = (arrays_sha256(arrays), encoder.sha256(), sd)
        if key in self._personal:
            return self._personal[key]
        rows = self.training(encoder)
        # A copy: the kept arrays must not change with the caller's.
        arrays = {name: value.copy() for name, value in arrays.items()}
        if self.model.linear or self.layout.plain:
            rows = self.plain(rows)
            outputs = yield from self.outputs(arrays, rows.x)
            # The estimate over all sites holds here only as far as this site's rows do not contradict it.
            if sd is not None:
                sd = site_deviation(outputs, rows.y, self.task, sd)
            shift = own_intercept(outputs, rows.y, self.task, sd)
            plain = network_predictor(self.model, arrays)
            self._personal = {key: lambda x: plain(x) + shift}
        else:
            tuned_arrays = yield from fine_tuned(rows, arrays, self.trainable())
            self._personal = {key: network_predictor(self.model, tuned_arrays)}
        return self._personal[key]

    def offset(self, arrays: Arrays, encoder: Encoder) -> Asking[tuple[np.ndarray, np.ndarray] | None]:
        """Estimate the site's intercept, relative to the model's.

        Yields the requests and returns the offset and its standard error.

        Over all training rows; None where that may not leave, or is not known: a study that adjusts otherwise or
        promises something of the rows, too few rows of a class.
        """
        if not self.study.adjusts_intercept() or self.protection is not None:
            return None
        # No round follows that asks for parts of the rows: with them every row would be kept twice.
        if self.validation_rows:
            self.release_rows()
        rows = self.plain(self.training(encoder))
        arrays = self.own_arrays.at_site(arrays)
        if too_few(rows.y, self.task, self.classes, self.policy):
            return None
        outputs = yield from self.outputs(arrays, rows.x)
        return own_offset(outputs, rows.y, self.task)
