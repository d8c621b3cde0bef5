"""`flfed rehearse` before any server starts: what it refuses, what it makes, and what it reads of the real home."""

import fcntl
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.cli.rehearse import StepLines
from flfed.deployment.coordinator import proxy
from flfed.deployment.operator.secure_sums import read_sites
from flfed.deployment.processes.supervisor import Child
from flfed.deployment.rehearsal import consortium
from flfed.deployment.rehearsal.consortium import Rehearsal
from flfed.deployment.rehearsal.serving import supervised
from flfed.errors import FlfedError
from flfed.files import locked
from flfed.paths import SiteFolder
from flfed.rows.data import site_discovery
from flfed.study.study import Study

LENDERS = ("midwest-lender", "northeast-lender")
ALONE = ("--set", 'dataset.sites=["midwest-lender"]')
UNKNOWN = ("--set", 'dataset.sites=["midwest-lender","north-lender"]')
PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(name="{name}", dataset="small", source=Csv("rows.csv"), holdout=Holdout(salt="{name}"))
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="base-") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


@pytest.fixture
def packages(tmp_path: Path, small_study: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three sites of which one allows no strategy of the study, and the study."""
    (tmp_path / "datasets/small").mkdir(parents=True)
    schema = (
        'format = 1\nname = "small"\ntask = "binary"\ntarget = "y"\n[columns.x1]\nkind = "number"\nrange = [0, 1]\n'
    )
    (tmp_path / "datasets/small/schema.toml").write_text(schema + '[columns.y]\nkind = "target"\nvalues = ["a", "b"]\n')
    source = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
    (tmp_path / "datasets/small/source.toml").write_text(source)
    for name, strategy in (("alpha", "fedavg"), ("beta", "scaffold"), ("gamma", "fedavg")):
        folder = tmp_path / "sites" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(PACKAGE.format(name=name))
        policy = f'format = 1\ndisclosure = "institution"\nstrategies = ["{strategy}"]\n'
        (folder / "policy.toml").write_text(policy)
        (folder / "rows.csv").write_text("x1,y\n0.5,a\n")
    (tmp_path / "small.toml").write_text(small_study)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["breast-cancer"], "needs a table for each site, as in: flfed rehearse preterm-birth"),
        (["loan-default", *ALONE], "needs at least 2 sites; here is: midwest-lender"),
        (["loan-default", *UNKNOWN], "site 'north-lender' is not known"),
        (["loan-defalt"], "loan-defalt"),
    ],
    ids=["cut", "one site", "unknown site", "unknown study"],
)  # fmt: skip
def test_a_study_that_cannot_be_rehearsed_is_refused_before_a_folder_is_made(flfed, base: Path, words, why: str):
    code, out, err = flfed("rehearse", *words)
    assert (code, out, list(base.iterdir())) == (2, "", []) and why in err


def test_without_caddy_its_package_is_named_before_a_folder_is_made(flfed, base: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(base))
    monkeypatch.setattr(proxy, "PROGRAM_FOLDERS", ())
    code, _, err = flfed("rehearse", "loan-default")
    assert (code, list(base.iterdir())) == (1, []) and "apt-get install caddy" in err


def test_a_policy_that_refuses_the_study_is_named_before_a_folder_is_made(flfed, base: Path, packages: Path):
    before = sorted(packages.rglob("*"))
    code, _, err = flfed("rehearse", "small.toml")
    assert (code, list(base.iterdir())) == (2, []) and "site 'beta' would not answer this study" in err
    assert sorted(packages.rglob("*")) == before  # no compiled file beside a package


def test_a_package_that_another_account_could_change_is_not_run(flfed, base: Path, packages: Path):
    (packages / "sites/beta/__init__.py").chmod(0o666)
    code, _, err = flfed("rehearse", "small.toml", "--set", 'dataset.sites=["alpha","beta"]')
    assert (code, list(base.iterdir())) == (2, []) and "others could then choose the code" in err


def test_folders_of_killed_rehearsals_are_removed_and_no_others(base: Path):
    names = ("killed", "kept", "alive", "in-part", "new")
    folders = {name: base / f"{consortium.PREFIX}{name}" for name in names}
    for name, folder in folders.items():
        folder.mkdir(mode=0o700)
        if name not in ("in-part", "new"):
            (folder / consortium.LOCK).touch()
    (folders["kept"] / consortium.STAYS).touch()
    os.utime(folders["in-part"], (time.time() - 90, time.time() - 90))
    (base / f"{consortium.PREFIX}link").symlink_to(base)
    with locked(folders["alive"], consortium.LOCK):
        assert consortium.remove_leftovers(base) == [folders["in-part"], folders["killed"]]
    assert sorted(name for name, folder in folders.items() if folder.is_dir()) == ["alive", "kept", "new"]


class Emptied(type(Path())):
    """A temporary folder of which another rehearsal removes what was just listed."""

    def glob(self, pattern: str) -> Iterator[Path]:
        listed = list(Path(self).glob(pattern))
        for folder in listed:
            folder.rmdir()
        return iter(listed)


def test_a_folder_that_another_rehearsal_removes_at_that_moment_is_passed_over(base: Path):
    (base / f"{consortium.PREFIX}gone").mkdir(mode=0o700)
    assert consortium.remove_leftovers(Emptied(base)) == [] and list(base.iterdir()) == []


@pytest.mark.parametrize("keep", [False, True], ids=["removed", "kept"])
def test_the_folder_is_private_and_locked_and_goes_with_the_block(base: Path, keep: bool):
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), consortium.rehearsal_folder(keep=keep, notify=said.append) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.parent == base
        with (folder / consortium.LOCK).open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise KeyboardInterrupt
    assert folder.exists() == keep == (said == [])


def test_sites_join_with_the_opt_outs_and_downloads_of_this_machine_and_its_home_is_as_before(base: Path, home: Path):
    gate = SiteFolder(LENDERS[0]).gate
    gate.mkdir(parents=True)
    (gate / "excluded.csv").write_text("loan_id\n17\n")
    (gate / "ledger.jsonl").write_text("a real ledger\n")
    (home / "data").mkdir()
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    sites = tuple(site_discovery.load(name) for name in LENDERS)
    said: list[str] = []
    with consortium.rehearsal_folder(keep=False, notify=said.append) as folder:
        rehearsal = Rehearsal(folder, Study.load("loan-default"), sites, home, said.append)
        fingerprints = rehearsal.take_in()
        copies = [rehearsal.home(name) / "sites" / name / "gate/excluded.csv" for name in LENDERS]
        assert copies[0].read_text() == "loan_id\n17\n" and not copies[1].exists()
        assert not (copies[0].parent / "ledger.jsonl").exists()
        assert (rehearsal.home(LENDERS[1]) / "data").resolve() == (home / "data").resolve()
        assert rehearsal.partners(fingerprints) == ",".join(LENDERS)
        study = Study.load("loan-default").replace({"privacy.secure-aggregation": "on"})
        summed = Rehearsal(folder, study, sites, home, said.append)
        assert read_sites(summed.partners(fingerprints)) == fingerprints and len(set(fingerprints.values())) == 2
    assert os.environ["FLFED_HOME"] == str(home)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_no_step_is_silent_for_longer_than_five_seconds(capsys: pytest.CaptureFixture[str]):
    now = 0.0
    lines = StepLines(lambda: now)
    lines.step("Starting 3 commands that serve.")
    for second in range(1, 10):
        now = float(second)
        lines.look()
    lines.show_stage("rounds", 3, 20)
    now = 14.0
    lines.look()
    lines.pause()
    now = 60.0
    lines.look()
    assert capsys.readouterr().err.splitlines() == [
        "Starting 3 commands that serve.",
        "… Starting 3 commands that serve (4 s)",
        "… Starting 3 commands that serve (8 s)",
        "… Starting 3 commands that serve: rounds, 3 of 20 (14 s)",
    ]


def test_the_signals_that_end_a_program_wait_while_it_ends_others():
    before = signal.getsignal(signal.SIGTERM)
    with consortium.undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_ends_is_named_with_its_last_line(base: Path):
    # The message of an error of a library may quote a cell, over several lines; flfed's own sentences do not.
    trace = (
        r"Traceback (most recent call last):\n  File x, line 1\n    f(cell)\nkit.BadError: Jane\nRoe\nflfed: no port\n"
    )
    script = f"seq 20; printf '{trace}'; exit 1".replace("File x", 'File "x"')
    child = Child("flfed site serve north", ("sh", "-c", script), base / "1.log")
    said: list[str] = []
    with (
        pytest.raises(FlfedError, match="flfed site serve north ended: flfed: no port"),
        supervised([child], said.append) as look,
    ):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            look()
            time.sleep(0.1)
    shown = [*map(str, range(10, 21)), "Traceback (most recent call last):", '  File "x", line 1', "kit.BadError"]
    assert said == [
        "\n".join(["The last lines of flfed site serve north:", *shown, "flfed: no port"]),
        "Ending 1 command.",
    ]
    assert subprocess.run(["pgrep", "-f", str(base)], check=False, capture_output=True).stdout == b""


def test_processes_end_undisturbed_where_the_terminal_takes_no_line_and_hangs_up(base: Path):
    def hang_up(*_: object) -> None:
        raise AssertionError("the end of the processes was disturbed")

    def write(sentence: str) -> None:
        raise OSError(5, "Input/output error")

    script = f"trap 'kill -HUP {os.getpid()}; exit' TERM; touch $0; while :; do sleep 0.1; done"
    children = [Child(name, ("sh", "-c", script, str(base / name)), base / f"{name}.log") for name in ("0", "1", "2")]
    before = signal.signal(signal.SIGHUP, hang_up)
    try:
        with pytest.raises(OSError, match="Input/output"), supervised(children, write):
            end = time.monotonic() + 60
            while not all((base / child.name).exists() for child in children) and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert subprocess.run(["pgrep", "-f", str(base)], check=False, capture_output=True).stdout == b""
