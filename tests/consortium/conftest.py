"""A coordinator and its institutions on loopback by the commands of `flfed`: SuperLink, Caddy, TLS, a home each."""

import ctypes
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.deployment.coordinator.admission import admit
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.kits import invite
from flfed.deployment.operator.join import join
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.trusted_files import make_signing_key
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as site_packages
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from tests.machines import at, called, until

SITES = ("alpha", "beta", "gamma", "delta")
IN_ACCESS, IN_OPEN, IN_NONBLOCK = 0x1, 0x20, 0o4000
"""As linux/inotify.h has them."""
POLICY = 'format = 1\ndisclosure = "institution"\nstrategies = ["fedavg"]\n'
PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(name="{name}", dataset="small", source=Csv("rows.csv"), holdout=Holdout(salt="{name}"))
"""
SCHEMA = """
format = 1
name = "small"
task = "binary"
target = "y"
[columns.x1]
kind = "number"
range = [-10, 10]
[columns.x2]
kind = "number"
range = [-10, 10]
[columns.colour]
kind = "category"
values = ["red", "green"]
[columns.y]
kind = "target"
values = ["no", "yes"]
"""
STUDY = """
format = 1
name = "small"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
[model]
name = "logistic"
[plan]
lr = 0.1
epochs = 1
[strategy]
name = "fedavg"
rounds = 3
[compare]
resamples = 200
"""


class Machine:
    """One institution's machine: a home of its own, and what it started."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self.exchange, self.home = name, root / "exchange", root / name
        self.home.mkdir()
        self.log_file = root / f"{name}.log"
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.environment = {**os.environ, **quiet, "FLFED_HOME": str(self.home), "FLFED_PATH": str(root / "packages")}
        self.started: list[subprocess.Popen[Any]] = []

    def run(self, words: str, *, code: int = 0) -> str:
        """Return what a command says, on both streams; it is called in this process: no start to wait for."""
        found, out, err = called(shlex.split(words), self.environment, self.exchange)
        assert found == code, (words, out, err)
        return out + err

    def json(self, words: str) -> Any:
        return json.JSONDecoder().raw_decode(self.run(f"{words} --json"))[0]  # behind it stands what waiting said

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            made = subprocess.Popen(
                [str(word) for word in command], stdout=log, stderr=log, env=self.environment, cwd=self.exchange
            )
        self.started.append(made)
        return made

    def serve(self, words: str) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-c", "from flfed.cli import main; main()", *shlex.split(words))

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def gate(self) -> Path:
        return self.home / "sites" / self.name / "gate"

    def lines(self) -> list[dict[str, Any]]:
        path = self.gate / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def here(self) -> AbstractContextManager[None]:
        """Let this process be at the machine: its home, its packages."""
        return at(self.environment)

    def end(self) -> None:
        """End all that was started: what serves is killed, and the kernel kills what it had started."""
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait(60)


