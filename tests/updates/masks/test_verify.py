"""Tags of a total: the sum of one answer of each site is taken, and whatever else a coordinator brings is not."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.updates.masks import verify
from flfed.updates.masks.pairs import Exchange, exchange_key, key_stream
from flfed.updates.masks.ring import Ring
from flfed.updates.masks.verify import CHUNK, MODULUS, Vector, compute_tag, open_total, tag_vector
from tests.updates.masks.cohort import EXCHANGE, OTHERS, SITES, Play, added, without

KEY = bytes(range(32))


def numbers_of(sites: tuple[str, ...], updates: int, sums: int) -> dict[str, Vector]:
    """Return sites' numbers of the rings, the largest of either sign among them."""
    rings, made = (Ring.of_updates(len(sites), 2.0), Ring.of_sums(len(sites), 1e4)), {}
    for place, site in enumerate(sites):
        rng = generator(7, site=site, purpose="tags", number=updates)
        values = (rng.uniform(-2, 2, updates), rng.uniform(-1e4, 1e4, sums))
        for part, ring in zip(values, rings, strict=True):
            part[::3] = ring.largest
            part[1::7] = -ring.largest
            part[2::5] = 1 if place == 0 else 0
        encoded = [ring.encode(part, rng) for part, ring in zip(values, rings, strict=True)]
        assert not any(isinstance(part, Refusal) for part in encoded)
        made[site] = (encoded[0], encoded[1])
    return made


PLAY = Play(numbers_of(SITES, 20, 6), KEY)
TOTAL = added(list(PLAY.tagged().values()))


def is_taken(
    total: Vector, *, exchange: Exchange = EXCHANGE, key: bytes = KEY, cohort: tuple[str, ...] = SITES
) -> bool:
    outcome = open_total(key, exchange, cohort, *total)
    if isinstance(outcome, Refusal):
        assert outcome.code == "total-unverified"
        return False
    return True


@pytest.mark.parametrize("sites", [3, 4, 64])
@pytest.mark.parametrize(("updates", "sums"), [(0, 0), (1, 0), (0, 1), (5, 3), (CHUNK - 1, 2), (2 * CHUNK, CHUNK + 1)])
def test_the_sum_of_all_sites_is_taken_as_it_is(sites: int, updates: int, sums: int):
    names = tuple(f"site-{number:02}" for number in range(sites))
    play = Play(numbers_of(names, updates, sums), KEY)
    opened = open_total(KEY, EXCHANGE, names, *added(list(play.tagged().values())))
    assert not isinstance(opened, Refusal)
    exact = added(list(play.numbers.values()))
    for part, expected in zip(opened, exact, strict=True):
        assert part.dtype == expected.dtype
        np.testing.assert_array_equal(part, expected)


