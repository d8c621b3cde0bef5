"""A secret is given by any threshold of its shares, and fewer go with every secret alike."""

from itertools import combinations
from random import Random

import pytest

from flfed.updates.masking.protocol import (
    PRIME,
    SHARE_BYTES,
    draw_secret,
    lagrange,
    recover_secret,
    share_number,
    split_secret,
)


def in_bytes(value: int) -> bytes:
    return value.to_bytes(SHARE_BYTES, "big")


def at_places(shares: list[bytes], places: tuple[int, ...]) -> dict[int, bytes]:
    return {x: shares[x - 1] for x in places}


def probably_prime(n: int) -> bool:
    """Tell whether 40 bases of Miller and Rabin's test find no divisor."""
    odd = n - 1
    while odd % 2 == 0:
        odd //= 2
    for base in range(2, 42):
        power, exponent = pow(base, odd, n), odd
        while exponent != n - 1 and power not in (1, n - 1):
            power, exponent = power * power % n, exponent * 2
        if power != n - 1 and exponent % 2 == 0:
            return False
    return True


def test_the_prime_is_the_largest_below_two_to_the_256():
    assert probably_prime(PRIME) and 2**256 - PRIME == 189
    # Fermat: of a prime, 2^(n - 1) is 1.
    assert all(pow(2, n - 1, n) != 1 for n in range(PRIME + 2, 2**256, 2))


def test_shares_are_the_values_of_a_published_polynomial():
    # Wikipedia, "Shamir's secret sharing": 1234 + 166 x + 94 x², of which any three points give 1234.
    coefficients = iter([94, 166])
    shares = split_secret(in_bytes(1234), 3, 6, lambda _: next(coefficients))
    assert [share_number(share) for share in shares] == [1494, 1942, 2578, 3402, 4414, 5614]
    assert recover_secret(at_places(shares, (2, 4, 5)), 3) == in_bytes(1234)


def test_any_threshold_of_shares_gives_the_secret():
    secret = draw_secret(Random(1).randrange)
    shares = split_secret(secret, 4, 6, Random(2).randrange)
    for many in (4, 5, 6):
        assert {recover_secret(at_places(shares, places), 4) for places in combinations(range(1, 7), many)} == {secret}
    few = {recover_secret(at_places(shares, places), 3) for places in combinations(range(1, 7), 3)}
    # Three points of a cubic miss by its highest coefficient times the product of their places; 1·2·6 is 1·3·4.
    assert len(few) == 16 and secret not in few


def test_fewer_shares_go_with_every_secret():
    shares = split_secret(draw_secret(Random(3).randrange), 4, 6, Random(4).randrange)
    known, places = at_places(shares, (1, 3, 6)), (1, 3, 5, 6)
    factors = dict(zip(places, lagrange(places), strict=True))
    for other in (0, 1, 12345, PRIME - 1):
        # The fourth share for which another secret has the same three.
        rest = other - sum(factors[x] * share_number(share) for x, share in known.items())
        fourth = rest * pow(factors[5], -1, PRIME) % PRIME
        assert recover_secret({**known, 5: in_bytes(fourth)}, 4) == in_bytes(other)


@pytest.mark.parametrize("secret", [0, 1, PRIME - 1])
@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (3, 3), (68, 100)])
def test_secrets_and_cohorts_at_their_limits(secret: int, threshold: int, count: int):
    shares = split_secret(in_bytes(secret), threshold, count)
    assert {len(share) for share in shares} == {32}
    highest = tuple(range(count - threshold + 1, count + 1))
    assert share_number(recover_secret(at_places(shares, highest), threshold)) == secret


def test_randomness_is_the_operating_systems_and_drawn_anew():
    secret = draw_secret()
    assert len(secret) == SHARE_BYTES and secret != draw_secret()
    assert split_secret(secret, 3, 5) != split_secret(secret, 3, 5)
    # Of a polynomial without random coefficients each share would be the secret.
    assert set(split_secret(secret, 3, 5, lambda _: 0)) == {secret}
    asked = list[int]()
    split_secret(secret, 3, 5, lambda below: asked.append(below) or 0)
    assert asked == [PRIME, PRIME]


def test_what_is_no_share_is_wrong_use():
    secret = draw_secret()
    for threshold, count in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="threshold="):
            split_secret(secret, threshold, count)
    for wrong in (secret[1:], secret + b"0", in_bytes(PRIME), b"\xff" * SHARE_BYTES):
        with pytest.raises(ValueError, match="below the prime"):
            split_secret(wrong, 2, 3)
        with pytest.raises(ValueError, match="below the prime"):
            recover_secret({1: secret, 2: wrong}, 2)
    with pytest.raises(ValueError, match="fewer"):
        recover_secret({1: secret, 2: secret}, 3)
    with pytest.raises(ValueError, match="above 0"):
        recover_secret({0: secret, 2: secret}, 2)
