"""Every random draw of a run: one seed sequence per study seed, site, purpose and round."""

from __future__ import annotations

import hashlib

import numpy as np


def words(text: str) -> list[int]:
    """Return the SHA-256 of `text` as eight 32-bit words.

    Examples
    --------
    >>> len(words("cleveland/fit")), words("a") == words("a"), words("a") == words("b")
    (8, True, False)
    """
    found: list[int] = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist()
    return found


def generator(seed: int, *, site: str, purpose: str, number: int = 0) -> np.random.Generator:
    """Return the generator for one purpose at one site in one round.

    Parameters
    ----------
    seed : int, >= 0
        The study's seed.
    site : str
        Name of the site, or "" for the server.
    purpose : str
        What the draw is for, such as "fit". Two purposes never share a stream.
    number : int, >= 0
        The round, or another counter such as a fold.

    Notes
    -----
    Draws depend on names, never on the order of sites or on node ids, so that sites may join in
    any order and every engine draws the same.

    Examples
    --------
    >>> a = generator(42, site="cleveland", purpose="fit", number=1).random()
    >>> b = generator(42, site="cleveland", purpose="fit", number=1).random()
    >>> a == b, a == generator(42, site="hungary", purpose="fit", number=1).random()
    (True, False)
    """
    entropy = [seed, *words(f"{site}/{purpose}"), number]
    # One array of words makes the same numbers in half the time; a larger number would be several words.
    given = np.array(entropy, dtype=np.uint32) if max(seed, number) < 2**32 else entropy
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(given)))


def seed_of(rng: np.random.Generator) -> int:
    """Return the study's seed that a generator of `generator` was made from.

    For draws that another library makes from the bare seed, as published runs did. Of a generator
    made elsewhere: the first number of its entropy, in 63 bits.

    Examples
    --------
    >>> seed_of(generator(42, site="", purpose="first-arrays"))
    42
    """
    entropy = getattr(rng.bit_generator.seed_seq, "entropy", None)
    first = entropy if isinstance(entropy, int) or entropy is None else entropy[0]
    return int(first or 0) % 2**63
