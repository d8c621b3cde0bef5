"""Shamir's shares of a secret: any `threshold` of them give it, fewer tell nothing.

The secret is the value at 0 of a random polynomial modulo a prime, and a share its value at 1, 2, ….

Source: Shamir 1979, "How to share a secret", Communications of the ACM 22 (11).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

PRIME = 2**256 - 189
"""The largest prime below 2^256."""
BYTES = 32
"""Of a secret, and of a share: a whole number below `PRIME`, the highest byte first."""

Draw = Callable[[int], int]
"""A source of randomness: of `n`, a whole number that is uniform in 0 … n - 1."""


def draw_secret(draw: Draw = secrets.randbelow) -> bytes:
    """Return a new secret of 32 bytes, uniform below the prime.

    Parameters
    ----------
    draw : callable int → int
        The operating system's randomness; tests pass another.
    """
    return draw(PRIME).to_bytes(BYTES, "big")


def split(secret: bytes, threshold: int, count: int, draw: Draw = secrets.randbelow) -> list[bytes]:
    """Return the shares of a secret at x = 1 … `count`, 32 bytes each.

    Parameters
    ----------
    secret : bytes, 32
        Below the prime, as `draw_secret` returns it.
    threshold : int, 1 … `count`
        Shares that give the secret.
    count : int
    draw : callable int → int
        As in `draw_secret`; `threshold - 1` coefficients are drawn.

    Raises
    ------
    ValueError
        If the secret or the threshold is none.
    """
    if not 1 <= threshold <= count < PRIME:
        raise ValueError(f"threshold={threshold} must be 1 to count={count}")
    highest_first = [draw(PRIME) for _ in range(threshold - 1)] + [number(secret)]
    return [_value(highest_first, x).to_bytes(BYTES, "big") for x in range(1, count + 1)]


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret of 32 bytes.

    Parameters
    ----------
    shares : mapping of x to bytes, 32
        At least `threshold`, of which those at the lowest x are used.
    threshold : int
        As it was split with. Shares of a larger threshold give a number that has nothing to do with the secret.

    Raises
    ------
    ValueError
        If there are too few shares, or one is none.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares are fewer than threshold={threshold}")
    places = tuple(sorted(shares)[:threshold])
    terms = (factor * number(shares[x]) for x, factor in zip(places, lagrange(places), strict=True))
    return (sum(terms) % PRIME).to_bytes(BYTES, "big")


def is_share(part: bytes) -> bool:
    """Tell whether bytes are a share: a whole number below the prime, of 32 bytes."""
    return len(part) == BYTES and int.from_bytes(part, "big") < PRIME


def number(share: bytes) -> int:
    """Return the whole number that a secret or a share is; raises ValueError where it is none."""
    if not is_share(share):
        raise ValueError("a secret or a share is a number below the prime, of 32 bytes")
    return int.from_bytes(share, "big")


# Secrets of a round are recovered from shares of the same sites: their factors are computed once.
@lru_cache(maxsize=4)
def lagrange(places: tuple[int, ...]) -> tuple[int, ...]:
    """Return the factors by which values at some places give the value at 0, modulo the prime.

    It is the product of `m / (m - x)` over the other places `m`, for each place `x`.

    Parameters
    ----------
    places : tuple of int
        All different and above 0; raises ValueError otherwise.

    Examples
    --------
    >>> [factor - PRIME if factor > PRIME // 2 else factor for factor in lagrange((1, 2, 3))]
    [3, -3, 1]
    """
    if len(set(places)) < len(places) or min(places) < 1:
        raise ValueError(f"places {places} of shares must differ and be above 0")
    found = []
    for x in places:
        others = [m for m in places if m != x]
        found.append(_product(others) * pow(_product(m - x for m in others), -1, PRIME) % PRIME)
    return tuple(found)


def _product(numbers: Iterable[int]) -> int:
    found = 1
    for factor in numbers:
        found = found * factor % PRIME
    return found


def _value(highest_first: list[int], x: int) -> int:
    """Return a polynomial's value by Horner's rule, modulo the prime."""
    found = 0
    # x is small: the number grows by a few bits a step, and one division at the end is cheaper than one a step.
    for coefficient in highest_first:
        found = found * x + coefficient
    return found % PRIME
