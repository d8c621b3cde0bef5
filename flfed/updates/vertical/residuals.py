"""Residuals of a model under CKKS, multiplied by the columns of a party that cannot read them.

```
 label party, which has the key                        column party
 r, encrypted, once for each column that fits ──────►  r · column, + an encrypted mask in every slot
 Σ of the slots + offset, rounded             ◄──────
                                              ──────►  − Σ of its masks:  Xᵀ r + offset
```

The label party sees masked numbers alone, the column party ciphertexts and its own sums. Masks are complex: the
imaginary parts of a product hold the ciphertext's noise times each cell, and the label party knows its noise. Masks are
encrypted under its public key: one in the clear changes one of a ciphertext's two polynomials, and the other, which is
the label party's own times the columns, would confirm a guess of them.

Sums are rounded, as a decryption with all its digits is an equation of the key. And they have an offset: a column party
knows its columns, and that the first sums are these times the outcomes. Without it, integer programming found all
outcomes of 404 people. The offset follows from a secret of the label party, its rows and the column, so that neither
rounds nor runs average it out: the same question has the same answer, one about other rows another offset.

Source: Cheon et al. 2017, "Homomorphic encryption for arithmetic of approximate numbers"; Hardy et al. 2017, "Private
federated learning on vertically partitioned data via entity resolution and additively homomorphic encryption", for
masked gradients of parties. Both parties must keep to the protocol.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.vertical.alignment import require_vertical

DEGREE = 8192
PRIMES = (60, 49, 49, 60)
"""Bits of the primes: 218 of them, as many as this degree allows, are as hard to break as AES-128."""
SCALE = 2.0**49
SLOTS = DEGREE // 2
SMALLEST = 2.0**-32
"""Where all cells of a ciphertext are smaller, they count as 0; sums are rounded to more."""
LARGEST_RESIDUAL = 1024.0
MASK = 2.0**26
"""Bound of the masks' real and imaginary parts; a product is at most 2^14, and 1 at most in most rows."""
STEP = 2.0**-18
"""Sums leave the label party in whole multiples of it. Their error before is 1e-6, of which the key's is 1e-9."""
KEY_BYTES = 600_000
"""Largest length of a public key; found are 497 kB."""
CIPHERTEXT_BYTES = 300_000
"""Largest length of one ciphertext; found are 249 kB."""
DIGEST_BYTES = 32
WIDTH = 0.4
"""Width of an offset, in standard deviations of what chance gives a sum."""


def column_digests(secret: bytes, x: np.ndarray) -> list[bytes]:
    """Return a digest of each column, `DIGEST_BYTES` long, which shows who lacks the secret nothing of its cells.

    Parameters
    ----------
    secret : bytes
    x : float64 array [rows, columns]

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> first, again, other = (column_digests(secret, x)[0] for secret in (b"ours", b"ours", b"theirs"))
    >>> first == again, first == other
    (True, False)
    """
    # Rounded, as the last bits of an encoded cell may depend on the processor; + 0 makes -0 the 0 that it equals.
    cells = np.ascontiguousarray(np.round(x, 9).T + 0.0, dtype="<f8")
    return [hmac.digest(secret, column.tobytes(), "sha256") for column in cells]


def draw_offsets(secret: bytes, digests: Sequence[bytes], outcome: np.ndarray) -> np.ndarray:
    """Return the offset of each sum of a party; float64 array [columns].

    Over a column of variance 1 the sum of outcomes has, by chance, a standard deviation of √rows times theirs. An
    offset is drawn from an interval `WIDTH` times as wide. The width depends on nothing that studies choose: two widths
    of one draw would give the sum without it, and several draws average it out.

    Parameters
    ----------
    secret : bytes
        Of the label party and its rows. A column that comes again gets the same offset under it.
    digests : sequence of bytes
        As `column_digests` returns them.
    outcome : float64 array [rows]

    Examples
    --------
    >>> draw_offsets(b"ours", [b"age", b"sex", b"age"], np.array([0.0, 1.0] * 200)).round(2).tolist()
    [0.17, -0.58, 0.17]
    """
    drawn = [int.from_bytes(hmac.digest(secret, digest, "sha256")[:8], "big") for digest in digests]
    width = WIDTH * np.sqrt(len(outcome)) * outcome.std()
    offsets: np.ndarray = width * (np.array(drawn, dtype=np.float64) * 2.0**-64 - 0.5)
    return offsets


