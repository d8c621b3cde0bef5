"""The sum is exact for every list that the rules allow, and of anything less the server has nothing."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2

from flfed.deployment.gate.message_check import LONGEST
from flfed.refusals import Refusal, read_of_site
from flfed.seeds import generator
from flfed.updates.masking.keys import confirmation, seal
from flfed.updates.masking.protocol import (
    MaskedVector,
    Opening,
    confirming_sites,
    mask_vector,
    norm_refusal,
    open_list,
    opening_defect,
    unmask,
    vector_defect,
)
from flfed.updates.masks.ring import Ring
from tests.updates.masking.one_sum import BINDING, NONE, Cohort, binding, cohort_of

LARGEST = 8.0
FAR = 0.1
"""Correlation that a vector may have with what it hides; of 2,000 entries its standard deviation is 0.02."""


def updates_of(cohort: Cohort, entries: int, seed: int = 1) -> np.ndarray:
    """Return updates [sites, entries]; of all sites the first entry is C and the second -C."""
    rng = generator(seed, site="", purpose="updates")
    found = rng.normal(0, 0.05, (len(cohort.sites), entries))
    found[:, 0], found[:, 1] = LARGEST, -LARGEST
    return found


def encoded(cohort: Cohort, ring: Ring, values: np.ndarray) -> dict[str, np.ndarray]:
    rngs = [generator(2, site=site, purpose="rounding") for site in cohort.sites]
    return dict(zip(cohort.sites, ring.encode_all(values, rngs), strict=True))


def lists(cohort: Cohort) -> list[frozenset[str]]:
    """Return a list for each number of missing sites that the threshold allows; of a hundred sites for four numbers."""
    most = len(cohort.sites) - cohort.least
    rng = generator(3, site="", purpose="missing")
    numbers = range(most + 1) if most < 10 else (0, 1, 10, most)
    return [frozenset(cohort.sites) - set(rng.permutation(cohort.sites)[:missing].tolist()) for missing in numbers]


@pytest.mark.parametrize("sites", [3, 5, 20, 100])
def test_the_sum_is_exact_for_every_number_of_missing_sites_down_to_the_threshold(sites: int):
    cohort = cohort_of(sites)
    narrow, wide = Ring.of_updates(sites, LARGEST), Ring.of_sums(sites, LARGEST)
    values = updates_of(cohort, 200)
    rows = generator(4, site="", purpose="rows").integers(50, 1000, sites)
    weighted = values * (rows / rows.max())[:, np.newaxis]
    weighted[:, :2] = values[:, :2]  # weights and entries at their largest
    updates, sums = encoded(cohort, narrow, weighted), encoded(cohort, wide, weighted[:, :40])
    vectors = {site: cohort.masked(site, updates[site], sums[site]) for site in cohort.sites}
    chosen = lists(cohort)
    assert min(map(len, chosen)) == cohort.least
    for listed in chosen:
        found = cohort.summed(vectors, listed)
        np.testing.assert_array_equal(found.updates, narrow.add(updates[site] for site in sorted(listed)))
        np.testing.assert_array_equal(found.sums, wide.add(sums[site] for site in sorted(listed)))
        # Against plain aggregation in float64.
        here = [cohort.sites.index(site) for site in sorted(listed)]
        plain = np.array([math.fsum(column) for column in weighted[here].T])
        total = (rows[here] / rows.max()).sum()
        assert np.abs(narrow.decode(found.updates) / total - plain / total).max() <= 1e-6
        assert np.abs(wide.decode(found.sums) - plain[:40]).max() <= 3e-13 * np.abs(plain[:40]).max()


@pytest.mark.parametrize("missing", [0, 1])
def test_any_threshold_of_openings_suffices_where_nobody_is_missing(missing: int):
    cohort = cohort_of(5)
    updates = encoded(cohort, Ring.of_updates(5, LARGEST), updates_of(cohort, 9))
    vectors, listed = cohort.all_masked(updates), frozenset(cohort.sites[missing:])
    openings, expected = cohort.opened(vectors, listed), sum(updates[site] for site in listed)
    for few in combinations(sorted(listed), 4):
        found = cohort.unmasked(vectors, {site: openings[site] for site in few}, listed)
        np.testing.assert_array_equal(found.updates, expected)
    for fewer in combinations(sorted(listed), 3):
        some = {site: openings[site] for site in fewer}
        assert cohort.unmasked(vectors, some, listed) == Refusal("openings-few", had=3, least=4)


def test_below_the_threshold_a_server_that_goes_on_has_garbage():
    cohort = cohort_of(5)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(5, LARGEST), updates_of(cohort, 9)))
    everybody = frozenset(cohort.sites)
    openings = cohort.opened(vectors, everybody)
    for few in combinations(cohort.sites, 3):
        some = {site: openings[site] for site in few}
        found = unmask(vectors, some, cohort=cohort.sites, listed=everybody, least=3)
        assert found == Refusal("sum-miscounted", sites=5)


def test_a_listed_site_that_opens_nothing_holds_the_sum_where_somebody_is_missing():
    cohort = cohort_of(20)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(20, LARGEST), updates_of(cohort, 4)))
    listed = frozenset(cohort.sites[2:])
    openings = cohort.opened(vectors, listed)
    silent = {site: opening for site, opening in openings.items() if site not in ("site-003", "site-009")}
    assert len(silent) >= cohort.least
    found = cohort.unmasked(vectors, silent, listed)
    assert found == Refusal("openings-missing", sites="site-003, site-009")
    # Nobody missing: the same two are not needed.
    everybody = frozenset(cohort.sites)
    openings = cohort.opened(vectors, everybody)
    silent = {site: opening for site, opening in openings.items() if site not in ("site-003", "site-009")}
    assert not isinstance(cohort.unmasked(vectors, silent, everybody), Refusal)


def test_the_rings_of_a_vector_are_masked_and_counted_by_themselves():
    cohort = cohort_of(3)
    numbers = {32: np.array([5, 6], np.uint32), 64: np.array([7, 8, 9], np.uint64)}
    for updates, sums in ((numbers[32], NONE[64]), (NONE[32], numbers[64]), (numbers[32], numbers[64])):
        vectors = {site: cohort.masked(site, updates, sums) for site in cohort.sites}
        shapes = {(vector.updates.size, vector.sums.size) for vector in vectors.values()}
        assert shapes == {(updates.size + bool(updates.size), sums.size + bool(sums.size))}
        found = cohort.summed(vectors)
        np.testing.assert_array_equal(found.updates, 3 * updates)
        np.testing.assert_array_equal(found.sums, 3 * sums)
    # Masked alike, the same numbers would show that they are.
    same = mask_vector("site-000", np.zeros(40, np.uint32), np.zeros(20, np.uint64), links=cohort.links("site-000"),
                       binding=BINDING, least=3)  # fmt: skip
    assert same.updates[:40].tobytes() != same.sums[:20].tobytes()
    with pytest.raises(ValueError, match="uint32"):
        cohort.masked("site-000", np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="counts nobody"):
        cohort.masked("site-000", NONE[32])


def test_masked_bytes_are_uniform_and_far_from_the_update():
    cohort = cohort_of(5)
    values = updates_of(cohort, 4000)
    rings = (Ring.of_updates(5, LARGEST), Ring.of_sums(5, LARGEST))
    updates, sums = (encoded(cohort, ring, values) for ring in rings)
    for number, site in enumerate(cohort.sites):
        vector = cohort.masked(site, updates[site], sums[site])
        for ring, masked, bare in zip(rings, (vector.updates, vector.sums), (updates[site], sums[site]), strict=True):
            assert uniform(masked) > 0.001
            assert abs(np.corrcoef(ring.decode(masked[1:]), values[number])[0, 1]) < FAR
            # The same tests tell an update without masks.
            assert uniform(bare) < 1e-12
            assert np.corrcoef(ring.decode(bare), values[number])[0, 1] > 0.999


def uniform(numbers: np.ndarray) -> float:
    """Return the p-value of the chi-squared test that all bytes are equally likely."""
    counts = np.bincount(np.frombuffer(numbers.tobytes(), np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))


def test_a_site_opens_less_than_its_cohort_only_with_confirmations_of_this_very_list():
    cohort = cohort_of(5)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(5, LARGEST), updates_of(cohort, 4)))
    listed, other = frozenset(cohort.sites[:4]), frozenset(cohort.sites[1:])
    site = cohort.sites[1]
    links = cohort.links(site)

    def ask(confirmations: dict[str, bytes]) -> Opening | Refusal:
        sealed = {sender: vectors[sender].sealed[site] for sender in listed}
        return open_list(site, listed, sealed, confirmations=confirmations, links=links, binding=BINDING, least=4)

    right, of_other = cohort.confirmations(site, listed), cohort.confirmations(site, other)
    assert set(ask(right).seeds) == {cohort.sites[4]} and set(ask(right).shares) == listed
    assert ask({}) == Refusal("list-unconfirmed", had=1, least=4)
    assert ask(right | {"site-002": of_other["site-002"]}) == Refusal("list-unconfirmed", had=3, least=4)
    assert ask(right | {"site-002": right["site-003"]}) == Refusal("list-unconfirmed", had=3, least=4)
    last = cohort.confirmations(site, listed, bound=binding("the round before"))
    assert ask(right | {"site-002": last["site-002"]}).code == "list-unconfirmed"
    # A site outside the list confirms nothing in it.
    assert confirming_sites(site, listed, of_other, links=links, binding=BINDING) == frozenset()
    outside = cohort.sites[4]
    own = {outside: confirmation(cohort.links(outside)[site], BINDING, listed, sender=outside, receiver=site)}
    assert confirming_sites(site, listed, right | own, links=links, binding=BINDING) == listed - {site}


def test_the_whole_cohort_is_opened_without_confirmations_and_no_seed():
    cohort = cohort_of(3)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(3, LARGEST), updates_of(cohort, 4)))
    site, listed = cohort.sites[0], frozenset(cohort.sites)
    sealed = {sender: vectors[sender].sealed[site] for sender in listed}
    ask = {"confirmations": {}, "links": cohort.links(site), "binding": BINDING, "least": 3}
    assert open_list(site, listed, sealed, **ask).seeds == {}
    for wrong in (listed - {site}, listed | {"site-009"}):
        with pytest.raises(ValueError, match="lists of its cohort"):
            open_list(site, wrong, sealed, **ask)
    # A share that is lost, another's, another question's, or longer than a share is none.
    changes = {"lost": b"", "another's": sealed["site-002"], "longer": sealed["site-001"] + b"0"}
    changes["of another question"] = cohort.masked("site-001", np.zeros(2, np.uint32), bound=binding("another")).sealed[
        site
    ]
    for change in changes.values():
        found = open_list(site, listed, sealed | {"site-001": change}, **ask)
        assert found == Refusal("share-unreadable", site="site-001")


def test_a_site_does_not_pass_on_what_else_another_sealed_for_it():
    cohort = cohort_of(3)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(3, LARGEST), updates_of(cohort, 4)))
    site = cohort.sites[0]
    sealed = {sender: vectors[sender].sealed[site] for sender in cohort.sites}
    long = seal(cohort.links(site)["site-001"], BINDING, b"x" * 100, sender="site-001", receiver=site)
    found = open_list(site, frozenset(cohort.sites), sealed | {"site-001": long}, confirmations={},
                      links=cohort.links(site), binding=BINDING, least=3)  # fmt: skip
    assert found == Refusal("share-unreadable", site="site-001")


def test_all_sites_whose_shares_are_none_are_named_as_far_as_a_text_that_leaves_has_room():
    cohort = cohort_of(10)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(10, LARGEST), updates_of(cohort, 4)))
    site, listed = cohort.sites[0], frozenset(cohort.sites)
    sealed = {sender: vectors[sender].sealed[site] for sender in listed}
    # A number that is not below the prime is no share: the coordinator would take the opening that has it for none.
    too_large = seal(cohort.links(site)["site-003"], BINDING, b"\xff" * 32, sender="site-003", receiver=site)
    wrong = {"site-001": b"", "site-003": too_large, "site-009": sealed["site-008"]}
    ask = {"confirmations": {}, "links": cohort.links(site), "binding": BINDING, "least": cohort.least}
    found = open_list(site, listed, sealed | wrong, **ask)
    assert found == Refusal("shares-unreadable", many=3, sites="site-001, site-003, site-009")
    assert read_of_site(found).facts["sites"].split(", ") == sorted(wrong)
    long = {f"{'long-' * 15}{place}": bytes(32) for place in range(9)}
    links = {site: bytes(32), **long}
    found = open_list(site, frozenset(links), {}, **ask | {"links": links})
    assert (found.facts["many"], len(found.facts["sites"].split(", "))) == ("10", 5) and len(found) < LONGEST
    assert read_of_site(found) == found


def test_a_vector_or_an_opening_of_other_sizes_is_told():
    cohort = cohort_of(3)
    vector = cohort.masked("site-000", np.zeros(5, np.uint32), np.zeros(2, np.uint64))
    asked = {"updates": 5, "sums": 2, "cohort": cohort.sites}
    assert vector_defect(vector, **asked) is None
    for wrong in (
        asked | {"updates": 6}, asked | {"sums": 0}, asked | {"cohort": cohort.sites[:2]},
        asked | {"cohort": [*cohort.sites, "x"]},
    ):  # fmt: skip
        assert vector_defect(vector, **wrong) == Refusal("vector-unfit")
    short = {site: sealed[:-1] for site, sealed in vector.sealed.items()}
    for changed in (
        replace(vector, sealed=short), replace(vector, updates=vector.updates.astype(np.int64)),
        replace(vector, updates=vector.updates.reshape(6, 1)),
    ):  # fmt: skip
        assert vector_defect(changed, **asked) == Refusal("vector-unfit")
    empty = cohort.masked("site-000", np.zeros(5, np.uint32))
    assert vector_defect(empty, updates=5, sums=0, cohort=cohort.sites) is None


def test_an_opening_that_is_none_counts_as_none():
    cohort = cohort_of(5)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(5, LARGEST), updates_of(cohort, 4)))
    listed = frozenset(cohort.sites)
    openings = cohort.opened(vectors, listed)
    good = openings["site-002"]
    for wrong in (
        Opening({}, {}), Opening(good.shares, {"site-001": bytes(32)}),
        Opening({site: share[:-1] for site, share in good.shares.items()}, {}),
        Opening(dict.fromkeys(good.shares, b"\xff" * 32), {}),
    ):  # fmt: skip
        assert opening_defect(wrong, cohort=cohort.sites, listed=listed) == Refusal("opening-unfit")
        np.testing.assert_array_equal(
            cohort.unmasked(vectors, openings | {"site-002": wrong}, listed).updates, cohort.summed(vectors).updates
        )
        two = openings | {"site-002": wrong, "site-004": wrong}
        assert cohort.unmasked(vectors, two, listed) == Refusal("openings-few", had=3, least=4)


def test_a_wrong_share_or_seed_is_seen_by_the_count():
    cohort = cohort_of(5)
    vectors = cohort.all_masked(encoded(cohort, Ring.of_updates(5, LARGEST), updates_of(cohort, 4)))
    for missing in (0, 1):
        listed = frozenset(cohort.sites[missing:])
        openings = cohort.opened(vectors, listed)
        good = openings["site-001"]
        wrong = [replace(good, shares=good.shares | {"site-003": bytes(32)})]
        wrong += [replace(good, seeds=dict.fromkeys(good.seeds, bytes(32)))] if missing else []
        for opening in wrong:
            found = cohort.unmasked(vectors, openings | {"site-001": opening}, listed)
            assert found == Refusal("sum-miscounted", sites=5 - missing)
    # A vector that counts twice is seen too.
    twice = vectors["site-002"].updates.copy()
    twice[0] += 1
    changed: dict[str, MaskedVector] = vectors | {"site-002": replace(vectors["site-002"], updates=twice)}
    assert cohort.summed(changed) == Refusal("sum-miscounted", sites=5)
    # So is one of which the sums alone do.
    both = {site: cohort.masked(site, np.ones(3, np.uint32), np.ones(3, np.uint64)) for site in cohort.sites}
    twice = both["site-002"].sums.copy()
    twice[0] += 1
    changed = both | {"site-002": replace(both["site-002"], sums=twice)}
    assert cohort.summed(changed) == Refusal("sum-miscounted", sites=5)


def test_a_sum_far_larger_than_the_last_is_not_used():
    asked = {"sites": 20, "largest": 8.0, "entries": 10_000}
    # The first may have a tenth of 20 · 8 · √10,000 = 16,000.
    assert norm_refusal(1600.0, last=0.0, **asked) is None
    assert norm_refusal(1600.1, last=0.0, **asked) == Refusal("sum-norm", norm="1.6e+03", limit="1.6e+03")
    assert norm_refusal(50.0, last=5.0, **asked) is None
    assert norm_refusal(50.1, last=5.0, **asked).code == "sum-norm"
    assert norm_refusal(0.0, last=5.0, **asked) is None
    # Numbers that a mask stayed on are uniform, and never pass as a first sum.
    ring = Ring.of_updates(20, 8.0)
    garbage = ring.decode(generator(5, site="", purpose="mask").integers(0, 2**32, 10_000, dtype=np.uint32))
    norm = float(np.linalg.norm(garbage))
    assert norm == pytest.approx(16_000 / math.sqrt(3), rel=0.02) and norm_refusal(norm, last=0.0, **asked)
