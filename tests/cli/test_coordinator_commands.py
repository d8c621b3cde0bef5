"""`flfed coordinator init, invite, admit, revoke` and `flfed site join`, as a person types them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from flfed.cli import coordinator
from flfed.cli.site import join
from flfed.deployment.operator.join import log_file
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder, SiteFolder, joined_sites
from flfed.signatures import spoken_fingerprint
from tests.terminal import in_terminal

Call = Callable[..., str]


def commands() -> typer.Typer:
    """The commands alone: how they are wired among the others is another test's."""
    app = typer.Typer()
    for name, function in {
        "init": coordinator.init_coordinator,
        "invite": coordinator.invite_site,
        "admit": coordinator.admit_site,
        "revoke": coordinator.revoke_site,
        "acknowledge": coordinator.acknowledge_ledger,
        "join": join.join_site,
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
    read_out = joining.partition("asks for by telephone: ")[2].split()[0]
    admitted = made("admit", "cleveland.admission", "--fingerprint", f"cleveland={read_out}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cleveland.admission", "cleveland.kit.zip"]
    shown = next(line.rpartition(" ")[2] for line in invited.splitlines() if "SHA-256" in line)
    assert len(shown) == 64 and shown in joining
    assert "no site package" not in joining
    key = next(word for word in joining.split() if word.startswith("SHA256:"))
    assert "cleveland is admitted" in admitted and key in admitted
    assert "cleveland was admitted with this file before; nothing has changed." in made("admit", "cleveland.admission")
    # A fingerprint that is given is compared with that of a site admitted before, too.
    made("admit", "cleveland.admission", "--fingerprint", f"cleveland={read_out}")
    with pytest.raises(UsageError, match="^cleveland.admission: the fingerprint is not"):
        made("admit", "cleveland.admission", "--fingerprint", "cleveland=d255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg")


@pytest.mark.parametrize(("content", "why"), [("{}", "not an admission file; "), (None, "cannot be read (")])
def test_a_file_that_admits_nobody_is_named_once(made: Call, tmp_path: Path, content: str | None, why: str):
    for name in ("a.admission", "b.admission"):
        if content is not None:
            Path(name).write_text(content)
    with pytest.raises(UsageError) as single:
        made("admit", "a.admission")
    assert str(single.value).startswith(f"a.admission: {why}")
    code, lines = in_terminal("coordinator", "admit", "a.admission", "b.admission", columns=400)
    assert code == 2 and [f"NOT admitted: {name}.admission: {why}" in "".join(lines) for name in "ab"] == [True, True]


def test_programs_read_the_same_as_json(call: Call):
    def read(*words: str) -> dict[str, object]:
        return json.loads(call(*words, "--json"))

    assert read("init", "--title", "T", "--address", "x.org:443")["server-days"] == 396
    invited = read("invite", "a", "--days", "3")
    joined = read("join", "a.kit.zip")
    assert (invited["kit-sha256"], invited["expires"]) == (joined["kit-sha256"], joined["expires"])
    admitted = read("admit", "a.admission", "--fingerprint", f"a={joined['node-key']}")
    keys = {"node-key": joined["node-key"], "gate-key": joined["gate-key"]}
    assert admitted == {"site": "a", "already": False, **keys} and len(joined["gate-key"]) == 44
    assert read("revoke", "a") == {"site": "a", "already": False}
    assert read("revoke", "a") == {"site": "a", "already": True}


def test_a_revoked_site_comes_back_with_a_new_kit_and_another_key(made: Call, tmp_path: Path):
    def join_and_admit(*options: str) -> str:
        made("invite", "a")
        joined = json.loads(made("join", *options, "a.kit.zip", "--json"))
        made("admit", "a.admission", "--fingerprint", f"a={joined['node-key']}")
        return str(joined["node-key"])

    first = join_and_admit()
    code, lines = in_terminal("coordinator", "revoke", "b", columns=200)
    assert code == 2 and "[y/N]" not in "".join(lines) and "was never invited" in lines[-1]
    code, lines = in_terminal("coordinator", "revoke", "a", columns=200, typed="n\n")
    assert code == 2 and "its key never admitted again. Revoke a [y/N]: " in "".join(lines)
    assert lines[-1].endswith("flfed: a was not revoked; to revoke it: flfed coordinator revoke a --yes")
    made("admit", "a.admission", "--fingerprint", f"a={first}")
    code, lines = in_terminal("coordinator", "revoke", "a", columns=300, typed="y\n")
    assert code == 0 and "flfed site join a.kit.zip" in lines[-1]
    with pytest.raises(UsageError, match="was revoked"):
        made("admit", "a.admission", "--fingerprint", f"a={first}")
    with pytest.raises(UsageError, match="keeps the kit that it joined with"):
        join_and_admit()
    second = join_and_admit("--yes")
    assert second != first
    # With --yes, and without a terminal, nothing is asked.
    assert "a is revoked." in in_terminal("coordinator", "revoke", "a", "--yes")[1]
    assert "a was revoked already." in made("revoke", "a")


def test_a_site_whose_package_is_not_here_joins_and_is_told(made: Call):
    made("invite", "new-clinic"), made("invite", "hungary")
    said = made("join", "new-clinic.kit.zip").splitlines()[-1]
    assert said.startswith(
        "There is no site package 'new-clinic' here yet; joined here: new-clinic. If this is the kit"
    )
    assert said.endswith("Once it is there: flfed site check new-clinic")
    # Another site has joined here: that it is not a mistake is said without a terminal by --yes.
    with pytest.raises(UsageError, match=r"the kit is of site 'hungary', and nobody agreed .*--yes"):
        made("join", "hungary.kit.zip", "--json")
    assert joined_sites() == ["new-clinic"] and not Path("hungary.admission").exists()
    assert json.loads(made("join", "hungary.kit.zip", "--json", "--yes"))["package"] is True


def test_at_a_terminal_a_person_agrees_to_a_kit_whose_site_has_no_package(made: Call):
    made("invite", "hungary"), made("invite", "new-clinic")
    code, lines = in_terminal("site", "join", "hungary.kit.zip", columns=400)
    assert code == 0 and "[y/N]" not in "".join(lines)
    join = ("site", "join", "new-clinic.kit.zip")
    code, lines = in_terminal(*join, columns=400, typed="n\n")
    assert code == 2 and lines[-1].endswith("ask the coordinator for its kit")
    assert "of which no package is here; hungary has joined here. Join as new-clinic? [y/N]" in "".join(lines)
    assert joined_sites() == ["hungary"] and not SiteFolder("new-clinic").node_key.exists()
    log = log_file().read_text().splitlines()[-1]
    assert json.loads(log)["what"] == "kit refused" and not Path("new-clinic.admission").exists()
    code, lines = in_terminal(*join, columns=400, typed="y\n")
    assert code == 0 and joined_sites() == ["hungary", "new-clinic"]
    made("invite", "cleveland")
    code, lines = in_terminal("site", "join", "cleveland.kit.zip", columns=400, typed="n\n")
    assert code == 2 and "'cleveland'; joined here: hungary, new-clinic. Join as cleveland, too? [y/N]" in "".join(
        lines
    )
    assert joined_sites() == ["hungary", "new-clinic"]


def test_a_site_that_joins_is_told_of_folders_that_others_may_write_in(made: Call, capsys: pytest.CaptureFixture[str]):
    folder = SiteFolder("hungary")
    folder.make()
    folder.root.chmod(0o777)
    made("invite", "hungary")
    commands()(("join", "hungary.kit.zip"), standalone_mode=False)
    assert f"WARNING: {folder.root}: every account may write there (mode 777)" in capsys.readouterr().err


def test_that_a_site_s_ledger_does_not_continue_is_acknowledged_once(made: Call, home: Path):
    made("invite", "hungary")
    heads = CoordinatorFolder.default().heads
    with pytest.raises(UsageError, match="no line of hungary's ledger is known here"):
        made("acknowledge", "hungary", "--why", "the disk broke")
    heads.write_text(json.dumps({"hungary": {"n": 1234, "head": "c" * 64}}))
    heads.chmod(0o600)
    with pytest.raises(UsageError, match="--why needs the reason"):
        made("acknowledge", "hungary", "--why", " ")
    with pytest.raises(UsageError, match="'hungri' was never invited; did you mean 'hungary'\\? Known: hungary"):
        made("acknowledge", "hungri", "--why", "the disk broke")
    said = "The break after line 1,234 of the ledger of hungary is recorded. The next run takes the one that it has.\n"
    assert made("acknowledge", "hungary", "--why", "the disk broke") == said
    kept = json.loads(heads.read_text())["hungary"]
    (one,) = kept["acknowledged"]
    assert kept["n"] == 0 and (one["why"], one["n"], one["head"]) == ("the disk broke", 1234, "c" * 64) and one["by"]
    with pytest.raises(UsageError, match="no line of hungary's ledger is known here"):
        made("acknowledge", "hungary", "--why", "again")


def test_nothing_is_changed_where_a_kit_could_not_be_written(made: Call, home: Path):
    before = {file: file.read_bytes() for file in (home / "coordinator" / "keys").iterdir()}
    with pytest.raises(UsageError, match="--output"):
        made("invite", "a", "--output", "absent")
    assert {file: file.read_bytes() for file in (home / "coordinator" / "keys").iterdir()} == before
    assert len(list((home / "coordinator" / "sites").glob("*.json"))) == 0


@pytest.mark.parametrize("words", [
    ["invite", "a"], ["admit", "x"], ["revoke", "a"], ["acknowledge", "a", "--why", "x"],
], ids=" ".join)  # fmt: skip
def test_without_a_coordinator_each_command_says_how_to_make_one(call: Call, home: Path, words: list[str]):
    with pytest.raises(FlfedError, match="flfed coordinator init"):
        call(*words)
    assert len(list(home.iterdir())) == 0


def test_wrong_uses_are_said_to_be_so(made: Call):
    with pytest.raises(UsageError, match="not overwritten"):
        made("init", "--title", "Other", "--address", "x.org:443")
    with pytest.raises(UsageError) as error:
        made("join", "absent.zip")
    assert error.value.exit_code == 2


def join_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, who: str) -> dict[str, str]:
    """Let somebody join with a site's kit on a machine of their own; return the file and the fingerprint."""
    folder = tmp_path / who
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("FLFED_HOME", str(folder / "home"))
        joined = json.loads(call("join", f"{site}.kit.zip", "--output", str(folder), "--json"))
    return {"file": str(folder / f"{site}.admission"), "key": joined["node-key"], "gate": joined["gate-key"]}


