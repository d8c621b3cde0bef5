"""A model that stands encrypted where sites are to be summed by a server without a key.

Each site encrypts the model that it would make alone, times its weight, behind the weight. The sum of these holds the
weighted mean: who opens it needs neither the model before nor another site. A tag stands behind for each few entries:

```
 tag of site i = α₁ x₁ + … + α₄ x₄ + βᵢ          α: secret, of the round       βᵢ: secret, of the round and of the site
 tag of a sum  = α₁ Σx₁ + … + α₄ Σx₄ + Σβᵢ       right where each site is in it once, and nothing else is
```

The server, which has no key, can multiply entries of a ciphertext and add to them. Of a part that is missing, is there
twice or is multiplied the βᵢ are wrong, and to make up for it one would have to know them; what is added to an entry
would have to be multiplied by its α. Parts of another round have other α and β.

Source: Agrawal and Boneh 2009, "Homomorphic MACs: MAC-based integrity for network coding", for tags of this form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.codec import Shapes, entries_of, flattened, unflattened
from flfed.updates.masking import ckks, keys
from flfed.updates.masking.ckks import LARGEST_SUM, SecretContext

HEAD = 1
"""Entries before the model's: its weight."""
GROUP = 4
"""Entries of a tag: with one for each, a parameter would take 60 bytes in place of 38."""
SMALLEST_FACTOR = 1 / 16
LARGEST_FACTOR = 1 / 8
"""Of an entry in its tag: a group's share of a tag is at most half of its largest entry."""
TAG_ERROR = 2e-9
"""Error of a tag of one site, at most; of n sites √n times as much. The standard deviation found is 1.3e-10."""
LEAST_WEIGHT = 1e-2
"""Weight of a sum, at least: an error of 6.5e-10 that is divided by less would show through `STEP`. An honest sum has
the site with the most rows in it, whose weight is .1 or more."""
STEP = 2.0**-20
"""Whole multiples of it are what an opened model has. A sum's exact digits are an equation of the key: the rounding
hides the error of the ciphertext before any figure is made of the model."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class RoundTags:
    """Tags of the parts of one round, by which its sum is told from anything else.

    Attributes
    ----------
    context : SecretContext
        Of the run.
    binding : bytes, 32
        Hash of all that was asked in the round, which is the same at all its sites.
    sites : tuple of str
        All sites of the run.
    """

    context: SecretContext
    binding: bytes
    sites: tuple[str, ...]

    def of_part(self, site: str, values: np.ndarray) -> np.ndarray:
        """Return the tags of one site's entries, each at most half of `LARGEST_SUM` over all sites."""
        tags: np.ndarray = self._weighed(values) + self._added(site, groups_of(values.size))
        return tags

    def fit(self, values: np.ndarray, tags: np.ndarray) -> bool:
        """Tell whether entries and tags are those of the sum of one part of each site."""
        wanted = self._weighed(values)
        for site in self.sites:
            wanted = wanted + self._added(site, tags.size)
        # Of a value that is no number the comparison is false.
        return bool((np.abs(tags - wanted) <= TAG_ERROR * math.sqrt(len(self.sites))).all())

    def _weighed(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each group's entries times their factors, of either sign."""
        groups = groups_of(values.size)
        drawn = self._drawn("", 2 * groups * GROUP).reshape(2, groups, GROUP)
        factors = SMALLEST_FACTOR + (LARGEST_FACTOR - SMALLEST_FACTOR) * drawn[0]
        padded = np.zeros((groups, GROUP))
        padded.flat[: values.size] = values
        return np.asarray((np.where(drawn[1] < 0.5, -factors, factors) * padded).sum(axis=1))

    def _added(self, site: str, groups: int) -> np.ndarray:
        """Return what a site adds to its tags; over all sites at most half of `LARGEST_SUM`."""
        return (self._drawn(site, groups) - 0.5) * (LARGEST_SUM / len(self.sites))

    def _drawn(self, owner: str, count: int) -> np.ndarray:
        """Return numbers from 0 to 1 that nobody without the key can tell from drawn ones."""
        _, numbers = keys.stream(keys.tag_seed(self.context.tag_key, self.binding, owner), 0, count)
        return (numbers >> np.uint64(11)) * 2.0**-53


def groups_of(entries: int) -> int:
    """Return the tags of so many entries."""
    return -(-entries // GROUP)


def vector_entries(model: int) -> int:
    """Return the entries of the vector of a model of so many, with its weight and its tags.

    Examples
    --------
    >>> vector_entries(199_999) == ckks.MOST_ENTRIES
    True
    """
    return HEAD + model + groups_of(HEAD + model)


def encrypt_model(tags: RoundTags, site: str, model: Arrays, weight: float, *, largest: float) -> np.ndarray | Refusal:
    """Return one site's part of the next model as ciphertexts, or why there are none.

    Parameters
    ----------
    tags : RoundTags
    site : str
    model : dict of name to array
        That would come of this site alone.
    weight : float in [0, 1]
    largest : float
        Largest absolute entry of the model times its weight.

    Returns
    -------
    uint8 array [bytes], as `ckks.packed` writes it; or Refusal
    """
    values = np.concatenate([[weight], weight * flattened(model)])
    sites = len(tags.sites)
    # The weight is at most one.
    bound = max(largest, 1.0)
    if refusal := ckks.range_refusal(sites, bound):
        return refusal
    if not (np.abs(values[HEAD:]) <= largest).all():
        return Refusal("entry-too-large", limit=f"{largest:g}")
    vector = np.concatenate([values, tags.of_part(site, values)])
    chunks = tags.context.encrypt(vector, sites=sites, largest=(LARGEST_SUM / sites + bound) / 2)
    return chunks if isinstance(chunks, Refusal) else ckks.packed(chunks)


def open_sum(tags: RoundTags, ciphertext: np.ndarray, entries: int) -> np.ndarray | Refusal:
    """Return the entries of the sum of one part of each site, or that a ciphertext stands for none.

    Parameters
    ----------
    tags : RoundTags
    ciphertext : uint8 array [bytes]
    entries : int
        Of the model.

    Returns
    -------
    float64 array [1 + entries], the weight first; or Refusal
        With all its digits: no figure of it may leave.
    """
    length = vector_entries(entries)
    chunks = ckks.unpacked(ciphertext, length)
    found = chunks if isinstance(chunks, Refusal) else tags.context.decrypt(chunks, length)
    if isinstance(found, Refusal):
        return Refusal("sum-unverified")
    values, last = np.split(found, [HEAD + entries])
    return values if tags.fit(values, last) else Refusal("sum-unverified")


def decrypt_model(tags: RoundTags, ciphertext: np.ndarray, model: Shapes) -> Arrays | Refusal:
    """Return the model that the sum of a round stands for, in multiples of `STEP`, or why it stands for none.

    Parameters
    ----------
    tags : RoundTags
    ciphertext : uint8 array [bytes]
    model : mapping of name to (shape, dtype)
    """
    found = open_sum(tags, ciphertext, entries_of(model))
    if isinstance(found, Refusal):
        return found
    if found[0] < LEAST_WEIGHT:
        return Refusal("sum-unfit", least=len(tags.sites))
    return unflattened(np.round(found[HEAD:] / found[0] / STEP) * STEP, model)
