"""Attacks of a lying server on one sum: each wins where its fault is planted, and has nothing here.

What the rules of lists refuse is played with symbols elsewhere; here the masks, seeds and shares are real.
"""

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest

from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.updates.masking.keys import mask_seed, stream
from flfed.updates.masking.protocol import MaskedVector, Opening, draw_secret, norm_refusal, open_list, recover_secret
from flfed.updates.masking.rules import list_refusal
from flfed.updates.masks.ring import Ring
from tests.updates.masking.one_sum import BINDING, Cohort, binding, cohort_of

SITES, ENTRIES, LARGEST = 5, 2000, 8.0
RING = Ring.of_updates(SITES, LARGEST)
VICTIM = "site-002"
NOTHING = 0.1
"""Correlation or cosine with the victim's update that is none: of 2,000 entries, its standard deviation is 0.022."""


def updates_of(cohort: Cohort, round: int = 1) -> dict[str, np.ndarray]:
    return {site: generator(round, site=site, purpose="updates").normal(0, 0.5, ENTRIES) for site in cohort.sites}


def encoded(values: Mapping[str, np.ndarray], ring: Ring = RING) -> dict[str, np.ndarray]:
    return {site: ring.encode(own, generator(1, site=site, purpose="rounding")) for site, own in values.items()}


def cosine(numbers: np.ndarray, update: np.ndarray) -> float:
    """Return the cosine of an update with the numbers of a ring that are taken for it."""
    seen = RING.decode(numbers)
    return float(seen @ update / np.linalg.norm(seen) / np.linalg.norm(update))


def self_mask(cohort: Cohort, openings: Mapping[str, Opening], owner: str) -> np.ndarray:
    """Return the self-mask that openings of a list with its owner give to the server."""
    places = {site: x for x, site in enumerate(cohort.sites, start=1)}
    parts = {places[site]: opening.shares[owner] for site, opening in openings.items()}
    return stream(recover_secret(parts, cohort.least), ENTRIES + 1)[0]


def without_pair_masks(vector: MaskedVector, openings: Mapping[str, Opening], owner: str) -> np.ndarray:
    """Return a vector without the pair masks whose seeds others opened, as of a missing site."""
    found = vector.updates.copy()
    for peer, opening in openings.items():
        mask = stream(opening.seeds[owner], found.size)[0]
        found = found - mask if owner < peer else found + mask
    return found


def difference_of_rounds(cohort: Cohort, steps: tuple[int, int], bound: tuple[bytes, bytes]) -> float:
    """Return the correlation of a site's update with what a server computes of two honest rounds.

    It takes the self-masks, which both sums open, from the site's two vectors, and subtracts one from the other.
    """
    bare, plain = [], []
    for round, (step, of_round) in enumerate(zip(steps, bound, strict=True), start=1):
        values = updates_of(cohort, round)
        vectors = cohort.all_masked(encoded(values), bound=of_round, step=step)
        openings = cohort.opened(vectors, frozenset(cohort.sites), bound=of_round, step=step)
        bare.append(vectors[VICTIM].updates - self_mask(cohort, openings, VICTIM))
        plain.append(values[VICTIM])
    return float(np.corrcoef(RING.decode(bare[0] - bare[1])[1:], plain[0] - plain[1])[0, 1])


def test_masks_that_are_not_bound_to_round_or_repeat_give_the_difference_of_two_updates():
    cohort = cohort_of(SITES)
    assert difference_of_rounds(cohort, (0, 0), (BINDING, BINDING)) == pytest.approx(1, abs=1e-9)  # planted
    # Either of the two is enough: another link, or another binding such as of another repeat.
    assert abs(difference_of_rounds(cohort, (0, 1), (BINDING, BINDING))) < NOTHING
    assert abs(difference_of_rounds(cohort, (0, 0), (binding("repeat", 1), binding("repeat", 2)))) < NOTHING


def test_a_site_that_is_called_missing_is_hidden_by_its_self_mask():
    cohort = cohort_of(SITES)
    values = updates_of(cohort)
    vectors = cohort.all_masked(encoded(values))
    # All vectors came; the server says that the victim's did not.
    listed = frozenset(cohort.sites) - {VICTIM}
    openings = cohort.opened(vectors, listed)
    seen = without_pair_masks(vectors[VICTIM], openings, VICTIM)[1:]
    assert abs(cosine(seen, values[VICTIM])) < NOTHING
    # Planted: a vector without a self-mask, of which nothing else stays on.
    cohort.rng = Random(77)
    bare = cohort.masked(VICTIM, encoded(values)[VICTIM])
    mask = stream(draw_secret(Random(77).randrange), ENTRIES + 1)[0]
    seen = without_pair_masks(bare, openings, VICTIM) - mask
    assert seen[0] == 1 and cosine(seen[1:], values[VICTIM]) == pytest.approx(1, abs=1e-9)


