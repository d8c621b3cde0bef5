"""A model that stands encrypted where sites are to be summed by a server without a key.

Each site encrypts the model that it would make alone, times its weight, behind the weight and a one. The sum of these
holds the weighted mean: who opens it needs neither the model before nor another site.
"""

from __future__ import annotations

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.codec import Shapes, entries_of, flattened, unflattened
from flfed.updates.masking import ckks
from flfed.updates.masking.ckks import SecretContext

HEAD = 2
"""Entries before the model's: a one, which counts the sites of a sum, and the weight."""
COUNT_ERROR = 1e-3
"""Of a sum's count, at most: found are 1e-9, and of another key's ciphertext hundreds."""
LEAST_WEIGHT = 1e-4
"""Weight of a sum, at least: what is divided by less has an error beyond 1e-6."""
Arrays = dict[str, np.ndarray]


def encrypt_model(
    context: SecretContext, model: Arrays, weight: float, *, sites: int, largest: float
) -> np.ndarray | Refusal:
    """Return one site's part of the next model as ciphertexts, or why there are none.

    Parameters
    ----------
    context : SecretContext
    model : dict of name to array
        That would come of this site alone.
    weight : float in [0, 1]
    sites : int
        Of a sum, at most.
    largest : float
        Largest absolute entry of the model times its weight.

    Returns
    -------
    uint8 array [bytes], as `ckks.packed` writes it; or Refusal
    """
    vector = np.concatenate([[1.0, weight], weight * flattened(model)])
    # Count and weight are at most one.
    chunks = context.encrypt(vector, sites=sites, largest=max(largest, 1.0))
    if isinstance(chunks, Refusal):
        return chunks
    if not (np.abs(vector[HEAD:]) <= largest).all():
        return Refusal("entry-too-large", limit=f"{largest:g}")
    return ckks.packed(chunks)


def decrypt_model(
    context: SecretContext, ciphertext: np.ndarray, model: Shapes, *, least: int, sites: int
) -> Arrays | Refusal:
    """Return the model that a sum stands for, or why it stands for none.

    Parameters
    ----------
    context : SecretContext
    ciphertext : uint8 array [bytes]
    model : mapping of name to (shape, dtype)
    least, sites : int
        Sites that it must be a sum of, at least and at most. A server that passes one site's part off as the sum is
        found so; one that also multiplies it is not, and learns nothing by it.
    """
    entries = HEAD + entries_of(model)
    chunks = ckks.unpacked(ciphertext, entries)
    found = chunks if isinstance(chunks, Refusal) else context.decrypt(chunks, entries)
    if isinstance(found, Refusal):
        return found
    count, weight = found[:HEAD]
    counted = abs(count - round(count)) <= COUNT_ERROR and least <= round(count) <= sites
    if not (counted and LEAST_WEIGHT <= weight <= sites + COUNT_ERROR and np.isfinite(found).all()):
        return Refusal("sum-unfit", least=least)
    return unflattened(found[HEAD:] / weight, model)
