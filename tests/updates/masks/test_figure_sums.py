"""Figures as numbers that can be added, and what a sum over sites tells."""

from typing import Any

import numpy as np
import pytest

from flfed.summaries.score_bins import BINS as FINE
from flfed.updates.masks.figure_sums import BINS, FIGURES, LARGEST, ROOM, FigureLayout
from flfed.updates.messages.compare import CompareReply, Figure


def reply(rows: int, values: dict[tuple[str, str], float], **given: Any) -> CompareReply:
    nan = float("nan")
    arms = [
        Figure(metric=metric, arm=arm, value=value, low=nan, high=nan, extra=nan, method="")
        for (metric, arm), value in values.items()
    ]
    return CompareReply(num_examples=50, holdout_rows=rows, arms=tuple(arms), differences=(), **given)


def summed(
    layout: FigureLayout, replies: list[CompareReply], most_rows: int = 99, counts: bool = False
) -> dict[str, Any]:
    """Return what the sum of some sites tells."""
    ring = layout.ring(len(replies), most_rows)
    vectors = [layout.encode(one, ring, np.random.default_rng(n), counts=counts) for n, one in enumerate(replies)]
    assert all(len(vector) == layout.entries for vector in vectors)
    return layout.decode(ring.add(vectors), ring, len(replies))


@pytest.mark.parametrize("most_rows", [99, 9_999_999])
@pytest.mark.parametrize(("task", "scale"), [("binary", 1.0), ("multi-class", 1.0), ("regression", 40.0)])
def test_means_over_the_rows_of_all_sites_are_right_to_a_billionth(task: str, scale: float, most_rows: int):
    rng, layout = np.random.default_rng(1), FigureLayout(task, scale=scale)
    rows = [31, 64, 5]
    values = [{key: scale * rng.random() for key in FIGURES[task]} for _ in rows]
    found = summed(layout, [reply(n, of) for n, of in zip(rows, values, strict=True)], most_rows)
    assert (found["sites"], found["holdout-rows"]) == (3, 100)
    for metric, arm in FIGURES[task]:
        squared = metric == "root_mean_squared_error"
        parts = [of[metric, arm] ** (1 + squared) for of in values]
        mean = np.average(parts, weights=rows) ** (1 / (1 + squared))
        # Squares have more room, and where one site has ten million rows less is left for digits.
        close = 1e-9 * scale if most_rows == 99 or not squared else 1e-7 * scale
        assert found["figures"][metric][arm] == pytest.approx(mean, abs=close)


WHOLE = dict.fromkeys(FIGURES["binary"], 0.5)


def test_rows_are_counted_in_16_bins_by_class_where_all_sites_count_theirs():
    counts = np.zeros((2, FINE), int)
    counts[0, : FINE // 2], counts[1, FINE // 2 :] = 1, 1
    counted = [reply(FINE, WHOLE, histogram=counts) for _ in range(3)]
    layout = FigureLayout("binary")
    assert layout.entries == 1 + len(WHOLE) + 2 * BINS == 38
    found = summed(layout, counted, counts=True)
    assert found["figures"]["roc_auc_score"]["global"] == 1.0 and found["auc-bounds"] == [1.0, 1.0]
    assert summed(layout, counted)["auc-bounds"] is None
    # Zeros of a site that has none would leave the counts of the others.
    refused = layout.encode(reply(FINE, WHOLE), layout.ring(3, 99), np.random.default_rng(0), counts=True)
    assert refused.code == "figures-missing"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), LARGEST["log_loss"] + 1])
def test_a_site_that_withholds_a_figure_adds_nothing(value: float):
    layout = FigureLayout("binary")
    withheld = reply(20, {**WHOLE, ("log_loss", "global"): value})
    assert layout.encode(withheld, layout.ring(3, 99), np.random.default_rng(0), counts=True).code == "figures-missing"


def test_the_largest_sum_does_not_wrap():
    found = summed(FigureLayout("binary"), [reply(ROOM * 99, dict.fromkeys(WHOLE, 1.0)) for _ in range(100)])
    assert found["holdout-rows"] == 100 * ROOM * 99
    assert found["figures"]["brier_score_loss"]["global"] == pytest.approx(1.0, abs=1e-9)
