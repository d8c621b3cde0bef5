"""Keys of a run's sites, and the masks that cancel in the sum over exactly these sites.

```
X25519 key of the run ── signed by the site's gate ──┐
                                                     ▼
                             keys message: all sites' signed keys, and the most rows of a site
                                                     │ its hash
X25519 secret of two sites ──────── HKDF ────────────┴──► pair secret
                                                            ├─ exchange ──► key of the pair's mask: added by one site,
                                                            │               subtracted by the other
                                                            └─ name of a key that one of them seals to the other
```

A site that was sent another cohort, key, number of rows, request or kind of request than another one has other masks.
They do not cancel, so that the sum is random numbers. A mask hides the numbers as long as its key is used once:
an exchange is answered once, by whoever keeps the answers of a run.

Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", section 4, for
masks of pairs. Nobody may be missing here, so that there is nothing to be recovered.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from flfed.errors import UsageError
from flfed.parsers import parse_json
from flfed.paths import NAME
from flfed.refusals import Refusal
from flfed.registry import kebab_keys
from flfed.signatures import HASH, canonical, gate_fingerprint, is_signed, sign, signing_public

LEAST_SITES = 3
"""Of two sites, each would have the other's numbers from their sum."""
KEY_BYTES = 32
"""Of every key here, and of a pair secret."""
NONCE_BYTES = 12
SEALED_BYTES = NONCE_BYTES + 16
"""By which a sealed content is longer: a nonce before it, and a tag behind."""
TAG_ENTRIES = 2
"""Entries of a tag (`verify`): its lowest 31 bits and the other 30, so that the sum of neither wraps modulo 2^64."""
LONGEST = 1024
"""Bytes of a packed signed key; found are about 300."""
SIGNATURE = re.compile(r"[0-9a-f]{128}")
RUN_KEY = "run key"
"""Name under which the key of a run's tags is sealed (`seal`), and purpose of what a gate signs."""


