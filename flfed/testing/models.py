"""What every model keeps: pure functions of named arrays, for one site or a stack of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from flfed.rows.data import datasets
from flfed.rows.features.encode import Encoded, input_names
from flfed.rows.features.summarise import layout_of
from flfed.rows.training.fit import fit, score
from flfed.rows.training.functional import outputs_of
from flfed.rows.training.requests import FitRequest, Fitted, ScoreRequest
from flfed.study.plan import Plan
from flfed.testing.rules import LISTED, Rule, Subject, check, hold, largest_gap
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
    check(MODEL_RULES, Subject(model, settings))


def it_says_what_it_is(subject: Subject) -> None:
    """Which tasks it is for, and whether scikit-learn's linear models are its fair local rival."""
    kind = subject.kind
    hold(kind.tasks and set(kind.tasks) <= set(CLASSES), "tasks", tasks=kind.tasks, allowed=", ".join(CLASSES))
    hold(isinstance(kind.linear, bool), "linear", linear=kind.linear)


def its_intercept_and_its_penalised_arrays_are_among_its_arrays(subject: Subject) -> None:
    """`l1` and `l2` fall on weights, never on the intercept, which a site may fit for itself."""
    for _, model, arrays in _each(subject):
        hold(model.intercept in arrays, "intercept", intercept=model.intercept, names=list(arrays))
        wrong = sorted(set(model.penalised) - (set(arrays) - {model.intercept}))
        hold(not wrong, "penalised", names=wrong)


def first_arrays_follow_from_the_generator_alone(subject: Subject) -> None:
    """The same seed gives the same start at every institution, in float64."""
    for task in subject.kind.tasks:
        arrays = _started(subject, task)[1]
        again = _started(subject, task)[1]
        good = all(value.dtype == np.float64 and np.isfinite(value).all() for value in arrays.values())
        hold(good, "start-unfit")
        hold(largest_gap(again, arrays) == 0, "start-differs")


def its_shapes_are_those_of_its_first_arrays(subject: Subject) -> None:
    """A model that says its shapes is compared and bounded by them, before any array is made."""
    for task, model, arrays in _each(subject):
        if hasattr(model, "shapes"):
            shapes = model.shapes(INPUTS, outputs_of(task, CLASSES[task]))
            hold(shapes == {name: value.shape for name, value in arrays.items()}, "first-shapes")


def hidden_units_start_apart(subject: Subject) -> None:
    """Equal starts would leave all hidden units equal for ever.

    A linear model has none.
    """
    tasks = () if subject.kind.linear else subject.kind.tasks
    for task in tasks:
        model, arrays = _started(subject, task)
        first = arrays[model.penalised[0]]
        hold(len(np.unique(first)) == first.size, "equal-numbers", name=model.penalised[0])
        hold(largest_gap(_started(subject, task, seed=4)[1], arrays) > 0, "start-same")


def a_stack_of_sites_gives_each_its_own_outputs(subject: Subject) -> None:
    """An engine may train many sites at once: arrays may have leading dimensions."""
    for task, model, first in _each(subject):
        rng = np.random.default_rng(5)
        several = [_moved(first, rng) for _ in range(3)]
        x = torch.from_numpy(rng.normal(size=(3, 11, INPUTS)))
        stack = {}
        for name in first:
            stack[name] = torch.from_numpy(np.stack([arrays[name] for arrays in several]))
        outputs = model.outputs(stack, x)
        shape = (3, 11, outputs_of(task, CLASSES[task]))
        hold(outputs.shape == shape, "outputs", place=task, shape=tuple(outputs.shape), expected=shape)
        for place, arrays in enumerate(several):
            alone = model.outputs({name: torch.from_numpy(value) for name, value in arrays.items()}, x[place])
            gap = float((outputs[place] - alone).abs().max())
            hold(gap < 1e-12, "stacked-outputs", task=task, gap=gap)


