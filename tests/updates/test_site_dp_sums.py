"""Site-level differential privacy under secure sums: noise of the sites themselves, and a server that nobody trusts."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm

from flfed.errors import UsageError
from flfed.federation.recording.privacy_recorder import facts_of
from flfed.federation.server.preflight import check
from flfed.records.reports.privacy import odds_in_words
from flfed.rows.training.private_noise import SystemNoise
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.updates.masks.ring import LARGEST_ENTRY, rings
from flfed.updates.mechanism import SiteNoise, largest_entry, noise_of_site
from flfed.updates.privacy.site_dp import SiteDp, site_epsilon

ROUNDS = 10
MANY = 20_000


def noise_of(sites: int, *, noise: float = 1.0, clip: float = 1.0) -> SiteNoise:
    return SiteDp(noise=noise, clip=clip).site_noise(ROUNDS, sites)


def summed(made: SiteNoise, sites: int, answering: int, updates: np.ndarray | None = None) -> np.ndarray:
    """Return the decoded sum of so many sites' vectors [entries], with noise of the operating system."""
    ring, _ = rings(sites, made.largest)
    entries = np.zeros((answering, MANY)) if updates is None else updates
    numbers = ring.encode_all(
        np.stack([made.clipped(own) for own in entries]), [np.random.default_rng(n) for n in range(answering)]
    )
    return ring.decode(ring.add(made.added(own, ring, SystemNoise().normal) for own in numbers))


