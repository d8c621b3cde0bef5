"""Figures as numbers that can be added: what a sum over sites tells, and what a site that keeps one back does to it."""

import secrets
from typing import Any

import numpy as np
import pytest

from flfed.summaries.score_bins import BINS
from flfed.updates.masking.figure_sums import LARGEST, MEANS, ROOM, FigureLayout, SummedFigures
from flfed.updates.messages.compare import CompareReply, Figure


def reply(rows: int, values: dict[tuple[str, str], float], **given: Any) -> CompareReply:
    nan = float("nan")
    arms = [
        Figure(metric=metric, arm=arm, value=value, low=nan, high=nan, extra=nan, method="")
        for (metric, arm), value in values.items()
    ]
    return CompareReply(num_examples=50, holdout_rows=rows, arms=tuple(arms), differences=(), **given)


def summed(layout: FigureLayout, replies: list[CompareReply], most_rows: int = 99, **given: Any) -> SummedFigures:
    """Return what the sum of some sites tells."""
    ring = layout.ring(len(replies), most_rows)
    vectors = [layout.encode(one, ring, np.random.default_rng(seed), **given) for seed, one in enumerate(replies)]
    assert all(len(vector) == layout.entries for vector in vectors)
    return layout.decode(ring.add(vectors), ring, len(replies))


@pytest.mark.parametrize("most_rows", [99, 9_999_999])
@pytest.mark.parametrize(("task", "scale"), [("binary", 1.0), ("multi-class", 1.0), ("regression", 40.0)])
def test_means_over_the_rows_of_all_sites_are_right_to_a_billionth(task: str, scale: float, most_rows: int):
    rng, layout = np.random.default_rng(1), FigureLayout(task, scale=scale)
    rows = [31, 64, 5]
    keys = [(metric, arm) for metric in MEANS[task] for arm in ("global", "local-only")]
    values = [{key: scale * rng.random() for key in keys} for _ in rows]
    found = summed(layout, [reply(n, of) for n, of in zip(rows, values, strict=True)], most_rows)
    assert (found.sites, found.rows) == (3, 100)
    assert len(found.means) == 2 * len(MEANS[task])
    for key in values[0]:
        squared = key[0] == "root_mean_squared_error"
        parts = [of[key] ** 2 if squared else of[key] for of in values]
        mean = np.average(parts, weights=rows)
        # Squares have more room, and where one site has ten million rows less is left for digits.
        close = 1e-9 * scale if most_rows == 99 or not squared else 1e-7 * scale
        assert found.means[key] == pytest.approx(np.sqrt(mean) if squared else mean, abs=close)


def test_counts_are_added_exactly():
    counts = [np.arange(2 * BINS).reshape(2, BINS) * n for n in (1, 2, 3)]
    found = summed(FigureLayout("binary"), [reply(20, {}, histogram=of) for of in counts])
    np.testing.assert_array_equal(found.histogram, sum(counts))


def test_what_one_site_keeps_back_hides_the_sum_of_the_others():
    layout, loss = FigureLayout("binary"), ("log_loss", "global")
    here = [reply(20, {loss: 0.25}), reply(30, {loss: 0.5}), reply(10, {loss: float("nan")})]
    ring = layout.ring(3, 99)
    vectors = [layout.encode(one, ring, np.random.default_rng(0)) for one in here]
    found = layout.decode(ring.add(vectors), ring, 3)
    assert found.rows == 60 and found.means == {} and found.histogram is None
    # Without random numbers in its place, the sum is that of the two others, and its count says so.
    place = 2 + [block.name for block in layout.blocks[1:]].index(loss) * 2
    bare = [layout.encode(one, ring, np.random.default_rng(0), entropy=bytes) for one in here]
    sums = [ring.decode(ring.add(each))[place : place + 2] * [1, LARGEST["log_loss"]] for each in (bare, vectors)]
    assert sums[0] == pytest.approx([2.0, 20 * 0.25 + 30 * 0.5], abs=1e-9)
    assert sums[1][0] == 2.0 and abs(sums[1][1] - sums[0][1]) > 1e-6
    # They are random all over the ring.
    drawn = np.concatenate([layout.encode(here[2], ring, np.random.default_rng(0)) for _ in range(20)])
    assert 0.4 < float((drawn > 2**63).mean()) < 0.6


def test_a_figure_too_large_for_the_sum_is_kept_back_and_the_others_are_summed():
    layout, keys = FigureLayout("binary"), [("log_loss", "global"), ("brier_score_loss", "global")]
    large = ROOM * 99 * LARGEST["log_loss"] / 20
    replies = [reply(20, dict(zip(keys, values, strict=True))) for values in ((0.5, 0.2), (0.5, 0.3), (2 * large, 0.1))]
    found = summed(layout, replies, entropy=secrets.token_bytes)
    assert set(found.means) == {keys[1]} and found.means[keys[1]] == pytest.approx(0.2)


def test_the_largest_sum_does_not_wrap():
    layout, key = FigureLayout("binary"), ("brier_score_loss", "global")
    replies = [reply(ROOM * 99, {key: 1.0}) for _ in range(100)]
    found = summed(layout, replies)
    assert found.rows == 100 * ROOM * 99 and found.means[key] == pytest.approx(1.0, abs=1e-9)