def test_the_tag_is_that_of_the_formula():
    updates, sums = np.array([1, 2**32 - 1, 2**31, 77], np.uint32), np.array([1, 2**64 - 1, 2**60 - 1], np.uint64)
    signed = [1, -1, -(2**31), 77, 1, -1, 2**60 - 1]
    stream = key_stream(exchange_key(KEY, "tag factors", EXCHANGE, 4, 3)).update(bytes(8 * 7))
    factors = [int.from_bytes(stream[8 * place : 8 * place + 8], "little") % 2**61 for place in range(7)]
    own = [int.from_bytes(exchange_key(KEY, "tag of site", EXCHANGE, 4, 3, site), "big") for site in SITES]
    expected = sum(factor * number for factor, number in zip(factors, signed, strict=True)) + sum(own)
    assert compute_tag(KEY, EXCHANGE, SITES, updates, sums) == expected % (2**61 - 1)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_largest_numbers_and_factors_add_up_exactly(bits: int, monkeypatch: pytest.MonkeyPatch):
    class Ones:
        def update(self, zeros: bytes) -> bytes:
            return b"\xff" * len(zeros)

    monkeypatch.setattr(verify, "key_stream", lambda key: Ones())
    # The factor is the modulus itself then, so the tag is that of the sites alone, unless an addition wrapped.
    largest = np.full(3 * CHUNK + 5, 2 ** (bits - 1) - 1, f"int{bits}")
    for numbers in (largest, -largest, -largest - 1):
        parts = [np.zeros(0, np.uint32), np.zeros(0, np.uint64)]
        parts[bits // 64] = numbers.view(f"uint{bits}")
        sizes = [part.size for part in parts]
        own = int.from_bytes(exchange_key(KEY, "tag of site", EXCHANGE, *sizes, "hill"), "big") % MODULUS
        assert compute_tag(KEY, EXCHANGE, ["hill"], *parts) == own


def changed(part: int, place: int, by: int) -> Callable[[Vector], Vector]:
    """Return an attack that adds to an entry of the updates (0) or the sums (1)."""

    def attack(total: Vector) -> Vector:
        parts = [total[0].copy(), total[1].copy()]
        modulus = 2 ** (8 * parts[part].itemsize)
        parts[part][place] = (int(parts[part][place]) + by) % modulus
        return parts[0], parts[1]

    return attack


def scaled(times: int, parts: int = 1, *, counts: bool = True) -> Callable[[Vector], Vector]:
    """Return an attack that multiplies all numbers and the tag, and the counts where they are not kept right."""

    def attack(total: Vector) -> Vector:
        updates = (total[0].view(np.int32) * times // parts).astype(np.int32).view(np.uint32)
        sums = (total[1].view(np.int64) * times // parts).view(np.uint64)
        tag = (int(total[1][-2]) + (int(total[1][-1]) << 31)) * times * pow(parts, -1, MODULUS) % MODULUS
        sums[-2:] = [tag % 2**31, tag >> 31]
        if not counts:
            updates[0], sums[0] = total[0][0], total[1][0]
        return updates, sums

    return attack


def even() -> Vector:
    """Return the total of even numbers, that is halved without a rest, and its tag."""
    numbers = {}
    for site, (updates, sums) in PLAY.numbers.items():
        halves = updates.view(np.int32) // 2 * 2, sums.view(np.int64) // 2 * 2
        numbers[site] = (halves[0].view(np.uint32), halves[1].view(np.uint64))
    return added(list(Play(numbers, KEY).tagged().values()))


ATTACKS: dict[str, Callable[[Vector], Vector]] = {
    "an update one more": changed(0, 4, 1),
    "an update one less": changed(0, -1, -1),
    "the highest bit of an update": changed(0, 4, 2**31),
    "a sum one more": changed(1, 2, 1),
    "the first sum one less": changed(1, 1, -1),
    "the last sum": changed(1, -3, 5),
    "the sign of a sum": changed(1, 2, 2**63),
    "a sum and the modulus": changed(1, 3, MODULUS),
    "a sum less the modulus": changed(1, 3, -MODULUS),
    "two moduli": changed(1, 3, 2 * MODULUS),
    "a shifted tag": changed(1, -2, 1),
    "a tag with another upper part": changed(1, -1, 1),
    "a number and the tag by as much": lambda total: changed(1, -2, 1)(changed(0, 4, 1)(total)),
    "one site more by the updates' count": changed(0, 0, 1),
    "one site less by both counts": lambda total: changed(1, 0, -1)(changed(0, 0, -1)(total)),
    "doubled": scaled(2),
    "doubled but for the counts": scaled(2, counts=False),
    "negated but for the counts": scaled(-1, counts=False),
    "halved": lambda _: scaled(1, 2)(even()),
    "halved but for the counts": lambda _: scaled(1, 2, counts=False)(even()),
    "zeros": scaled(0, counts=False),
    "zeros with the old tag": lambda total: (
        np.r_[total[0][:1], 0 * total[0][1:]], np.r_[total[1][:1], 0 * total[1][1:-2], total[1][-2:]],
    ),
    "two entries exchanged": lambda total: (total[0][[0, 2, 1, *range(3, total[0].size)]], total[1]),
    "a zero behind the updates": lambda total: (np.r_[total[0], np.zeros(1, np.uint32)], total[1]),
    "a zero behind the sums": lambda total: (total[0], np.insert(total[1], -2, 0)),
    "no updates": lambda total: (total[0][:0], total[1]),
    "no sums": lambda total: (total[0], total[1][[0, -2, -1]]),
    "a sum too few": lambda total: (total[0], np.delete(total[1], 2)),
    "nothing but a tag": lambda total: (total[0], total[1][-2:]),
    "nothing at all": lambda total: (total[0][:0], total[1][:0]),
    "updates of 64 bits": lambda total: (total[0].astype(np.uint64), total[1]),
    "sums with a sign": lambda total: (total[0], total[1].view(np.int64)),
    "a matrix": lambda total: (total[0].reshape(1, -1), total[1]),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_changed_total_is_refused(attack: str):
    assert is_taken(TOTAL) and is_taken(even())
    assert not is_taken(ATTACKS[attack](TOTAL))


def test_who_has_the_run_key_can_make_any_total():
    # The limit: a site that works for the coordinator. It shows, too, that the attacks above lack nothing but the key.
    updates, sums = changed(0, 4, 1)(TOTAL)
    tag = compute_tag(KEY, EXCHANGE, SITES, updates, sums[:-2])
    assert is_taken((updates, np.r_[sums[:-2], np.array([tag % 2**31, tag >> 31], np.uint64)]))


def linear_only(secret: bytes, purpose: str, exchange: Exchange, *about: str | int) -> bytes:
    """Return what a mutant has as key in which sites add nothing to their tags."""
    return bytes(32) if purpose == "tag of site" else exchange_key(secret, purpose, exchange, *about)


def test_a_multiple_of_a_total_is_found_by_what_the_sites_add(monkeypatch: pytest.MonkeyPatch):
    names = tuple(f"site-{number}" for number in range(6))
    numbers = {}
    for site, (updates, sums) in PLAY.numbers.items():
        quarters = updates.view(np.int32) // 4, sums.view(np.int64) // 4
        numbers[site] = (quarters[0].view(np.uint32), quarters[1].view(np.uint64))

    def taken() -> list[bool]:
        """Return whether a total of three sites is taken, doubled, and as one of six sites."""
        total = added(list(Play(numbers, KEY).tagged().values()))
        return [is_taken(total), is_taken(scaled(2)(total)), is_taken(scaled(2)(total), cohort=names)]

    assert taken() == [True, False, False]
    # Planted: a tag that is linear and no more. The count alone finds it then.
    monkeypatch.setattr(verify, "exchange_key", linear_only)
    assert taken() == [True, False, True]


@pytest.mark.parametrize("element", OTHERS)
def test_a_total_of_another_exchange_is_refused(element: str, monkeypatch: pytest.MonkeyPatch):
    def replayed() -> bool:
        return is_taken(added(list(PLAY.tagged(OTHERS[element]).values())))

    assert not replayed()
    monkeypatch.setattr(Exchange, "to_list", without(element))
    assert replayed()  # planted: the mutant that leaves the element out is found by the line above


def test_a_total_of_another_run_key_or_cohort_is_refused():
    assert not is_taken(TOTAL, key=KEY[::-1])
    for cohort in (SITES[:2], (*SITES, "vale"), (*SITES[:2], "vale"), (*SITES[:2], SITES[0])):
        assert not is_taken(TOTAL, cohort=cohort)


def test_a_sum_of_other_sites_is_refused(monkeypatch: pytest.MonkeyPatch):
    ones = (np.r_[np.ones(1, np.uint32), np.zeros(20, np.uint32)], np.r_[np.ones(1, np.uint64), np.zeros(8, np.uint64)])

    def taken() -> list[bool]:
        hill, lake, _shore = PLAY.tagged().values()
        lists = ([hill, lake], [hill, lake, ones], [hill, hill, lake], [hill, hill, hill])
        return [is_taken(added(vectors)) for vectors in lists]

    assert taken() == [False] * 4

    def alike(secret: bytes, purpose: str, exchange: Exchange, *about: str | int) -> bytes:
        return exchange_key(secret, purpose, exchange, *about[:2])

    # Planted: where all sites add the same, the count and the tag of one site twice are right.
    monkeypatch.setattr(verify, "exchange_key", alike)
    assert taken() == [False, False, True, True]


def test_a_multiple_of_the_modulus_is_found_by_its_size_alone(monkeypatch: pytest.MonkeyPatch):
    total = ATTACKS["a sum and the modulus"](TOTAL)
    assert compute_tag(KEY, EXCHANGE, SITES, total[0], total[1][:-2]) == compute_tag(
        KEY, EXCHANGE, SITES, TOTAL[0], TOTAL[1][:-2]
    )
    assert not is_taken(total)
    monkeypatch.setattr(verify, "LARGEST_TOTAL", {64: 2**63 - 1})
    assert is_taken(total)  # planted: a check without the bound


def test_a_moved_border_between_the_parts_is_found_by_the_sizes_in_the_keys(monkeypatch: pytest.MonkeyPatch):
    # The last update is 3, so that it may pass for the count of the sums.
    numbers = {site: (np.array([5, 1], np.uint32), np.array([7], np.uint64)) for site in SITES}
    updates, sums = added(list(Play(numbers, KEY).tagged().values()))
    moved = (updates[:-1], np.r_[updates[-1:].astype(np.uint64), sums])
    longer = (updates, np.insert(sums, -2, 0))
    assert is_taken((updates, sums)) and not is_taken(moved) and not is_taken(longer)

    def without_sizes(secret: bytes, purpose: str, exchange: Exchange, *about: str | int) -> bytes:
        return exchange_key(secret, purpose, exchange, *about[2:])

    monkeypatch.setattr(verify, "exchange_key", without_sizes)
    updates, sums = added(list(Play(numbers, KEY).tagged().values()))
    moved = (updates[:-1], np.r_[updates[-1:].astype(np.uint64), sums])
    assert is_taken(moved) and is_taken((updates, np.insert(sums, -2, 0)))  # planted: keys without the sizes


SMALL = 31
"""A modulus for which guesses succeed often enough to be counted; all its bits are one, as those of the real one."""


def test_a_guess_succeeds_as_often_as_the_proof_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "MODULUS", SMALL)
    updates, sums = np.array([3, 2, 1], np.uint32), np.array([3], np.uint64)
    tries, passed = 6000, np.zeros(4)
    for number in range(tries):
        key = number.to_bytes(32, "big")
        tag = compute_tag(key, EXCHANGE, SITES, updates, sums)
        tags = [
            compute_tag(key, EXCHANGE, SITES, np.array(other, np.uint32), sums)
            for other in ([3, 3, 1], [3, 1, 0], [3, 4, 2])
        ]
        # The old tag for another total; a shifted one for two others; a multiple but for the count, with its tag.
        passed += [
            tags[0] == tag,
            tags[0] == (tag + 5) % SMALL,
            tags[1] == (tag + 7) % SMALL,
            tags[2] == 2 * tag % SMALL,
        ]
    # One of 32 words is a factor, and for 0 there are two, 0 and 31; of two factors together the differences are
    # about even. The standard deviation of a share is at most 0.0031.
    np.testing.assert_allclose(passed / tries, [2 / 32, 1 / 32, 1 / 31, 1 / 31], atol=4.5 * 0.0031)
    assert (passed / tries <= 2 / 32 + 4.5 * 0.0031).all()


def test_tags_say_nothing_of_the_factors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "MODULUS", SMALL)
    updates, sums = np.array([3, 0], np.uint32), np.array([3], np.uint64)
    shifted = np.array([3, 1], np.uint32)

    def independence() -> float:
        """Return chi-square of the table of tags by factors, the factor of 31 counted as 0."""
        table = np.zeros((SMALL, SMALL))
        for number in range(6000):
            key = number.to_bytes(32, "little")
            tag = compute_tag(key, EXCHANGE, ["hill"], shifted, sums)
            table[tag, (tag - compute_tag(key, EXCHANGE, ["hill"], updates, sums)) % SMALL] += 1
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        return float(((table - expected) ** 2 / expected).sum())

    # 900 degrees of freedom: beyond 1,110 with a probability below 1e-5.
    assert independence() < 1110
    # Planted: without what the sites add, and with no other number than one, the tag is the factor.
    sums, updates, shifted = np.zeros(0, np.uint64), np.array([0], np.uint32), np.array([1], np.uint32)
    monkeypatch.setattr(verify, "exchange_key", linear_only)
    assert independence() > 10_000


def test_factors_are_even_in_each_bit():
    words = np.frombuffer(key_stream(exchange_key(KEY, "tag factors", EXCHANGE, 1, 1)).update(8 * bytes(20_000)), "<u8")
    bits = np.unpackbits((words & np.uint64(MODULUS)).view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    # Of 20,000 the standard deviation of a share is 0.0035.
    np.testing.assert_allclose(bits[:, :61].mean(axis=0), 0.5, atol=4.5 * 0.0035)
    assert not bits[:, 61:].any()


def test_a_masked_total_is_taken_and_what_a_coordinator_changes_below_the_masks_is_not():
    masked = PLAY.masked()
    total = added(list(masked.values()))
    np.testing.assert_array_equal(total[0], TOTAL[0])
    np.testing.assert_array_equal(total[1], TOTAL[1])
    assert is_taken(total)
    hill, lake, shore = masked.values()
    other = PLAY.masked(OTHERS["step"])
    for vectors in (
        [hill, lake], [hill, hill, shore], [hill, lake, other["shore"]], [changed(0, 3, 1)(hill), lake, shore],
        [changed(1, 3, -4)(hill), lake, shore], [changed(1, -1, 1)(hill), lake, shore],
    ):  # fmt: skip
        assert not is_taken(added(vectors))
    # The same under two exchanges: nothing of the one helps with the other.
    assert is_taken(added(list(other.values())), exchange=OTHERS["step"])


def test_numbers_of_other_types_are_wrong_use():
    for updates, sums in ((np.zeros(2), np.zeros(2, np.uint64)), (np.zeros(2, np.uint32), np.zeros(2, np.int64))):
        with pytest.raises(ValueError, match="are tagged as"):
            tag_vector(KEY, EXCHANGE, ["hill"], updates, sums)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_million_entries_are_tagged_in_a_twentieth_of_a_second(bits: int):
    numbers = np.random.default_rng(0).integers(-(2 ** (bits - 5)), 2 ** (bits - 5), 1_000_000)
    vector = [np.zeros(1, np.uint32), np.zeros(1, np.uint64)]
    vector[bits // 64] = numbers.astype(f"int{bits}").view(f"uint{bits}")
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        compute_tag(KEY, EXCHANGE, ["hill"], *vector)
        seconds.append(time.process_time() - begin)
    assert min(seconds) <= 0.05
