"""Rehearsal of a consortium: its coordinator and all of its sites as real processes of this machine.

Each has a home of its own in one private temporary folder, which has keys, ledgers and a copy of each site's rows. The
real homes are only read. All processes end with the one that rehearses: the kernel kills them where it is killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.coordinator import admission, certificates, kits
from flfed.deployment.coordinator.proxy import find_caddy
from flfed.deployment.coordinator.status import status
from flfed.deployment.operator import join
from flfed.deployment.operator.secure_sums import has_sums
from flfed.deployment.processes.child_processes import free_port
from flfed.deployment.processes.relay import check_length
from flfed.deployment.processes.supervisor import Child, Supervisor
from flfed.errors import counted
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run_setting import LEAST_SITES
from flfed.files import locked, write_whole
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.words import flfed_error, render, usage_error

TITLE = "Rehearsal on one machine"
"""Title of the coordinator, which each site's approvals and app show."""
OPERATOR = "automatic operator of a rehearsal"
"""Who decides at each site, as its approvals show it."""
PREFIX = "flfed-r-"
LOCK = "rehearsal.lock"
KEPT = "kept"
"""Names of a rehearsal's folder, of the file that its process locks, and of the mark that the folder stays."""
NEW_SECONDS = 60.0
"""Age of a folder without the file that counts as left."""
LONGEST_BASE = 40
"""Longest path of the temporary folder: the name of a site's socket has 107 bytes at most."""
ELSEWHERE = ("FLFED_STORE", "FLFED_STORE_GROUP", "FLFED_ROLES")
"""Settings that lead out of a home: to another run store, and to the people who may log in."""
FLFED = (sys.executable, "-P", "-c", "from flfed.cli import main; main()")
COORDINATOR = "coordinator"
ADDRESS = re.compile(r"^Open (http\S+)$", re.MULTILINE)
"""Line in which an app prints its address."""
ONLINE_SECONDS = 120.0
APP_SECONDS = 60.0
LOOK_SECONDS = 0.2
Look = Callable[[], None]
"""Raises where a process of the rehearsal has ended."""
PATIENCE_SECONDS = 30.0
"""How long a process may take to end: it ends up to two others first, with ten seconds each."""


def find_rehearsal_sites(study: Study) -> list[Site]:
    """Return the sites of a rehearsal: those that the study names, or all of its dataset that are here.

    Raises
    ------
    UsageError, FlfedError
        If Caddy is not installed, the study cuts its dataset itself, or fewer than two sites are here.
    """
    find_caddy()
    if study.dataset.partition is not None:
        raise usage_error("coordinator.sites.partition")
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
def naming_packages() -> Iterator[None]:
    """Name the folders of site packages for the processes of a rehearsal, and the settings of this machine's homes.

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
            yield
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
                (folder / KEPT).touch()
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
        if not folder.is_symlink() and folder.stat().st_uid == os.geteuid() and _is_left(folder):
            remove_folder(folder)
            removed.append(folder)
    return removed


def _is_left(folder: Path) -> bool:
    """Return whether a rehearsal's process has ended and its folder was not to stay."""
    if (folder / KEPT).exists():
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
        time.sleep(LOOK_SECONDS)
    raise flfed_error("rehearsal.end.unremoved", folder=folder)


@contextmanager
def supervised(children: Sequence[Child], notify: Notify) -> Iterator[Look]:
    """Run processes while the block runs; yield a function that raises where one of them has ended."""
    with Supervisor(children, patience=PATIENCE_SECONDS) as supervisor:
        try:
            yield partial(_look, supervisor, children)
        finally:
            with undisturbed():
                notify(render("rehearsal.steps.ending", commands=counted(len(children), "command")))
                # All but the first, which is the coordinator, end at the same time.
                pids = list(supervisor.processes.values())
                for pid in pids[1:]:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGTERM)
                supervisor.end()


