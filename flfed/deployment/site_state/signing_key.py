"""The gate's signing key.

It signs a site's keys of runs under secure aggregation. Other sites know it by its fingerprint, which two people
read to each other, so that nobody between the sites can put a key of their own in its place.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.errors import FlfedError, UsageError
from flfed.files import locked, read_private, write_whole
from flfed.folders import SiteFolder
from flfed.signatures import gate_fingerprint, private_text, signing_key_of, signing_public


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
        found = os.lstat(path)
    except OSError:
        raise UsageError(
            f"the gate of {folder.site!r} has no signing key; at the site: flfed site key {folder.site}"
        ) from None
    return _read(path, folder.site, (found.st_ino, found.st_mode, found.st_uid, found.st_mtime_ns, found.st_ctime_ns))


# Each message of a study with sums needs it several times: a file is read once, until it changes.
@lru_cache(maxsize=8)
def _read(path: Path, site: str, state: tuple[int, ...]) -> Ed25519PrivateKey:
    key = signing_key_of(read_private(path))
    if key is None:
        raise FlfedError(
            f"{path}: is damaged; bring it back from a backup, or remove it, make another one with "
            f"flfed site key {site}, and read its fingerprint to the other sites"
        )
    return key


def own_fingerprint(folder: SiteFolder) -> str:
    """Return the fingerprint of a site's gate, an empty text where it has no key.

    Raises
    ------
    FlfedError
        As `signing_key`.
    """
    return gate_fingerprint(signing_public(signing_key(folder))) if os.path.lexists(folder.signing_key) else ""


def make_signing_key(folder: SiteFolder) -> tuple[str, bool]:
    """Make the key of a site's gate where there is none.

    Returns
    -------
    fingerprint : str
    made : bool
        False where the key was there, which stays.
    """
    _check_user(folder)
    folder.make()
    # Under the lock, so that two commands cannot make two keys and show the one that is not kept.
    with locked(folder.gate):
        if made := not os.path.lexists(folder.signing_key):
            write_whole(folder.signing_key, private_text(Ed25519PrivateKey.generate()))
        return own_fingerprint(folder), made


def is_elsewhere(folder: SiteFolder) -> bool:
    """Tell whether the gate of a site that joins here is in the folder of another user.

    `flfed site units` makes the link one to a folder of both users. A gate's key that were made by the user with the
    network would be readable where the network is.
    """
    return folder.link.is_symlink()


def _check_user(folder: SiteFolder) -> None:
    if is_elsewhere(folder) and folder.join.exists():
        raise UsageError(
            f"{folder.root} is of the user with the network, who may not have the gate's key; as the user with the "
            f"data: flfed site key {folder.site}"
        )
