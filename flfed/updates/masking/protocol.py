"""The two halves of one sum: what a site masks, confirms and opens, and what the server adds up.

A vector leaves its site with two kinds of masks on it. There is one for each other site of the cohort, which that site
has with the other sign. There is a self-mask, whose seed is shared among the cohort. For a *list* of sites the server
receives, of each of them, shares of the self-mask. For each site of the cohort that is missing, it receives the seeds
of its pair masks: never both of one site.

Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", figure 4.

The seed's shares are Shamir's: any `threshold` of them give it, fewer reveal nothing. The seed is the value at 0 of a
random polynomial modulo a prime, and a share its value at 1, 2, ….

Source: Shamir 1979, "How to share a secret", Communications of the ACM 22 (11).
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.masking import keys
from flfed.updates.masking.rules import Sites, opening_refusal

PRIME = 2**256 - 189
"""The largest prime below 2^256."""
SHARE_BYTES = 32
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
    return draw(PRIME).to_bytes(SHARE_BYTES, "big")


def split_secret(secret: bytes, threshold: int, count: int, draw: Draw = secrets.randbelow) -> list[bytes]:
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
    highest_first = [draw(PRIME) for _ in range(threshold - 1)] + [share_number(secret)]
    return [_value(highest_first, x).to_bytes(SHARE_BYTES, "big") for x in range(1, count + 1)]


def recover_secret(shares: Mapping[int, bytes], threshold: int) -> bytes:
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
    terms = (factor * share_number(shares[x]) for x, factor in zip(places, lagrange(places), strict=True))
    return (sum(terms) % PRIME).to_bytes(SHARE_BYTES, "big")


def is_share(part: bytes) -> bool:
    """Return whether bytes are a share: a whole number below the prime, of 32 bytes."""
    return len(part) == SHARE_BYTES and int.from_bytes(part, "big") < PRIME


def share_number(share: bytes) -> int:
    """Return the whole number that a secret or a share is.

    Raises ValueError where it is none.
    """
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
    factors = []
    for x in places:
        others = [m for m in places if m != x]
        factors.append(_product(others) * pow(_product(m - x for m in others), -1, PRIME) % PRIME)
    return tuple(factors)


def _product(numbers: Iterable[int]) -> int:
    product = 1
    for factor in numbers:
        product = product * factor % PRIME
    return product


def _value(highest_first: list[int], x: int) -> int:
    """Return a polynomial's value by Horner's rule, modulo the prime."""
    value = 0
    # x is small: the number grows by a few bits a step, and one division at the end is cheaper than one a step.
    for coefficient in highest_first:
        value = value * x + coefficient
    return value % PRIME


SEALED = SHARE_BYTES + keys.TAG
"""Bytes of a sealed share."""
GROWTH = 10.0
"""Times the last sum's norm that a sum may have, and the part of the largest possible that the first may have."""
NAMED = 3
"""Sites that a refusal names, at most; of sites whose shares are none it names all."""
NAMES_LENGTH = 400
"""Characters of all these names, at most: a gate lets no text of more than 500 out."""

Links = Mapping[str, bytes]
"""A site's link with each of the cohort, itself too, at the step of the question."""


@dataclass(frozen=True)
class MaskedVector:
    """A site's masked vector and the shares of its self-mask.

    It is made once for a question, written down, and sent as it is whenever it is asked for again. Two vectors under
    the same pair masks give their difference.

    Attributes
    ----------
    updates : uint32 array [1 + entries], or [0]
        Entry 0 counts the sites of a sum.
    sums : uint64 array [1 + entries], or [0]
        The same with 64 bits.
    sealed : dict of site to bytes, 48
        A share for each of the cohort, itself too.

    Reveals: nothing to who has fewer than the threshold of the shares opened; all numbers are uniformly random.
    """

    updates: np.ndarray
    sums: np.ndarray
    sealed: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Opening:
    """What a site opens for a list.

    Attributes
    ----------
    shares : mapping of site to bytes, 32
        Its shares of the self-masks of the list's sites.
    seeds : mapping of site to bytes, 32
        Seeds of its pair masks with the sites of the cohort that are not in the list.

    Reveals: with those of a threshold of sites, the sum of the list's vectors.
    """

    shares: Mapping[str, bytes] = field(repr=False)
    seeds: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Totals:
    """Sums of a list's vectors, without the counts.

    Attributes
    ----------
    updates : uint32 array [entries]
    sums : uint64 array [entries]
    """

    updates: np.ndarray
    sums: np.ndarray


