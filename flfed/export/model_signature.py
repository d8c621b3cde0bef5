"""Signature of a model folder.

The coordinator signs what `model.json` says, and with it each file's hash.

Hashes show damage; who can write the folder can write new hashes. A signature cannot be made anew, only taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flfed.errors import UsageError
from flfed.signatures import (
    HASH,
    coordinator_signed,
    fingerprint_of,
    model_facts,
)

PARTS = {"coordinator", "signing-key", "signature"}


@dataclass(frozen=True)
class Signature:
    """Valid signature of a model.

    It has the title that signed, and its public key (hex).
    """

    title: str
    key: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the signing key.

        Two people compare it by telephone.
        """
        return fingerprint_of(self.key)


def read_signature(found: object, sha256: str) -> Signature | None:
    """Return the signature of `model.json`.

    It is None where there is none.

    Parameters
    ----------
    found : object
        What `model.json` has there.
    sha256 : str
        Of all else in it.

    Raises
    ------
    UsageError
        If it does not hold.
    """
    if found is None:
        return None
    if isinstance(found, Mapping) and found.keys() == PARTS and all(isinstance(part, str) for part in found.values()):
        title = found["coordinator"]
        key = found["signing-key"]
        # A title of control characters could pretend to be another text on a screen.
        whole = 1 <= len(title) <= 100 and title.isprintable() and HASH.fullmatch(key)
        if whole and coordinator_signed(model_facts(title, sha256), found["signature"], key):
            return Signature(title, key)
    raise UsageError("its signature does not hold: somebody changed the model after it was signed; not used")
