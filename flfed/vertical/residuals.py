"""Residuals of a model under CKKS, multiplied by the columns of a party that cannot read them.

```
 label party, which has the key                        column party
 r, encrypted, once for each column that fits ──────►  r · column, + an encrypted mask in every slot
 Σ of the slots + noise, rounded              ◄──────
                                              ──────►  − Σ of its masks:  Xᵀ r + noise
```

The label party sees masked numbers alone, the column party ciphertexts and its own sums. Masks are complex: the
imaginary parts of a product hold the ciphertext's noise times each cell, and the label party knows its noise. Masks are
encrypted under its public key: one in the clear changes one of a ciphertext's two polynomials, and the other, which is
the label party's own times the columns, would confirm a guess of them.

Sums are rounded, as a decryption with all its digits is an equation of the key, and the last digits of a float would
show how much of it is noise. A study without label privacy adds none: then a column party, which knows its columns, and
that the first sums are these times the outcomes, can find all outcomes by integer programming.

Source: Cheon et al. 2017, "Homomorphic encryption for arithmetic of approximate numbers"; Hardy et al. 2017, "Private
federated learning on vertically partitioned data via entity resolution and additively homomorphic encryption", for
masked gradients of parties. Both parties must keep to the protocol.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flfed.refusals import Refusal
from flfed.vertical.alignment import require_vertical

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
        return _loaded(_api().SecretKey(), self.secret)

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

    def open(self, products: Sequence[bytes], rows: int, noise: np.ndarray) -> np.ndarray | Refusal:
        """Return masked sums with their noise [columns], in multiples of `STEP`, or a refusal of the bytes."""
        columns = len(noise)
        slots = self.decrypt(products, ciphertexts_back(rows, columns))
        if isinstance(slots, Refusal):
            return slots
        each = _columns_each(rows)
        length = rows if each > 1 else SLOTS
        sums = slots.real[:, : each * length].reshape(len(slots), each, length).sum(axis=2)
        rounded: np.ndarray = np.round((sums.ravel()[:columns] + noise) / STEP) * STEP
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
    key = _loaded(api.PublicKey(), public)
    if key is None:
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
    loaded = [_loaded(_api().Ciphertext(), one) for one in data]
    if len(data) != count or any(ciphertext is None or ciphertext.size() != 2 for ciphertext in loaded):
        return Refusal("ciphertext-unfit")
    return loaded


def _saved(value: Any) -> bytes:
    """Return what SEAL writes, which writes files alone."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "value"
        value.save(str(path))
        return path.read_bytes()


def _loaded(value: Any, data: bytes) -> Any | None:
    """Return SEAL's object with the content of bytes, None where they are not of its kind."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "value"
        path.write_bytes(data)
        try:
            value.load(_context(), str(path))
        except (ValueError, RuntimeError):
            return None
    return value


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
