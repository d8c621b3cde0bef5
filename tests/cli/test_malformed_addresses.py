"""A database address that is malformed, or has no driver here: one sentence, exit code 2, and none of its secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import PROGRESS

SECRET = "s3cr3t"
MALFORMED = [
    f"{SECRET}", f"{SECRET}://ana@127.0.0.1/x", f"postgresql//ana:{SECRET}@127.0.0.1/x",
    f"postgresql+psycopg://ana:p@{SECRET}@127.0.0.1:1/x", f"postgresql+psycopg://ana:p@h/{SECRET}@127.0.0.1:1/x",
    f"postgresql+psycopg://ana:p@h:{SECRET}@127.0.0.1:1/x", f"postgresql+psycopg://ana:{SECRET}@127.0.0.1:port/x",
    f"postgresql+psycopg://ana:{SECRET}@127.0.0.1:999999/x", f"postgresql+psycopg://ana:{SECRET}@[::1/x",
    f"postgresql+psycopg://ana:p@127.0.0.1:1/x?{SECRET}=1", f"postgresql+psycopg://ana:p@127.0.0.1:1/x?s={SECRET}",
    f"postgres+{SECRET}://ana@127.0.0.1/x", f"sqlite://ana:{SECRET}@127.0.0.1/x", f"sqlite:///runs.db?{SECRET}=1",
    f"mysql://ana:{SECRET}@127.0.0.1/x",
]  # fmt: skip
WITHOUT_DRIVER = f"postgresql+psycopg://ana:{SECRET}@127.0.0.1:1/x"
CALLS = """
import contextlib, io, json, os, sys
from flfed.cli import main

words, addresses, *absent = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent))  # as if they were not installed
told = []
for address in json.loads(addresses):
    os.environ["FLFED_STORE"] = os.environ["FLFED_SITE_URL"] = address
    sys.argv = ["flfed", *words.split()]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def called(words: str, addresses: list[str], folder: Path, *absent: str) -> list[tuple[int, str, str]]:
    """Call a command with each address, in a process of its own; return exit codes and what was printed."""
    command = [sys.executable, "-c", CALLS, words, json.dumps(addresses), *absent]
    environment = os.environ | {"FLFED_HOME": str(folder), "FLFED_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd=folder)
    assert SECRET not in done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


@pytest.mark.servers
@pytest.mark.parametrize(
    "words", ["run list", "run show latest", "app --headless", "study run preterm-birth --set rounds=1", "audit latest"]
)
def test_a_store_whose_address_is_malformed_is_one_sentence_without_it(words: str, tmp_path: Path):
    for code, out, err in called(words, MALFORMED, tmp_path):
        assert (code, out) == (2, "")
        # On a slow machine a line says that something is loaded.
        (said,) = (line for line in err.splitlines() if not PROGRESS.fullmatch(line))
        assert said.startswith("flfed: the run store (FLFED_STORE) ")
        assert SECRET not in err and "ana" not in err
    assert not (tmp_path / "runs.db").exists()


@pytest.mark.servers
@pytest.mark.parametrize(("words", "absent"), [("run list", "psycopg"), ("site check ward", "psycopg")])
def test_a_missing_driver_is_one_sentence_that_names_the_extra(words: str, absent: str, tmp_path: Path):
    write_site(tmp_path)
    ((code, out, err),) = called(words, [WITHOUT_DRIVER], tmp_path, absent)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "pip install 'flfed[postgres]'" in err and SECRET not in out + err


@pytest.mark.servers
def test_a_site_whose_database_address_is_malformed_says_which_variable_holds_it(tmp_path: Path):
    write_site(tmp_path)
    found = called("site check ward", MALFORMED[:-1], tmp_path)
    encode = "percent-encode '@', ':' and '/' in the password"
    assert sum(encode in err for _, _, err in found) == len(found) - 1  # SQLite's opens
    for code, out, err in found:
        assert code == 2 and SECRET not in out + err
        assert len(err.splitlines()) == 1 and "Traceback" not in out + err
    ((code, _, err),) = called("site check ward", MALFORMED[-1:], tmp_path)
    assert code == 2 and "the driver of the database" in err


def write_site(folder: Path) -> None:
    """Write a site whose rows are in a database."""
    (folder / "sites" / "ward").mkdir(parents=True)
    (folder / "sites" / "ward" / "__init__.py").write_text(
        'from flfed import Site, Sql\n\nsite = Site(name="ward", dataset="breast-cancer", source=Sql("SELECT 1"))\n'
    )