def mask_vector(
    site: str,
    updates: np.ndarray,
    sums: np.ndarray,
    *,
    links: Links,
    binding: bytes,
    least: int,
    draw: Draw = secrets.randbelow,
) -> MaskedVector:
    """Return a site's vector under a new self-mask and its pair masks.

    Parameters
    ----------
    site : str
    updates : uint32 array [entries]
        Numbers of a ring; without entries nothing is masked, and nothing counted.
    sums : uint64 array [entries]
        The same with 64 bits.
    links : mapping of site to bytes, 32
        Of the whole cohort, the site too.
    binding : bytes, 32
        Of the question, as in `keys.mask_seed`.
    least : int
        The threshold of the pinned sites: so many shares give the self-mask.
    draw : callable int → int
        The operating system's randomness; tests pass another.

    Raises
    ------
    ValueError
        For numbers of other types, without any number, or for a threshold above the cohort.
    """
    # Numbers of another type would not wrap, and show through the mask.
    if (updates.dtype, sums.dtype) != (np.dtype(np.uint32), np.dtype(np.uint64)):
        raise ValueError("updates are masked as uint32, and sums as uint64")
    if not updates.size and not sums.size:
        raise ValueError("a vector without numbers counts nobody")
    total = Totals(counted(updates), counted(sums))
    own = draw_secret(draw)
    _add(total, own, 1)
    for peer in sorted(set(links) - {site}):
        _add(total, keys.mask_seed(links[peer], binding), _sign(site, peer))
    parts = split_secret(own, least, len(links), draw)
    sealed = {
        peer: keys.seal(links[peer], binding, part, sender=site, receiver=peer)
        for peer, part in zip(sorted(links), parts, strict=True)
    }
    return MaskedVector(total.updates, total.sums, sealed)


def confirm_list(site: str, listed: Sites, *, links: Links, binding: bytes) -> dict[str, bytes]:
    """Return a site's confirmations of a list, 32 bytes for each of the list's other sites.

    Parameters
    ----------
    site : str
    listed : frozenset of str
        One that `rules.list_refusal` does not refuse, and that is written down.
    links, binding
        As in `mask_vector`.
    """
    others = sorted(listed - {site})
    return {peer: keys.confirmation(links[peer], binding, listed, sender=site, receiver=peer) for peer in others}


def confirming_sites(
    site: str, listed: Sites, confirmations: Mapping[str, bytes], *, links: Links, binding: bytes
) -> Sites:
    """Return the other sites of a list whose confirmation to this one is right.

    Parameters
    ----------
    site : str
    listed : frozenset of str
    confirmations : mapping of sender to bytes
    links, binding
        As in `mask_vector`.
    """
    return frozenset(
        peer
        for peer in (listed & confirmations.keys() & links.keys()) - {site}
        if hmac.compare_digest(
            confirmations[peer], keys.confirmation(links[peer], binding, listed, sender=peer, receiver=site)
        )
    )


def open_list(
    site: str,
    listed: Sites,
    sealed: Mapping[str, bytes],
    *,
    confirmations: Mapping[str, bytes],
    links: Links,
    binding: bytes,
    least: int,
) -> Opening | Refusal:
    """Return what a site opens for a list, or why it opens nothing.

    Parameters
    ----------
    site : str
    listed : frozenset of str
        One that `rules.list_refusal` does not refuse, and that is written down.
    sealed : mapping of sender to bytes, 48
        The shares for this site that came with the vectors of the list's sites. Others are not looked at.
    confirmations : mapping of sender to bytes, 32
        Of this list to this site; needed where a site of the cohort is missing.
    links, binding, least
        As in `mask_vector`.

    Raises
    ------
    ValueError
        For a list that `rules.list_refusal` refuses by its names: without the site, or with one outside the cohort.
    """
    if site not in listed or not listed <= links.keys():
        raise ValueError("a site opens lists of its cohort that it is in")
    confirmed = confirming_sites(site, listed, confirmations, links=links, binding=binding)
    if refusal := opening_refusal(site, listed, cohort=links, least=least, confirmed=confirmed):
        return refusal
    parts = {}
    unreadable = []
    for sender in sorted(listed):
        part = keys.unseal(links[sender], binding, sealed.get(sender, b""), sender=sender, receiver=site)
        # What else a sender sealed would leave with this site's opening.
        if isinstance(part, Refusal) or not is_share(part):
            unreadable.append(sender)
        else:
            parts[sender] = part
    if unreadable:
        return _shares_refusal(unreadable)
    # Of a site either a share of its self-mask or a seed of its pair masks: with both, its vector would be bare.
    missing = sorted(links.keys() - listed)
    return Opening(parts, {peer: keys.mask_seed(links[peer], binding) for peer in missing})


def _shares_refusal(senders: Sequence[str]) -> Refusal:
    """Return the refusal that names all sites whose shares are none, as far as a text that leaves has room."""
    if len(senders) == 1:
        return Refusal("share-unreadable", site=senders[0])
    named = [name for place, name in enumerate(senders) if len(", ".join(senders[: place + 1])) <= NAMES_LENGTH]
    return Refusal("shares-unreadable", many=len(senders), sites=", ".join(named))


def vector_defect(vector: MaskedVector, *, updates: int, sums: int, cohort: Collection[str]) -> Refusal | None:
    """Return why a server cannot add a vector, None where it can.

    Parameters
    ----------
    vector : MaskedVector
    updates, sums : int
        Entries that were asked for, without the counts.
    cohort : collection of str
    """
    numbers = all(
        part.dtype == dtype and part.shape == (entries + (entries > 0),)
        for part, dtype, entries in ((vector.updates, np.uint32, updates), (vector.sums, np.uint64, sums))
    )
    if numbers and _has(vector.sealed, cohort, SEALED):
        return None
    return Refusal("vector-unfit")


