"""CKKS: a server adds up ciphertexts of vectors, and has no key that opens one.

```
secret context ──── sealed to each other site of the run
      │ encrypt                                   │ decrypt
      ▼                                           │
 ciphertexts of the sites ──► the server adds ──► ciphertext of the sum
```

All sites of a run have one secret key, and there is no public one. The server can neither read a vector nor make one
under the key. A site that works for it can read them all, which masks do not allow (`protocol`). But the server can
multiply a ciphertext and add to it without the key, and the sites would read the result. So they open what has the tags
of a sum alone (`RoundTags`). A sum that was decrypted goes to no server with all its digits: with the ciphertext, its
error is an equation of the key.

Source: Cheon et al. 2017, "Homomorphic encryption for arithmetic of approximate numbers", for the scheme; Li and
Micciancio 2021, "On the security of homomorphic encryption on approximate numbers", for what must stay secret.

Each site encrypts its update times its weight. In each round another site opens the sum, and tells the mean, rounded
(`open_mean`). A tag stands behind for each few entries:

```
 tag of site i = α₁ x₁ + … + α₄ x₄ + βᵢ          α: secret, of the round       βᵢ: secret, of the round and of the site
 tag of a sum  = α₁ Σx₁ + … + α₄ Σx₄ + Σβᵢ       right where each site is in it once, and nothing else is
```

The server, which has no key, can multiply entries of a ciphertext and add to them. Of a part that is missing, is there
twice or is multiplied the βᵢ are wrong, and to make up for it one would have to know them. An addition to an entry
would have to be multiplied by its α. Parts of another round have other α and β.

Source: Agrawal and Boneh 2009, "Homomorphic MACs: MAC-based integrity for network coding", for tags of this form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from flfed.errors import require_extra
from flfed.refusals import Refusal
from flfed.updates.arrays import byte_array
from flfed.updates.masks import pairs

DEGREE = 4096
"""Of the polynomials: with primes of 109 bits at most, as hard to break as AES-128."""
PRIMES = (54, 54)
"""Bits of the primes. An addition needs one of them; the other one is for the keys."""
SCALE = 2.0**40
"""Whole numbers a unit: a mean of twenty has an error of about 1e-10."""
SLOTS = DEGREE // 2
"""Entries of one ciphertext."""
LARGEST_SUM = 2.0**12
"""Bound of a sum. Beyond twice as much, 2^54 / `SCALE` / 2, it wraps without a sign."""
MOST_ENTRIES = 250_000
"""Of a vector with its tags, of which a million would take 55 MiB."""
CHUNK_BYTES = 32 * SLOTS
"""Largest length of a ciphertext; found are 61.8 kB, since 10 bits of 64 are zero and are packed."""
CONTEXT_BYTES = 2 * CHUNK_BYTES
"""Largest length of a sealed secret context; found are 61.8 kB."""
_LENGTH = 4


def range_refusal(sites: int, largest: float) -> Refusal | None:
    """Return why sums of a run could wrap, None where they cannot.

    Parameters
    ----------
    sites : int
        Of a sum, at most.
    largest : float
        Largest absolute entry of one site.

    Examples
    --------
    >>> range_refusal(20, 8.0) is None, range_refusal(20, 410.0) is None
    (True, False)
    """
    # Of a number that is none the comparison is false.
    if 0 < sites * largest < LARGEST_SUM:
        return None
    return Refusal("ckks-range", sites=sites, limit=f"{largest:g}", most=int(LARGEST_SUM))


@dataclass(frozen=True, eq=False, repr=False)
class SecretContext:
    """A run's secret key, with which its sites encrypt and decrypt.

    Attributes
    ----------
    context : tenseal.Context
    """

    context: Any

    @classmethod
    def new(cls) -> SecretContext:
        """Return a new key of the operating system's randomness.

        Raises
        ------
        UsageError
            If the extra `flfed[he]` is not installed.
        """
        tenseal = _tenseal()
        # With the secret key at every site, a public one would only make ciphertexts slower and their error larger.
        made = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            DEGREE,
            coeff_mod_bit_sizes=list(PRIMES),
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
            n_threads=1,
        )
        made.global_scale = SCALE
        return cls(made)

    @classmethod
    def of_bytes(cls, data: bytes) -> SecretContext | Refusal:
        """Return the key that `to_bytes` wrote, or that it is none with the settings of this module."""
        try:
            context = _tenseal().context_from(data, n_threads=1)
        except (ValueError, RuntimeError):
            return Refusal("ckks-key-unfit")
        fits = context.is_private() and _serialized(context) == _serialized(SecretContext.new().context)
        if fits:
            return cls(context)
        return Refusal("ckks-key-unfit")

    def to_bytes(self) -> bytes:
        """Return the key, of 61.8 kB.

        It leaves a site only as `seal_context` seals it.
        """
        return _serialized(self.context, secret=True)

    def encrypt(self, values: np.ndarray, *, sites: int, largest: float) -> tuple[bytes, ...] | Refusal:
        """Return one site's entries as ciphertexts, or why there are none.

        Parameters
        ----------
        values : float64 array [entries]
            Weighted already.
        sites : int
            Of a sum, at most.
        largest : float
            Largest absolute entry of one site.

        Returns
        -------
        tuple of bytes, each at most `CHUNK_BYTES`; or Refusal
            One ciphertext for `SLOTS` entries, the last one filled up with zeros. An entry that is not finite or
            beyond `largest` is refused without its value.
        """
        if values.size > MOST_ENTRIES:
            return Refusal("ckks-too-many", had=values.size, most=MOST_ENTRIES)
        if refusal := range_refusal(sites, largest):
            return refusal
        # Of a value that is no number the comparison is false.
        if not (np.abs(values) <= largest).all():
            return Refusal("entry-too-large", limit=f"{largest:g}")
        return self._encrypted(values)

    def _encrypted(self, values: np.ndarray) -> tuple[bytes, ...]:
        """Return ciphertexts of entries, whatever their size."""
        tenseal = _tenseal()
        padded = np.zeros((chunks_of(values.size), SLOTS))
        padded.flat[: values.size] = values
        return tuple(tenseal.ckks_vector(self.context, row.tolist()).serialize() for row in padded)

    def decrypt(self, chunks: Sequence[bytes], entries: int) -> np.ndarray | Refusal:
        """Return the entries that ciphertexts stand for, or that they are none.

        Parameters
        ----------
        chunks : sequence of bytes
            Of one site or of a sum.
        entries : int

        Returns
        -------
        float64 array [entries], or Refusal
        """
        ciphertexts = _vectors(self.context, chunks, chunks_of(entries))
        if isinstance(ciphertexts, Refusal):
            return ciphertexts
        return np.concatenate([one.decrypt() for one in ciphertexts])[:entries]


@dataclass(frozen=True, eq=False, repr=False)
class PublicContext:
    """What a server adds ciphertexts with: the scheme's settings and no key.

    Attributes
    ----------
    context : tenseal.Context
    """

    context: Any

    @classmethod
    def new(cls) -> PublicContext:
        """Return the settings of this module; raises UsageError without the extra `flfed[he]`."""
        return cls.of_bytes(_serialized(SecretContext.new().context))

    @classmethod
    def of_bytes(cls, data: bytes) -> PublicContext:
        """Return the context that some bytes are.

        Raises ValueError where a secret key is in them.
        """
        context = _tenseal().context_from(data, n_threads=1)
        if context.is_private():
            raise ValueError("a server adds ciphertexts without the key that opens them")
        return cls(context)

    def defect(self, chunks: Sequence[bytes], entries: int) -> Refusal | None:
        """Return why a vector's ciphertexts cannot be added, None where they can."""
        ciphertexts = _vectors(self.context, chunks, chunks_of(entries))
        return ciphertexts if isinstance(ciphertexts, Refusal) else None

    def add(self, vectors: Iterable[Sequence[bytes]], entries: int) -> tuple[bytes, ...] | Refusal:
        """Return the ciphertexts of a sum, or that one of the vectors is none.

        Parameters
        ----------
        vectors : iterable of sequence of bytes
            Of at least one site; each was read by `unpacked`.
        entries : int
        """
        total: list[Any] = []
        for chunks in vectors:
            ciphertexts = _vectors(self.context, chunks, chunks_of(entries))
            if isinstance(ciphertexts, Refusal):
                return ciphertexts
            total = [one + other for one, other in zip(total, ciphertexts, strict=True)] if total else ciphertexts
        return tuple(one.serialize() for one in total)