def _moved(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    return {name: value + rng.normal(size=value.shape) for name, value in arrays.items()}


def the_intercept_moves_every_output_alike(subject: Subject) -> None:
    """A site's own intercept is a shift of the log-odds, logits or predictions."""
    for task, model, arrays in _each(subject):
        moved = {**arrays, model.intercept: arrays[model.intercept] + 0.7}
        before, after = (score(ScoreRequest(model=model, arrays=a, x=_rows(task).x)) for a in (arrays, moved))
        gap = float(np.abs(after - before - 0.7).max())
        hold(gap < 1e-12, "intercept-moves", task=task, gap=gap)


def training_lowers_the_loss(subject: Subject) -> None:
    """Gradients reach every array that matters: sixty full steps of Adam take at least a tenth of the loss."""
    for task, model, arrays in _each(subject):
        trained = _fitted(model, task, arrays, Plan(optimiser="adam", batch=0, steps=60)).arrays
        before, after = (_fitted(model, task, a, Plan(batch=0)).loss for a in (arrays, trained))
        hold(after < 0.9 * before, "loss", task=task, before=before, after=after)


def no_row_depends_on_another(subject: Subject) -> None:
    """A prediction is of one person: the rows beside it do not count."""
    for task, model, arrays in _each(subject):
        arrays = _fitted(model, task, arrays, Plan(batch=0, steps=5)).arrays
        whole, part = (
            score(ScoreRequest(model=model, arrays=arrays, x=x)) for x in (_rows(task).x, _rows(task).x[7:9])
        )
        gap = float(np.abs(part - whole[7:9]).max())
        hold(gap < 1e-12, "rows-alone", task=task, gap=gap)


def it_accepts_every_dataset_of_its_tasks(subject: Subject) -> None:
    """Whatever the schema: one input a column or category, one output a class."""
    for name in datasets.names():
        schema = datasets.load(name).schema
        if schema.task not in subject.kind.tasks:
            continue
        inputs = len(input_names(layout_of(schema, schema.features(None))))
        outputs = outputs_of(schema.task, len(schema.classes))
        model = subject.make()
        arrays = model.first_arrays(inputs, outputs, np.random.default_rng(0))
        shape = score(ScoreRequest(model=model, arrays=arrays, x=np.zeros((5, inputs)))).shape
        hold(shape == (5, outputs), "outputs", place=f"dataset {name!r}", shape=shape, expected=(5, outputs))


MODEL_RULES: tuple[Rule, ...] = (
    *LISTED,
    it_says_what_it_is,
    its_intercept_and_its_penalised_arrays_are_among_its_arrays,
    first_arrays_follow_from_the_generator_alone,
    its_shapes_are_those_of_its_first_arrays,
    hidden_units_start_apart,
    a_stack_of_sites_gives_each_its_own_outputs,
    the_intercept_moves_every_output_alike,
    training_lowers_the_loss,
    no_row_depends_on_another,
    it_accepts_every_dataset_of_its_tasks,
)


def _rows(task: str, rows: int = 40) -> Encoded:
    """Return rows whose target follows from their inputs."""
    x = np.random.default_rng(2).normal(size=(rows, INPUTS))
    y = x @ np.arange(1.0, INPUTS + 1)
    if task != "regression":
        y = np.digitize(y, [-1.0, 2.0][: CLASSES[task] - 1])
    return Encoded(x, y, np.ones(rows))


def _started(subject: Subject, task: str, seed: int = 3) -> tuple[Any, Arrays]:
    model = subject.make()
    return model, model.first_arrays(INPUTS, outputs_of(task, CLASSES[task]), np.random.default_rng(seed))


def _each(subject: Subject) -> Iterator[tuple[str, Any, Arrays]]:
    """Yield each task of a model, with a model and its first arrays."""
    for task in subject.kind.tasks:
        yield task, *_started(subject, task)


def _fitted(model: Any, task: str, arrays: Arrays, plan: Plan) -> Fitted:
    rng = np.random.default_rng(0)
    return fit(FitRequest(model=model, task=task, arrays=arrays, rows=_rows(task), plan=plan, lr=0.05, rng=rng))
