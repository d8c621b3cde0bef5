"""Tags of a total, by which each site recognises the sum of one answer of each site.

The coordinator adds the masked vectors, and brings the total with the next request. A site computes encoder, model or
tree from it, so that a coordinator that could change a total would choose the model. Each vector ends in a tag, under
the masks as the numbers are:

```
tag of site i    = α₁ x₁ + … + α_m x_m + βᵢ         modulo p = 2^61 - 1
tag of the total = α₁ Σx₁ + … + α_m Σx_m + Σβᵢ

α: of the exchange    βᵢ: of the exchange and the site    both follow from the run key: the sites have it, and the
                                                          coordinator has not
```

The x are the whole numbers with their sign. Modulo 2^32 or 2^64 a sum may wrap where the tags do not, but `ring` leaves
room for the sum over all sites: it is that of the whole numbers themselves, below 2^60 in size.

Guarantee: a coordinator without the run key has another total taken (other numbers, more or fewer entries, the sum of
other sites, of another exchange) with a probability of at most 2^-60 for each try. A site that refused a total takes
no further part in the run, so that n sites are n tries.

Proof: each βᵢ is uniform modulo p and used once, so that all tags together say nothing of the α (a one-time pad). For
another total to pass with any tag, Σ αⱼ dⱼ must be one certain number, where some difference dⱼ is not 0 modulo p, as
it is below p in size; whatever the other α are, one residue of that αⱼ does it, which is at most two of 2^61 words.

It assumes that HKDF and AES-256 look random without their key, and that no site answers an exchange twice. A site that
works for the coordinator gives it the run key, and the coordinator has any total taken.

Source: Agrawal and Boneh 2009, "Homomorphic MACs: MAC-based integrity for network coding", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.masks.pairs import TAG_ENTRIES, Exchange, exchange_key, key_stream
from flfed.updates.masks.ring import LARGEST_TOTAL

MODULUS = 2**61 - 1
"""A prime, of which all bits are one: a random word `& MODULUS` is a factor modulo it."""
LOW_BITS = 31
LIMB_BITS = 16
CHUNK = 2**14
"""Entries at a time. As many products of a half factor and a limb, below 2^47 each, add up exactly in int64."""

Vector = tuple[np.ndarray, np.ndarray]
"""Numbers of the ring of 32 bits as uint32 array, and of the ring of 64 bits as uint64 array."""


def tag_vector(
    run_key: bytes, exchange: Exchange, sites: Collection[str], updates: np.ndarray, sums: np.ndarray
) -> Vector:
    """Return the numbers of a site, or of a sum: each part behind the number of sites, and the tag at the end.

    Of no updates the part stays empty; the other has a count and the tag in any case. Raises ValueError for numbers of
    other types, which would not wrap under a mask.
    """
    if (updates.dtype, sums.dtype) != (np.dtype(np.uint32), np.dtype(np.uint64)):
        raise ValueError("updates are tagged as uint32, and sums as uint64")
    counted = np.concatenate([np.full(min(updates.size, 1), len(sites), np.uint32), updates])
    counted_sums = np.concatenate([np.full(1, len(sites), np.uint64), sums])
    tag = compute_tag(run_key, exchange, sites, counted, counted_sums)
    parts = np.array([tag % 2**LOW_BITS, tag >> LOW_BITS], np.uint64)
    return counted, np.concatenate([counted_sums, parts])


def open_total(
    run_key: bytes, exchange: Exchange, cohort: Collection[str], updates: np.ndarray, sums: np.ndarray
) -> Vector | Refusal:
    """Return the sums of the numbers of all sites, without counts and tag, or that a total is not this sum."""
    refusal = Refusal("total-unverified")
    types = (updates.dtype, sums.dtype) == (np.dtype(np.uint32), np.dtype(np.uint64))
    if not types or (updates.ndim, sums.ndim) != (1, 1) or sums.size < 1 + TAG_ENTRIES:
        return refusal
    counted_sums, parts = sums[:-TAG_ENTRIES], sums[-TAG_ENTRIES:]
    counts = {int(part[0]) for part in (updates, counted_sums) if part.size}
    signed = np.ascontiguousarray(counted_sums).view(np.int64)
    # Beyond it, another total that differs by a multiple of the modulus would have the same tag.
    if counts != {len(cohort)} or signed.max() > LARGEST_TOTAL[64] or signed.min() < -LARGEST_TOTAL[64]:
        return refusal
    tag = (int(parts[0]) + (int(parts[1]) << LOW_BITS)) % MODULUS
    if tag != compute_tag(run_key, exchange, cohort, updates, counted_sums):
        return refusal
    return updates[1:], counted_sums[1:]


def compute_tag(
    run_key: bytes, exchange: Exchange, sites: Collection[str], updates: np.ndarray, sums: np.ndarray
) -> int:
    """Return the tag of the sum of the vectors of these sites, or of one site's vector, modulo `MODULUS`.

    The numbers of entries are in the keys, as zeros behind a vector would not change its tag otherwise.
    """
    sizes = (updates.size, sums.size)
    stream = key_stream(exchange_key(run_key, "tag factors", exchange, *sizes))
    total = 0
    for numbers in (np.ascontiguousarray(updates).view(np.int32), np.ascontiguousarray(sums).view(np.int64)):
        for start in range(0, numbers.size, CHUNK):
            rest = numbers[start : start + CHUNK].astype(np.int64)
            factors = np.frombuffer(stream.update(bytes(8 * rest.size)), "<i8") & MODULUS
            low, high = factors & (2**LOW_BITS - 1), factors >> LOW_BITS
            for shift in range(0, 8 * numbers.itemsize, LIMB_BITS):
                # All limbs but the highest are without a sign.
                is_highest = shift + LIMB_BITS == 8 * numbers.itemsize
                limb = rest if is_highest else rest & (2**LIMB_BITS - 1)
                total += (int(low @ limb) + (int(high @ limb) << LOW_BITS)) << shift
                rest = rest >> LIMB_BITS
    for site in sites:
        # 256 bits modulo 61 bits: uniform but for 2^-195.
        total += int.from_bytes(exchange_key(run_key, "tag of site", exchange, *sizes, site), "big")
    return total % MODULUS
