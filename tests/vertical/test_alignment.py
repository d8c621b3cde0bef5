"""Alignment: the rows found are those of the plain intersection, and points that would show a key are refused."""

import time

import numpy as np
import pytest

from flfed.refusals import Refusal
from flfed.vertical.alignment import BlindingKey, common_rows, shuffled

bindings = pytest.importorskip("nacl.bindings")


def found(label: list[str], columns: list[str]) -> set[tuple[int, int]]:
    """Return the pairs of places that both parties find together."""
    own, other = BlindingKey.new(), BlindingKey.new()
    twice = other.blind_again(own.blind(label))
    theirs = own.blind_again(other.blind(columns))
    return set(zip(*(places.tolist() for places in common_rows(twice, theirs)), strict=True))


def names(first: int, last: int) -> list[str]:
    return [f"person-{number}" for number in range(first, last)]


@pytest.mark.parametrize("overlap", [0, 1, 40, 80])
def test_the_common_rows_are_the_plain_intersection(overlap):
    label = names(0, 80)
    columns = [names(80 - overlap, 160 - overlap)[place] for place in shuffled(80)]

    plain = {(label.index(one), columns.index(one)) for one in set(label) & set(columns)}

    assert len(plain) == overlap
    assert found(label, columns) == plain


def test_two_runs_share_no_blinded_value_and_none_is_a_bare_hash():
    people = names(0, 50)
    first, second = (set(map(bytes, BlindingKey.new().blind(people))) for _ in range(2))
    one = (1).to_bytes(32, "little")
    bare = set(map(bytes, BlindingKey(one).blind(people)))

    assert not first & second and not (first | second) & bare


def test_a_point_is_of_one_identifier_and_key_and_a_key_is_not_in_its_text():
    key = BlindingKey.new()
    assert (key.blind(["a"]) == key.blind(["a"])).all()
    assert not (key.blind(["a"]) == key.blind(["b"])).all()
    assert repr(key.scalar) not in repr(key)


PRIME = 2**255 - 19
SMALL = [
    (1).to_bytes(32, "little"),  # the neutral one
    (PRIME - 1).to_bytes(32, "little"),  # of order 2
    (0).to_bytes(32, "little"),  # of order 4
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),  # of order 8
]


@pytest.mark.parametrize("small", SMALL)
def test_points_of_small_and_mixed_order_are_refused(small):
    large = BlindingKey.new().blind(["a"])
    points = [small]
    if small != SMALL[0]:
        points.append(bindings.crypto_core_ed25519_add(large[0].tobytes(), small))

    for point in points:
        bad = np.frombuffer(point, np.uint8).reshape(1, 32)
        assert isinstance(BlindingKey.new().blind_again(np.concatenate([large, bad])), Refusal)


def test_what_is_no_point_is_refused():
    assert isinstance(BlindingKey.new().blind_again(np.full((1, 32), 255, dtype=np.uint8)), Refusal)


@pytest.mark.proof
def test_10_000_people_take_at_most_three_times_the_bare_multiplications():
    label, columns = names(0, 10_000), names(5_000, 15_000)
    key, (point,) = BlindingKey.new(), BlindingKey.new().blind(["a"])
    begun = time.process_time()
    for _ in range(40_000):
        bindings.crypto_scalarmult_ed25519_noclamp(key.scalar, point.tobytes())
    bare = time.process_time() - begun
    begun = time.process_time()
    pairs = found(label, columns)
    took = time.process_time() - begun

    print(f"bare {bare:.2f} CPU s, alignment {took:.2f}")
    assert len(pairs) == 5_000
    assert took <= 3 * bare
