"""Coordinator and sites of a rehearsal, with a home, keys and a ledger each in one folder.

Preparation of a rehearsal: its sites, the folders of their packages, and a folder of its own that is removed.

The real homes are only read.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.coordinator import admission, certificates, kits
from flfed.deployment.operator import join
from flfed.deployment.operator.secure_sums import pins_sites
from flfed.deployment.processes.child_processes import free_port
from flfed.deployment.processes.relay import check_length
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run_setting import LEAST_SITES
from flfed.files import locked, write_whole
from flfed.paths import CoordinatorFolder, SiteFolder, where
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.words import flfed_error, render, usage_error

TITLE = "Rehearsal on one machine"
"""Title of the coordinator, which each site's approvals and app show."""
OPERATOR = "automatic operator of a rehearsal"
"""Who decides at each site, as its approvals show it."""
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Rehearsal:
    """Consortium of a study in one folder.

    Attributes
    ----------
    folder : Path
        Of `rehearsal_folder`.
    study : Study
    sites : tuple of Site
        At least two.
    real : Path
        Home of this machine: its downloads and its lists of opt-outs are read.
    notify : callable
        Receives a sentence about each step.
    """

    folder: Path
    study: Study
    sites: tuple[Site, ...]
    real: Path
    notify: Notify

    @property
    def names(self) -> list[str]:
        """Names of the sites."""
        return [site.name for site in self.sites]

    @property
    def coordinator_home(self) -> Path:
        """Home of the coordinator."""
        return self.folder / COORDINATOR

    @property
    def exchange(self) -> Path:
        """Folder of the study and of the files that coordinator and sites would send to each other."""
        return self.folder / "exchange"

    @property
    def study_file(self) -> Path:
        """File with the text of the study, which every site approves."""
        return self.exchange / f"{self.study.name}.toml"

    def home(self, site: str) -> Path:
        """Return the home of a site; homes have numbers, since the path of a socket must be short."""
        return self.folder / str(1 + self.names.index(site))

    def homes(self) -> dict[str, object]:
        """Return the homes of coordinator and sites, for a program."""
        sites = {name: str(self.home(name)) for name in self.names}
        return {"coordinator": str(self.coordinator_home), "sites": sites}

    def take_in(self) -> dict[str, str]:
        """Set up the coordinator, and let every site join and be admitted; return the fingerprints of their gates."""
        for folder in (self.exchange, self.coordinator_home, *map(self.home, self.names)):
            folder.mkdir(mode=0o700)
        self.study_file.write_text(self.study.text, encoding="utf-8")
        with at_home(self.coordinator_home):
            settings = certificates.Settings(TITLE, f"localhost:{free_port()}")
            certificates.initialise(CoordinatorFolder.default(), settings)
        fingerprints = {}
        downloads = self.real / "data"
        for name in self.names:
            if downloads.is_dir():
                (self.home(name) / "data").symlink_to(downloads.absolute())
            with at_home(self.coordinator_home):
                kit = kits.invite(CoordinatorFolder.default(), name, to=self.exchange).file
            with at_home(self.home(name)):
                check_length(SiteFolder(name).socket)
                membership = join.join(kit, to=self.exchange)
                # People who opted out at this machine's site of this name opted out here, too.
                for path in (self.real / "sites" / name / "gate").glob("excluded*.csv"):
                    write_whole(SiteFolder(name).gate / path.name, path.read_bytes())
            with at_home(self.coordinator_home):
                admission.admit(CoordinatorFolder.default(), membership.admission)
            fingerprints[name] = membership.gate_key
        self.notify(render("rehearsal.steps.joined", sites=", ".join(self.names)))
        return fingerprints

    def partners(self, fingerprints: Mapping[str, str]) -> str:
        """Return all sites as `flfed site approve --with` takes them; with fingerprints where these are pinned."""
        if not pins_sites(self.study, len(self.names)):
            return ",".join(self.names)
        return ",".join(f"{name}={fingerprints[name]}" for name in self.names)