def test_sites_of_a_file_are_invited_together_or_none_is(made: Call, tmp_path: Path, home: Path):
    def listed(text: str) -> str:
        (tmp_path / "sites.toml").write_text(text)
        return "sites.toml"

    for text, sentence in {
        'sites = ["basel", "Lyon", "a b", "c--d"]': "'Lyon', 'a b', 'c--d' must be of a-z, 0-9",
        'sites = ["basel", "lyon", "basel"]': "basel stands there twice; nobody is invited",
        'sites = ["basel", 7]': "7 must be of a-z, 0-9",
        'sites = "basel"': 'must have sites = ["NAME", "NAME"]',
        "sites = []": 'must have sites = ["NAME", "NAME"]',
        'sites = ["basel"]\nday = 3': 'must have sites = ["NAME", "NAME"]',
        'sites = ["basel"]\ndays = "3"': 'must have sites = ["NAME", "NAME"]',
        'sites = ["basel"]\ndays = 91': "days=91 must be 1 to 90",
        "sites = [": "sites.toml",
    }.items():
        with pytest.raises(UsageError) as error:
            made("invite", "--all", listed(text))
        assert sentence in str(error.value), text
    for words in (["invite"], ["invite", "basel", "--all", "sites.toml"]):
        with pytest.raises(UsageError, match="give either SITE or --all FILE"):
            made(*words)
    assert list(tmp_path.glob("*.zip")) == list((home / "coordinator" / "sites").glob("*.json")) == []
    made("invite", "nice"), made("invite", "ulm"), made("revoke", "ulm")
    before = (tmp_path / "nice.kit.zip").read_bytes()
    everyone = listed('sites = ["basel", "lyon", "nice", "ulm"]\ndays = 30')
    found = json.loads(made("invite", "--all", everyone, "--json"))
    assert [kit["site"] for kit in found["kits"]] == ["basel", "lyon"]
    assert {one["site"]: one["status"] for one in found["skipped"]} == {"nice": "invited", "ulm": "revoked"}
    # A kit that was sent remains valid.
    assert (tmp_path / "nice.kit.zip").read_bytes() == before
    again = made("invite", "--all", everyone)
    assert "basel has a kit already" in again and "ulm was revoked and is not invited" in again
    assert "SHA-256" not in again


