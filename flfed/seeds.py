"""Seeds of all random draws of a run: one sequence per study seed, site, purpose and round."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np

FRAMES = re.compile("frames-[0-9a-f]{8}")
"""Name of a dataset of data frames that got no other one."""
FEW = 32
"""Fewer sites are seeded one by one, since seeding them together would take as long."""


def words(text: str) -> list[int]:
    """Return the SHA-256 of a text as eight words of 32 bits.

    Examples
    --------
    >>> len(words("cleveland/fit")), words("a") == words("a"), words("a") == words("b")
    (8, True, False)
    """
    numbers: list[int] = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist()
    return numbers


def generator(seed: int, *, site: str, purpose: str, number: int = 0) -> np.random.Generator:
    """Return a generator for site, purpose and round.

    Parameters
    ----------
    seed : int, >= 0
        The study's seed.
    site : str
        Name of the site, or "" for the server.
    purpose : str
        Purpose of the draw, such as "fit". Two purposes never share a stream.
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
    # An array of words gives the same numbers faster; a larger number would be several words.
    entropy_words = np.array(entropy, dtype=np.uint32) if max(seed, number) < 2**32 else entropy
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy_words)))


@lru_cache(maxsize=64)
def noise_key(text: str) -> str:
    r"""Return the hash of a study's text without its expected figures, from which seeded noise follows.

    Expected figures are written into the text after they are measured. The name of a study of data frames
    does not count.

    Examples
    --------
    >>> keys = [noise_key(text) for text in ("seed = 1", "seed = 2", "seed = 1 \n[expected]\nrepeats = 10")]
    >>> keys[0] == keys[1], keys[0] == keys[2]
    (False, True)
    """
    table = tomllib.loads(text)
    table.pop("expected", None)
    dataset = table.get("dataset", {}).get("name", "")
    # A call on data frames is named by its time, and repeats the noise of an earlier one.
    if FRAMES.fullmatch(dataset):
        table["name"] = f"{dataset}-first"
    return hashlib.sha256(json.dumps(table, default=str).encode()).hexdigest()


def generator_apart(rng: np.random.Generator, text: str) -> np.random.Generator:
    """Return a generator that follows from the state of another one and a text.

    The other generator does not advance. The draws of two texts are independent.

    Examples
    --------
    >>> first, second, again = (generator_apart(np.random.default_rng(1), text).random() for text in ("a", "b", "a"))
    >>> first == again, first == second
    (True, False)
    """
    stands = rng.bit_generator.state["state"]
    entropy = [stands["state"], stands["inc"], *words(text)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


class Draws:
    """Generators of one purpose at many sites, seeded together for a round; they equal those of `generator`.

    Parameters
    ----------
    seed : int, >= 0
    purpose : str

    Examples
    --------
    >>> draws = Draws(42, "fit")
    >>> rng = draws.of("cleveland", 1)
    >>> rng.random() == generator(42, site="cleveland", purpose="fit", number=1).random()
    True
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._seed = seed
        self._purpose = purpose
        self._places: dict[str, int] = {}
        self._entropy: list[list[int]] = []
        self._number = -1
        self._states = np.empty((0, 4), dtype=np.uint64)

    def of(self, site: str, number: int) -> np.random.Generator:
        """Return the site's generator for a round; sites with an earlier draw are seeded together."""
        # In a new round, all sites so far are seeded in one pass.
        if number != self._number:
            self._states = self._seeded(number)
            self._number = number
        place = self._places.setdefault(site, len(self._entropy))
        if place == len(self._entropy):
            self._entropy.append([self._seed, *words(f"{site}/{self._purpose}")])
        # A new site, or each of few sites, is seeded alone.
        if place >= len(self._states):
            return generator(self._seed, site=site, purpose=self._purpose, number=number)
        # NumPy accepts any such sequence, its types only its own.
        seeded: Any = _Seeded((*self._entropy[place], number), self._states[place])
        return np.random.Generator(np.random.PCG64(seeded))

    def _seeded(self, number: int) -> np.ndarray:
        # The vectorised path is faster only for many sites, and needs numbers of one word.
        if len(self._entropy) < FEW or max(self._seed, number) >= 2**32:
            return self._states[:0]
        prefixes = np.array(self._entropy, dtype=np.uint32)
        return states(np.column_stack([prefixes, np.full(len(prefixes), number, dtype=np.uint32)]))


class _Seeded(np.random.bit_generator.ISeedSequence):
    """Seed sequence with its first words precomputed."""

    def __init__(self, entropy: Sequence[int], state: np.ndarray) -> None:
        self.entropy = entropy
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """Return the precomputed state for `PCG64`, and NumPy's for any other bit generator."""
        if n_words == 4 and dtype is np.uint64:
            return self._state
        return np.random.SeedSequence(self.entropy).generate_state(n_words, dtype)


def states(entropy: np.ndarray) -> np.ndarray:
    """Return the PCG64 seed states of many sequences, uint64 [rows, 4].

    They equal `SeedSequence(row).generate_state(4, np.uint64)` of each row.

    Parameters
    ----------
    entropy : uint32 array [rows, at least 4 words]

    Notes
    -----
    NumPy's own is slow for thousands of sites. By NumPy's policy its streams do not change from version to version.

    Source: O'Neill 2015, "Developing a seed_seq alternative", as in NumPy's `SeedSequence`.
    """
    constant = 0x43B0D7E5
    factor = 0x931E8875

    def hashed(values: np.ndarray) -> np.ndarray:
        nonlocal constant
        bits = values ^ np.uint32(constant)
        constant = constant * factor % 2**32
        bits *= np.uint32(constant)
        bits ^= bits >> 16
        return bits

    def mixed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        bits: np.ndarray = np.uint32(0xCA01F9DD) * one - np.uint32(0x4973F715) * other
        bits ^= bits >> 16
        return bits

    # The pool of four words takes in the first four, is mixed, and then absorbs the later ones.
    first = entropy.T[:4]
    later = entropy.T[4:]
    pool = [hashed(values) for values in first]
    for source, place in permutations(range(4), 2):
        pool[place] = mixed(pool[place], hashed(pool[source]))
    for values in later:
        pool = [mixed(part, hashed(values)) for part in pool]
    # The output stage hashes with constants of its own.
    constant = 0x8B51F9DD
    factor = 0x58F38DED
    halves = [hashed(part).astype(np.uint64) for part in (*pool, *pool)]
    return np.stack([low | high << 32 for low, high in zip(halves[::2], halves[1::2], strict=True)], axis=1)


def seed_of(rng: np.random.Generator) -> int:
    """Return the study's seed of a generator from `generator`.

    It is for draws that another library makes from the bare seed, as in published runs. For a generator from elsewhere
    it is the first number of its entropy, in 63 bits.

    Examples
    --------
    >>> seed_of(generator(42, site="", purpose="first-arrays"))
    42
    """
    entropy = getattr(rng.bit_generator.seed_seq, "entropy", None)
    first = entropy if isinstance(entropy, int) or entropy is None else entropy[0]
    return int(first or 0) % 2**63