@dataclass(frozen=True)
class RunKey:
    """X25519 key of a site for one repeat of a run: 32 bytes each, to be deleted with the last step."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def new(cls) -> RunKey:
        """Return a new key of the operating system's randomness."""
        return cls.of_private(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def of_private(cls, private: bytes) -> RunKey:
        """Return the key of 32 private bytes."""
        return cls(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


@dataclass(frozen=True, kw_only=True)
class SignedKey:
    """Public key of a site's `RunKey`, signed by the site's gate. Keys and signature are hexadecimal digits.

    `changed` says that the dataset had sums with other sites before, and that people approved the change at this site;
    `single_cells` that its rows may be counted by prediction in a sum; `width` is the share of the model's hidden units
    that the site trains, by which all of them make the same first model; `rows_high` is the upper end of its band of
    rows: by the widest one updates are weighed, and nobody else may choose it.

    Reveals: nothing about rows.
    """

    study_sha256: str
    run: str
    repeat: int
    site: str
    public_key: str
    signing_key: str = ""
    changed: bool
    single_cells: bool = False
    width: float = 1.0
    rows_high: int = 1
    signature: str = ""

    def signed_facts(self) -> dict[str, Any]:
        """Return what the signature covers; its purpose keeps it apart from whatever else the gate's key signs."""
        facts = kebab_keys(asdict(self))
        del facts["signature"]
        return {"what": RUN_KEY, "format": 1, **facts}

    def sign(self, key: Ed25519PrivateKey) -> SignedKey:
        """Return this key as the gate with that signing key signs it."""
        unsigned = replace(self, signing_key=signing_public(key), signature="")
        return replace(unsigned, signature=sign(unsigned.signed_facts(), key))

    def pack(self) -> bytes:
        """Return what crosses: all that its readers do not have themselves."""
        facts = [self.changed, self.single_cells, self.width, self.rows_high]
        return canonical([self.site, self.public_key, self.signing_key, *facts, self.signature])

    @classmethod
    def read(cls, packed: bytes, *, study_sha256: str, run: str, repeat: int) -> SignedKey | Refusal:
        """Return the key that a gate signed for the reader's study, run and repeat.

        Whose gate it was is for `check_cohort` to say.
        """
        try:
            site, public_key, signing_key, changed, single_cells, width, rows_high, signature = parse_json(
                packed, "signed key", longest=LONGEST
            )
        except (UsageError, ValueError, TypeError):
            return Refusal("run-key-unreadable")
        forms = [(NAME, site), (HASH, public_key), (HASH, signing_key), (SIGNATURE, signature)]
        if not all(isinstance(text, str) and form.fullmatch(text) for form, text in forms):
            return Refusal("run-key-unreadable")
        key = cls(
            study_sha256=study_sha256,
            run=run,
            repeat=repeat,
            site=site,
            public_key=public_key,
            signing_key=signing_key,
            changed=changed,
            single_cells=single_cells,
            width=width,
            rows_high=rows_high,
            signature=signature,
        )
        flags_fit = type(changed) is type(single_cells) is bool
        facts_fit = flags_fit and type(width) is float and 0 < width <= 1 and type(rows_high) is int and rows_high > 0
        # One form only: it is hashed as it is packed.
        if not facts_fit or key.pack() != packed:
            return Refusal("run-key-unreadable")
        if not is_signed(key.signed_facts(), signature, signing_key):
            return Refusal("run-key-unsigned", site=site)
        return key


def keys_hash(keys: Sequence[SignedKey], most_rows: int) -> str:
    """Return the SHA-256 of the whole keys message, as hex, whatever the order of the keys.

    The most rows of a site are in it: a coordinator that tells one site a smaller number than the others would weigh
    their numbers to nothing beside that site's.
    """
    facts = [[key.signed_facts(), key.signature] for key in sorted(keys, key=SignedKey.pack)]
    return hashlib.sha256(canonical(["flfed keys message", facts, most_rows])).hexdigest()


def pins_hash(pinned: Mapping[str, str]) -> str:
    """Return the SHA-256 of an approval's sites with the fingerprints of their gates, as hex."""
    return hashlib.sha256(canonical(dict(pinned))).hexdigest()


def check_cohort(
    site: str, keys: Sequence[SignedKey], pinned: Mapping[str, str], *, changed_allowed: bool, least: int = LEAST_SITES
) -> Refusal | None:
    """Return why a site takes no part in sums with these sites, None where they are exactly those of its approval.

    `pinned` are the approval's fingerprints of gates by site, its own among them. Keys are those that `SignedKey.read`
    returned. `changed_allowed` says that this site's own approval has `--changed-sites`.
    """
    names = [key.site for key in keys]
    if len(set(names)) < len(names):
        return Refusal("cohort-unfit")
    if site not in names or site not in pinned:
        return Refusal("cohort-without-site")
    for key in sorted(keys, key=lambda key: key.site):
        if key.site not in pinned:
            return Refusal("cohort-not-pinned", site=key.site)
        if gate_fingerprint(key.signing_key) != pinned[key.site]:
            return Refusal("run-key-other-gate", site=key.site)
    if absent := sorted(pinned.keys() - set(names)):
        return Refusal("cohort-incomplete", sites=", ".join(absent[:3]))
    if len(names) < least:
        return Refusal("cohort-small", had=len(names), least=least)
    changed = sorted(key.site for key in keys if key.changed)
    if changed and not changed_allowed:
        return Refusal("cohort-changed", site=changed[0])
    return None


def pair_secrets(site: str, own: RunKey, keys: Sequence[SignedKey], most_rows: int) -> dict[str, bytes] | Refusal:
    """Return the secret of 32 bytes that a site shares with each other site of a keys message."""
    publics = {key.site: key.public_key for key in keys}
    return shared_secrets(site, own, publics, keys_hash(keys, most_rows))


def shared_secrets(site: str, own: RunKey, publics: Mapping[str, str], message: str) -> dict[str, bytes] | Refusal:
    """Return the secret of 32 bytes that a site shares with each other site, of the public keys of all by site.

    HKDF-SHA256 of the X25519 secret; its info has `message`, the hash of the whole message with the keys, and names and
    public keys of both in name order. A public key with which every site has the same secret is refused (RFC 7748,
    section 6.1).
    """
    private = X25519PrivateKey.from_private_bytes(own.private)
    if publics.get(site) != own.public.hex():
        return Refusal("cohort-other")
    secret_by_peer = {}
    for peer in sorted(publics.keys() - {site}):
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(publics[peer])))
        except ValueError:
            return Refusal("key-unfit", site=peer)
        both = [[name, publics[name]] for name in sorted((site, peer))]
        info = canonical(["flfed pair secret", message, both])
        secret_by_peer[peer] = HKDF(SHA256(), KEY_BYTES, None, info).derive(shared)
    return secret_by_peer


def opener_of(sites: Sequence[str], round: int) -> str:
    """Return the site that opens a round's sum under homomorphic encryption: each in its turn."""
    return sites[round % len(sites)]