def test_a_site_is_admitted_by_the_fingerprint_that_is_typed(made: Call, tmp_path: Path, monkeypatch):
    (tmp_path / "sites.toml").write_text('sites = ["a", "b", "c"]')
    made("invite", "--all", "sites.toml")
    joined = {site: join_elsewhere(made, tmp_path, monkeypatch, site, f"of-{site}") for site in "abc"}
    files = [joined[site]["file"] for site in "abc"]
    for words, sentence in (
        ([files[0]], "a person admits 'a' by the fingerprint that its people read out"),
        ([files[0], "--fingerprint", joined["a"]["key"]], "give SITE=FINGERPRINT, once a site"),
        ([files[0], "--fingerprint", f"a={joined['b']['key']}"], "the fingerprint is not that of the key"),
        ([files[0], "--fingerprint", f"a={joined['a']['gate']}"], "that is the fingerprint of the gate of 'a'"),
        ([files[0], "--fingerprint", "a=SHA256:short"], "is no fingerprint of a site's key"),
        ([*files, "--replace"], "--replace takes one file"),
    ):
        with pytest.raises(UsageError) as error:
            made("admit", *words)
        assert sentence in str(error.value), words
        # What a person must read out is shown to nobody who has not typed it.
        assert joined["a"]["key"] not in str(error.value) or joined["a"]["key"] in words
    typed = ("--fingerprint", f"a={joined['a']['key']}", "--fingerprint", f"b={joined['a']['key']}")
    with pytest.raises(UsageError, match="2 of 3 files are not admitted"):
        made("admit", *files, *typed)
    # What is right was admitted: said to have been there before.
    assert '"already": true' in made("admit", files[0], "--json")
    (damaged := tmp_path / "damaged.admission").write_text("{}")
    with pytest.raises(UsageError, match="1 of 2 files are not admitted"):
        made("admit", str(damaged), files[1], "--fingerprint", f"b={joined['b']['key']}")
    assert '"already": true' in made("admit", files[1], "--json")
    with pytest.raises(UsageError, match="no file is of d"):
        made("admit", files[1], "--fingerprint", f"d={joined['b']['key']}")


