"""Files that a site's gate trusts.

They are the coordinator's terms and its own signing key. The user of the network wrote `terms.toml`, and the gate
trusts it no further than that. A person or program with that user's rights could send the gate no more than an approved
coordinator may send anyway (docs/threat-model.md).

The signing key signs a site's keys of runs under secure aggregation. Other sites recognise it by its fingerprint, which
two people read to each other. So nobody between the sites can replace it with another key.

Whoever may write in the folders that a gate believes could replace rows and approvals there.

Whether a gate is served, and what it has not done, is read here, too.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.errors import UsageError
from flfed.files import locked, read_private, write_whole
from flfed.packages import writable
from flfed.parsers import parse_toml
from flfed.paths import SiteFolder
from flfed.signatures import gate_fingerprint, private_text, signing_key_of, signing_public
from flfed.words import flfed_error, render, usage_error

LARGEST = 65_536
"""Bytes; real terms have about 500."""
WRITABLE = 0o022
"""Modes by which others than the user of the network may change it."""


def coordinator_of(folder: SiteFolder) -> str:
    """Return the title of the site's coordinator.

    The text is empty where it has joined none.

    Raises
    ------
    UsageError
        If the terms exist and cannot be read.
    """
    return str(read_terms(folder).get("coordinator", "")) if os.path.lexists(folder.terms) else ""


def other_coordinator(folder: SiteFolder, approved_for: str) -> bool:
    """Return whether a study's approval names another coordinator.

    Where the terms cannot be read, it counts as another.
    """
    try:
        # An approval from before the site joined any coordinator is valid for the one that it joined.
        return approved_for not in ("", coordinator_of(folder))
    except UsageError:
        return True


def read_terms(folder: SiteFolder) -> dict[str, Any]:
    """Return the coordinator's terms, from the kit that the site joined with.

    Raises
    ------
    UsageError
        If it is absent, damaged, a link, no plain file, or others than its owner may change it; the error shows
        nothing of its content.
    """
    path = folder.terms
    try:
        # A pipe in its place would block the gate; a link would have it read a file that only the gate may read.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            # Checked on the open file: between a check by path and the reading, the file could be exchanged.
            file_status = os.fstat(stream.fileno())
            if file_status.st_mode & WRITABLE:
                raise usage_error("gate.files.writable", file=path)
            if not stat.S_ISREG(file_status.st_mode) or file_status.st_size > LARGEST:
                raise usage_error("gate.files.terms", file=path)
            content = stream.read(LARGEST)
    except OSError:
        raise usage_error("gate.files.unread", file=path) from None
    try:
        return parse_toml(content, str(path))
    except UsageError:
        raise usage_error("gate.files.unread", file=path) from None


def signing_key(folder: SiteFolder) -> Ed25519PrivateKey:
    """Return the private key of a site's gate.

    Raises
    ------
    UsageError
        If there is none, or this user may not read it.
    FlfedError
        If it is damaged, or others may read it.
    """
    path = folder.signing_key
    try:
        now = os.lstat(path)
    except OSError:
        raise usage_error("gate.files.keyless", site=folder.site) from None
    return _read(path, folder.site, (now.st_ino, now.st_mode, now.st_uid, now.st_mtime_ns, now.st_ctime_ns))


# Each message of a study with sums needs it several times: a file is read once, until it changes.
@lru_cache(maxsize=8)
def _read(path: Path, site: str, state: tuple[int, ...]) -> Ed25519PrivateKey:
    key = signing_key_of(read_private(path))
    if key is None:
        raise flfed_error("gate.files.key", file=path, site=site)
    return key


def own_fingerprint(folder: SiteFolder) -> str:
    """Return the fingerprint of a site's gate.

    The text is empty where it has no key.

    Raises
    ------
    FlfedError
        As `signing_key`.
    """
    if os.path.lexists(folder.signing_key):
        return gate_fingerprint(signing_public(signing_key(folder)))
    return ""


def make_signing_key(folder: SiteFolder) -> tuple[str, bool]:
    """Make the key of a site's gate, where it has none.

    Returns
    -------
    fingerprint : str
    made : bool
        False where the site had a key, which is unchanged.
    """
    if is_elsewhere(folder) and folder.join.exists():
        raise usage_error("gate.files.network", folder=folder.root, site=folder.site)
    folder.make()
    # Under the lock, so that two commands cannot make two keys and show the one that is lost.
    with locked(folder.gate):
        if made := not os.path.lexists(folder.signing_key):
            write_whole(folder.signing_key, private_text(Ed25519PrivateKey.generate()))
        return own_fingerprint(folder), made


def is_elsewhere(folder: SiteFolder) -> bool:
    """Return whether a site's gate is in another user's folder.

    The site joins in this one. `flfed site units` makes the link to a folder of both users. A gate's key made by the
    user with the network would be readable where the network is.
    """
    return folder.link.is_symlink()


BELIEVED = ("", "frozen", "approvals", "starts")
"""Names of folders in `gate`, the gate's own first."""


def is_served(folder: SiteFolder) -> bool:
    """Return whether a process of this machine runs the site's gate."""
    try:
        with locked(folder.gate, "serving.lock", taken=folder.site):
            return False
    except UsageError as error:
        return str(error) == folder.site


def gate_work(folder: SiteFolder) -> tuple[str, float]:
    """Return what a served gate has not done, such as to answer a request, and for how many seconds; "" for nothing."""
    with suppress(OSError, ValueError):
        since, _, undone = folder.gate_pulse.read_text("utf-8").partition(" ")
        if undone and is_served(folder):
            return undone, max(0.0, time.time() - float(since))
    return "", 0.0


def open_folder(folder: SiteFolder) -> str:
    """Return the first folder of a gate that others may change.

    The sentence has the command that closes it. The text is empty where there is none. A link stands for its target; an
    absent folder is not checked.
    """
    if os.name != "posix":
        return ""
    gate = folder.gate  # read once, since this runs for each message
    for place in (str(gate.parent), *(os.path.join(gate, name) for name in BELIEVED)):
        try:
            file_status = os.stat(place)
        except OSError:
            continue
        others_write = file_status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others_write and (why := writable(Path(place), file_status)):
            return render("gate.files.open", folder=Path(place), why=why)
    return ""
