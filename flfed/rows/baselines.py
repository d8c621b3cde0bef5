"""Local baselines of a site.

Fairly tuned models on its own rows: what it could do without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from flfed.rows.evaluation.bootstrap import units_of
from flfed.rows.features.encode import MOST_ROWS, Encoded, one_hot_basis, scaled_of
from flfed.rows.own_parts import INTERCEPT_SD
from flfed.rows.training.best_model import Rival, column_forecasts, naive_forecasts, suffice_for_trees
from flfed.rows.training.functional import loss_of_rows, outputs_of
from flfed.rows.training.requests import (
    Asking,
    FitRequest,
    Fitted,
    Predictor,
    RivalRequest,
    ScoreRequest,
    TreesRequest,
    TuneRequest,
    together,
)
from flfed.rows.training.tuned_linear import PENALTIES, LinearPredictor, linear_family, tuned_beside
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.study.tables import LINEAR_FAMILIES, OwnFamily, SiteModelKind
from flfed.summaries.summary import Arrays, Encoder, Layout

PULLS = np.concatenate([PENALTIES, [100.0, 1000.0]])
"""Ridge penalties of the distance from the source that are tried, of a loss that is a mean over rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainable:
    """Settings for training a listed model at one site.

    Attributes
    ----------
    model : a listed model
    task : str
    classes : int
    plan : Plan
    rounds : int
        Of the study: a local model may train as many epochs as the federation did.
    seed : int
    site : str
    """

    model: Any
    task: str
    classes: int
    plan: Plan
    rounds: int
    seed: int
    site: str


@dataclass(frozen=True, eq=False)
class LocalModel:
    """A model of one site alone, with its encoder.

    `family` is None where the model is of the study's own kind.
    """

    encoder: Encoder
    outputs: Predictor
    family: OwnFamily | None = None


def tuned_network(rows: Encoded, trainable: Trainable) -> Asking[Arrays]:
    """Train a fairly tuned model on one site's rows.

    Yields the requests and returns the arrays.

    Penalty (the plan's, and ten and a hundred times it) and number of epochs are chosen on a quarter of the rows (of
    the groups), the penalties side by side; of more than `MOST_ROWS` of a site on a sample. Then all rows
    are trained on.
    """
    base = trainable.plan.l2 or 1e-4
    plans = [replace(trainable.plan, l2=l2) for l2 in (base, 10 * base, 100 * base)]
    start = first_arrays(trainable, rows.x.shape[1])
    return (yield from _best_epochs(rows, start, trainable, plans, range(1, trainable.rounds + 1), trainable.rounds))


def fine_tuned(rows: Encoded, start: Arrays, trainable: Trainable) -> Asking[Arrays]:
    """Fine-tune the global model on one site's rows.

    Yields the requests and returns the arrays.

    A tenth of the plan's learning rate; up to ten epochs, as many as help on a quarter of the
    rows (of the groups), which may be none.
    """
    plan = replace(trainable.plan, lr=trainable.plan.lr / 10, schedule="constant")
    # Zero epochs are scored first, so that the global model itself may win.
    return (yield from _best_epochs(rows, start, trainable, [plan], range(11), 0))


def _best_epochs(
    rows: Encoded, start: Arrays, trainable: Trainable, plans: Sequence[Plan], numbers: range, untested: int
) -> Asking[Arrays]:
    """Train by the plan and number of epochs of least loss on rows kept apart.

    Yields the requests and returns the arrays. Where no rows can be kept apart, it is `untested` epochs of the plan.
    """
    rng = generator(trainable.seed, site=trainable.site, purpose="own-sample")
    sample = rows.take(rows.sample(MOST_ROWS * rows.sites, rng))
    validation = _own_validation(sample, trainable)
    if not 0 < validation.sum() < len(sample):
        return (yield from _epochs(rows, start, trainable, trainable.plan, untested))
    fitted = sample.take(~validation)
    tested = sample.take(validation)
    tried = yield from together([_tried(fitted, tested, start, trainable, plan, numbers) for plan in plans])
    best: tuple[float, Plan, int] = (float("inf"), trainable.plan, numbers[0])
    for plan, losses in zip(plans, tried):
        for number, loss in zip(numbers, losses):
            if loss < best[0]:
                best = (loss, plan, number)
    # With both known, all rows are trained on from the start.
    return (yield from _epochs(rows, start, trainable, *best[1:]))


