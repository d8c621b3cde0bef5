"""Location of flfed's data folder, and paths of a coordinator's and a site's files in it.

It is the user's own, and for its owner alone.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flfed.errors import FlfedError, UsageError


def home() -> Path:
    """Return the private data folder of flfed.

    It holds downloads, checkpoints, site state and `runs.db`. It is made if absent, and closed to others.

    `FLFED_HOME` if set, else the user's data folder of the operating system.
    """
    path = where()
    try:
        private_folder(path)
    except OSError as error:
        raise UsageError(f"FLFED_HOME: {path} cannot be used as a folder ({error.strerror}); set another") from None
    # A folder of another account may exist and still be of no use.
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"FLFED_HOME: {path} cannot be read and written by this user; set another")
    return path


def where() -> Path:
    """Return the path of the data folder.

    It need not exist or be usable: a caller that only reads may look into it.

    Raises
    ------
    UsageError
        If this user has no folder of their own.
    """
    folder = os.environ.get("FLFED_HOME")
    try:
        if folder:
            return Path(folder).expanduser()
        return _user_data() / "flfed"
    except RuntimeError:
        raise UsageError("FLFED_HOME: this user has no folder of their own; set it to another") from None


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter.

    This holds whatever the umask is and whoever made it.

    One of somebody else, or with the sticky bit (`/tmp`), is left as it is.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    if not path.is_dir():
        for absent in reversed([above for above in (path, *path.parents) if not above.is_dir()]):
            absent.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
    # A shared folder such as /tmp would break for everybody else if it were closed.
    if status.st_mode & 0o077 and not status.st_mode & stat.S_ISVTX:
        with suppress(OSError):
            path.chmod(0o700)


def _user_data() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def write_private(path: Path, text: str, *, advice: str) -> None:
    """Write a new file for its owner alone.

    It says something of each row.

    Parameters
    ----------
    path : Path
    text : str
    advice : str
        What to do where it cannot be written.

    Raises
    ------
    UsageError
        If the file is there already, or its folder is not.
    FlfedError
        If writing fails on the way; nothing is left of it.
    """
    try:
        # An exclusive open follows no link and replaces no file that somebody put there.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: is there already; it is not replaced") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): {advice}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None


PART = ".part-"
"""How the name of a file begins that is not whole yet."""
Content = bytes | Iterable[bytes | memoryview]
"""What a file holds: in one piece, or in several that need not be in memory together."""


def replace_whole(path: Path, content: Content, *, mode: int = 0o600) -> None:
    """Write or replace a file atomically.

    It is written beside and renamed: a reader, or a crash, finds the old one or the new one.

    Written by root, it belongs to whom its folder belongs to.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays, and nothing is left beside it.
    """
    handle, part = tempfile.mkstemp(prefix=PART, dir=path.parent)  # of mode 600
    try:
        with os.fdopen(handle, "wb") as stream:
            pieces = [content] if isinstance(content, bytes) else content
            stream.writelines(pieces)
            stream.flush()
            give(handle, path.parent)
            # Owner and mode are right before the name appears, so that no reader meets a wrong one.
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(part, path)
    except BaseException:  # also of Ctrl-C nothing is left, since sums of sites may be in it
        Path(part).unlink(missing_ok=True)
        raise
    # The rename itself is safe from a power cut once the folder is on the disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def give(file: int | Path, folder: Path) -> None:
    """Give a path to the owner of its folder.

    It is an open file or a new folder that root made.
    """
    owner = folder.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        # Not what a link names, which somebody may have put there meanwhile.
        os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(file, int))


class Below:
    """Path below another one of the same object.

    Parameters
    ----------
    above : str
        Attribute with the path above.
    name : str
        Of the file or folder in it.
    """

    def __init__(self, above: str, name: str) -> None:
        self._above = above
        self._name = name

    def __get__(self, owner: object, kind: type) -> Path:
        """Return the path of an object's own."""
        above: Path = getattr(owner, self._above)
        return above / self._name


@dataclass(frozen=True)
class CoordinatorFolder:
    """Folder of the coordinator.

    It is `coordinator` under `FLFED_HOME`, and only its owner may enter.

    Parameters
    ----------
    root : Path
    """

    root: Path

    @classmethod
    def default(cls) -> CoordinatorFolder:
        """Return the folder of this user."""
        return cls(home() / "coordinator")

    settings = Below("root", "coordinator.toml")
    """Name, address and ports, as TOML."""

    keys = Below("root", "keys")
    """Folder of the coordinator's keys and certificates.

    `ca.key`, `ca.crt` (two certificates during a change), `server.key`, `server.crt`, `signing.key`.
    """

    sites = Below("root", "sites")
    """Folder of the sites' registrations.

    One JSON file a site: invited, admitted or revoked, when, its public key and node id.
    """

    log = Below("root", "log.jsonl")
    """Log of the consortium.

    What was invited, admitted, refused, revoked and rotated, and when: one JSON line each.
    """

    server = Below("root", "server")
    """Folder of the running server.

    Flower's database, logs, the Caddyfile, `executor.secret` and process ids.
    """

    receipts = Below("root", "receipts.jsonl")
    """Signed heads of the sites' ledgers.

    This coordinator signed them. One JSON line each.
    """

    def make(self) -> None:
        """Make the folders where they are absent.

        They are for their owner alone.
        """
        # A folder that is there keeps the mode its operator gave it.
        for folder in (self.root, self.keys, self.sites, self.server):
            if not folder.is_dir():
                folder.mkdir(parents=True, mode=0o700)
                folder.chmod(0o700)


