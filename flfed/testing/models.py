"""What every model keeps: pure functions of named arrays, for one site or a stack of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from flfed.rows.features.encode import Encoded
from flfed.rows.training.fit import fit, score
from flfed.rows.training.functional import outputs_of
from flfed.rows.training.requests import FitRequest, Fitted, ScoreRequest
from flfed.study.plan import Plan
from flfed.testing.rules import Subject, check, hold, largest_gap
from flfed.updates.arrays import Arrays

CLASSES = {"binary": 2, "multi-class": 3, "regression": 0}
INPUTS = 4


def check_model(model: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a model against its contract.

    Parameters
    ----------
    model : class
        With `tasks`, `linear`, `penalised`, `intercept`, `first_arrays` and `outputs`, as
        `flfed.rows.models.linear.Linear` has.
    settings : mapping of parameter to value, optional
        For its constructor.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.rows.models.linear import Linear
    >>> check_model(Linear)
    """
    check(globals(), Subject(model, settings))


def it_says_what_it_is(subject: Subject) -> None:
    """Which tasks it is for, and whether scikit-learn's linear models are its fair local rival."""
    kind = subject.kind
    hold(kind.tasks and set(kind.tasks) <= set(CLASSES), f"tasks={kind.tasks!r} must be some of {', '.join(CLASSES)}")
    hold(isinstance(kind.linear, bool), f"linear={kind.linear!r} must be True or False")


def its_intercept_and_its_penalised_arrays_are_among_its_arrays(subject: Subject) -> None:
    """`l1` and `l2` fall on weights, never on the intercept, which a site may fit for itself."""
    for _, model, arrays in _each(subject):
        hold(model.intercept in arrays, f"intercept={model.intercept!r} is not among {list(arrays)}")
        wrong = sorted(set(model.penalised) - (set(arrays) - {model.intercept}))
        hold(not wrong, f"penalised names {wrong}, which is the intercept or no array")


def first_arrays_follow_from_the_generator_alone(subject: Subject) -> None:
    """The same seed gives the same start at every institution, in float64."""
    for task in subject.kind.tasks:
        arrays, again = (_started(subject, task)[1] for _ in range(2))
        good = all(value.dtype == np.float64 and np.isfinite(value).all() for value in arrays.values())
        hold(good, "an array is not float64, or not finite")
        hold(largest_gap(again, arrays) == 0, "the same generator gave other first arrays")


def a_stack_of_sites_gives_each_its_own_outputs(subject: Subject) -> None:
    """An engine may train many sites at once: arrays may have leading dimensions."""
    for task, model, first in _each(subject):
        rng = np.random.default_rng(5)
        several = [{name: of + rng.normal(size=of.shape) for name, of in first.items()} for _ in range(3)]
        x = torch.from_numpy(rng.normal(size=(3, 11, INPUTS)))
        stack = {name: torch.from_numpy(np.stack([arrays[name] for arrays in several])) for name in first}
        outputs = model.outputs(stack, x)
        shape = (3, 11, outputs_of(task, CLASSES[task]))
        hold(outputs.shape == shape, f"{task}: its outputs have shape {tuple(outputs.shape)} instead of {shape}")
        for place, arrays in enumerate(several):
            alone = model.outputs({name: torch.from_numpy(value) for name, value in arrays.items()}, x[place])
            gap = float((outputs[place] - alone).abs().max())
            hold(gap < 1e-12, f"{task}: the outputs of a site differ by {gap:g} between a stack and the site alone")


def the_intercept_moves_every_output_alike(subject: Subject) -> None:
    """A site's own intercept is a shift of the log-odds, logits or predictions."""
    for task, model, arrays in _each(subject):
        moved = {**arrays, model.intercept: arrays[model.intercept] + 0.7}
        before, after = (score(ScoreRequest(model=model, arrays=a, x=_rows(task).x)) for a in (arrays, moved))
        gap = float(np.abs(after - before - 0.7).max())
        hold(gap < 1e-12, f"{task}: with 0.7 added to the intercept an output changes by {gap:g} more or less")


def training_lowers_the_loss(subject: Subject) -> None:
    """Gradients reach every array that matters: sixty full steps of Adam take at least a tenth of the loss."""
    for task, model, arrays in _each(subject):
        trained = _fitted(model, task, arrays, Plan(optimiser="adam", batch=0, steps=60)).arrays
        before, after = (_fitted(model, task, a, Plan(batch=0)).loss for a in (arrays, trained))
        hold(after < 0.9 * before, f"{task}: the loss changed from {before:.4f} to {after:.4f}")


def no_row_depends_on_another(subject: Subject) -> None:
    """A prediction is of one person: the rows beside it do not count."""
    for task, model, arrays in _each(subject):
        arrays = _fitted(model, task, arrays, Plan(batch=0, steps=5)).arrays
        rows = _rows(task).x
        whole, part = (score(ScoreRequest(model=model, arrays=arrays, x=x)) for x in (rows, rows[7:9]))
        gap = float(np.abs(part - whole[7:9]).max())
        hold(gap < 1e-12, f"{task}: the outputs of two rows differ by {gap:g} without the other rows")


def _rows(task: str) -> Encoded:
    """Return rows whose target follows from their inputs."""
    x = np.random.default_rng(2).normal(size=(40, INPUTS))
    y = x @ np.arange(1.0, INPUTS + 1)
    if task != "regression":
        y = np.digitize(y, [-1.0, 2.0][: CLASSES[task] - 1])
    return Encoded(x, y, np.ones(40))


def _started(subject: Subject, task: str) -> tuple[Any, Arrays]:
    model = subject.make()
    return model, model.first_arrays(INPUTS, outputs_of(task, CLASSES[task]), np.random.default_rng(3))


def _each(subject: Subject) -> Iterator[tuple[str, Any, Arrays]]:
    """Yield each task of a model, with a model and its first arrays."""
    for task in subject.kind.tasks:
        yield task, *_started(subject, task)


def _fitted(model: Any, task: str, arrays: Arrays, plan: Plan) -> Fitted:
    rng = np.random.default_rng(0)
    return fit(FitRequest(model=model, task=task, arrays=arrays, rows=_rows(task), plan=plan, lr=0.05, rng=rng))