def seal_context(run_key: bytes, context: bytes, message: str) -> bytes:
    """Return a run's secret key as only sites can read it, under the run key, which is used for one of them.

    `message` is the hash of the message with the keys of the sites.
    """
    return _sealing_cipher(run_key).encrypt(bytes(12), context, message.encode())


def open_context(run_key: bytes, sealed: bytes, message: str) -> SecretContext | Refusal:
    """Return the secret key that `seal_context` sealed, or that it is none."""
    try:
        context = _sealing_cipher(run_key).decrypt(bytes(12), sealed, message.encode())
    except InvalidTag:
        return Refusal("ckks-key-unfit")
    return SecretContext.of_bytes(context)


def _sealing_cipher(run_key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDFExpand(SHA256(), pairs.KEY_BYTES, b"flfed ckks context").derive(run_key))


def chunks_of(entries: int) -> int:
    """Return the ciphertexts of so many entries."""
    return -(-entries // SLOTS)


def most_bytes(entries: int) -> int:
    """Return the largest length of a vector as `packed` writes it.

    Examples
    --------
    >>> most_bytes(2048), most_bytes(2049)
    (65540, 131080)
    """
    return chunks_of(entries) * (_LENGTH + CHUNK_BYTES)


def packed(chunks: Sequence[bytes]) -> np.ndarray:
    """Return ciphertexts as a uint8 array [bytes], each after its length."""
    return byte_array(b"".join(len(chunk).to_bytes(_LENGTH, "big") + chunk for chunk in chunks))


def unpacked(array: np.ndarray, entries: int) -> tuple[bytes, ...] | Refusal:
    """Return the ciphertexts of a vector, or that it is none.

    It needs no extra: a gate looks at a vector's form by it. The content of a ciphertext is random to the gate.

    Parameters
    ----------
    array : uint8 array [bytes]
    entries : int
    """
    unfit = Refusal("ciphertext-unfit")
    if array.dtype != np.uint8 or array.ndim != 1 or array.size > most_bytes(entries):
        return unfit
    data = array.tobytes()
    place = 0
    ciphertexts = list[bytes]()
    for _ in range(chunks_of(entries)):
        begin = place + _LENGTH
        length = int.from_bytes(data[place:begin], "big")
        ciphertexts.append(data[begin : begin + length])
        if not 0 < len(ciphertexts[-1]) == length <= CHUNK_BYTES:
            return unfit
        place = begin + length
    if place == len(data):
        return tuple(ciphertexts)
    return unfit


def _vectors(context: Any, chunks: Sequence[bytes], count: int) -> list[Any] | Refusal:
    """Return a vector's ciphertexts, or that it is none or has another number of them."""
    tenseal = _tenseal()
    unfit = Refusal("ciphertext-unfit")
    if len(chunks) != count:
        return unfit
    try:
        ciphertexts = [tenseal.ckks_vector_from(context, chunk) for chunk in chunks]
    # Which of the two detects a damaged ciphertext depends on where it is damaged.
    except (ValueError, RuntimeError):
        return unfit
    if all(map(_fits, ciphertexts)):
        return ciphertexts
    return unfit


def _fits(vector: Any) -> bool:
    """Return whether a ciphertext has the form that `SecretContext.encrypt` gives it."""
    # How many entries there are it says itself, and they would be read.
    parts = vector.ciphertext()
    return (vector.size(), len(parts)) == (SLOTS, 1) and (parts[0].size(), parts[0].scale) == (2, SCALE)


def _serialized(context: Any, *, secret: bool = False) -> bytes:
    """Return a context without any key, or with the secret one."""
    data: bytes = context.serialize(
        save_public_key=False, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False
    )
    return data


def require_tenseal() -> None:
    """Refuse to go on without the extra package; raises UsageError."""
    require_extra("tenseal", "secure-aggregation = 'ckks'", "he")


def _tenseal() -> Any:
    """Return the module, which is imported only where a study asks for it."""
    require_tenseal()
    import tenseal

    return tenseal


GROUP = 4
"""Entries of a tag: with one for each, a parameter would take 60 bytes in place of 38."""
SMALLEST_FACTOR = 1 / 16
LARGEST_FACTOR = 1 / 8
"""Of an entry in its tag: a group's share of a tag is at most half of its largest entry."""
TAG_ERROR = 2e-9
"""Error of a tag of one site, at most; of n sites √n times as much. The standard deviation found is 1.3e-10."""
LEAST_WEIGHT = 1e-2
"""Weight of a sum, at least: an error of 6.5e-10 that is divided by less would show through `STEP`. An honest sum has
the site with the most rows in it, whose weight is 0.1 or more."""
STEP = 2.0**-20
"""Whole multiples of it are what an opened mean has, each of the two next to it by a chance that the sites know: so
small updates are right in the mean. A sum's exact digits are an equation of the key; the rounding hides the error of
the ciphertext before any figure is made of the mean."""


@dataclass(frozen=True, eq=False, repr=False)
class RoundTags:
    """Tags of the parts of one round, by which its sum is recognised.

    Attributes
    ----------
    context : SecretContext
        Of the run.
    run_key : bytes, 32
        Which its sites have.
    exchange : Exchange
        Of the round, with the hash of all that was asked, which is the same at all its sites.
    sites : tuple of str
        All sites of the run.
    """

    context: SecretContext
    run_key: bytes
    exchange: pairs.Exchange
    sites: tuple[str, ...]

    def of_part(self, site: str, values: np.ndarray) -> np.ndarray:
        """Return the tags of one site's entries, each at most half of `LARGEST_SUM` over all sites."""
        tags: np.ndarray = self._weighed(values) + self._added(site, groups_of(values.size))
        return tags

    def fit(self, values: np.ndarray, tags: np.ndarray) -> bool:
        """Return whether entries and tags are those of the sum of one part of each site."""
        wanted = self._weighed(values)
        for site in self.sites:
            wanted = wanted + self._added(site, tags.size)
        # Of a value that is no number the comparison is false.
        return bool((np.abs(tags - wanted) <= TAG_ERROR * math.sqrt(len(self.sites))).all())

    def _weighed(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each group's entries times their factors, of either sign."""
        groups = groups_of(values.size)
        drawn = self.drawn("ckks factors", 2 * groups * GROUP).reshape(2, groups, GROUP)
        factors = SMALLEST_FACTOR + (LARGEST_FACTOR - SMALLEST_FACTOR) * drawn[0]
        padded = np.zeros((groups, GROUP))
        padded.flat[: values.size] = values
        return np.asarray((np.where(drawn[1] < 0.5, -factors, factors) * padded).sum(axis=1))

    def _added(self, site: str, groups: int) -> np.ndarray:
        """Return what a site adds to its tags.

        Over all sites at most half of `LARGEST_SUM`.
        """
        return (self.drawn("ckks tags", groups, site) - 0.5) * (LARGEST_SUM / len(self.sites))

    def drawn(self, purpose: str, count: int, *about: str) -> np.ndarray:
        """Return numbers from 0 to 1 that look random without the key."""
        stream = pairs.key_stream(pairs.exchange_key(self.run_key, purpose, self.exchange, *about))
        numbers = np.frombuffer(stream.update(bytes(8 * count)), "<u8")
        return (numbers >> np.uint64(11)) * 2.0**-53


def groups_of(entries: int) -> int:
    """Return the tags of so many entries."""
    return -(-entries // GROUP)


def vector_entries(model: int) -> int:
    """Return the entries of the vector of a model of so many, with its tags.

    Examples
    --------
    >>> vector_entries(200_000) == MOST_ENTRIES
    True
    """
    return model + groups_of(model)


def encrypt_update(tags: RoundTags, site: str, values: np.ndarray, *, largest: float) -> np.ndarray | Refusal:
    """Return one site's part of a sum as ciphertexts, or why there are none.

    Parameters
    ----------
    tags : RoundTags
    site : str
    values : float64 array [entries]
        Its update times its weight.
    largest : float
        Largest absolute entry of them.

    Returns
    -------
    uint8 array [bytes], as `packed` writes it; or Refusal
    """
    sites = len(tags.sites)
    if not (np.abs(values) <= largest).all():
        return Refusal("entry-too-large", limit=f"{largest:g}")
    vector = np.concatenate([values, tags.of_part(site, values)])
    chunks = tags.context.encrypt(vector, sites=sites, largest=(LARGEST_SUM / sites + largest) / 2)
    return chunks if isinstance(chunks, Refusal) else packed(chunks)


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
    float64 array [entries], or Refusal
        With all its digits: no figure of it may leave.
    """
    length = vector_entries(entries)
    chunks = unpacked(ciphertext, length)
    numbers = chunks if isinstance(chunks, Refusal) else tags.context.decrypt(chunks, length)
    if isinstance(numbers, Refusal) or not tags.fit(*np.split(numbers, [entries])):
        return Refusal("total-unverified")
    return numbers[:entries]


def open_mean(tags: RoundTags, ciphertext: np.ndarray, entries: int, weight: float) -> np.ndarray | Refusal:
    """Return the mean of a round's updates in multiples of `STEP`, or why there is none.

    Parameters
    ----------
    tags : RoundTags
    ciphertext : uint8 array [bytes]
    entries : int
        Of the model.
    weight : float
        Of all sites.
    """
    if not weight >= LEAST_WEIGHT:
        return Refusal("sum-unfit", least=len(tags.sites))
    total = open_sum(tags, ciphertext, entries)
    if isinstance(total, Refusal):
        return total
    mean: np.ndarray = np.floor(total / weight / STEP + tags.drawn("ckks rounding", entries)) * STEP
    return mean
