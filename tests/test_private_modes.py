"""What flfed writes is its owner's alone, also where the umask takes nothing away: another account reads no byte."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.paths import home as the_home
from tests.another_account import NOBODY, account
from tests.browser import free_port

FLFED = """
import os, sys
os.umask(int(sys.argv[1]))
from pathlib import Path
from flfed.cli import main
from flfed.signatures import fingerprint
for words in sys.argv[2:]:
    if "READ-OUT" in words:
        import json
        key = json.loads(Path("kentucky-clinic.admission").read_text())["public-key"]
        words = words.replace("READ-OUT", fingerprint(key))
    sys.argv = ["flfed", *words.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: {end.code}")
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
ledger_of(SiteFolder("kentucky-clinic")).append(kind="train", study="s", run="r", round=1, bytes=1)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flfed-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "home").mkdir(mode=0o755)  # as an earlier version left it
        yield Path(folder)


def run(*commands: str, at: Path, mask: int) -> None:
    """Run commands of flfed in one process, which then writes a line of a ledger."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", FLFED, str(mask), *commands],
        env={**os.environ, "FLFED_HOME": str(at / "home")}, cwd=at, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)


@needs_root
@pytest.mark.servers
@pytest.mark.parametrize("mask", [pytest.param(0o022, marks=pytest.mark.proof), 0o000])
def test_another_account_reads_no_byte_of_store_runs_sites_kits_and_ledgers(place: Path, mask: int):
    run(
        "study run preterm-birth --set rounds=2",
        f"coordinator init --title T --address localhost:{free_port()}",
        "coordinator invite kentucky-clinic",
        "site join kentucky-clinic.kit.zip",
        "coordinator admit kentucky-clinic.admission --fingerprint kentucky-clinic=READ-OUT",
        "site approve preterm-birth --site kentucky-clinic --with ward-b --yes",
        at=place, mask=mask,
    )  # fmt: skip
    own = place / "home"
    there = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    for part in ("runs.db", "runs/", "sites/kentucky-clinic/gate/ledger.jsonl", "sites/kentucky-clinic/gate/frozen/"):
        assert any(name.startswith(f"home/{part}") for name in there), part
    assert "kentucky-clinic.kit.zip" in there and "home/coordinator/keys/signing.key" in there
    # Not by the closed home alone: no file in it, nor a folder on the way to one, would be open without it.
    # (What the two users of a gate share is open to their group.)
    files = [path for path in own.rglob("*") if path.is_file() and "link" not in path.parts]
    assert {name: mode for name in files if (mode := stat.S_IMODE(name.stat().st_mode)) & 0o077} == {}
    for folder in (own, own / "runs", *(own / "runs").iterdir(), own / "sites", own / "coordinator"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for look in ("-readable", "-writable"):
        words = ["find", str(place), "-type", "f", look]
        done = subprocess.run([*account(NOBODY), *words], capture_output=True, text=True, check=False, cwd="/")
        assert done.stdout == "", done.stdout
    words = ["sh", "-c", 'for f in "$@"; do head -c1 "$f"; done', "sh", *(str(place / name) for name in sorted(there))]
    done = subprocess.run([*account(NOBODY), *words], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout == "" and done.stderr.count("Permission denied") == len(there) > 20


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_the_home_is_made_for_its_owner_and_that_of_an_earlier_version_is_closed(mask, tmp_path, monkeypatch):
    before = os.umask(mask)
    try:
        for place in (tmp_path / "a" / "new", tmp_path / "old"):
            if place.name == "old":
                place.mkdir()
                place.chmod(0o775)
                (place / "kept").write_text("x")
            monkeypatch.setenv("FLFED_HOME", str(place))
            assert stat.S_IMODE(the_home().stat().st_mode) == 0o700
        # Whoever may write in the folder above could put a home of their own there.
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
        assert (tmp_path / "old" / "kept").read_text() == "x"
        shared = tmp_path / "sticky"
        shared.mkdir()
        shared.chmod(0o1777)  # such as /tmp: not flfed's to close
        monkeypatch.setenv("FLFED_HOME", str(shared))
        assert stat.S_IMODE(the_home().stat().st_mode) == 0o1777
    finally:
        os.umask(before)