def _tried(
    rows: Encoded, tested: Encoded, arrays: Arrays, trainable: Trainable, plan: Plan, numbers: range
) -> Asking[list[float]]:
    """Yield requests and return the loss on `tested` rows after each number of epochs on `rows`."""
    losses = []
    for number in numbers:
        if number:
            arrays = yield from _epoch(rows, arrays, trainable, plan, number)
        outputs = yield ScoreRequest(model=trainable.model, arrays=arrays, x=tested.x)
        losses.append(loss_of_rows(trainable.task, outputs, tested.y))
    return losses


def _own_validation(rows: Encoded, trainable: Trainable) -> np.ndarray:
    """Return a mask of the rows to choose on.

    It holds about a quarter of them, in whole groups; the latest where rows are held out by time.
    """
    latest = rows.latest()
    if latest is not None:
        return latest
    codes, units = units_of(len(rows), rows.group)
    drawn = generator(trainable.seed, site=trainable.site, purpose="own-validation").random(units)
    return drawn[codes] < 0.25


def first_arrays(trainable: Trainable, inputs: int) -> Arrays:
    """Return the arrays that training starts from.

    They are the same for every site of a study.
    """
    rng = generator(trainable.seed, site="", purpose="first-arrays")
    arrays = trainable.model.first_arrays(inputs, outputs_of(trainable.task, trainable.classes), rng)
    return {name: value.astype(trainable.plan.precision) for name, value in arrays.items()}


def _epochs(rows: Encoded, arrays: Arrays, trainable: Trainable, plan: Plan, epochs: int) -> Asking[Arrays]:
    for number in range(1, epochs + 1):
        arrays = yield from _epoch(rows, arrays, trainable, plan, number)
    return arrays


def _epoch(rows: Encoded, arrays: Arrays, trainable: Trainable, plan: Plan, number: int) -> Asking[Arrays]:
    rng = generator(trainable.seed, site=trainable.site, purpose="own-fit", number=number)
    lr = plan.lr * plan.factor(number, trainable.rounds)
    fitted: Fitted = yield FitRequest(
        model=trainable.model, task=trainable.task, arrays=arrays, rows=rows, plan=plan, lr=lr, rng=rng
    )
    return fitted.arrays


def tuned(rows: Encoded, trainable: Trainable, basis: np.ndarray | None) -> Asking[Predictor]:
    """Tune a model on the rows of one site.

    Yields the requests and returns the function of its outputs.

    scikit-learn's for a linear model and for trees, ours for others. A linear one has the ridge penalty of `basis`.
    """
    rng = generator(trainable.seed, site=trainable.site, purpose="folds")
    if trainable.model.linear:
        fitted: LinearPredictor = yield TuneRequest(
            rows=rows, task=trainable.task, classes=trainable.classes, rng=rng, basis=basis
        )
        return fitted
    if getattr(trainable.model, "plain", False):
        trees: Predictor = yield TreesRequest(rows=rows, task=trainable.task, classes=trainable.classes, rng=rng)
        return trees
    arrays = yield from tuned_network(rows, trainable)
    return network_predictor(trainable.model, arrays)