NAME = re.compile(r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*")
"""A site's name."""
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
"""A run's name that is fit for a folder."""


@dataclass(frozen=True)
class SiteFolder:
    """The folders of one site, under `FLFED_HOME`.

    Parameters
    ----------
    site : str
        The site's name.

    Notes
    -----
    `network` belongs to the user that has the network (and no data), `gate` to the one that has the
    data (and no network); both may enter `link`, where the socket between them is.
    """

    site: str

    def __post_init__(self) -> None:
        """Refuse a name that could lead out of the folder."""
        if not NAME.fullmatch(self.site):
            raise UsageError(f"site name {self.site!r} must be of a-z, 0-9 and single hyphens")

    @property
    def root(self) -> Path:
        """The folder of the site."""
        return home() / "sites" / self.site

    network = Below("root", "network")
    """Folder of the network user.

    It holds `join.toml`, `ca.crt` and `node.key`.
    """

    gate = Below("root", "gate")
    """Folder of the data user.

    It holds `approvals/`, `frozen/`, `starts/`, `excluded.csv`, `ledger.jsonl`, `receipts.jsonl` and `signing.key`.
    """

    link = Below("root", "link")
    """Folder that both users may enter.

    It holds `gate.sock`, `executor.secret`, and `terms.toml`, which is what the gate must know of the kit.
    """

    join = Below("network", "join.toml")
    """Settings from the kit and the site.

    What the kit gave and the site chose, as TOML.
    """

    @property
    def admission(self) -> Path:
        """Copy of the site's request for admission.

        The site sent it to the coordinator.
        """
        return self.network / f"{self.site}.admission"

    node_key = Below("network", "node.key")
    """The site's private key, made here; it never leaves."""

    node_id = Below("network", "node.id")
    """Node id at the coordinator's server.

    It is that of the node that ran last.
    """

    node_pulse = Below("network", "node.pulse")
    """Time of the node's last contact.

    The coordinator's server answered the node then.
    """

    gate_pulse = Below("gate", "gate.pulse")
    """Time when the gate last reached its node."""

    authority = Below("network", "ca.crt")
    """The certificate of the coordinator's authority."""

    socket = Below("link", "gate.sock")
    """Socket between the gate and the node.

    Here the gate reaches the node of the network user.
    """

    secret = Below("link", "executor.secret")
    """Secret shared by the gate and the node."""

    terms = Below("link", "terms.toml")
    """Terms of the kit for the gate, as TOML.

    They are the bundle's hash and the coordinator's public signing key.
    """

    signing_key = Below("gate", "signing.key")
    """The gate's private signing key, made here; it never leaves."""

    approvals = Below("gate", "approvals")
    """Folder of the approved studies.

    One JSON file a study, by its SHA-256.
    """

    starts = Below("gate", "starts")
    """Folder of the models that approved studies begin from.

    One file a model, by the `start-sha256` of a study's text.
    """

    frozen = Below("gate", "frozen")
    """Folder of the snapshots.

    One folder a dataset: the mapped rows that are served, and what is known of them.
    """

    incoming = Below("gate", "incoming")
    """Folder of the received requests.

    One folder a run: what the site was asked in its rounds, so that `site replay` can answer again.
    """

    results = Below("gate", "results")
    """Folder of the site's own comparison figures.

    One JSON file a run, with the figures as they left.
    """

    excluded = Below("gate", "excluded.csv")
    """Identifiers of people who opted out.

    They stand under the name of a column of the site's own table.
    """

    ledger = Below("gate", "ledger.jsonl")
    """Ledger of the outbound messages.

    One line each, sealed by the line before.
    """

    receipts = Below("gate", "receipts.jsonl")
    """The coordinator's signatures of the ledger's head."""

    def make(self) -> None:
        """Make the folders where they are absent.

        They are for their owner alone. The link is for its group too.
        """
        private_folder(self.root.parent)
        # Others may pass the root to reach the link, but cannot list it.
        for folder, mode in ((self.root, 0o711), (self.network, 0o700), (self.gate, 0o700), (self.link, 0o770)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)  # another process may have made it meanwhile
                folder.chmod(mode)
                # Root may make what a service's user must be able to enter.
                give(folder, folder.parent)
