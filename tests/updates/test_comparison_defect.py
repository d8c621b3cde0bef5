"""A comparison that a site could not have measured is a fault, not a figure."""

import dataclasses

import pytest

from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import CalibrationFigure, CompareReply, Figure, GroupFigure


def comparison(**changes) -> CompareReply:
    figure = {"metric": "roc_auc_score", "arm": "global", "value": 0.8, "low": 0.7, "high": 0.9, "extra": 0.01}
    row = Figure(**{**figure, "method": "DeLong", **{k: v for k, v in changes.items() if k in figure}})
    rest = {"num_examples": 50, "holdout_rows": 20, "arms": (row,), "differences": ()}
    return CompareReply(**{**rest, **{k: v for k, v in changes.items() if k in rest}})


@pytest.mark.parametrize(("changes", "reason"), [
    ({}, None),
    ({"value": float("nan"), "low": float("nan"), "high": float("nan")}, None),
    ({"value": 7.0, "low": 6.0, "high": 8.0}, "roc_auc_score is outside 0 to 1"),
    ({"low": 0.9, "high": 0.7}, "roc_auc_score has an impossible interval"),
    ({"high": float("inf")}, "roc_auc_score has an impossible interval"),
    ({"holdout_rows": -5}, "its numbers of rows are impossible"),
    ({"arms": comparison().arms * 2}, "a figure stands in it twice"),
])  # fmt: skip
def test_a_comparison_that_cannot_be_is_not_believed(changes, reason):
    assert comparison_defect(comparison(**changes)) == reason


NAN = float("nan")


@pytest.mark.parametrize(("value", "low", "high", "reason"), [
    (0.8, 0.7, 0.9, None), (NAN, NAN, NAN, None),
    (1.0, NAN, NAN, None),  # every draw of rows gives 1
    (1.5, NAN, NAN, "impossible"), (0.8, 0.9, 0.95, "impossible"), (0.8, NAN, 0.9, "impossible"),
    (0.8, 0.7, 1.1, "impossible"), (NAN, 0.1, 0.2, "impossible"),
])  # fmt: skip
def test_the_figure_of_a_group_may_stand_without_an_interval_and_not_with_an_impossible_one(value, low, high, reason):
    area = GroupFigure(column="sex", group="f", value=value, low=low, high=high, method="")
    found = comparison_defect(dataclasses.replace(comparison(), groups=(area,)))
    assert (found is None) if reason is None else reason in str(found)


@pytest.mark.parametrize(("value", "low", "high", "reason"), [
    (1.1, 0.9, 1.3, None), (NAN, NAN, NAN, None), (1.1, 1.2, 1.3, "impossible"), (1.1, 0.9, float("inf"), "impossible"),
])  # fmt: skip
def test_calibration_with_an_impossible_interval_is_a_fault(value, low, high, reason):
    slope = CalibrationFigure(name="slope", value=value, low=low, high=high, variance=0.1, method="Wald")
    found = comparison_defect(dataclasses.replace(comparison(), calibration=(slope,)))
    assert (found is None) if reason is None else reason in str(found)


def test_a_slope_that_stands_twice_is_a_fault():
    slope = CalibrationFigure(name="slope", value=1.0, low=0.9, high=1.1, variance=0.1, method="Wald")
    assert "twice" in str(comparison_defect(dataclasses.replace(comparison(), calibration=(slope, slope))))
