"""Digital signatures over canonical JSON.

A site signs with its node key (EC P-384), the coordinator and a site's gate with their signing keys (Ed25519).
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

from flfed.errors import UsageError
from flfed.words import usage_error

HASH = re.compile(r"[0-9a-f]{64}")
"""SHA-256, or a public signing key, as hex."""
GROUP = 4
"""Characters of a group in a gate's fingerprint."""
SPOKEN = 20
"""Bytes of a hash in a gate's fingerprint: another key with the same one takes 2^160 tries."""
SPOKEN_OF_LIST = 25
"""Bytes of a hash in a list's fingerprint: two lists with the same one take 2^100 tries."""


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no blanks, ASCII only, no NaN.

    Examples
    --------
    >>> canonical({"b": 1.0, "a": "x"})
    b'{"a":"x","b":1.0}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def new_node_key() -> EllipticCurvePrivateKey:
    """Return a new private node key (EC P-384, as for Flower's nodes)."""
    return generate_private_key(SECP384R1())


def private_text(key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return a private key in OpenSSH format, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_text(key: EllipticCurvePublicKey) -> str:
    """Return a public key in OpenSSH format, without a comment."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def node_public_key(text: str) -> EllipticCurvePublicKey | None:
    """Return the public node key (EC P-384) of an OpenSSH text, or None."""
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    # Any other key could not sign as a Flower node does.
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        return None
    return key


def fingerprint(public: str) -> str:
    """Return the fingerprint of an OpenSSH public key, as `ssh-keygen -lf` shows it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def spoken_fingerprint(fingerprint: str) -> str:
    """Return a node key's fingerprint in the groups of a gate's, for people to read aloud.

    It is the same hash: its first 160 bits and a check of these, where case does not matter.

    Parameters
    ----------
    fingerprint : str
        As `fingerprint` returns it.

    Examples
    --------
    >>> spoken_fingerprint("SHA256:" + "q" * 43)
    'vkvk-vkvk-vkvk-vkvk-vkvk-vkvk-vkvk-vkvk-7kqw'
    """
    return _spoken(base64.b64decode(fingerprint.removeprefix("SHA256:") + "=")[:SPOKEN])


def read_node_fingerprint(text: str) -> str:
    """Return what a person typed as a node key's fingerprint, in one of its two forms.

    Raises
    ------
    UsageError
        If it is none, or has a wrong character.
    """
    text = text.strip()
    if re.fullmatch(r"SHA256:[0-9A-Za-z+/]{43}", text):
        return text
    try:
        return read_gate_fingerprint(text)
    except UsageError:
        raise usage_error("coordinator.fingerprint.malformed", text=text[:60]) from None


def sign_as_node(facts: Mapping[str, object], key: EllipticCurvePrivateKey) -> str:
    """Return a node's signature of facts, as hex."""
    return key.sign(canonical(facts), ECDSA(hashes.SHA384())).hex()


def node_signed(facts: Mapping[str, object], signature: str, key: EllipticCurvePublicKey) -> bool:
    """Verify a node's signature over facts."""
    try:
        key.verify(bytes.fromhex(signature), canonical(facts), ECDSA(hashes.SHA384()))
    # A signature that is not hex counts as wrong.
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(facts: Mapping[str, object], key: Ed25519PrivateKey) -> str:
    """Return the signature of facts by a signing key, as hex."""
    return key.sign(canonical(facts)).hex()


def is_signed(facts: Mapping[str, object], signature: str, public: str) -> bool:
    """Verify a signature over facts; `public` is the public signing key as hex."""
    # A malformed key or signature counts as wrong, and not as an error.
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), canonical(facts))
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_as_coordinator(facts: Mapping[str, object], key: Ed25519PrivateKey) -> str:
    """Return the coordinator's signature of facts, as hex."""
    return sign(facts, key)


def coordinator_signed(facts: Mapping[str, object], signature: str, public: str) -> bool:
    """Verify a coordinator's signature over facts; `public` is its public signing key as hex."""
    return is_signed(facts, signature, public)


def signing_key_of(content: bytes) -> Ed25519PrivateKey | None:
    """Return the signing key of a file in OpenSSH format, or None."""
    try:
        key = serialization.load_ssh_private_key(content, None)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def signing_public(key: Ed25519PrivateKey) -> str:
    """Return the public half of a signing key, as hex."""
    return key.public_key().public_bytes_raw().hex()


KIND = "model"
"""Distinguishes a model's signature from others of the coordinator's key."""


