"""What every metric keeps: a figure of rows with weights, and NaN with a reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.scoring import example
from flfed.testing.rules import Subject, check, hold

TASKS = ("binary", "multi-class", "regression")
CLOSE = 1e-12
Rows = NDArray[Any]


def check_metric(metric: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a metric against its contract.

    Parameters
    ----------
    metric : class
        With `tasks`, `better`, `unit`, `label`, `defined`, `value` and `weighted`, as
        `flfed.rows.metrics.brier_score_loss.BrierScoreLoss` has.
    settings : mapping of parameter to value, optional
        For its constructor.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
    >>> check_metric(BrierScoreLoss)
    """
    check(globals(), Subject(metric, settings))


def it_says_what_it_is(subject: Subject) -> None:
    """Reports and verdicts read for which tasks it is, which side is better, in which unit, and its words."""
    kind = subject.kind
    hold(kind.tasks and set(kind.tasks) <= set(TASKS), f"tasks={kind.tasks!r} must be some of {', '.join(TASKS)}")
    hold(kind.better in ("higher", "lower"), f"better={kind.better!r} must be 'higher' or 'lower'")
    hold(kind.unit in ("", "target"), f"unit={kind.unit!r} must be '' or 'target', the target's own")
    hold(kind.label and "_" not in kind.label, f"label={kind.label!r} must be words for people")


def a_weight_of_two_is_a_row_given_twice(subject: Subject) -> None:
    """Bootstrap draws are weights: 0, 1 and 2 leave a row out, take it once, take it twice."""
    for y, score in _examples(subject):
        times = np.arange(len(y)) % 3
        repeated = subject.make().value(np.repeat(y, times), np.repeat(score, times, axis=0))
        drawn = subject.make().weighted(y, score, times[None].astype(float))
        _equal(drawn, [repeated], "with a weight of two in place of a repeated row")


def neither_the_scale_of_weights_nor_the_order_of_rows_counts(subject: Subject) -> None:
    """Seven times the weights say nothing new, and a table has no order."""
    for y, score in _examples(subject):
        rng = np.random.default_rng(8)
        weights, order = rng.uniform(0.1, 1, (3, len(y))), rng.permutation(len(y))
        expected = subject.make().weighted(y, score, weights)
        _equal(subject.make().weighted(y, score, 7 * weights), expected, "with seven times the weights")
        _equal(subject.make().weighted(y[order], score[order], weights[:, order]), expected, "with shuffled rows")


def its_arguments_are_left_as_they_were(subject: Subject) -> None:
    """Targets and scores are the caller's."""
    for y, score in _examples(subject):
        weights = np.ones((2, len(y)))
        before = [value.copy() for value in (y, score, weights)]
        subject.make().weighted(y, score, weights)
        hold(all(map(np.array_equal, before, (y, score, weights))), "it changed y, score or weights")


def without_rows_it_is_nan_with_a_reason(subject: Subject) -> None:
    """A figure that is undefined is no 0 and no error."""
    for y, score in _examples(subject):
        metric = subject.make()
        hold(metric.defined(y) == "", f"on 60 ordinary rows defined() returns {metric.defined(y)!r}")
        hold(metric.defined(y[:0]) == "no rows", f"defined() of no rows is {metric.defined(y[:0])!r}, not 'no rows'")
        hold(np.isnan(metric.value(y[:0], score[:0])), "its value without rows is not NaN")
        drawn = metric.weighted(y, score, np.stack([np.zeros(len(y)), np.ones(len(y))]))
        hold(list(np.isnan(drawn)) == [True, False], "a draw without weight must be NaN, and only that one")


def a_score_that_is_nan_gives_nan(subject: Subject) -> None:
    """A broken model must not look good."""
    for y, score in _examples(subject):
        score[4] = np.nan
        value = subject.make().value(y, score)
        hold(np.isnan(value), f"with one score of NaN it is {value:g}")


def a_better_score_moves_it_to_its_better_side(subject: Subject) -> None:
    """`better` says which side that is."""
    for y, score in _examples(subject):
        best = np.eye(3)[y] if score.ndim == 2 else y.astype(float)
        gain = subject.make().value(y, (score + best) / 2) - subject.make().value(y, score)
        right = gain > 0 if subject.kind.better == "higher" else gain < 0
        hold(right, f"with scores half way to the targets it changes by {gain:g}, and {subject.kind.better} is better")


def _examples(subject: Subject) -> Iterator[tuple[Rows, Rows]]:
    yield from (example(task) for task in subject.kind.tasks)


def _equal(values: Rows, expected: Any, change: str) -> None:
    gap = np.abs(np.asarray(values) - np.asarray(expected))
    scale = max(1.0, float(np.abs(expected).max()))
    hold((gap <= CLOSE * scale).all(), f"{change} it differs by {gap.max():g}")
