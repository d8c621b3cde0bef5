"""CPU and bytes of secure sums: set-up and a round, beside their bare key exchanges and streams.

Messages are not included, only the addition of sums to them. A hundred sites, ten of which mask and are missing.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import flfed
from benchmarks.ways import DifferentResults
from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.signatures import signing_public
from flfed.updates.masking import keys, protocol, rules, statement
from flfed.updates.ring import Ring

SITES, TENTH = 100, 10
"""Sites, of which each tenth is missing."""
ENTRIES = (4_000, 100_000)
"""Parameters of the model, a figure for each."""
LARGEST = 8.0
BINDING = bytes(range(32))
Value = TypeVar("Value")
CLOSE = 1e-6
"""Largest difference of the mean from that of float64."""


@dataclass
class Bytes:
    """Bytes of a round that cross between sites and server, both ways.

    Attributes
    ----------
    vectors : int
        Masked numbers.
    shares : int
        Sealed shares and confirmations, both ways, and opened shares.
    """

    vectors: int = 0
    shares: int = 0


def measure(repetitions: int = 3) -> dict[str, object]:
    """Return the figures of every number of parameters."""
    sizes = {}
    for entries in ENTRIES:
        taken, bare, crossed = list[float](), list[float](), Bytes()
        values = updates(entries)
        # The first turn includes one-time imports.
        for _ in range(repetitions + 1):
            gc.collect()
            start = process_time()
            total, crossed = round_of_sums(values)
            taken.append(process_time() - start)
            check(total, values)
            gc.collect()
            bare.append(bare_seconds(entries))
        seconds, least = median(taken[1:]), median(bare[1:])
        sizes[str(entries)] = {
            "cpu-seconds": round(seconds, 4),
            "bare-cpu-seconds": round(least, 4),
            "ratio": round(seconds / least, 3),
            "vector-bytes-a-parameter": round(crossed.vectors / SITES / entries, 4),
            "share-bytes-a-pair": round(crossed.shares / SITES / (SITES - 1), 1),
        }
    return {"sites": SITES, "missing": SITES // TENTH, "key-bytes-a-pair": key_bytes_a_pair(), "sizes": sizes}


def updates(entries: int, sites: int = SITES) -> dict[str, np.ndarray]:
    """Return each site's update: float64 [entries]."""
    names = [f"site-{number:03d}" for number in range(sites)]
    return {site: generator(1, site=site, purpose="update").normal(0, 0.05, entries) for site in names}


def listed_of(values: Mapping[str, np.ndarray]) -> rules.Sites:
    """Return the sites that are not missing."""
    return frozenset(values) - set(list(values)[::TENTH])


def round_of_sums(values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Bytes]:
    """Return the sum of the sites that are not missing, and the bytes of the round; it begins with the sites' keys."""
    own = {site: keys.RunKey.new() for site in values}
    publics = {site: key.public for site, key in own.items()}
    links = {}
    for site, key in own.items():
        secrets = given(keys.pair_secrets(site, key, publics, b"run"))
        links[site] = given(keys.Chain.start(secrets).moved(1).at(1))
    ring, least = Ring.of_updates(len(values), LARGEST), rules.threshold(len(values))
    vectors, none = {}, np.empty(0, np.uint64)
    for site, update in values.items():
        numbers = given(ring.encode(update, generator(1, site=site, purpose="rounding")))
        vectors[site] = protocol.mask_vector(site, numbers, none, links=links[site], binding=BINDING, least=least)
    listed = listed_of(values)
    confirmed = {site: protocol.confirm_list(site, listed, links=links[site], binding=BINDING) for site in listed}
    openings = {}
    for site in sorted(listed):
        openings[site] = given(
            protocol.open_list(
                site,
                listed,
                {sender: vectors[sender].sealed[site] for sender in listed},
                confirmations={sender: confirmed[sender][site] for sender in listed - {site}},
                links=links[site],
                binding=BINDING,
                least=least,
            )
        )
    total = given(protocol.unmask(vectors, openings, cohort=values, listed=listed, least=least))
    return ring.decode(total.updates), bytes_of(vectors, confirmed, openings)


def given(found: Value | Refusal) -> Value:
    """Return an outcome that is no refusal."""
    if isinstance(found, Refusal):
        raise DifferentResults(f"secure sums: {found}")
    return found


def bytes_of(
    vectors: Mapping[str, protocol.MaskedVector],
    confirmed: Mapping[str, Mapping[str, bytes]],
    openings: Mapping[str, protocol.Opening],
) -> Bytes:
    """Return the bytes of a round, each as often as it crosses."""
    found = Bytes(vectors=sum(vector.updates.nbytes + vector.sums.nbytes for vector in vectors.values()))
    found.shares += sum(length(vector.sealed) for vector in vectors.values())
    found.shares += sum(len(vectors[sender].sealed[site]) for sender in openings for site in openings)
    found.shares += 2 * sum(length(macs) for macs in confirmed.values())
    found.shares += sum(length(opening.shares) + length(opening.seeds) for opening in openings.values())
    return found


def length(parts: Mapping[str, bytes]) -> int:
    """Return the bytes of all parts, without the sites' names, whose order both sides know."""
    return sum(map(len, parts.values()))


def check(total: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Refuse a sum that is not that of float64; a round that does less gives no figure."""
    listed = listed_of(values)
    plain = np.sum([values[site] for site in listed], axis=0)
    apart = float(np.abs(total - plain).max()) / len(listed)
    if not apart <= CLOSE:
        raise DifferentResults(f"secure sums: the mean differs by {apart:.1e}")


def bare_seconds(entries: int, sites: int = SITES) -> float:
    """Return the CPU seconds of the round's key exchanges and key streams, and of nothing else."""
    private = [X25519PrivateKey.generate() for _ in range(sites)]
    publics = [key.public_key().public_bytes_raw() for key in private]
    # Masks of each site with each, itself counted; then the listed ones' own, and those with each missing one.
    missing = len(range(0, sites, TENTH))
    streams = sites * sites + (sites - missing) * (1 + missing)
    start = process_time()
    for mine, key in enumerate(private):
        for theirs, public in enumerate(publics):
            if theirs != mine:
                key.exchange(X25519PublicKey.from_public_bytes(public))
    for _ in range(streams):
        keys.stream(BINDING, entries + 1)
    return process_time() - start


def key_bytes_a_pair() -> float:
    """Return the bytes of signed keys that cross once a run, over the ordered pairs of sites."""
    gate, key = Ed25519PrivateKey.generate(), keys.RunKey.new()
    stated = statement.Statement(
        study_sha256="0" * 64,
        run="20260101-000000-abcdef",
        repeat=0,
        site="university-hospital-7",
        public_key=key.public.hex(),
        signing_key=signing_public(gate),
        pins="0" * 32,
        share_metrics="aggregate-only",
        flfed=flfed.__version__,
    )
    packed = len(statement.pack(stated, statement.sign(stated, gate)))
    # Once to the server from each site, and from there to each other one.
    return round(packed * SITES / (SITES - 1), 1)
