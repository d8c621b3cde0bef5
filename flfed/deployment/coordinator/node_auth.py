"""Identification of nodes by admitted keys.

The keys are registered at the server. A request's headers identify a node by its key, and by the time that is signed
with it. Flower checks the same, but only after it has read the whole body.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flfed.callbacks import Clock, Notify, now_utc
from flfed.deployment.coordinator import admission
from flfed.deployment.coordinator.admission import Membership
from flfed.deployment.flower.control import Control, Refused
from flfed.deployment.flower.link import Node, pem_of
from flfed.errors import FlfedError, UsageError
from flfed.files import note, state_of
from flfed.flower_names import AHEAD_SECONDS, OLDEST_SECONDS, PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flfed.paths import CoordinatorFolder
from flfed.words import render

KEY, TIME, SIGNATURE = (name.encode() for name in (PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
LOOK_SECONDS = 1.0
"""How often the sites' files are read: a revoked site is cut off after this time."""

Headers = Iterable[tuple[bytes, bytes]]


@dataclass
class NodeKeys:
    """Cache of the admitted sites' keys.

    They are read again when the coordinator's folder changes.

    Parameters
    ----------
    folder : CoordinatorFolder
    clock : callable
        Seconds; tests pass their own.
    """

    folder: CoordinatorFolder
    clock: Clock = time.monotonic
    _changed: int = -1
    _next: float = 0.0
    _state: object = None
    _texts: dict[str, str] = field(default_factory=dict)
    _keys: dict[bytes, tuple[str, EllipticCurvePublicKey]] = field(default_factory=dict)

    def identify(self, headers: Headers) -> tuple[str, bytes] | None:
        """Return the site and key behind a request.

        Parameters
        ----------
        headers : pairs of name, in small letters, and value

        Returns
        -------
        tuple of str and bytes, or None
            `None` where the key is not admitted, or the time is outside Flower's tolerance or not signed.
        """
        words: dict[bytes, list[bytes]] = {KEY: [], TIME: [], SIGNATURE: []}
        for name, value in headers:
            if name in words:
                words[name].append(value)
        # A header that occurs twice is refused: two programs may each believe another one of them.
        if any(len(values) != 1 for values in words.values()):
            return None
        (key,), (signed,), (signature,) = words.values()
        site_and_key = self.admitted().get(key)
        # The signature comes last, since it is the only costly check.
        if site_and_key is None or not _in_time(signed) or not _signed(site_and_key[1], signed, signature):
            return None
        return site_and_key[0], key

    def admitted(self) -> dict[bytes, tuple[str, EllipticCurvePublicKey]]:
        """Return the admitted sites and keys, by header text.

        The text is the form in which a node sends its key.
        """
        now = self.clock()
        changed = self.folder.sites.stat().st_mtime_ns
        # A folder's time shows a replaced file at once, but not one written in place: so all are read each second.
        if changed != self._changed or now >= self._next:
            self._changed = changed
            self._next = now + LOOK_SECONDS
            state = state_of(self.folder.sites, "*.json")
            if state != self._state:
                self._state = state
                self._read({name.removesuffix(".json") for name, *_ in state})
        return self._keys

    def _read(self, sites: set[str]) -> None:
        """Read the folder's admissions.

        Where a file is damaged, the keys that were read before stay valid.
        """
        members, _ = admission.readable(self.folder)
        texts = {name: text for name, text in self._texts.items() if name in sites - members.keys()}
        texts |= {name: member.public_key for name, member in members.items() if member.status == "admitted"}
        keys = {}
        for site, text in texts.items():
            pem = pem_of(text)
            key = load_pem_public_key(pem)
            if isinstance(key, EllipticCurvePublicKey):  # `pem_of` returns no other
                keys[base64.b64encode(pem)] = (site, key)
        self._texts = texts
        self._keys = keys


def _in_time(signed: bytes) -> bool:
    try:
        age = (now_utc() - datetime.fromisoformat(signed.decode("ascii"))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return False
    return -AHEAD_SECONDS < age < OLDEST_SECONDS


def _signed(key: EllipticCurvePublicKey, text: bytes, signature: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text, ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


@dataclass
class NodeRegistration:
    """Registration of the admitted keys at the server.

    Parameters
    ----------
    folder : CoordinatorFolder
    notify : callable
        Receives a sentence about each site that can connect, or is cut off.
    """

    folder: CoordinatorFolder
    notify: Notify
    _reported: set[str] = field(default_factory=set)

    def update(self, control: Control) -> None:
        """Register admitted keys and cut off all others.

        While a file is damaged, only revoked keys are cut off.
        """
        nodes = control.nodes()
        admitted = admission.admitted(self.folder).values()
        keys = {pem_of(member.public_key): member for member in admitted}
        damaged = admission.readable(self.folder)[1]
        for sentence in damaged:
            self._say_once(render("coordinator.server.damaged", sentence=sentence))
        # A key that was cut off is never valid again: a key that may be of a damaged file is left as it is.
        gone = set(map(pem_of, admission.revoked_keys(self.folder))) if damaged else set(nodes)
        for key, node in nodes.items():
            if key in gone and key not in keys and node.status != "unregistered":
                control.unregister(node.node_id)
                self._note("unregistered", render("coordinator.server.unregistered", node=node.node_id))
        self._register(control, nodes, keys)

    def _register(self, control: Control, nodes: Mapping[bytes, Node], keys: Mapping[bytes, Membership]) -> None:
        # Admitted keys that are new to the server are registered; new numbers are written down.
        for key, member in keys.items():
            site = member.site
            node = nodes.get(key)
            try:
                node_id = node.node_id if node and node.status != "unregistered" else control.register(site, key)
            except (UsageError, Refused) as error:  # of this site alone: the others are let in
                self._say_once(str(error))
                continue
            if member.node_id != node_id:
                with suppress(FlfedError):  # revoked this very moment: the next look shows it
                    admission.note_node(self.folder, site, node_id)
                self._note("registered", render("coordinator.server.registered", site=site, node=node_id))

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self.notify(sentence)

    def _note(self, what: str, sentence: str) -> None:
        note(self.folder.log, now_utc(), what, said=sentence)
        self.notify(sentence)