def test_a_site_that_opens_a_second_list_for_a_vector_gives_another_sites_update():
    cohort = cohort_of(SITES)
    values = updates_of(cohort)
    vectors = cohort.all_masked(encoded(values))
    everybody, without = frozenset(cohort.sites), frozenset(cohort.sites) - {VICTIM}
    # Planted: the functions of a sum know of no other list; who keeps them from it is the rule.
    first, second = cohort.opened(vectors, everybody), cohort.opened(vectors, without)
    seen = without_pair_masks(vectors[VICTIM], second, VICTIM) - self_mask(cohort, first, VICTIM)
    assert seen[0] == 1 and cosine(seen[1:], values[VICTIM]) == pytest.approx(1, abs=1e-9)
    refusal = list_refusal("site-000", without, cohort=cohort.sites, least=cohort.least, opened=[everybody])
    assert refusal == Refusal("list-differs")


def test_lists_of_which_each_site_is_told_another_give_one_update_where_none_confirms_them():
    # Four pinned, three needed, one of them the server's: it tells each honest site that the next one is missing.
    cohort = cohort_of(4)
    values = updates_of(cohort)
    vectors = cohort.all_masked(encoded(values, Ring.of_updates(4, LARGEST)))
    *honest, colluder = cohort.sites
    told = {site: frozenset(cohort.sites) - {honest[(place + 1) % 3]} for place, site in enumerate(honest)}
    for site, listed in told.items():
        # The other honest site of the list was told one that this site is not in: it confirms nothing to this site.
        by_colluder = {colluder: cohort.confirmations(site, listed)[colluder]}
        found = opened_by(cohort, site, listed, vectors, by_colluder)
        assert found == Refusal("list-unconfirmed", had=2, least=3)
    # Planted: sites that open what was not confirmed to them.
    given = {site: opened_by(cohort, site, listed, vectors, cohort.confirmations(site, listed))
             for site, listed in told.items()}  # fmt: skip
    victim, before, after = honest[1], honest[0], honest[2]
    seeds = {
        before: given[before].seeds[victim], after: given[victim].seeds[after],
        colluder: mask_seed(cohort.links(colluder)[victim], BINDING),
    }  # fmt: skip
    openings = {site: Opening({}, {victim: seed}) for site, seed in seeds.items()}
    shares = {site: given[site] for site in (victim, after)}
    shares |= cohort.opened(vectors, frozenset(cohort.sites), [colluder])
    seen = without_pair_masks(vectors[victim], openings, victim) - self_mask(cohort, shares, victim)
    assert seen[0] == 1 and cosine(seen[1:], values[victim]) == pytest.approx(1, abs=1e-9)


def opened_by(
    cohort: Cohort,
    site: str,
    listed: frozenset[str],
    vectors: Mapping[str, MaskedVector],
    confirmations: Mapping[str, bytes],
) -> Opening | Refusal:
    return open_list(
        site, listed, {sender: vectors[sender].sealed[site] for sender in listed}, confirmations=confirmations,
        links=cohort.links(site), binding=BINDING, least=cohort.least,
    )  # fmt: skip


@pytest.mark.parametrize("sites", [3, 20])
def test_who_is_sent_another_request_leaves_the_sum_garbage(sites: int):
    cohort = cohort_of(sites)
    ring = Ring.of_updates(sites, LARGEST)
    values = updates_of(cohort)
    vectors = cohort.all_masked(encoded(values, ring))
    other = binding("another model, encoder, lr-scale or most rows")
    lied = vectors | {VICTIM: cohort.masked(VICTIM, encoded(values, ring)[VICTIM], bound=other)}
    # Its shares are of the other request too, so that nobody opens them.
    opened = cohort.opened(lied, frozenset(cohort.sites))
    readable = {site: opening for site, opening in opened.items() if isinstance(opening, Opening)}
    assert not readable and opened["site-000"] == Refusal("share-unreadable", site=VICTIM)
    # Even with the shares in its right place, the masks stay on: the count is no number of sites, the norm is far off.
    moved = vectors | {VICTIM: MaskedVector(lied[VICTIM].updates, lied[VICTIM].sums, vectors[VICTIM].sealed)}
    assert cohort.summed(moved) == Refusal("sum-miscounted", sites=sites)
    total = ring.add(vector.updates for vector in moved.values())
    openings = cohort.opened(moved, frozenset(cohort.sites))
    for site in cohort.sites:
        total = total - self_mask(cohort, openings, site)
    assert total[0] > 10 * sites
    norm = float(np.linalg.norm(ring.decode(total[1:])))
    assert norm_refusal(norm, last=0.0, sites=sites, largest=LARGEST, entries=ENTRIES) is not None
    honest = float(np.linalg.norm(ring.decode(cohort.summed(vectors).updates)))
    assert norm_refusal(honest, last=0.0, sites=sites, largest=LARGEST, entries=ENTRIES) is None
    # Planted: masks that are bound to nothing of the request; a model chosen for one site is read in a right sum.
    unbound = vectors | {VICTIM: cohort.masked(VICTIM, encoded(values, ring)[VICTIM])}
    assert not isinstance(cohort.summed(unbound), Refusal)


