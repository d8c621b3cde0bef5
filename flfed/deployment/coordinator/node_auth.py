"""Identification of nodes by request headers.

A node is known by an admitted key, and by the time that is signed with it.

Flower checks the same, but only once it has read the whole body.

Private names of Flower 1.41: the header names `FLEET_HTTP_PUBLIC_KEY_HEADER`, `FLEET_HTTP_SIGNATURE_HEADER` and
`TIMESTAMP_HEADER`; `TIMESTAMP_TOLERANCE` and `SYSTEM_TIME_TOLERANCE`; `verify_signature`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from flfed.deployment.coordinator import admission
from flfed.deployment.flower.control import pem_of
from flfed.files import now_utc, state_of
from flfed.folders import CoordinatorFolder

KEY, TIME, SIGNATURE = (
    name.encode() for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
)
LOOK_SECONDS = 1.0
"""How often every file is looked at; one that was put in place of another is seen at once."""

Headers = Iterable[tuple[bytes, bytes]]


class NodeKeys:
    """Cache of the admitted sites' keys.

    They are read again when the coordinator's folder changes.

    Parameters
    ----------
    folder : CoordinatorFolder
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(self, folder: CoordinatorFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._changed = -1
        self._next = 0.0
        self._state: object = None
        self._texts: dict[str, str] = {}
        self._keys: dict[bytes, tuple[str, EllipticCurvePublicKey]] = {}

    def identify(self, headers: Headers) -> tuple[str, bytes] | None:
        """Return the site and key behind a request.

        Parameters
        ----------
        headers : pairs of name, in small letters, and value

        Returns
        -------
        tuple of str and bytes, or None
            `None` where the key is not admitted, the time is not within what Flower tolerates, or is not signed.
        """
        words: dict[bytes, list[bytes]] = {KEY: [], TIME: [], SIGNATURE: []}
        for name, value in headers:
            if name in words:
                words[name].append(value)
        # A header given twice is refused: two programs may each believe another one of them.
        if any(len(values) != 1 for values in words.values()):
            return None
        (key,), (signed,), (signature,) = words.values()
        found = self.admitted().get(key)
        # The signature comes last, since it is the only costly check.
        if found is None or not _in_time(signed) or not _signed(found[1], signed, signature):
            return None
        return found[0], key

    def admitted(self) -> dict[bytes, tuple[str, EllipticCurvePublicKey]]:
        """Return the admitted sites and keys, by header text.

        The text is what a node sends of its key.
        """
        now, changed = self._clock(), self._folder.sites.stat().st_mtime_ns
        # A folder's time shows a replaced file at once, but not one written in place: so all are looked at each second.
        if changed != self._changed or now >= self._next:
            self._changed, self._next = changed, now + LOOK_SECONDS
            state = state_of(self._folder.sites, "*.json")
            if state != self._state:
                self._state = state
                self._read({name.removesuffix(".json") for name, *_ in state})
        return self._keys

    def _read(self, sites: set[str]) -> None:
        """Read the folder's admissions.

        Where a file is damaged, what was known before holds.
        """
        members, _ = admission.readable(self._folder)
        texts = {name: text for name, text in self._texts.items() if name in sites - members.keys()}
        texts |= {name: member.public_key for name, member in members.items() if member.status == "admitted"}
        keys = {}
        for site, text in texts.items():
            pem = pem_of(text)
            keys[base64.b64encode(pem)] = (site, bytes_to_public_key(pem))
        self._texts, self._keys = texts, keys


def _in_time(signed: bytes) -> bool:
    try:
        age = (now_utc() - datetime.fromisoformat(signed.decode("ascii"))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return False
    return -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def _signed(key: EllipticCurvePublicKey, text: bytes, signature: bytes) -> bool:
    try:
        return verify_signature(key, text, base64.b64decode(signature, validate=True))
    except ValueError:
        return False