@pytest.mark.parametrize(("sites", "noise", "clip"), [(3, 0.3, 0.05), (10, 1.0, 1.0), (30, 5.0, 20.0), (100, 1.0, 1.0)])
def test_the_noise_of_all_sites_is_that_of_the_promise_and_half_of_it_is_told_apart(sites, noise, clip):
    made = noise_of(sites, noise=noise, clip=clip)
    low, high = chi2.ppf([1e-5, 1 - 1e-5], MANY)

    def fits(drawn: np.ndarray) -> bool:
        return bool(low < float(np.square(drawn / (noise * clip)).sum()) < high)

    drawn = summed(made, sites, sites)
    assert fits(drawn)
    assert not fits(drawn / math.sqrt(2)) and not fits(drawn * math.sqrt(2))
    # Half of the sites have half the variance.
    assert not fits(summed(made, sites, sites // 2))
    assert abs(np.corrcoef(drawn, summed(made, sites, sites))[0, 1]) < 5 / math.sqrt(MANY)


def test_each_update_is_clipped_over_all_its_entries_and_the_mean_is_right():
    made, rng = noise_of(10, noise=0.3, clip=2.0), np.random.default_rng(4)
    ring, _ = rings(10, made.largest)
    for length in (1.9, 2.0, 2.1, 1e6):
        own = rng.normal(size=500)
        own *= length / np.linalg.norm(own)
        np.testing.assert_allclose(made.clipped(own), own * min(1.0, 2.0 / length), rtol=1e-12)
    # What is no number stays none, so that the ring refuses it.
    for wrong in (math.nan, math.inf, -math.inf):
        with np.errstate(invalid="ignore"):
            clipped = made.clipped(np.array([1.0, wrong]))
        assert not isinstance(ring.encode(clipped, rng), np.ndarray)
    updates = np.zeros((10, MANY))
    updates[:, :3] = [2.0, -2.0, 1.0]
    found, expected = summed(made, 10, 10, updates), 10 * 2 / 3 * np.array([2.0, -2.0, 1.0])
    assert np.abs(found[:3] - expected).max() < 6 * 0.6


@pytest.mark.parametrize(("sites", "entries", "noise"), [(3, 24, 1.0), (20, 4000, 1.0), (100, 200_000, 0.3)])
def test_rounding_is_counted_in_the_sensitivity(sites, entries, noise):
    made = noise_of(sites, noise=noise, clip=0.5)
    ring, _ = rings(sites, made.largest)
    # An update as long as clip allows, rounded, is never longer than it and √p units.
    rng = np.random.default_rng(0)
    most = ring.scale * 0.5 + math.sqrt(entries)
    for _ in range(3):
        own = made.clipped(rng.normal(size=entries))
        assert np.linalg.norm(ring.encode(own, rng).astype(np.int32).astype(float)) <= most
    # Of 0.5 in each entry all may be rounded away from 0: the bound is reached.
    worst = np.full(entries, 1e-9 / ring.scale)
    assert np.abs(np.ceil(worst * ring.scale) - worst * ring.scale).sum() == pytest.approx(entries)
    together = math.sqrt(sites) * made.units(entries, ring.scale)
    assert together / most == pytest.approx(noise, rel=1e-12)
    # Without that part the multiplier would be less, and its ε, in closed form, the trusted server's and a bit.
    share = math.sqrt(entries) / (ring.scale * 0.5)
    assert 0 < share < 0.02
    bare = noise / (1 + share)
    trusted, counted = (site_epsilon(one, ROUNDS, 1e-3) for one in (noise, bare))
    assert trusted < counted <= trusted * (1 + share) ** 2
    assert delta_of(counted, bare, ROUNDS) == pytest.approx(1e-3, rel=1e-6)
    assert SiteDp(noise=noise, delta=1e-3).promise(Plan(), ROUNDS).epsilon == trusted
    # Rounding of normal draws takes off what is uniform: a site's noise spans many units.
    assert made.units(entries, ring.scale) > 1000


def delta_of(epsilon: float, noise: float, rounds: int) -> float:
    """Return δ of Gaussian sums, which are one of μ = √rounds / noise: Balle and Wang 2018, theorem 8."""
    mu = math.sqrt(rounds) / noise
    above = norm.sf(epsilon / mu - mu / 2)
    return float(above - math.exp(epsilon) * norm.sf(epsilon / mu + mu / 2))


def test_epsilon_is_that_of_the_trusted_server_and_more_with_sites_that_collude():
    made = SiteDp(noise=1.5, delta=0.002)
    alone = made.promise(Plan(), ROUNDS).epsilon
    assert made.colluding(ROUNDS, 100, 0) == alone
    third = made.colluding(ROUNDS, 100, 33)
    assert third == site_epsilon(1.5 * math.sqrt(0.67), ROUNDS, 0.002) > made.colluding(ROUNDS, 100, 1) > alone
    # The noise of the others alone, by draws: with 33 of 100 known, 0.67 of the variance is left.
    noise, (ring, _) = noise_of(100), rings(100, noise_of(100).largest)
    none = np.zeros(MANY, np.uint32)
    left = ring.decode(ring.add(noise.added(none, ring, SystemNoise().normal) for _ in range(67)))
    assert float(np.square(left).mean()) == pytest.approx(0.67, rel=0.06)


def test_the_rings_largest_entry_leaves_room_for_noise_and_for_the_check_of_a_sums_norm():
    for sites in (3, 10, 100, 1000):
        for noise in (0.3, 1.0, 30.0, 1000.0):
            for clip in (0.01, 1.0, 300.0):
                made = noise_of(sites, noise=noise, clip=clip)
                # The operating system's draws are within 8.6 deviations.
                assert made.largest >= clip + 8.6 * made.deviation * 1.02
                for entries in (2, 24, 4000):
                    limit = sites * made.largest * math.sqrt(entries) / 10
                    assert limit >= sites * clip + 1.02 * math.sqrt(sites * entries) * made.deviation
                assert math.log2(made.largest).is_integer()


STUDY_OF_SUMS = {"privacy.name": "site-dp", "privacy.delta": 0.02, "secure-aggregation": "on"}


def test_a_study_of_sums_is_checked_and_says_that_the_server_need_not_be_trusted(small_sites, small_study):
    small_sites(3)
    study = Study.parse(small_study).replace(STUDY_OF_SUMS)
    check(study)
    assert noise_of_site(study, 7).sites == 7
    assert largest_entry(study, 7) == noise_of_site(study, 7).largest != LARGEST_ENTRY
    with pytest.raises(UsageError, match="'auto' does not fix who adds the noise of site-dp"):
        check(study.replace({"secure-aggregation": "auto"}))
    found, trusted = (facts_of(one, 10) for one in (study, study.replace({"secure-aggregation": "off"})))
    assert (found["trusts-server"], trusted["trusts-server"]) == (False, True)
    assert found["epsilon"] == trusted["epsilon"]
    told = " ".join([*found["warnings"], *found["uncharged"]])
    assert "need not be trusted" in told and "a third of the sites (3 of 10) it is" in told
    assert "trusted with it" not in told and "without noise." not in found["uncharged"][0]
    assert "trusted with it" in trusted["warnings"][0]
    assert "but not the server" in odds_in_words("site", 1.0)
    assert "as the server does" in odds_in_words("site", 1.0, trusts_server=False)
    # Sites do nothing of this under a mechanism of rows.
    assert noise_of_site(Study.parse(small_study), 7) is None
