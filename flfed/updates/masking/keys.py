"""What two sites share: a secret of the run, a chain of links from it, and the keys of one question.

```
X25519 keys of the run ── pair secret ── link 0 ── link 1 ── link 2 …      (HKDF; links before the last two are deleted)
                                            │ binding of a question
                                            ├─ mask seed ── key stream      (added by one site, subtracted by the other)
                                            ├─ sealing key                  (of shares)
                                            └─ confirmation key             (of lists)
```

Everything here is bytes, so that it can be kept and cross processes; the primitives are those of `cryptography`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from flfed.refusals import Refusal
from flfed.updates.masking.rules import Sites

BYTES = 32
"""Of a key, a link, a seed, a binding and a confirmation."""
TAG = 16
"""Bytes by which a sealed share is longer than the share."""
CHAIN_LINKS = 2
"""Links that stay: that of the newest question, and that of the one before it, which may be asked again."""


@dataclass(frozen=True)
class RunKey:
    """X25519 key of a site in one run.

    Attributes
    ----------
    private : bytes, 32
        It is needed until the chain has begun, and is to be deleted then: from it every link follows.
    public : bytes, 32
    """

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


def pair_secrets(site: str, key: RunKey, publics: Mapping[str, bytes], context: bytes) -> dict[str, bytes] | Refusal:
    """Return the secret of 32 bytes that a site shares with each of the cohort, or why there is none.

    Parameters
    ----------
    site : str
    key : RunKey
        The site's own.
    publics : mapping of site to bytes, 32
        Public keys of the cohort. What stands there for the site itself is not looked at. With itself it shares a
        secret that nobody else has, under which it seals its own share.
    context : bytes
        What names the run and its cohort: another context gives other secrets.

    Returns
    -------
    dict of site to bytes, in name order; or Refusal
        `key-unfit` where a public key is of another length, or one with which every site has the same secret.

    Notes
    -----
    HKDF-SHA256 of the X25519 secret. Context, names and public keys of both, in name order, are its info, so that a key
    under another name gives another secret (RFC 7748 section 6.1, RFC 5869).
    """
    private = X25519PrivateKey.from_private_bytes(key.private)
    secret_by_peer = {}
    for peer, public in sorted({**publics, site: key.public}.items()):
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return Refusal("key-unfit", site=peer)
        both = sorted([(site, key.public), (peer, public)])
        named: list[bytes] = []
        for name, own in both:
            named += [name.encode(), own]
        info = joined(b"flfed pair", context, *named)
        secret_by_peer[peer] = HKDF(SHA256(), BYTES, None, info).derive(shared)
    return secret_by_peer


@dataclass(frozen=True)
class Chain:
    """Links of a site with each of its run's cohort, which move forward and are deleted.

    Attributes
    ----------
    step : int, >= 0
        Number of the newest masked question of the run.
    links : tuple of dict of site to bytes, 32
        Of the newest question last; before it those of the ones before that may be asked again.

    Notes
    -----
    Link k + 1 is HKDF of link k, from which nobody computes link k. Who reads a site's disk later learns nothing of
    questions before these. A site that missed questions moves over their links. That a step belongs to the run is for
    the caller to check.
    """

    step: int
    links: tuple[dict[str, bytes], ...] = field(repr=False)

    @classmethod
    def start(cls, secrets: Mapping[str, bytes]) -> Chain:
        """Return the chain at question 0, from the pair secrets."""
        return cls(0, (dict(secrets),))

    def moved(self, step: int, largest: int = CHAIN_LINKS) -> Chain:
        """Return the chain whose newest question is `step`, with so many links.

        Itself where that is not later.
        """
        newest = self.step
        links = self.links
        while newest < step:
            following = {site: _expand(link, b"flfed link") for site, link in links[-1].items()}
            newest = newest + 1
            links = (*links[1 - largest :], following)
        return Chain(newest, links)

    def at(self, step: int) -> dict[str, bytes] | Refusal:
        """Return the links of a question, or that they are deleted.

        Raises
        ------
        ValueError
            If the chain has not moved to the step.
        """
        back = self.step - step
        if back < 0:
            raise ValueError(f"the chain is at step {self.step}, before {step}")
        if back < len(self.links):
            return dict(self.links[-1 - back])
        return Refusal("links-deleted")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the chain as uint8 arrays.

        They are `step` [8], `sites` [bytes of the names] and `links` [questions, sites, 32].
        """
        sites = sorted(self.links[-1])
        raw = b"".join(links[site] for links, site in product(self.links, sites))
        return {
            "step": np.frombuffer(self.step.to_bytes(8, "big"), np.uint8).copy(),
            "sites": np.frombuffer("\n".join(sites).encode(), np.uint8).copy(),
            "links": np.frombuffer(raw, np.uint8).reshape(len(self.links), len(sites), BYTES).copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Chain:
        """Return the chain that `to_arrays` made arrays of."""
        sites = arrays["sites"].tobytes().decode().split("\n")
        links = []
        for of_question in arrays["links"]:
            links.append({site: link.tobytes() for site, link in zip(sites, of_question, strict=True)})
        return cls(int.from_bytes(arrays["step"].tobytes(), "big"), tuple(links))


def mask_seed(link: bytes, binding: bytes) -> bytes:
    """Return the seed of 32 bytes of a pair's mask for one question.

    Parameters
    ----------
    link : bytes, 32
    binding : bytes, 32
        Hash of all that the question and its request mean. Who was sent another request has other seeds, so that its
        mask does not cancel (Pasquini et al. 2022, "Eluding secure aggregation in federated learning via model
        inconsistency").
    """
    return _key(link, b"flfed mask", binding)


def tag_seed(key: bytes, binding: bytes, owner: str) -> bytes:
    """Return the seed of 32 bytes of a round's tags, of one site or of all.

    Parameters
    ----------
    key : bytes, 32
        That all sites of the run have, and the server has not.
    binding : bytes, 32
        Of the question, as `mask_seed` has it.
    owner : str
        A site for what it adds to its tags; "" for what all multiply by.
    """
    return _expand(_key(key, b"flfed tag", binding), owner.encode())


def stream(seed: bytes, updates: int, sums: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask that a seed stands for.

    Parameters
    ----------
    seed : bytes, 32
        All of it is the cipher's key. One seed is one mask: of another length, it begins with the same numbers.
    updates : int
        Numbers of 32 bits.
    sums : int
        Numbers of 64 bits.

    Returns
    -------
    uint32 array [updates], uint64 array [sums]
        Of one key stream, that of the sums first; no byte of it stands in both.

    Notes
    -----
    AES-256 in counter mode from 0. It takes 0.7 of ChaCha20's time where the processor knows AES; without, OpenSSL's
    takes longer, but its time reveals nothing of the key either.
    """
    cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    raw = cipher.update(bytes(8 * sums + 4 * updates))
    return np.frombuffer(raw, "<u4", updates, 8 * sums), np.frombuffer(raw, "<u8", sums)


def seal(link: bytes, binding: bytes, share: bytes, *, sender: str, receiver: str) -> bytes:
    """Return a share that its receiver alone can read: ChaCha20-Poly1305, 16 bytes longer.

    Parameters
    ----------
    link : bytes, 32
        Of sender and receiver.
    binding : bytes, 32
    share : bytes
    sender, receiver : str
        Names of sites. With the binding they are authenticated, so that no share passes for another one.
    """
    cipher, nonce, about = _sealing(link, binding, sender, receiver)
    return cipher.encrypt(nonce, share, about)


def unseal(link: bytes, binding: bytes, sealed: bytes, *, sender: str, receiver: str) -> bytes | Refusal:
    """Return the share that `seal` sealed with the same arguments, or that it is another."""
    cipher, nonce, about = _sealing(link, binding, sender, receiver)
    try:
        return cipher.decrypt(nonce, sealed, about)
    except InvalidTag:
        return Refusal("share-unreadable", site=sender)


def confirmation(link: bytes, binding: bytes, listed: Sites, *, sender: str, receiver: str) -> bytes:
    """Return the 32 bytes by which a site confirms a list to another one: HMAC-SHA256.

    Parameters
    ----------
    link : bytes, 32
        Of sender and receiver: nobody else can confirm in the sender's name.
    binding : bytes, 32
    listed : frozenset of str
        Sites of the list, of which the hash goes in.
    sender, receiver : str
    """
    key = _key(link, b"flfed confirm", binding)
    message = joined(binding, _list_hash(listed), sender.encode(), receiver.encode())
    mac = HMAC(key, SHA256())
    mac.update(message)
    return mac.finalize()


def joined(*parts: bytes) -> bytes:
    """Return parts as one text that no other parts give: each after its length in four bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


# A site confirms one list to all of its sites: a hundred names would be hashed for each.
@lru_cache(maxsize=4)
def _list_hash(listed: Sites) -> bytes:
    return hashlib.sha256(joined(*(site.encode() for site in sorted(listed)))).digest()


def _sealing(link: bytes, binding: bytes, sender: str, receiver: str) -> tuple[ChaCha20Poly1305, bytes, bytes]:
    """Return cipher, nonce and associated data of one share."""
    # A key is of one pair and one question, and a question is masked once. So it seals one share each way, and the
    # direction distinguishes the two. Were a question masked twice, the pair masks would give it away first.
    nonce = bytes(11) + bytes([sender < receiver])
    key = _key(link, b"flfed seal", binding)
    return ChaCha20Poly1305(key), nonce, joined(binding, sender.encode(), receiver.encode())


def _key(link: bytes, purpose: bytes, binding: bytes) -> bytes:
    """Return a pair's key for one purpose of one question."""
    if len(binding) != BYTES:
        raise ValueError(f"a binding has {BYTES} bytes, not {len(binding)}")
    return _expand(link, joined(purpose, binding))


def _expand(link: bytes, info: bytes) -> bytes:
    """Return HKDF's second half: a link is a uniform key already (RFC 5869, section 3.3)."""
    return HKDFExpand(SHA256(), BYTES, info).derive(link)