class Consortium:
    """The coordinator, who serves, and its sites, which have joined and been admitted; none serves yet."""

    def __init__(self, root: Path, sites: Sequence[str] = SITES) -> None:
        self.root = root
        for folder in ("exchange", "packages/datasets/small", *(f"packages/sites/{name}" for name in sites)):
            (root / folder).mkdir(parents=True)
        (root / "packages/datasets/small/schema.toml").write_text(SCHEMA)
        source = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
        (root / "packages/datasets/small/source.toml").write_text(source)
        for number, name in enumerate(sites):
            folder = root / "packages/sites" / name
            (folder / "__init__.py").write_text(PACKAGE.format(name=name))
            (folder / "policy.toml").write_text(POLICY)
            table(120 + 10 * number, seed=number).to_csv(folder / "rows.csv", index=False)
        self.coordinator = Machine(root, "coordinator")
        self.sites = {name: Machine(root, name) for name in sites}

    def begin(self, later: Sequence[str], *, serve: bool = True, admit_all: bool = True) -> None:
        """Make the coordinator, let it serve, and let every site join and be admitted but those that do so `later`."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        with self.coordinator.here():
            initialise(CoordinatorFolder.default(), Settings("Test consortium", f"localhost:{self.port}"))
        if serve:
            self.serve()
        admissions = [self.join(name) for name in sorted(set(self.sites) - set(later))]
        for admission in admissions if admit_all else ():
            self.admit(admission)

    def serve(self) -> None:
        """Let the coordinator serve."""
        self.coordinator.serve("coordinator serve --listen 127.0.0.1")

    def join(self, name: str) -> Path:
        """Invite a site, and let it join; return what it sends back."""
        exchange = self.root / "exchange"
        with self.coordinator.here():
            kit = invite(CoordinatorFolder.default(), name, to=exchange).file
        with self.sites[name].here():
            return join(kit, to=exchange).admission

    def admit(self, admission: Path) -> None:
        """Admit a site by what it sent back."""
        with self.coordinator.here():
            admit(CoordinatorFolder.default(), admission)

    def study(self, *changes: tuple[str, str]) -> str:
        """Return the study's text with some of it replaced."""
        text = STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return text

    def file(self, text: str) -> Path:
        path = self.root / "exchange" / f"study-{abs(hash(text))}.toml"
        path.write_text(text)
        return path

    def pins(self, names: Sequence[str]) -> dict[str, str]:
        """Return the fingerprints of some sites' gates, as their people read them out."""
        found = {}
        for name in names:
            with self.sites[name].here():
                found[name] = make_signing_key(SiteFolder(name))[0]
        return found

    def approve(self, name: str, text: str, co_sites: Sequence[str], **more: Any) -> None:
        """Write an approval down as a person's is, also such as would be there of an earlier day or policy."""
        with self.sites[name].here():
            folder, site, dataset = SiteFolder(name), site_packages.load(name), datasets.load("small")
            folder.make()
            if not (folder.frozen / "small").is_dir():
                snapshot.freeze(site, folder.frozen, None)
            facts = snapshot.read_facts(site, folder.frozen)
            assert facts is not None
            others = [other for other in co_sites if other != name]
            given: dict[str, Any] = {"rows_sha256": facts.sha256, "schema_sha256": dataset.schema.sha256()}
            study = Study.parse(text)
            given["co_sites"] = others
            approval.approve(folder, study, by="Dr Kim", **{**given, **more})

    def allow_every_strategy(self, name: str) -> None:
        """Let a site's policy name no strategies: all that flfed ships are allowed then."""
        policy = self.root / "packages" / "sites" / name / "policy.toml"
        policy.write_text(policy.read_text().replace('strategies = ["fedavg"]\n', ""))

    def rows(self, name: str) -> Path:
        """Return the file of the frozen rows of a site, without those that rest."""
        files = (self.sites[name].gate / "frozen" / "small").glob("*.parquet")
        (found,) = (file for file in files if not file.name.startswith("withheld-"))
        return found

    def online(self, count: int) -> None:
        """Wait until so many sites are online at the server."""

        def there() -> bool:
            machine = self.coordinator
            code, out, _ = called(["coordinator", "status", "--json"], machine.environment, machine.exchange)
            sites = json.loads(out)["sites"] if code == 0 else []
            return sum(bool(site["online-since"]) for site in sites) == count

        machines = (self.coordinator, *self.sites.values())
        until(f"{count} sites", there, every=0.5, said=lambda: "".join(machine.log() for machine in machines))

    def end(self) -> None:
        for machine in (*self.sites.values(), self.coordinator):
            machine.end()


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(0, 1, rows), rng.normal(0, 1, rows)
    colour = rng.choice(["red", "green"], rows)
    y = np.where(rng.random(rows) < 1 / (1 + np.exp(-x1 - x2 - (colour == "red"))), "yes", "no")
    return pd.DataFrame({"x1": x1.clip(-9, 9).round(6), "x2": x2.clip(-9, 9).round(6), "colour": colour, "y": y})


@pytest.fixture(scope="module")
def consortium(request: pytest.FixtureRequest) -> Iterator[Consortium]:
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        made = Consortium(Path(folder), getattr(request.module, "MEMBERS", SITES))
        try:
            made.begin(getattr(request.module, "LATER", ()))
            yield made
        finally:
            made.end()


class Watched:
    """Counts how often files are opened or read, by whatever process, as the kernel tells it (inotify)."""

    def __init__(self, paths: list[Path]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._file = self._library.inotify_init1(IN_NONBLOCK)
        for path in paths:
            assert self._library.inotify_add_watch(self._file, os.fsencode(path), IN_OPEN | IN_ACCESS) > 0, path

    def count(self) -> int:
        """Return how often since the last look."""
        try:
            return len(os.read(self._file, 65_536)) // 16
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self._file)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture
def watch() -> Iterator[Callable[[list[Path]], Watched]]:
    """A function that watches files until the test ends."""
    made: list[Watched] = []

    def go(paths: list[Path]) -> Watched:
        made.append(Watched(paths))
        return made[-1]

    yield go
    for one in made:
        one.close()
