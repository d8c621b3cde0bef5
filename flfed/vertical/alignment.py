"""Private set intersection: two parties find their common identifiers, and see no other.

```
 label party                                              column party
 a · H(id), shuffled                  ─────────────►      b · (a · H(id)), in the same order
                                                          b · H(id), shuffled
 a · (b · H(id)): equal where b · (a · H(id)) is  ◄─────  both
```

H maps an identifier to a point of edwards25519, a and b are keys of one run. Points are 32 bytes. Without a key a point
shows nothing of its identifier, whose bare hash anybody could compute for a list of candidates.

Source: Meadows 1986, "A more efficient cryptographic matchmaking protocol"; Huberman, Franklin and Hogg 1999,
"Enhancing privacy and trust in electronic communities". Both parties must keep to the protocol.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flfed.errors import require_extra
from flfed.refusals import Refusal

BYTES = 32
"""Of a point and of a key."""


@dataclass(frozen=True)
class BlindingKey:
    """A party's secret factor of one run.

    Attributes
    ----------
    scalar : bytes, 32
    """

    scalar: bytes = field(repr=False)

    @classmethod
    def new(cls) -> BlindingKey:
        """Return a new key of the operating system's randomness.

        Raises
        ------
        UsageError
            If the extra `flfed[vertical]` is not installed.
        """
        return cls(_bindings().crypto_core_ed25519_scalar_reduce(secrets.token_bytes(2 * BYTES)))

    def blind(self, identifiers: Sequence[str]) -> np.ndarray:
        """Return a point for each identifier; uint8 array [identifiers, 32]."""
        bindings = _bindings()
        points = []
        for identifier in identifiers:
            digest = hashlib.sha256(b"flfed alignment\0" + identifier.encode()).digest()
            point = bindings.crypto_core_ed25519_from_uniform(digest)
            points.append(bindings.crypto_scalarmult_ed25519_noclamp(self.scalar, point))
        return _rows(points)

    def blind_again(self, points: np.ndarray) -> np.ndarray | Refusal:
        """Return another party's points, uint8 [identifiers, 32], times this key; a point of small order is refused."""
        multiply = _bindings().crypto_scalarmult_ed25519_noclamp
        from nacl.exceptions import CryptoError

        try:
            return _rows([multiply(self.scalar, point.tobytes()) for point in points])
        # The length is the caller's to check: these are errors of a point of small or mixed order.
        except (CryptoError, ValueError):
            return Refusal("alignment-unfit")


def common_rows(label: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of equal points in both lists, uint8 [identifiers, 32], in the order of the first."""
    places = {point.tobytes(): place for place, point in enumerate(columns)}
    others = np.array([places.get(point.tobytes(), -1) for point in label], dtype=np.int64)
    return np.flatnonzero(others >= 0), others[others >= 0]


def shuffled(count: int) -> np.ndarray:
    """Return the places of a list in an order of the operating system's randomness; int64 array [count]."""
    return np.array(secrets.SystemRandom().sample(range(count), count), dtype=np.int64)


def require_vertical() -> None:
    """Refuse to go on without the extra packages; raises UsageError."""
    require_extra("nacl", "strategy 'vertical'", "vertical")
    require_extra("tenseal", "strategy 'vertical'", "vertical")


def _rows(points: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(points), np.uint8).reshape(len(points), BYTES)


def _bindings() -> Any:
    """Return the module, which is imported only where a study asks for it."""
    require_vertical()
    from nacl import bindings

    return bindings