@dataclass(frozen=True)
class Signer:
    """Coordinator that signs models: its title, as its sites know it, and its key."""

    title: str
    key: Ed25519PrivateKey

    def signature(self, sha256: str) -> dict[str, str]:
        """Return the signature block of `model.json`; `sha256` is the hash of its other content."""
        facts = model_facts(self.title, sha256)
        public = signing_public(self.key)
        return {"coordinator": self.title, "signing-key": public, "signature": sign_as_coordinator(facts, self.key)}


def fingerprint_of(public: str) -> str:
    """Return the fingerprint of a public signing key (hex), as `ssh-keygen -lf` shows it."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return fingerprint(text.decode("ascii"))


def gate_fingerprint(public: str) -> str:
    """Return the fingerprint of a gate's signing key, for two people to read to each other.

    Eight groups are for the key, and the ninth is a check of these, so that a wrong character is noticed at once. It
    has letters and the digits 2 to 7, of which none looks like another; case does not matter.

    Parameters
    ----------
    public : str
        The public key as hex.

    Examples
    --------
    >>> gate_fingerprint("ab" * 32)
    'd255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg'
    """
    return _spoken(hashlib.sha256(b"flfed gate " + bytes.fromhex(public)).digest()[:SPOKEN])


def read_gate_fingerprint(text: str) -> str:
    """Return a gate's fingerprint as `gate_fingerprint` writes it.

    Raises
    ------
    UsageError
        If it is none, or has a wrong character.

    Examples
    --------
    >>> read_gate_fingerprint("D255 JRL3 AVDK SVRF E2ZS ILH6 LPR4 MFV5 TKXG")
    'd255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg'
    """
    shown = f"{text[:60]!r} is no fingerprint of a gate"
    letters = _spoken_letters(text)
    if len(letters) != _count_letters(SPOKEN):
        raise UsageError(f"{shown}: one has nine groups of four letters and digits 2 to 7; see flfed site key SITE")
    expected = _spoken(base64.b32decode(letters[:-GROUP]))
    if _spoken_letters(expected) != letters:
        raise UsageError(f"{shown}: a character is wrong; let it be read out again")
    return expected


def cards_fingerprint(content: bytes) -> str:
    """Return the fingerprint of a list of cards, for people of all its sites to compare in one call.

    It has ten groups for the list and an eleventh as their check: two more than a gate's, so that
    neither passes for the other.

    Parameters
    ----------
    content : bytes
        The file, which has one form only (`flfed.deployment.cards`): each byte counts.

    Notes
    -----
    The coordinator writes every list, so it may choose both of two lists that shall have one
    fingerprint. Keys of its own, as many as it likes, vary each. That is a search for a collision,
    and not for a second preimage as with a gate's fingerprint: b bits take 2^(b/2) tries. With 40
    bits a laptop finds one in seconds. With 160 bits it takes 2^80 tries, as many as the largest
    networks of miners compute within hours. These are 200 bits, so 2^100 tries.

    Examples
    --------
    >>> cards_fingerprint(b"x")
    '5kuq-gtkz-ds3z-nf2h-4yhr-3wk4-mevv-ga5l-kkbs-npd4-uwob'
    """
    return _spoken(hashlib.sha256(b"flfed cards " + content).digest()[:SPOKEN_OF_LIST])


def read_cards_fingerprint(text: str) -> str:
    """Return a list's fingerprint as `cards_fingerprint` writes it.

    Raises
    ------
    UsageError
        If it is none, is a gate's, or has a wrong character.
    """
    letters = _spoken_letters(text)
    if len(letters) == _count_letters(SPOKEN):
        raise usage_error("operator.cards.of-gate", text=text[:60])
    if len(letters) != _count_letters(SPOKEN_OF_LIST):
        raise usage_error("operator.cards.form", text=text[:60])
    expected = _spoken(base64.b32decode(letters[:-GROUP]))
    if _spoken_letters(expected) != letters:
        raise usage_error("operator.cards.check", text=text[:60])
    return expected


def _spoken_letters(text: str) -> str:
    """Return a fingerprint's letters as capitals, without hyphens; "" where others are in it."""
    letters = re.sub(r"[\s-]", "", text).upper()
    return letters if re.fullmatch(r"[A-Z2-7]+", letters) else ""


def _count_letters(size: int) -> int:
    """Return the number of letters of a fingerprint of so many bytes, with its check group."""
    return size * 8 // 5 + GROUP


def _spoken(digest: bytes) -> str:
    """Return bytes in groups, with a check group."""
    check = hashlib.sha256(b"flfed check " + digest).digest()
    letters = (base64.b32encode(digest) + base64.b32encode(check)[:GROUP]).decode("ascii").lower()
    return "-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP))


def model_facts(title: str, sha256: str) -> dict[str, Any]:
    """Return the facts that a model's signature covers."""
    return {"format": 1, "kind": KIND, "coordinator": title, "sha256": sha256}