def local_model(
    rows: Encoded,
    trainable: Trainable,
    layout: Layout,
    encoder: Encoder,
    own: SiteModelKind,
    naive: Sequence[str],
    least: int = 0,
) -> Asking[LocalModel]:
    """Yield requests and return the own model of a kind: of the study's model, or the best of any.

    It is a function of the same inputs. Of a linear study whose linear model is the best, it is just what `tuned`
    finds, of which more penalties are tried. `naive` are columns that are forecasts of the target themselves, `least`
    the rows behind a last value.
    """
    basis = one_hot_basis(layout, encoder)
    if own == "same":
        return LocalModel(encoder, (yield from tuned(rows, trainable, basis)))
    # Of too few rows for trees, in no order of time, a linear model is the only one.
    alone = not suffice_for_trees(rows, trainable.task, trainable.classes)
    if trainable.model.linear and alone and (trainable.task != "regression" or rows.elapsed is None):
        return LocalModel(encoder, (yield from tuned(rows, trainable, basis)), linear_family(trainable.task))
    rng = generator(trainable.seed, site=trainable.site, purpose="rival")
    scaled = replace(rows, x=scaled_of(rows.x, layout, encoder))
    columns = column_forecasts(naive, layout, encoder)
    rival: Rival = yield RivalRequest(
        rows=scaled, task=trainable.task, classes=trainable.classes, rng=rng, columns=columns, least=least, basis=basis
    )
    if trainable.model.linear and rival.family in LINEAR_FAMILIES:
        return LocalModel(encoder, (yield from tuned(rows, trainable, basis)), rival.family)
    return LocalModel(encoder, partial(_rival_outputs, rival, layout, encoder), rival.family)


def _rival_outputs(rival: Rival, layout: Layout, encoder: Encoder, x: np.ndarray) -> np.ndarray:
    return rival.outputs(scaled_of(x, layout, encoder))


def naive_outputs(
    rows: Encoded, x: np.ndarray, layout: Layout, encoder: Encoder, naive: Sequence[str], least: int
) -> dict[OwnFamily, np.ndarray]:
    """Return what forecasts without a model say of inputs, by family.

    Rows in no order of time have none.
    """
    # They are functions of scaled inputs, also where trees take the columns as they are.
    own = replace(rows, x=scaled_of(rows.x, layout, encoder))
    scaled = scaled_of(x, layout, encoder)
    forecasts = naive_forecasts(own, column_forecasts(naive, layout, encoder), least)
    return {family: forecast(scaled) for family, forecast in forecasts.items()}


def network_predictor(model: Any, arrays: Arrays) -> Predictor:
    """Return the prediction function of a trained network.

    It maps inputs to the outputs of `model` with `arrays`.
    """
    return partial(_network_outputs, model, arrays)


def _network_outputs(model: Any, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    from flfed.rows.training.fit import score  # it needs torch

    return score(ScoreRequest(model=model, arrays=arrays, x=x))


def pulled(rows: Encoded, start: Arrays, trainable: Trainable) -> Asking[Predictor]:
    """Fit a model to one site's rows that is pulled towards a source.

    Yields the requests and returns the function of its outputs.

    A linear model is drawn to the source by a ridge penalty of its distance, chosen by cross-validation on these rows.
    Another model is fine-tuned from it, for as many epochs as help on a quarter of the rows.

    Parameters
    ----------
    rows : Encoded
        Training rows, by the encoder that `start` is for.
    start : dict of name to array
        The source, rewritten.
    trainable : Trainable
    """
    if not trainable.model.linear:
        return network_predictor(trainable.model, (yield from fine_tuned(rows, start, trainable)))
    (weight, bias), *_ = trainable.model.layers
    return pulled_linear(rows, start[weight], start[bias], trainable)


def pulled_linear(rows: Encoded, weight: np.ndarray, bias: np.ndarray, trainable: Trainable) -> LinearPredictor:
    """Return the linear model of least penalised loss, the penalty by cross-validation.

    The penalty is `pull / 2 * |w - source|²` of the mean loss; the intercept moves by the prior of a site's own. Where
    no fold can be tested it is the source itself.
    """
    source = LinearPredictor(weight.astype(float), bias.astype(float))
    rng = generator(trainable.seed, site=trainable.site, purpose="folds")
    moved, tested = tuned_beside(
        rows, source(rows.x), trainable.task, trainable.classes, rng, lambda count: PULLS * count, INTERCEPT_SD**-2.0
    )
    if tested:
        return LinearPredictor(source.weight + moved.weight, source.bias + moved.bias)
    return source