def test_seeds_of_a_missing_site_that_are_not_taken_out_leave_garbage():
    cohort = cohort_of(20)
    ring = Ring.of_updates(20, LARGEST)
    vectors = cohort.all_masked(encoded(updates_of(cohort), ring))
    missing = (VICTIM, "site-007")
    listed = frozenset(cohort.sites) - {*missing}
    openings = cohort.opened(vectors, listed)
    # Planted: a server that takes the self-masks out and no more.
    total = ring.add(vectors[site].updates for site in sorted(listed))
    for site in listed:
        total = total - self_mask(cohort, openings, site)
    assert total[0] > 1000 and np.abs(ring.decode(total[1:])).max() > 18 * LARGEST / 2
    # It lacks the seeds of one of the two, or has others in their place.
    wrong = {site: Opening(one.shares, one.seeds | {"site-007": bytes(32)}) for site, one in openings.items()}
    assert cohort.unmasked(vectors, wrong, listed) == Refusal("sum-miscounted", sites=18)
    for site in missing:
        for peer, opening in openings.items():
            mask = stream(opening.seeds[site], total.size)[0]
            total = total - mask if peer < site else total + mask
    assert total[0] == 18
    np.testing.assert_array_equal(cohort.unmasked(vectors, openings, listed).updates, total[1:])


def test_a_seed_of_twenty_bits_is_found_by_search_and_one_of_256_is_not():
    # The server calls the victim missing, takes its pair masks out, and tries seeds until the count is 1.
    cohort = cohort_of(SITES)
    values = updates_of(cohort)
    numbers = encoded(values)
    few = Random(5).randrange(2**20)
    masked = {"short": few.to_bytes(32, "big"), "whole": draw_secret(Random(6).randrange)}
    left = {name: np.append(np.uint32(1), numbers[VICTIM]) + stream(seed, ENTRIES + 1)[0] for name, seed in
            masked.items()}  # fmt: skip
    found = {name: list[int]() for name in left}
    # The seed whose stream begins with the count less 1, modulo 2^32.
    wanted = {(int(bare[0]) - 1) % 2**32: name for name, bare in left.items()}
    for seed in range(few + 1):
        first = int(stream(seed.to_bytes(32, "big"), 1)[0][0])
        if first in wanted:
            found[wanted[first]].append(seed)
    assert few in found["short"] and few > 2**18
    seen = left["short"] - stream(few.to_bytes(32, "big"), ENTRIES + 1)[0]
    assert cosine(seen[1:], values[VICTIM]) == pytest.approx(1, abs=1e-9)
    # Of the whole seed, no seed of the search has anything to do with it, whatever count it gives.
    assert len(found["whole"]) <= 1 and masked["whole"] > (2**20).to_bytes(32, "big")


def test_fewer_shares_than_the_threshold_tell_nothing_of_a_self_mask():
    # Threshold 4 of 5: a server with three sites of its own has three shares of the victim's self-mask, and all seeds
    # of its pair masks with them; the pair mask with the last honest site stays on as well.
    cohort = cohort_of(SITES)
    values = updates_of(cohort)
    vectors = cohort.all_masked(encoded(values))
    colluders = [site for site in cohort.sites if site not in (VICTIM, "site-003")]
    bare = vectors[VICTIM].updates
    for peer in colluders:
        mask = stream(mask_seed(cohort.links(peer)[VICTIM], BINDING), ENTRIES + 1)[0]
        bare = bare - mask if peer > VICTIM else bare + mask
    assert abs(cosine(bare[1:], values[VICTIM])) < NOTHING
    openings = cohort.opened(vectors, frozenset(cohort.sites))
    places = {site: x for x, site in enumerate(cohort.sites, start=1)}
    three = {places[site]: openings[site].shares[VICTIM] for site in colluders}
    guessed = stream(recover_secret(three, 3), ENTRIES + 1)[0]
    assert abs(cosine((bare - guessed)[1:], values[VICTIM])) < NOTHING
    # With the threshold's shares and the last seed it is bare: what the rules of lists keep from a server.
    mask = stream(mask_seed(cohort.links(VICTIM)["site-003"], BINDING), ENTRIES + 1)[0]
    right = bare - self_mask(cohort, openings, VICTIM) - mask
    assert cosine(right[1:], values[VICTIM]) == pytest.approx(1, abs=1e-9)