def ciphertexts_out(rows: int) -> int:
    """Return how many ciphertexts residuals take."""
    return -(-rows // SLOTS)


def ciphertexts_back(rows: int, columns: int) -> int:
    """Return how many ciphertexts the products with columns take.

    Examples
    --------
    >>> ciphertexts_back(400, 20), ciphertexts_back(30_000, 20)
    (2, 20)
    """
    return -(-columns // _columns_each(rows))


def _columns_each(rows: int) -> int:
    """Return how many columns stand in one ciphertext."""
    return max(1, SLOTS // rows)


@dataclass(frozen=True, eq=False, repr=False)
class ResidualKey:
    """The label party's key of one run.

    Attributes
    ----------
    secret : bytes
    """

    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> ResidualKey:
        """Return a new key of the operating system's randomness; raises UsageError without the extra."""
        return cls(_saved(_api().KeyGenerator(_context()).secret_key()))

    def public(self) -> bytes:
        """Return a public key, under which a column party encrypts its masks."""
        api = _api()
        public = api.PublicKey()
        api.KeyGenerator(_context(), self._key()).create_public_key(public)
        return _saved(public)

    def _key(self) -> Any:
        key = _api().SecretKey()
        _load(self.secret, partial(key.load, _context()))
        return key

    def encrypt(self, residuals: np.ndarray) -> tuple[bytes, ...]:
        """Return residuals as ciphertexts, each repeated as often as there is room.

        Parameters
        ----------
        residuals : float64 array [rows]
            Those beyond `LARGEST_RESIDUAL` are cut off.
        """
        encryptor = _api().Encryptor(_context(), self._key())
        bounded = np.clip(residuals, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
        ciphertexts = []
        for values in _slots_of(np.tile(bounded, _columns_each(len(bounded)))):
            ciphertexts.append(_saved(encryptor.encrypt_symmetric(_plain(values))))
        return tuple(ciphertexts)

    def open(self, products: Sequence[bytes], rows: int, offsets: np.ndarray) -> np.ndarray | Refusal:
        """Return the masked sum of each column with its offset, in multiples of `STEP`, or that ciphertexts are none.

        Parameters
        ----------
        products : sequence of bytes
            As `multiply` returns them.
        rows : int
        offsets : float64 array [columns]

        Returns
        -------
        float64 array [columns], or Refusal
        """
        columns = len(offsets)
        slots = self.decrypt(products, ciphertexts_back(rows, columns))
        if isinstance(slots, Refusal):
            return slots
        each = _columns_each(rows)
        sums = slots.real.sum(axis=1)[:, None]
        if each > 1:
            sums = slots.real[:, : each * rows].reshape(len(slots), each, rows).sum(axis=2)
        rounded: np.ndarray = np.round((sums.ravel()[:columns] + offsets) / STEP) * STEP
        return rounded

    def decrypt(self, ciphertexts: Sequence[bytes], count: int) -> np.ndarray | Refusal:
        """Return the slots of ciphertexts, complex [ciphertexts, SLOTS], or that they are none."""
        api = _api()
        decryptor = api.Decryptor(_context(), self._key())
        loaded = _ciphertexts(ciphertexts, count)
        if isinstance(loaded, Refusal):
            return loaded
        slots = []
        for ciphertext in loaded:
            plain = api.Plaintext()
            try:
                decryptor.decrypt(ciphertext, plain)
                slots.append(np.array(_encoder().decode_complex(plain)))
            except ValueError:
                return Refusal("ciphertext-unfit")
        return np.array(slots)


@dataclass(frozen=True, eq=False)
class MaskedProducts:
    """A column party's products under its masks.

    Attributes
    ----------
    ciphertexts : tuple of bytes
    masks : float64 array [columns]
        Sum of the masks of each column, which stays at the party.
    """

    ciphertexts: tuple[bytes, ...]
    masks: np.ndarray = field(repr=False)


def multiply(residuals: Sequence[bytes], x: np.ndarray, public: bytes) -> MaskedProducts | Refusal:
    """Return encrypted residuals times each column, masked in every slot, or that ciphertexts or the key are none.

    Parameters
    ----------
    residuals : sequence of bytes
        As `ResidualKey.encrypt` returns them.
    x : float64 array [rows, columns]
        Within ± `LARGEST_INPUT`.
    public : bytes
        The label party's `ResidualKey.public`.
    """
    loaded = _ciphertexts(residuals, ciphertexts_out(len(x)))
    if isinstance(loaded, Refusal):
        return loaded
    if not all(map(_is_fresh, loaded)):
        return Refusal("ciphertext-unfit")
    api = _api()
    rows, columns = x.shape
    key = api.PublicKey()
    try:
        _load(public, partial(key.load, _context()))
    except (ValueError, RuntimeError):
        return Refusal("ciphertext-unfit")
    encryptor = api.Encryptor(_context(), key)
    evaluator = api.Evaluator(_context())
    each = _columns_each(rows)
    ciphertexts = []
    masks = np.zeros(columns)
    for start in range(0, columns, each):
        group = x[:, start : start + each]
        product = _product(evaluator, loaded, group.T.ravel())
        mask, sums = _complex_masks(group.shape[1], SLOTS if each == 1 else rows)
        ciphertexts.append(_saved(_masked(encryptor, evaluator, product, mask)))
        masks[start : start + each] = sums
    return MaskedProducts(tuple(ciphertexts), masks)


def _is_fresh(ciphertext: Any) -> bool:
    """Return whether a ciphertext is as `ResidualKey.encrypt` makes it.

    Under another scale, masks would be smaller than the products.
    """
    first = _context().first_parms_id()
    return bool(ciphertext.scale == SCALE and ciphertext.parms_id() == first and ciphertext.is_ntt_form())


def _product(evaluator: Any, residuals: Sequence[Any], cells: np.ndarray) -> Any:
    """Return the sum over the residuals' ciphertexts, each times its cells."""
    parts = list(_slots_of(cells))
    # SEAL refuses a product with zeros alone. Where all cells are 0, very small ones stand for them.
    if np.abs(cells).max() < SMALLEST:
        parts = [np.full(SLOTS, SMALLEST)]
        residuals = residuals[:1]
    total = None
    for residual, values in zip(residuals, parts, strict=True):
        if np.abs(values).max() < SMALLEST:
            continue
        product = _api().Ciphertext()
        evaluator.multiply_plain(residual, _plain(values), product)
        if total is None:
            total = product
        else:
            evaluator.add_inplace(total, product)
    evaluator.rescale_to_next_inplace(total)
    return total


def _masked(encryptor: Any, evaluator: Any, product: Any, mask: np.ndarray) -> Any:
    """Return a product plus the encryption of a mask, which makes both polynomials new."""
    masked = _api().Ciphertext()
    encryptor.encrypt(_plain(mask, product), masked)
    evaluator.add_inplace(masked, product)
    return masked


def _complex_masks(columns: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the operating system's randomness, and the sum of each column's.

    Complex [SLOTS], of which each column has so many in turn; float64 [columns]. They have all digits: of masks in
    whole multiples of something, or that add up to some, the rest of a product, or of a sum, would be in the clear.
    """
    drawn = np.frombuffer(secrets.token_bytes(16 * SLOTS), np.uint64).reshape(2, SLOTS)
    parts = (drawn * 2.0**-63 - 1.0) * MASK
    sums = parts[0, : columns * length].reshape(columns, length).sum(axis=1)
    return parts[0] + 1j * parts[1], sums


def _slots_of(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield values by ciphertext, the last one filled up with zeros."""
    for first in range(0, len(values), SLOTS):
        part = values[first : first + SLOTS]
        yield np.pad(part, (0, SLOTS - len(part)))


def _plain(values: np.ndarray, like: Any = None) -> Any:
    """Return the encoding of slots, of the level and scale of a ciphertext where one is given."""
    plain = _api().Plaintext()
    if like is None:
        _encoder().encode(values.tolist(), SCALE, plain)
    else:
        _encoder().encode(values.tolist(), like.parms_id(), like.scale, plain)
    return plain


def _ciphertexts(data: Sequence[bytes], count: int) -> list[Any] | Refusal:
    """Return ciphertexts of the settings here, or that they are none or another number of them."""
    unfit = Refusal("ciphertext-unfit")
    if len(data) != count:
        return unfit
    loaded = []
    for one in data:
        ciphertext = _api().Ciphertext()
        try:
            _load(one, partial(ciphertext.load, _context()))
        except (ValueError, RuntimeError):
            return unfit
        if ciphertext.size() != 2:
            return unfit
        loaded.append(ciphertext)
    return loaded


def _saved(value: Any) -> bytes:
    """Return what SEAL writes, which writes files alone."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "value"
        value.save(str(path))
        return path.read_bytes()


def _load(data: bytes, read: Callable[[str], None]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "value"
        path.write_bytes(data)
        read(str(path))


@cache
def _context() -> Any:
    api = _api()
    parameters = api.EncryptionParameters(api.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(api.CoeffModulus.Create(DEGREE, list(PRIMES)))
    return api.SEALContext(parameters, True, api.SEC_LEVEL_TYPE.TC128)


@cache
def _encoder() -> Any:
    return _api().CKKSEncoder(_context())


def _api() -> Any:
    """Return SEAL's own interface: TenSEAL's encodes real numbers only."""
    require_vertical()
    from tenseal import sealapi

    return sealapi
