"""A cohort for tests of masks and tags: its gates, the keys of a run, and what each pair shares."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.refusals import Refusal
from flfed.signatures import gate_fingerprint, signing_public
from flfed.updates.masks.pairs import Exchange, RunKey, SignedKey, mask, pair_secrets
from flfed.updates.masks.verify import Vector, tag_vector

SITES = ("hill", "lake", "shore")
RUN = {"study_sha256": "5" * 64, "run": "run-1", "repeat": 0}
MOST_ROWS = 500


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def gate(site: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"gate of {site}".encode()).digest())


def run_key(site: str) -> RunKey:
    return RunKey.of_private(hashlib.sha256(f"key of {site}".encode()).digest())


def signed_key(site: str, *, changed: bool = False, public_key: str = "", **about: object) -> SignedKey:
    public = public_key or run_key(site).public.hex()
    return SignedKey(site=site, public_key=public, changed=changed, **(RUN | about)).sign(gate(site))


def pins(sites: Sequence[str] = SITES) -> dict[str, str]:
    return {site: gate_fingerprint(signing_public(gate(site))) for site in sites}


def secrets_of(sites: Sequence[str] = SITES, most_rows: int = MOST_ROWS) -> dict[str, dict[str, bytes]]:
    """Return each site's pair secrets."""
    keys = [signed_key(site) for site in sites]
    secrets = {}
    for site in sites:
        made = pair_secrets(site, run_key(site), keys, most_rows)
        assert not isinstance(made, Refusal)
        secrets[site] = made
    return secrets


EXCHANGE = Exchange("train", 3, digest("request"), digest("model"))
OTHERS = {
    "kind": Exchange("evaluate", 3, digest("request"), digest("model")),
    "step": Exchange("train", 4, digest("request"), digest("model")),
    "request": Exchange("train", 3, digest("another request"), digest("model")),
    "state": Exchange("train", 3, digest("request"), digest("another model")),
}
"""Exchanges that differ from `EXCHANGE` in one element each, in the order of `Exchange.to_list`."""


def without(element: str) -> object:
    """Return a mutant of `Exchange.to_list` that leaves an element out."""
    place, whole = list(OTHERS).index(element), Exchange.to_list
    return lambda self: [part for at, part in enumerate(whole(self)) if at != place]


def added(vectors: Sequence[Vector]) -> Vector:
    """Return the totals that a coordinator adds up."""
    updates, sums = np.zeros_like(vectors[0][0]), np.zeros_like(vectors[0][1])
    for own, own_sums in vectors:
        updates, sums = updates + own, sums + own_sums
    return updates, sums


@dataclass
class Play:
    """Sites that answer exchanges with numbers, under tags of one run key and under masks."""

    numbers: Mapping[str, Vector]
    key: bytes = bytes(range(32))

    def tagged(self, exchange: Exchange = EXCHANGE) -> dict[str, Vector]:
        return {site: tag_vector(self.key, exchange, [site], *own) for site, own in self.numbers.items()}

    def masked(self, exchange: Exchange = EXCHANGE) -> dict[str, Vector]:
        secrets, vectors = secrets_of(list(self.numbers)), {}
        for site, (updates, sums) in self.tagged(exchange).items():
            vectors[site] = added([(updates, sums), mask(site, secrets[site], exchange, updates.size, sums.size)])
        return vectors
