"""Losses in a sum: weighted means over sites, within a bound that a spoilt model's loss is cut to."""

import math

import numpy as np
import pytest

from flfed.updates.aggregation.losses import LARGEST, LossCheck, RowLoss, decode_losses, encode_losses, loss_ring

SITES = 3
MOST = 200.0


def summed(*losses: dict[str, RowLoss]) -> dict[str, float]:
    """Return the mean losses of sites that add these."""
    rng = np.random.default_rng(3)
    numbers = [encode_losses(one, sites=SITES, most_rows=MOST, rng=rng) for one in losses]
    found = decode_losses(loss_ring(SITES).add(numbers), sites=SITES, scored="scores")
    assert found is not None
    return dict(found.means)


def test_means_are_weighted_by_rows():
    means = summed({"fit": RowLoss(200, 0.693)}, {"fit": RowLoss(50, 0.1)}, {"fit": RowLoss(50, 0.1)})
    assert means == pytest.approx({"fit": (200 * 0.693 + 100 * 0.1) / 300}, abs=1e-10)


def test_of_a_part_that_a_site_lacks_the_sum_shows_nothing_of_the_others():
    one, two = RowLoss(200, 0.693), RowLoss(50, 0.1)
    assert summed({"fit": one, "scores": two}, {"scores": two}, {"scores": two}) == pytest.approx({"scores": 0.1})
    assert summed({}, {}, {}) == {}
    assert summed({"fit": one}, {}, {"fit": one}) == summed({"fit": one}, {}, {}) == {}
    rng = np.random.default_rng(0)
    ring = loss_ring(3)
    sent = np.stack([ring.decode(encode_losses({}, sites=3, most_rows=100, rng=rng)) for _ in range(500)])
    weights, losses = sent[:, ::2].ravel(), sent[:, 1::2].ravel()
    # A weight is never one that three sites could have, and a loss any that one can have. They are drawn from the
    # machine's own generator: the bounds are those of a uniform draw by six standard errors and more.
    assert 4 <= weights.min() < 250 and abs(weights.mean() / LARGEST - 0.5) < 0.06 and weights.max() <= LARGEST
    assert abs(losses.mean() / LARGEST) < 0.12 and (losses.max() - losses.min()) / LARGEST == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("loss", [math.inf, math.nan, -math.inf, 1e300, 2 * LARGEST])
def test_a_loss_that_is_no_number_or_huge_counts_as_the_bound_and_shows_in_the_mean(loss: float):
    means = summed({"scores": RowLoss(200, 0.5)}, {"scores": RowLoss(200, 0.5)}, {"scores": RowLoss(1, loss)})
    assert means["scores"] == pytest.approx((200 + LARGEST) / 401, abs=1e-8)
    # Of one row beside four hundred the check for a spoilt model sees it.
    assert means["scores"] > 10 * 0.5


def test_very_low_losses_keep_their_sign_and_their_digits():
    means = summed(*[{"scores": RowLoss(rows, loss)} for rows, loss in ((1, -1e300), (7, 1.23e-5), (9, 1.23e-5))])
    assert means["scores"] == pytest.approx((-LARGEST + 16 * 1.23e-5) / 17, abs=1e-8)
    assert summed(*[{"scores": RowLoss(7, 1.23e-5)}] * 3)["scores"] == pytest.approx(1.23e-5, rel=1e-6)


def test_a_model_whose_mean_loss_grew_tenfold_is_not_used():
    check = LossCheck()
    first = {"w": np.zeros(1)}
    assert check.refusal({"training": 0.3}, first) is None and check.refusal({}, {"w": np.ones(1)}) is None
    assert check.refusal({"training": 3.1}, {"w": np.ones(1)}).code == "loss-grown"
    assert check.spoilt and check.before["w"] == first["w"]