PREFIX = "flfed-r-"
LOCK = "rehearsal.lock"
STAYS = "stays"
"""Names of a rehearsal's folder, of the file that its process locks, and of the mark that the folder stays."""
NEW_SECONDS = 60.0
"""Age of a folder without the file that counts as left."""
LONGEST_BASE = 40
"""Longest path of the temporary folder: the name of a site's socket has 107 bytes at most."""
ELSEWHERE = ("FLFED_STORE", "FLFED_STORE_GROUP")
"""Settings that lead out of a home, to another run store."""
AGAIN_SECONDS = 0.2


def find_rehearsal_sites(study: Study) -> list[Site]:
    """Return the sites of a rehearsal: those that the study names, or all of its dataset that are here.

    Raises
    ------
    UsageError
        If the study cuts its dataset itself, or fewer than two sites are here.
    """
    if study.dataset.partition is not None:
        raise usage_error("rehearsal.refused.partition")
    sites = find_sites(study)
    if len(sites) < LEAST_SITES:
        raise usage_error("rehearsal.refused.sites", sites=", ".join(site.name for site in sites), least=LEAST_SITES)
    return sites


@contextmanager
def variables(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables of this process while the block runs; None removes one."""
    before = {name: os.environ.get(name) for name in changes}
    _set_variables(changes)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def at_home(home: Path) -> AbstractContextManager[None]:
    """Let this process have another home while the block runs."""
    return variables({"FLFED_HOME": str(home)})


@contextmanager
def naming_packages() -> Iterator[Path]:
    """Name the folders of site packages for the processes of a rehearsal; yield the real home of this machine.

    The folders are those of `FLFED_PATH` and the current one. The processes refuse a package that another account could
    change, wherever it is.
    """
    parts = [part for part in os.environ.get("FLFED_PATH", "").split(os.pathsep) if part]
    folders = dict.fromkeys(str(Path(part).absolute()) for part in [*parts, os.curdir])
    # No compiled file is written beside the packages.
    changes = {"FLFED_PATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        with variables(changes | dict.fromkeys(ELSEWHERE)):
            yield where()
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore the signals that end a program while the block ends others."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def rehearsal_folder(*, keep: bool, notify: Notify) -> Iterator[Path]:
    """Make a private folder for a rehearsal, which is removed after the block unless `keep`.

    Folders of rehearsals that were killed are removed first, and named to `notify`.
    """
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > LONGEST_BASE:
        base = Path("/tmp")
    for left in remove_leftovers(base):
        notify(render("rehearsal.steps.leftover", folder=left))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # of mode 700
    try:
        with locked(folder, LOCK, taken=render("rehearsal.refused.taken", folder=folder)):
            if keep:
                (folder / STAYS).touch()
            yield folder
    finally:
        if not keep:
            with undisturbed():
                remove_folder(folder)
                notify(render("rehearsal.end.removed", folder=folder))


def remove_leftovers(base: Path) -> list[Path]:
    """Remove the folders of this account's rehearsals that were killed; return them."""
    removed = []
    for folder in sorted(base.glob(f"{PREFIX}*")):
        # Another rehearsal may remove it at this moment.
        with suppress(FileNotFoundError):
            if not folder.is_symlink() and folder.stat().st_uid == os.geteuid() and _is_left(folder):
                remove_folder(folder)
                removed.append(folder)
    return removed


def _is_left(folder: Path) -> bool:
    """Return whether a rehearsal's process has ended and its folder was not to stay."""
    if (folder / STAYS).exists():
        return False
    # The lock ends with the process, however that ended.
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # a folder that is being made, or was removed in part
        return time.time() - folder.stat().st_mtime > NEW_SECONDS
    except OSError:
        return False
    return True


def remove_folder(folder: Path) -> None:
    """Remove a rehearsal's folder.

    Raises
    ------
    FlfedError
        If it cannot be removed: it has copies of rows.
    """
    for _ in range(10):
        # A link, such as that to the downloads, is removed and not followed.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(AGAIN_SECONDS)
    raise flfed_error("rehearsal.end.unremoved", folder=folder)
