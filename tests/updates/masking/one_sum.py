"""A cohort whose keys and draws are fixed, and one sum from the sites' vectors to the server's totals."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.masking.keys import Chain, RunKey, pair_secrets
from flfed.updates.masking.protocol import MaskedVector, Opening, Totals, confirm_list, mask_vector, open_list, unmask
from flfed.updates.masking.rules import Sites, threshold

NONE = {32: np.empty(0, np.uint32), 64: np.empty(0, np.uint64)}


def binding(*facts: object) -> bytes:
    return hashlib.sha256(repr(facts).encode()).digest()


BINDING = binding("question")


@dataclass
class Cohort:
    """Sites with their chains.

    Attributes
    ----------
    chains : dict of site to Chain
    least : int
    rng : Random
        What the sites draw, in place of the operating system's randomness.
    """

    chains: dict[str, Chain]
    least: int
    rng: Random = field(default_factory=lambda: Random(31))

    @property
    def sites(self) -> list[str]:
        return list(self.chains)

    def links(self, site: str, step: int = 0) -> dict[str, bytes]:
        return self.chains[site].moved(step).at(step)

    def masked(
        self, site: str, updates: np.ndarray, sums: np.ndarray = NONE[64], *, bound: bytes = BINDING, step: int = 0
    ) -> MaskedVector:
        return mask_vector(
            site, updates, sums,
            links=self.links(site, step), binding=bound, least=self.least, draw=self.rng.randrange,
        )  # fmt: skip

    def all_masked(self, updates: Mapping[str, np.ndarray], **given) -> dict[str, MaskedVector]:
        return {site: self.masked(site, own, **given) for site, own in updates.items()}

    def confirmations(self, site: str, listed: Sites, *, bound: bytes = BINDING, step: int = 0) -> dict[str, bytes]:
        """Return what the list's other sites confirm to a site."""
        made = {one: confirm_list(one, listed, links=self.links(one, step), binding=bound) for one in listed - {site}}
        return {sender: by_receiver[site] for sender, by_receiver in made.items()}

    def opened(
        self,
        vectors: Mapping[str, MaskedVector],
        listed: Sites,
        sites: Collection[str] = (),
        *,
        bound: bytes = BINDING,
        step: int = 0,
    ) -> dict[str, Opening | Refusal]:
        """Return what each of some sites of a list opens for it; all of its sites where none are named."""
        confirmed = {one: confirm_list(one, listed, links=self.links(one, step), binding=bound) for one in listed}
        return {
            site: open_list(
                site, listed, {sender: vectors[sender].sealed[site] for sender in listed},
                confirmations={sender: confirmed[sender][site] for sender in listed - {site}},
                links=self.links(site, step), binding=bound, least=self.least,
            )
            for site in sites or sorted(listed)
        }  # fmt: skip

    def unmasked(
        self, vectors: Mapping[str, MaskedVector], openings: Mapping[str, Opening], listed: Sites
    ) -> Totals | Refusal:
        return unmask(vectors, openings, cohort=self.sites, listed=listed, least=self.least)

    def summed(self, vectors: Mapping[str, MaskedVector], listed: Collection[str] = (), **given) -> Totals | Refusal:
        """Return the sum of a list, which all of its sites open; of all sites where none are named."""
        chosen = frozenset(listed or self.sites)
        return self.unmasked(vectors, self.opened(vectors, chosen, **given), chosen)


@lru_cache(maxsize=8)
def chains(count: int) -> dict[str, Chain]:
    keys = {f"site-{number:03d}": RunKey.of_private(binding("key", count, number)) for number in range(count)}
    publics = {site: key.public for site, key in keys.items()}
    return {site: Chain.start(pair_secrets(site, key, publics, b"run")) for site, key in keys.items()}


def cohort_of(count: int, pinned: int = 0) -> Cohort:
    """Return a cohort of so many sites, all that are pinned unless that is told."""
    return Cohort(chains(count), threshold(pinned or count))
