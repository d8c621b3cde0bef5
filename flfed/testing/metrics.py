"""What every metric keeps, whatever it measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flfed.testing.rules import LISTED, Rule, Subject, check, hold

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
    check(METRIC_RULES, Subject(metric, settings or {}))


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
        _equal(subject.make().weighted(y, score, times[None].astype(float)), [repeated], "it differs by {:g}")


def only_the_ratio_of_weights_counts(subject: Subject) -> None:
    """Seven times the weights say nothing new."""
    for y, score in _examples(subject):
        weights = np.random.default_rng(8).uniform(0.1, 1, (3, len(y)))
        expected = subject.make().weighted(y, score, weights)
        _equal(subject.make().weighted(y, score, 7 * weights), expected, "with 7 times the weights it differs by {:g}")


def the_order_of_rows_does_not_count(subject: Subject) -> None:
    """A table has no order."""
    for y, score in _examples(subject):
        rng = np.random.default_rng(8)
        weights = rng.uniform(0.1, 1, (3, len(y)))
        order = rng.permutation(len(y))
        expected = subject.make().weighted(y, score, weights)
        _equal(
            subject.make().weighted(y[order], score[order], weights[:, order]), expected, "shuffled it is off by {:g}"
        )


def its_arguments_are_left_as_they_were(subject: Subject) -> None:
    """Targets and scores are the caller's."""
    for y, score in _examples(subject):
        weights = np.ones((2, len(y)))
        before = y.copy(), score.copy(), weights.copy()
        subject.make().weighted(y, score, weights)
        same = all(np.array_equal(now, then) for now, then in zip((y, score, weights), before, strict=True))
        hold(same, "it wrote into y, score or weights")


def without_rows_it_is_nan_with_a_reason(subject: Subject) -> None:
    """A figure that is undefined is no 0 and no error."""
    for y, score in _examples(subject):
        metric = subject.make()
        hold(metric.defined(y) == "", f"on 60 ordinary rows it says {metric.defined(y)!r}")
        hold(metric.defined(y[:0]) == "no rows", f"without rows it says {metric.defined(y[:0])!r}, not 'no rows'")
        hold(np.isnan(metric.value(y[:0], score[:0])), "its value without rows is not NaN")
        drawn = metric.weighted(y, score, np.stack([np.zeros(len(y)), np.ones(len(y))]))
        hold(list(np.isnan(drawn)) == [True, False], "a draw without weight must be NaN, and only that one")


def a_score_that_is_nan_gives_nan(subject: Subject) -> None:
    """A broken model must not look good."""
    for y, score in _examples(subject):
        score[4] = np.nan
        value = subject.make().value(y, score)
        hold(np.isnan(value), f"one score of NaN gives {value:g}")


def a_better_score_moves_it_to_its_better_side(subject: Subject) -> None:
    """`better` says which side that is."""
    for y, score in _examples(subject):
        best = np.eye(3)[y] if score.ndim == 2 else y.astype(float)
        gain = subject.make().value(y, (score + best) / 2) - subject.make().value(y, score)
        right = gain > 0 if subject.kind.better == "higher" else gain < 0
        hold(right, f"half way to the truth it moved by {gain:g}, though {subject.kind.better} is better")


METRIC_RULES: tuple[Rule, ...] = (
    *LISTED,
    it_says_what_it_is,
    a_weight_of_two_is_a_row_given_twice,
    only_the_ratio_of_weights_counts,
    the_order_of_rows_does_not_count,
    its_arguments_are_left_as_they_were,
    without_rows_it_is_nan_with_a_reason,
    a_score_that_is_nan_gives_nan,
    a_better_score_moves_it_to_its_better_side,
)


def example(task: str, n: int = 60, seed: int = 3) -> tuple[Rows, Rows]:
    """Return targets [n] and scores ([n], or [n, 3]) of a task, with equal scores among them.

    Parameters
    ----------
    task : {"binary", "multi-class", "regression"}
    n : int
    seed : int
    """
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(50, 10, n)
        return y, np.round(y + rng.normal(0, 5, n))
    if task == "binary":
        codes = rng.permutation(np.arange(n) % 2)
        return codes, np.round(np.clip(0.3 * codes + rng.uniform(0, 0.7, n), 0.01, 0.99), 1)
    codes = rng.permutation(np.arange(n) % 3)
    odds = rng.integers(1, 5, (n, 3))
    return codes, odds / odds.sum(axis=1, keepdims=True)


def _examples(subject: Subject) -> Iterator[tuple[Rows, Rows]]:
    yield from (example(task) for task in subject.kind.tasks)


def _equal(found: Rows, expected: Any, said: str) -> None:
    gap = np.abs(np.asarray(found) - np.asarray(expected))
    scale = max(1.0, float(np.abs(expected).max()))
    hold((gap <= CLOSE * scale).all(), said.format(float(gap.max())))