def _look(supervisor: Supervisor, children: Sequence[Child]) -> None:
    supervisor.look()
    for child in children:
        if child.name not in supervisor.processes:
            lines = child.log.read_text(errors="replace").splitlines() if child.log.exists() else []
            raise flfed_error("rehearsal.refused.ended", command=child.name, why=" ".join(lines[-1:]))


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

    def take_in(self) -> dict[str, str]:
        """Set up the coordinator, and let every site join and be admitted; return the fingerprints of their gates."""
        for folder in (self.exchange, self.coordinator_home, *map(self.home, self.names)):
            folder.mkdir(mode=0o700)
        self.study_file.write_text(self.study.text, encoding="utf-8")
        with at_home(self.coordinator_home):
            settings = certificates.Settings(TITLE, f"localhost:{free_port()}")
            certificates.initialise(CoordinatorFolder.default(), settings)
        fingerprints = {}
        for name in self.names:
            self._link_downloads(name)
            with at_home(self.coordinator_home):
                kit = kits.invite(CoordinatorFolder.default(), name, to=self.exchange).file
            with at_home(self.home(name)):
                check_length(SiteFolder(name).socket)
                membership = join.join(kit, to=self.exchange)
                self._copy_opt_outs(name)
            with at_home(self.coordinator_home):
                admission.admit(CoordinatorFolder.default(), membership.admission)
            fingerprints[name] = membership.gate_key
        self.notify(render("rehearsal.steps.joined", sites=", ".join(self.names)))
        return fingerprints

    def _link_downloads(self, name: str) -> None:
        """Let a site read the downloads of this machine."""
        downloads = self.real / "data"
        if downloads.is_dir():
            (self.home(name) / "data").symlink_to(downloads.absolute())

    def _copy_opt_outs(self, name: str) -> None:
        """Copy the lists of people who opted out at this machine's site of this name: they opted out here, too."""
        gate = self.real / "sites" / name / "gate"
        own = SiteFolder(name).gate
        for path in gate.glob("excluded*.csv"):
            write_whole(own / path.name, path.read_bytes())

    def partners(self, fingerprints: Mapping[str, str]) -> str:
        """Return all sites as `flfed site approve --with` takes them; with fingerprints under secure aggregation."""
        if not has_sums(self.study, len(self.names)):
            return ",".join(self.names)
        return ",".join(f"{name}={fingerprints[name]}" for name in self.names)

    @contextmanager
    def serving(self) -> Iterator[Look]:
        """Let coordinator and sites serve while the block runs, which begins when all sites are online.

        Raises
        ------
        FlfedError
            If a process ends, or a site is not online in time.
        """
        children = [self._child(self.coordinator_home, "coordinator", "serve", "--listen", "127.0.0.1")]
        children += [self._child(self.home(name), "site", "serve", name) for name in self.names]
        self.notify(render("rehearsal.steps.starting", commands=counted(len(children), "command")))
        with supervised(children, self.notify) as look:
            self._wait_online(look)
            yield look

    def _child(self, home: Path, *words: str) -> Child:
        """Return a process that runs a command of flfed at a home."""
        environment = {"FLFED_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        return Child(" ".join(["flfed", *words]), (*FLFED, *words), self.folder / f"{home.name}.log", environment)

    def _wait_online(self, look: Look) -> None:
        end = time.monotonic() + ONLINE_SECONDS
        online: list[str] = []
        serving = False
        while len(online) < len(self.names):
            if time.monotonic() > end:
                missing = ", ".join(name for name in self.names if name not in online)
                raise flfed_error("rehearsal.refused.offline", sites=missing, seconds=ONLINE_SECONDS)
            time.sleep(LOOK_SECONDS)
            look()
            with at_home(self.coordinator_home):
                now = status(CoordinatorFolder.default())
            if now.serving and not serving:
                serving = True
                self.notify(render("rehearsal.steps.serving", address=now.address))
            there = [site.site for site in now.sites if site.online_since]
            online = [name for name in online if name in there]
            for name in sorted(set(there) - set(online)):
                online.append(name)
                self.notify(render("rehearsal.steps.online", site=name, count=len(online), of=len(self.names)))

    def note(self) -> None:
        """Write into the record of the run that it was a rehearsal."""
        with at_home(self.coordinator_home):
            with RunReader.open() as reader:
                runs = [entry.run for entry in reader.runs()]
            with RunStore.open() as store:
                store.note(runs, render("rehearsal.record.note"), by=OPERATOR)

    @contextmanager
    def apps(self) -> Iterator[tuple[Look, list[str]]]:
        """Serve the app of the coordinator and that of the first site while the block runs; yield their addresses, too.

        Raises
        ------
        FlfedError
            If an app ends, or is not there in time.
        """
        options = ("--headless", "--port")
        first = self.names[0]
        children = [
            self._child(self.coordinator_home, "app", *options, str(free_port())),
            self._child(self.home(first), "site", "app", first, *options, str(free_port())),
        ]
        with supervised(children, self.notify) as look:
            yield look, [self._wait_address(look, child) for child in children]

    def _wait_address(self, look: Look, child: Child) -> str:
        """Return the address that an app prints."""
        end = time.monotonic() + APP_SECONDS
        while time.monotonic() < end:
            look()
            if child.log.exists() and (address := ADDRESS.search(child.log.read_text(errors="replace"))):
                return address[1]
            time.sleep(LOOK_SECONDS)
        raise flfed_error("rehearsal.refused.app", command=child.name, seconds=APP_SECONDS)
