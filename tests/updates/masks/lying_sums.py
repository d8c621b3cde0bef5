"""What a coordinator without a key can make of ciphertexts: parts multiplied, masked, scaled, and numbers added."""

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tenseal
from tenseal import sealapi

from flfed.updates.masks import ckks
from flfed.updates.masks.ckks import SCALE, SLOTS, PublicContext

AMPLITUDE = 2**14
"""Of a mask's one, in whole numbers: a mask of 0 and 1 would be rounded to nothing."""


class Liar:
    """A coordinator that works on the ciphertexts of vectors of so many entries, each of one ciphertext."""

    def __init__(self, entries: int) -> None:
        self.entries, self.server = entries, PublicContext.new()
        seal = self.server.context.seal_context().data
        self._evaluator, self._encoder, self._seal = sealapi.Evaluator(seal), sealapi.CKKSEncoder(seal), seal

    def add(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the sum of parts, one of them as often as it stands there."""
        chunks = [ckks.unpacked(part, self.entries) for part in parts]
        return ckks.packed(self.server.add(chunks, self.entries))

    def masked(self, part: np.ndarray, ones: Sequence[int], known: Sequence[tuple[int, float, float]]) -> np.ndarray:
        """Return a part of which a few entries are left, `AMPLITUDE` times, under the scale of a sum.

        Parameters
        ----------
        part : uint8 array [bytes]
        ones : sequence of int
            Places of these entries.
        known : sequence of (place, entry, wanted)
            Entries that the coordinator knows, and what it puts in their place.
        """
        mask = np.zeros(SLOTS)
        mask[list(ones)] = AMPLITUDE
        plain, exact = sealapi.Plaintext(), np.zeros(SLOTS)
        self._encoder.encode(mask.tolist(), 1.0, plain)
        exact[:] = self._decoded(plain)
        cipher = self._cipher(part)
        self._evaluator.multiply_plain_inplace(cipher, plain)
        added = np.zeros(SLOTS)
        for place, entry, wanted in known:
            added[place] = wanted - exact[place] * entry
        return self._with(cipher, added)

    def scaled(self, part: np.ndarray, times: int) -> np.ndarray:
        """Return a part under a scale that makes it so many times as large."""
        cipher = self._cipher(part)
        cipher.scale = SCALE / times
        return self._written(cipher)

    def multiplied(self, part: np.ndarray, times: int) -> np.ndarray:
        """Return a part times a number that was encoded at another scale, under the scale of a sum."""
        plain = sealapi.Plaintext()
        self._encoder.encode(times / 2.0**8, 2.0**8, plain)
        cipher = self._cipher(part)
        self._evaluator.multiply_plain_inplace(cipher, plain)
        cipher.scale = SCALE
        return self._written(cipher)

    def shifted(self, part: np.ndarray, place: int, by: float) -> np.ndarray:
        """Return a part with a number added to one entry."""
        return self._with(self._cipher(part), by * np.eye(1, SLOTS, place)[0])

    def _decoded(self, plain: Any) -> np.ndarray:
        return np.array(self._encoder.decode_double(plain))

    def _with(self, cipher: Any, added: np.ndarray) -> np.ndarray:
        plain = sealapi.Plaintext()
        cipher.scale = SCALE
        self._encoder.encode(added.tolist(), SCALE, plain)
        self._evaluator.add_plain_inplace(cipher, plain)
        return self._written(cipher)

    def _cipher(self, part: np.ndarray) -> Any:
        chunk = ckks.unpacked(part, self.entries)[0]
        return tenseal.ckks_vector_from(self.server.context, chunk).ciphertext()[0]

    def _written(self, cipher: Any) -> np.ndarray:
        """Return a ciphertext as TenSEAL writes a vector: its entries, the ciphertext, the scale."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cipher"
            cipher.save(str(path))
            data = path.read_bytes()
        scale = b"\x19" + struct.pack("<d", SCALE)
        return ckks.packed([b"\x0a\x02" + _varint(SLOTS) + b"\x12" + _varint(len(data)) + data + scale])


def _varint(number: int) -> bytes:
    found = b""
    while number >= 128:
        found, number = found + bytes([number % 128 + 128]), number // 128
    return found + bytes([number])
