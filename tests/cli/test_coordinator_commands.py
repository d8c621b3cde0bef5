"""`flfed coordinator init, invite, admit, revoke, rotate, renewal` and `flfed site join`, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from flfed.cli import coordinator
from flfed.cli.site import serve
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder

Call = Callable[..., str]


def commands() -> typer.Typer:
    """The commands alone: how they are wired among the others is another test's."""
    app = typer.Typer()
    for name, function in {
        "init": coordinator.init_coordinator,
        "invite": coordinator.invite_site,
        "admit": coordinator.admit_site,
        "revoke": coordinator.revoke_site,
        "ledger": coordinator.site_ledger,
        "rotate": coordinator.rotate_key,
        "renewal": coordinator.write_renewal,
        "join": serve.join_site,
    }.items():
        app.command(name)(function)
    return app


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a command in a folder of its own; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        commands()(words, standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def made(call: Call) -> Call:
    """The same, with a coordinator."""
    call("init", "--title", "Heart consortium", "--address", "127.0.0.1:18443")
    return call


def test_the_words_of_one_site_joining_end_in_its_admission(made: Call, tmp_path: Path):
    invited = made("invite", "cleveland")
    joining = made("join", "cleveland.kit.zip")
    admitted = made("admit", "cleveland.admission")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cleveland.admission", "cleveland.kit.zip"]
    shown = next(line.rpartition(" ")[2] for line in invited.splitlines() if "SHA-256" in line)
    assert len(shown) == 64 and shown in joining
    assert "no site package" not in joining
    key = next(word for word in joining.split() if word.startswith("SHA256:"))
    assert "cleveland is admitted" in admitted and key in admitted
    assert "cleveland was admitted with this file before; nothing has changed." in made("admit", "cleveland.admission")


def test_programs_read_the_same_as_json(call: Call):
    def read(*words: str) -> dict[str, object]:
        return json.loads(call(*words, "--json"))

    assert read("init", "--title", "T", "--address", "x.org:443")["server-days"] == 396
    invited = read("invite", "a", "--days", "3")
    joined = read("join", "a.kit.zip")
    assert (invited["kit-sha256"], invited["expires"]) == (joined["kit-sha256"], joined["expires"])
    admitted = read("admit", "a.admission")
    keys = {"node-key": joined["node-key"], "gate-key": joined["gate-key"]}
    assert admitted == {"site": "a", "already": False, **keys} and len(joined["gate-key"]) == 44
    assert read("rotate", "server") == {"key": "server", "finished": False, "renewal": None}
    file = str(read("rotate", "signing")["renewal"])
    assert read("join", "--renew", file) == {"site": "a", "changed": ["signing-key"], "joined": None}
    assert read("revoke", "a") == {"site": "a", "already": False}
    assert read("revoke", "a") == {"site": "a", "already": True}


def test_a_site_whose_package_is_not_here_joins_and_is_told(made: Call):
    made("invite", "new-clinic"), made("invite", "hungary")
    said = made("join", "new-clinic.kit.zip").splitlines()[-1]
    assert said.startswith("There is no site package 'new-clinic' here yet")
    assert said.endswith("Once it is there: flfed site check new-clinic")
    assert json.loads(made("join", "hungary.kit.zip", "--json"))["package"] is True


def test_a_site_that_joins_is_told_of_folders_that_others_may_write_in(made: Call, capsys: pytest.CaptureFixture[str]):
    folder = SiteFolder("hungary")
    folder.make()
    folder.root.chmod(0o777)
    made("invite", "hungary")
    commands()(("join", "hungary.kit.zip"), standalone_mode=False)
    assert f"WARNING: {folder.root}: every account may write there (mode 777)" in capsys.readouterr().err


def test_an_authority_is_changed_in_the_words_that_are_printed(made: Call, tmp_path: Path):
    made("invite", "a"), made("join", "a.kit.zip")
    said = made("rotate", "authority")
    assert "flfed coordinator rotate authority --finish" in said
    (first,) = tmp_path.glob("renewal-*.json")
    assert f"flfed site join --renew {first.name}" in said
    assert "changed: ca-sha256" in made("join", "--renew", first.name)
    first.unlink()
    made("rotate", "authority", "--finish")
    (second,) = tmp_path.glob("renewal-*.json")
    assert "changed: ca-sha256" in made("join", "--renew", second.name)
    second.unlink()
    made("renewal")
    assert len(list(tmp_path.glob("renewal-*.json"))) == 1


def test_that_a_site_lost_its_ledger_is_noted_once(made: Call, home: Path):
    from flfed.deployment.coordinator.countersign import sign_head
    from flfed.paths import CoordinatorFolder

    made("invite", "a")
    assert made("ledger", "a") == "No line of the ledger of a is signed.\n"
    sign_head(CoordinatorFolder.default(), "a", "r0", 3, "c" * 64, base_line=0, base_hash="0" * 64)
    said = f"3 lines of the ledger of a were signed, last in run r0. Head: {'c' * 64}\n"
    assert made("ledger", "a") == said
    assert made("ledger", "a", "--restart", "the disk broke").startswith(said)
    assert json.loads(made("ledger", "a", "--json"))["n"] == 0


def test_the_ledger_of_a_site_that_was_never_invited_is_asked_for_by_mistake(made: Call):
    made("invite", "hungary")
    with pytest.raises(UsageError, match="'hungri' was never invited; did you mean 'hungary'\\? Known: hungary"):
        made("ledger", "hungri")
    with pytest.raises(UsageError, match="no line of a's ledger is signed"):
        made("ledger", "a", "--restart", "again")


def test_nothing_is_changed_where_its_renewal_could_not_be_written(made: Call, home: Path):
    before = {file: file.read_bytes() for file in (home / "coordinator" / "keys").iterdir()}
    for words in (["rotate", "authority"], ["rotate", "signing"], ["invite", "a"], ["renewal"]):
        with pytest.raises(UsageError, match="--output"):
            made(*words, "--output", "absent")
    assert {file: file.read_bytes() for file in (home / "coordinator" / "keys").iterdir()} == before
    assert len(list((home / "coordinator" / "sites").glob("*.json"))) == 0


@pytest.mark.parametrize("words", [
    ["invite", "a"], ["admit", "x"], ["revoke", "a"], ["ledger", "a"], ["rotate", "server"],
    ["rotate", "authority"], ["renewal"],
], ids=" ".join)  # fmt: skip
def test_without_a_coordinator_each_command_says_how_to_make_one(call: Call, home: Path, words: list[str]):
    with pytest.raises(FlfedError, match="flfed coordinator init"):
        call(*words)
    assert len(list(home.iterdir())) == 0


def test_wrong_uses_are_said_to_be_so(made: Call):
    with pytest.raises(UsageError, match="not overwritten"):
        made("init", "--title", "Other", "--address", "x.org:443")
    with pytest.raises(UsageError, match="--finish does not go with server"):
        made("rotate", "server", "--finish")
    with pytest.raises(UsageError, match="--site goes with --renew only"):
        made("join", "a.kit.zip", "--site", "a")
    with pytest.raises(UsageError) as error:
        made("join", "absent.zip")
    assert error.value.exit_code == 2