def opening_defect(opening: Opening, *, cohort: Collection[str], listed: Sites) -> Refusal | None:
    """Return why an opening is not one for a list, None where it is."""
    below = all(is_share(share) for share in opening.shares.values())
    fits = _has(opening.shares, listed, SHARE_BYTES) and _has(opening.seeds, set(cohort) - listed, keys.BYTES)
    if below and fits:
        return None
    return Refusal("opening-unfit")


def unmask(
    vectors: Mapping[str, MaskedVector],
    openings: Mapping[str, Opening],
    *,
    cohort: Collection[str],
    listed: Sites,
    least: int,
) -> Totals | Refusal:
    """Return the sums of a list's vectors, or why there are none.

    Parameters
    ----------
    vectors : mapping of site to MaskedVector
        Of the list's sites at least, without a `vector_defect`.
    openings : mapping of site to Opening
        That came for this list. One with an `opening_defect` counts as none.
    cohort : collection of str
    listed : frozenset of str
    least : int
        Openings that give the self-masks: any so many suffice where nobody is missing. Where somebody is, each of the
        list's sites has seeds that no other has.

    Returns
    -------
    Totals, or Refusal
        `sum-miscounted` where a mask stayed on: a site was sent another request, list or key, or opened something
        else.
    """
    right = {
        site: openings[site]
        for site in sorted(listed & openings.keys())
        if opening_defect(openings[site], cohort=cohort, listed=listed) is None
    }
    if len(right) < least:
        return Refusal("openings-few", had=len(right), least=least)
    missing = sorted(set(cohort) - listed)
    if missing and (silent := sorted(listed - right.keys())):
        return Refusal("openings-missing", sites=", ".join(silent[:NAMED]))
    first, *others = sorted(listed)
    total = Totals(vectors[first].updates.copy(), vectors[first].sums.copy())
    for site in others:
        np.add(total.updates, vectors[site].updates, out=total.updates)
        np.add(total.sums, vectors[site].sums, out=total.sums)
    for seed in _self_masks(right, cohort, listed, least):
        _add(total, seed, -1)
    if missing:
        _remove_seeds(total, {site: right[site] for site in sorted(listed)})
    counts = {int(part[0]) for part in (total.updates, total.sums) if part.size}
    if counts - {len(listed)}:
        return Refusal("sum-miscounted", sites=len(listed))
    return Totals(total.updates[1:], total.sums[1:])


def norm_refusal(norm: float, *, last: float, sites: int, largest: float, entries: int) -> Refusal | None:
    """Return why a sum is not used for its size, None where it is.

    Of numbers that a mask stayed on, the norm is about 0.58 · `sites` · `largest` · √`entries`.

    Parameters
    ----------
    norm : float
        L2 norm of the sum, not divided by any weight.
    last : float
        Norm of the run's last sum that was not zero; 0 where there was none.
    sites : int
        That the ring is for.
    largest : float
        Largest absolute entry of one site.
    entries : int
        Of the sum.
    """
    limit = GROWTH * last if last > 0 else sites * largest * math.sqrt(entries) / GROWTH
    if norm <= limit:
        return None
    return Refusal("sum-norm", norm=f"{norm:.3g}", limit=f"{limit:.3g}")


def _self_masks(openings: Mapping[str, Opening], cohort: Collection[str], listed: Sites, least: int) -> Iterator[bytes]:
    """Yield the seed of the self-mask of each of the list's sites, from the shares at the same places."""
    places = {site: x for x, site in enumerate(sorted(cohort), start=1)}
    for owner in sorted(listed):
        yield recover_secret({places[site]: opening.shares[owner] for site, opening in openings.items()}, least)


def _sign(site: str, peer: str) -> int:
    """Return the sign of a pair's mask at `site`: at `peer` it is the other."""
    if site < peer:
        return 1
    return -1


def _add(total: Totals, seed: bytes, sign: int) -> None:
    """Add the mask of a seed in place, or subtract it."""
    combine = np.add if sign > 0 else np.subtract
    for part, mask in zip((total.updates, total.sums), keys.stream(seed, total.updates.size, total.sums.size)):
        combine(part, mask, out=part)


def counted(numbers: np.ndarray) -> np.ndarray:
    """Return numbers behind a 1, a new array; of none, none."""
    if numbers.size:
        return np.concatenate([np.ones(1, numbers.dtype), numbers])
    return numbers.copy()


def _has(parts: Mapping[str, bytes], sites: Collection[str], length: int) -> bool:
    """Return whether there is a part of this length for each of these sites, and no other."""
    return parts.keys() == set(sites) and all(len(part) == length for part in parts.values())


def _remove_seeds(total: Totals, openings: Mapping[str, Opening]) -> None:
    """Take off the masks that sites share with those that are missing."""
    for site, opening in openings.items():
        for peer, seed in opening.seeds.items():
            _add(total, seed, -_sign(site, peer))