def test_a_wrong_site_is_replaced_by_one_command_and_its_key_is_gone_for_good(made: Call, tmp_path: Path, monkeypatch):
    made("invite", "a")
    wrong = join_elsewhere(made, tmp_path, monkeypatch, "a", "stranger")
    right = join_elsewhere(made, tmp_path, monkeypatch, "a", "hospital")
    made("admit", wrong["file"], "--fingerprint", f"a={wrong['key']}")
    with pytest.raises(UsageError, match="admit FILE --replace"):
        made("admit", right["file"], "--fingerprint", f"a={right['key']}")
    with pytest.raises(UsageError, match="the fingerprint is not that of the key"):
        made("admit", right["file"], "--replace", "--fingerprint", f"a={wrong['key']}")
    shown = made("admit", right["file"], "--replace", "--fingerprint", f"a={right['key']}")
    assert "a is admitted" in shown and right["key"] in shown
    with pytest.raises(UsageError, match="its key belongs, or belonged, to site 'a'"):
        made("admit", wrong["file"], "--replace", "--fingerprint", f"a={wrong['key']}")


@pytest.mark.servers
def test_the_coordinator_types_what_the_site_reads_out(made: Call, tmp_path: Path, monkeypatch):
    made("invite", "a"), made("invite", "b")
    joined = [join_elsewhere(made, tmp_path, monkeypatch, site, f"of-{site}") for site in "ab"]
    spoken = [spoken_fingerprint(one["key"]) for one in joined]
    misread = spoken[0].replace(spoken[0][0], "2" if spoken[0][0] != "2" else "3", 1)
    words = ("coordinator", "admit", *(one["file"] for one in joined))
    # Misread first and asked again, then as it was read; of the second the fingerprint of the first.
    typed = f"{misread}\n{spoken[0].upper().replace('-', ' ')}\n{spoken[0]}\n"
    code, shown = in_terminal(*words, columns=300, typed=typed)
    text = "\n".join(shown)
    assert code == 2 and "the last group checks the others" in text
    assert "a is admitted" in text and "NOT admitted" in text and "1 of 2 files are not admitted" in text
    assert spoken[1] not in text and joined[1]["key"] not in text
    code, shown = in_terminal(*words[:2], joined[1]["file"], columns=300, typed="\n")
    assert code == 2 and "a person admits 'b' by the fingerprint" in "\n".join(shown)