@dataclass(frozen=True)
class Exchange:
    """One question of a run with its answers, of which each site has at most one.

    The kind of request and the number of the step are needed beside the hash of the whole request: requests of two
    kinds may both be empty, and two answers under one mask give their difference. `state_sha256` is the hash of what
    the site itself made of the totals before, as encoder, model or tree: sites that made different ones have no sum.
    """

    kind: str
    step: int
    request_sha256: str
    state_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse what names no exchange; raises ValueError."""
        hashes = [self.request_sha256, *filter(None, [self.state_sha256])]
        if not self.kind or self.step < 0 or not all(map(HASH.fullmatch, hashes)):
            raise ValueError("an exchange has a kind, a step of at least 0, and hashes of 64 hexadecimal digits")

    def to_list(self) -> list[str | int]:
        """Return what keys of the exchange are bound to."""
        return [self.kind, self.step, self.request_sha256, self.state_sha256]


def exchange_key(secret: bytes, purpose: str, exchange: Exchange, *about: str | int) -> bytes:
    """Return the key of 32 bytes for one purpose of one exchange: HKDF's second half of a pair secret or a run key.

    These are uniform keys already (RFC 5869, section 3.3).
    """
    info = canonical([f"flfed {purpose}", exchange.to_list(), list(about)])
    return HKDFExpand(SHA256(), KEY_BYTES, info).derive(secret)


def key_stream(key: bytes) -> CipherContext:
    """Return the stream of a key: AES-256 in counter mode from 0, of which `update(bytes(n))` gives the next n bytes.

    It takes 0.7 of ChaCha20's time where the processor knows AES.
    """
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


def mask(
    site: str, pair_secrets: Mapping[str, bytes], exchange: Exchange, updates: int, sums: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a site adds to its numbers in an exchange: uint32 array [updates] and uint64 array [sums].

    With each other site there is one stream, the numbers of 64 bits first. The site whose name is first adds it, the
    other subtracts it, modulo 2^32 and 2^64: in the sum over all sites nothing of it is left.

    Guarantee: all masked numbers together say nothing of the sites' numbers but their sum. With c sites that share what
    they know with it, a coordinator has the sum over the others, and with all but one that site's numbers. It assumes
    that X25519, HKDF and AES-256 cannot be told from random without a key, and that no site answers an exchange twice.
    """
    mask_of_updates, mask_of_sums = np.zeros(updates, np.uint32), np.zeros(sums, np.uint64)
    for peer, secret in pair_secrets.items():
        key = exchange_key(secret, "mask", exchange, updates, sums)
        stream = key_stream(key).update(bytes(8 * sums + 4 * updates))
        combine = np.add if site < peer else np.subtract
        combine(mask_of_sums, np.frombuffer(stream, "<u8", sums), out=mask_of_sums)
        combine(mask_of_updates, np.frombuffer(stream, "<u4", updates, 8 * sums), out=mask_of_updates)
    return mask_of_updates, mask_of_sums


def new_key() -> bytes:
    """Return a new key of 32 bytes of the operating system's randomness: the first site by name draws a run's."""
    return secrets.token_bytes(KEY_BYTES)


def seal(name: str, content: bytes, pair_secrets: Mapping[str, bytes], *, sender: str) -> dict[str, bytes]:
    """Return a content for each other site, that this site alone can read: ChaCha20-Poly1305 behind its nonce.

    The name of the content, sender and receiver are authenticated, so that no content passes for another one.
    """
    sealed = {}
    for receiver, secret in sorted(pair_secrets.items()):
        # Drawn, as the site may seal another content of the same name after a crash.
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed[receiver] = nonce + _sealing_cipher(name, secret, sender, receiver).encrypt(nonce, content, None)
    return sealed


def unseal(name: str, sealed: bytes, secret: bytes, *, sender: str, receiver: str) -> bytes | Refusal:
    """Return what `seal` sealed for the receiver, whose pair secret with the sender is `secret`."""
    try:
        cipher = _sealing_cipher(name, secret, sender, receiver)
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        return Refusal("key-unsealed", site=sender)


def _sealing_cipher(name: str, secret: bytes, sender: str, receiver: str) -> ChaCha20Poly1305:
    """Return the cipher of one key in one direction of a pair."""
    info = canonical(["flfed seal", name, sender, receiver])
    return ChaCha20Poly1305(HKDFExpand(SHA256(), KEY_BYTES, info).derive(secret))
