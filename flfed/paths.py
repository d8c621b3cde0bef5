"""The private data folder of flfed, and paths of a coordinator's and a site's files in it."""

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
    """Return the private data folder, which is made if absent: downloads, checkpoints, site state and `runs.db`.

    It is `FLFED_HOME` if set, otherwise `flfed` in the user's data folder of the operating system.
    """
    path = where()
    try:
        private_folder(path)
    except OSError as error:
        raise UsageError(f"FLFED_HOME: {path} cannot be used as a folder ({error.strerror}); set another") from None
    # A folder may exist and be unusable for this account.
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"FLFED_HOME: {path} cannot be read and written by this user; set another")
    return path


def where() -> Path:
    """Return the path of the data folder, which need not exist or be usable.

    Raises
    ------
    UsageError
        If this user has no home folder.
    """
    folder = os.environ.get("FLFED_HOME")
    try:
        return Path(folder).expanduser() if folder else _user_data() / "flfed"
    except RuntimeError:
        raise UsageError("FLFED_HOME: this user has no home folder; set it to another folder") from None


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, whatever the umask is.

    The mode of an existing folder is corrected, unless it belongs to another account or has the sticky bit (`/tmp`).

    Raises
    ------
    OSError
        If it cannot be made.
    """
    if not path.is_dir():
        for absent in reversed([above for above in (path, *path.parents) if not above.is_dir()]):
            absent.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
    # A shared folder such as /tmp must remain open for everybody else.
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
    """Write a new private file, about single rows.

    Parameters
    ----------
    path : Path
    text : str
    advice : str
        Advice if it cannot be written.

    Raises
    ------
    UsageError
        If the file is already there, or its folder is missing.
    FlfedError
        If writing fails; the part is removed.
    """
    try:
        # An exclusive open follows no link and replaces no file.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: is already there; it is not replaced") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): {advice}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None


PART = ".part-"
"""Prefix of the name of an unfinished file."""
Content = bytes | Iterable[bytes | memoryview]
"""Content of a file: in one piece, or in several that need not be in memory together."""


def replace_whole(path: Path, content: Content, *, mode: int = 0o600) -> None:
    """Write or replace a file atomically: a reader, or a crash, meets the old file or the new one.

    A file written by root gets the owner of its folder.

    Raises
    ------
    OSError
        If it cannot be written; the old file remains, and nothing else.
    """
    handle, part = tempfile.mkstemp(prefix=PART, dir=path.parent)  # of mode 600
    try:
        with os.fdopen(handle, "wb") as stream:
            pieces = [content] if isinstance(content, bytes) else content
            stream.writelines(pieces)
            stream.flush()
            give(handle, path.parent)
            # Owner and mode are set before the name appears, so that no reader meets wrong ones.
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(part, path)
    except BaseException:  # removed also after Ctrl-C, since it may have sums of sites
        Path(part).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder to the disk: a new name in it survives a power cut only then."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def give(file: int | Path, folder: Path) -> None:
    """Give an open file or a new folder of root to the owner of its parent folder."""
    owner = folder.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        # Not the target of a link, which another account may have placed there meanwhile.
        os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(file, int))


def make_for_owner(folder: Path) -> None:
    """Make a private folder where it is absent; one that root makes gets the owner of the folder above."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        give(folder, folder.parent)


class Below:
    """Path below another path of the same object.

    Parameters
    ----------
    above : str
        Attribute with the upper path.
    name : str
        Name of the file or folder in it.
    """

    def __init__(self, above: str, name: str) -> None:
        self._above = above
        self._name = name

    def __get__(self, owner: object, kind: type) -> Path:
        """Return the path for an object."""
        above: Path = getattr(owner, self._above)
        return above / self._name


@dataclass(frozen=True)
class CoordinatorFolder:
    """Private folder of the coordinator: `coordinator` under `FLFED_HOME`.

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

    It has `ca.key`, `ca.crt`, `server.key`, `server.crt`, `signing.key`.
    """

    sites = Below("root", "sites")
    """Folder of registrations, one JSON file a site: state, times, public key and node id."""

    log = Below("root", "log.jsonl")
    """Log of invitations, admissions, refusals and revocations, one JSON line each."""

    server = Below("root", "server")
    """Folder of the running server: Flower's database, logs, Caddyfile, `executor.secret`, process ids."""

    heads = Below("root", "heads.json")
    """Where each site's ledger ended at its last enrolment, and which breaks of it people acknowledged."""

    def make(self) -> None:
        """Make absent folders, as private ones."""
        # The operator's mode of an existing folder is not changed.
        for folder in (self.root, self.keys, self.sites, self.server):
            if not folder.is_dir():
                folder.mkdir(parents=True, mode=0o700)
                folder.chmod(0o700)


