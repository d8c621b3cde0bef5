"""Signatures of models, and the trusted keys.

A model bears the signature of the coordinator that exported it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flfed.deployment.coordinator.certificates import settings, signing_key
from flfed.deployment.operator.join import read_some, unpacked
from flfed.deployment.site_state.trusted_files import read_terms
from flfed.errors import FlfedError, UsageError
from flfed.export.model_folder import Signature
from flfed.parsers import parse_toml
from flfed.paths import NAME, CoordinatorFolder, SiteFolder, home
from flfed.signatures import HASH, Signer
from flfed.words import render, usage_error

TRUSTED_KEY = "known"
UNTRUSTED_KEY = "not known here"
NOT_SIGNED = "not signed"
"""Statuses of a model's signature in `flfed predict --json`."""


@dataclass(frozen=True)
class Whose:
    """Whose a model is, for people and for programs.

    Attributes
    ----------
    signature : Signature or None
    status : {"known", "not known here", "not signed"}
    sentence : str
    """

    signature: Signature | None
    status: str
    sentence: str

    def as_object(self) -> dict[str, str | None]:
        """Return the keys of `flfed predict --json`."""
        title, key = (None, None) if self.signature is None else (self.signature.title, self.signature.fingerprint)
        return {"signature": self.status, "signed-by": title, "signing-key": key}


@dataclass(frozen=True)
class Trusted:
    """A trusted key and its origin.

    `because` is the end of the sentence about it.
    """

    keys: tuple[str, ...]
    because: str


def signer_here() -> Signer | None:
    """Return the signer of this machine's coordinator.

    None where there is no coordinator.
    """
    folder = CoordinatorFolder.default()
    if not os.path.lexists(folder.settings):
        return None
    return Signer(settings(folder).title, signing_key(folder))


def whose(signature: Signature | None, signed_by: str = "") -> Whose:
    """Return whose a model is, by trusted keys.

    Parameters
    ----------
    signature : Signature or None
        Of the model folder.
    signed_by : str
        A fingerprint, or a file with the coordinator's key: its kit, a site's `terms.toml`, or `signing.pub`.

    Raises
    ------
    UsageError
        If the model must be signed by a key, and is not.
    """
    # A key that the person demands is the only one that counts; without one, all trusted keys do.
    wanted = _wanted(signed_by) if signed_by else None
    if signature is None:
        if wanted:
            raise usage_error("coordinator.signature.required")
        return Whose(None, NOT_SIGNED, render("coordinator.signature.missing"))
    signed = {"title": signature.title, "fingerprint": signature.fingerprint}
    # The demanded key is a condition: a model by another one is an error, not a remark.
    if wanted is not None and not {signature.key, signature.fingerprint} & set(wanted.keys):
        raise usage_error("coordinator.signature.other", **signed)
    trusted = [wanted] if wanted is not None else _load_trusted_keys()
    # A key may be trusted by its fingerprint or as a whole: both forms of the signature's key are compared.
    signer = next((one for one in trusted if {signature.key, signature.fingerprint} & set(one.keys)), None)
    if signer is None:
        return Whose(signature, UNTRUSTED_KEY, render("coordinator.signature.untrusted", **signed))
    return Whose(signature, TRUSTED_KEY, render("coordinator.signature.trusted", because=signer.because, **signed))


def _wanted(signed_by: str) -> Trusted:
    if signed_by.startswith("SHA256:"):
        return Trusted((signed_by,), render("coordinator.signature.demanded"))
    # A file may be a kit (an archive), terms in TOML, or the bare key in hex.
    content = read_some(Path(signed_by))
    if content.startswith(b"PK"):
        content = unpacked(content)["kit.toml"]
    text = content.decode("utf-8", "replace").strip()
    keys = (text,) if HASH.fullmatch(text) else _keys_of(text)
    if not keys:
        raise usage_error("coordinator.signature.keyless", signed_by=signed_by)
    return Trusted(keys, render("coordinator.signature.demanded"))


def _keys_of(text: str) -> tuple[str, ...]:
    try:
        return _keys(parse_toml(text, "terms"))
    except UsageError:
        return ()


def _keys(terms: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the signing key that terms name; nothing where they name none."""
    key = terms.get("signing-key")
    return (key,) if isinstance(key, str) and HASH.fullmatch(key) else ()


def _load_trusted_keys() -> Iterable[Trusted]:
    """Yield the keys that this machine trusts.

    They are its own coordinator's, and those of the coordinators that its sites have joined.
    """
    own = CoordinatorFolder.default().keys / "signing.pub"
    with suppress(OSError, ValueError):
        yield Trusted((own.read_text(encoding="ascii").strip(),), "the coordinator here")
    try:
        sites = sorted(path.name for path in (home() / "sites").iterdir() if NAME.fullmatch(path.name))
    except OSError:
        return
    for site in sites:
        try:
            yield Trusted(_keys(read_terms(SiteFolder(site))), render("coordinator.signature.joined", site=site))
        except FlfedError:
            # A site with damaged terms vouches for no key; the other sites still do.
            continue
