"""Digital signatures over canonical JSON.

A site signs with its node key (EC P-384), and the coordinator with its signing key (Ed25519).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HASH = re.compile(r"[0-9a-f]{64}")
"""SHA-256, or a public signing key, as hex."""


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value.

    Keys are sorted, and there are no blanks, only ASCII, and no NaN.

    Examples
    --------
    >>> canonical({"b": 1.0, "a": "x"})
    b'{"a":"x","b":1.0}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def new_node_key() -> EllipticCurvePrivateKey:
    """Return a new private node key.

    It is EC P-384, the kind that Flower's nodes have.
    """
    return generate_private_key(SECP384R1())


def private_text(key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return a private key in OpenSSH format.

    It has no password.
    """
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_text(key: EllipticCurvePublicKey) -> str:
    """Return a public key in OpenSSH format.

    It has no comment.
    """
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def node_public_key(text: str) -> EllipticCurvePublicKey | None:
    """Return the public node key of an OpenSSH text.

    It is EC P-384, and `None` where the text is anything else.
    """
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    # Any other key could not sign as a Flower node does.
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        return None
    return key


def fingerprint(public: str) -> str:
    """Return the fingerprint of an OpenSSH public key.

    It is what `ssh-keygen -lf` shows, for two people to compare by telephone.
    """
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def sign_as_node(facts: Mapping[str, object], key: EllipticCurvePrivateKey) -> str:
    """Return a node's signature of facts, as hex."""
    return key.sign(canonical(facts), ECDSA(hashes.SHA384())).hex()


def node_signed(facts: Mapping[str, object], signature: str, key: EllipticCurvePublicKey) -> bool:
    """Verify a node's signature over facts."""
    try:
        key.verify(bytes.fromhex(signature), canonical(facts), ECDSA(hashes.SHA384()))
    # A signature that is no hex at all is as wrong as one that does not fit.
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_as_coordinator(facts: Mapping[str, object], key: Ed25519PrivateKey) -> str:
    """Return the coordinator's signature of facts, as hex."""
    return key.sign(canonical(facts)).hex()


def coordinator_signed(facts: Mapping[str, object], signature: str, public: str) -> bool:
    """Verify a coordinator's signature over facts.

    `public` is its public signing key as hex.
    """
    # A key or signature that is malformed counts as wrong, and not as an error.
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), canonical(facts))
    except (InvalidSignature, ValueError):
        return False
    return True


def signing_public(key: Ed25519PrivateKey) -> str:
    """Return the public half of a signing key, as hex."""
    return key.public_key().public_bytes_raw().hex()


KIND = "model"
"""Keeps a model's signature apart from whatever else the coordinator's key signs."""


@dataclass(frozen=True)
class Signer:
    """Coordinator that signs models.

    It has a title, as its sites know it, and a key.
    """

    title: str
    key: Ed25519PrivateKey

    def signature(self, sha256: str) -> dict[str, str]:
        """Return the signature block of `model.json`.

        `sha256` is the hash of all else in it.
        """
        facts = model_facts(self.title, sha256)
        public = signing_public(self.key)
        return {"coordinator": self.title, "signing-key": public, "signature": sign_as_coordinator(facts, self.key)}


def fingerprint_of(public: str) -> str:
    """Return the fingerprint of a public signing key.

    The key is given as hex. The fingerprint is what `ssh-keygen -lf` shows.
    """
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return fingerprint(text.decode("ascii"))


def model_facts(title: str, sha256: str) -> dict[str, Any]:
    """Return the facts that a model's signature covers."""
    return {"format": 1, "kind": KIND, "coordinator": title, "sha256": sha256}