def joined_sites() -> list[str]:
    """Return the names of the sites that have joined in this home, in order."""
    return sorted(path.parent.parent.name for path in (home() / "sites").glob("*/network/join.toml"))


NAME = re.compile(r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*")
"""A site's name."""
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
"""A run's name, which can name a folder."""
ANSWERING = "answering.lock"
"""Lock in the gate's folder: several processes may answer at once, and none while files of a run are erased."""


@dataclass(frozen=True)
class SiteFolder:
    """The folders of one site, under `FLFED_HOME`.

    Parameters
    ----------
    site : str
        The site's name.

    Notes
    -----
    `network` belongs to the user with the network (and no data), `gate` to the user with the data (and no network).
    Both may enter `link`, which has the socket between them.
    """

    site: str

    def __post_init__(self) -> None:
        """Refuse a name that could leave the folder."""
        if not NAME.fullmatch(self.site):
            raise UsageError(f"site name {self.site!r} must be of a-z, 0-9 and single hyphens")

    @property
    def root(self) -> Path:
        """The folder of the site."""
        return home() / "sites" / self.site

    network = Below("root", "network")
    """Folder of the network user, with `join.toml`, `ca.crt` and `node.key`."""

    gate = Below("root", "gate")
    """Folder of the data user, with approvals, snapshots, models to start from, ledger, state and keys."""

    link = Below("root", "link")
    """Folder that both users may enter, with `gate.sock`, `executor.secret` and `terms.toml`."""

    join = Below("network", "join.toml")
    """Settings from the kit and the site, as TOML."""

    @property
    def admission(self) -> Path:
        """Copy of the site's request for admission, as sent to the coordinator."""
        return self.network / f"{self.site}.admission"

    node_key = Below("network", "node.key")
    """The site's private key, made here; it never leaves."""

    node_id = Below("network", "node.id")
    """Id of the last node at the coordinator's server."""

    node_pulse = Below("network", "node.pulse")
    """Time of the last reply of the coordinator's server to the node."""

    gate_pulse = Below("gate", "gate.pulse")
    """Time of the gate's last contact with its node."""

    authority = Below("network", "ca.crt")
    """The certificate of the coordinator's authority."""

    proxy = Below("network", "proxy.toml")
    """The outbound proxy of the node, with its password, as TOML."""

    socket = Below("link", "gate.sock")
    """Socket between the gate and the node."""

    secret = Below("link", "executor.secret")
    """Secret shared by the gate and the node."""

    clock = Below("link", "clock")
    """By how many seconds this machine's clock is off the server's, as the node found; absent where it is right."""

    download_pulse = Below("link", "download.pulse")
    """Time at which the node last received a piece of a message that the gate waits for."""

    terms = Below("link", "terms.toml")
    """Terms of the kit for the gate, as TOML: the coordinator's title and its public signing key."""

    signing_key = Below("gate", "signing.key")
    """The gate's private signing key, made here; it never leaves."""

    compared_cards = Below("gate", "cards.json")
    """The fingerprint of the list of cards that people here compared, and the sites that read it out."""

    approvals = Below("gate", "approvals")
    """Folder of approved studies, one JSON file a study, by its SHA-256."""

    starts = Below("gate", "starts")
    """Folder of models from which approved studies begin, one file a model, by `start-sha256`."""

    frozen = Below("gate", "frozen")
    """Folder of snapshots, one folder a dataset: the mapped rows that are served, and facts about them."""

    results = Below("gate", "results")
    """Folder of the site's own comparison figures as they left, one JSON file a run."""

    excluded = Below("gate", "excluded.csv")
    """Identifiers of people who opted out, under the name of a column of the site's own table."""

    ledger = Below("gate", "ledger.jsonl")
    """Ledger of outbound messages, one line each, with the hash of the line before."""

    state = Below("gate", "state.db")
    """What the site answered and has spent, and where its ledger ends."""

    states = Below("root", "runs")
    """The site's state of each run, with its last replies."""

    models = Below("root", "models")
    """Folder of the last models of runs, one file a run and repeat."""

    def make(self) -> None:
        """Make absent folders, as private ones; the group may enter the link, too."""
        private_folder(self.root.parent)
        # Other accounts may pass through the root to the link, but cannot list it.
        for folder, mode in ((self.root, 0o711), (self.network, 0o700), (self.gate, 0o700), (self.link, 0o770)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)  # another process may have made it meanwhile
                folder.chmod(mode)
                # The user of a service must be able to enter a folder that root makes.
                give(folder, folder.parent)
