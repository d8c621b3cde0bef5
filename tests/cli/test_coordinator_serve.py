"""`flfed coordinator serve, status, run`: what they say, and what a program reads of them."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from flfed.callbacks import now_utc
from flfed.cli import coordinator
from flfed.deployment.coordinator.certificates import Settings, initialise, renew_server
from flfed.deployment.coordinator.status import SiteStatus, last_runs, status
from flfed.errors import UsageError
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.records.store.entries import EventRow, SiteRow
from flfed.records.store.writer import RunStore, RunWriter
from flfed.signatures import new_node_key, public_text

Call = Callable[..., str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call a command; return what it printed on standard output."""
    app = typer.Typer()
    app.command("serve")(coordinator.serve_coordinator)
    app.command("status")(coordinator.coordinator_status)
    app.command("run")(coordinator.run_deployed)

    def run(*words: str) -> str:
        app(words, standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def folder() -> CoordinatorFolder:
    """A coordinator with one site invited, two admitted and one revoked; nothing serves."""
    made = CoordinatorFolder.default()
    initialise(made, Settings("Heart consortium", "127.0.0.1:18443"))
    for site, state in {"cleveland": "admitted", "hungary": "admitted", "basel": "revoked", "lyon": "invited"}.items():
        key = "" if state == "invited" else public_text(new_node_key().public_key())
        facts = {"site": site, "status": state, state: "2026-11-20T10:00:00+00:00", "public-key": key}
        write_whole(made.sites / f"{site}.json", json.dumps(facts).encode())
    return made


def begun(store: RunStore, engine: str, study: str = "heart-disease") -> RunWriter:
    series = store.begin_series(study=study, study_sha256="0" * 64, study_text="")
    return store.begin_run(
        series, repeat=0, engine=engine, path="one-by-one", seed=1, rounds_planned=40, versions={}, hashes={},
        primary="roc_auc_score", task="binary",
    )  # fmt: skip


@pytest.fixture
def recorded() -> str:
    """Three runs: over the deployment, one on this machine, and a newer one in which one site refused."""
    with RunStore.open() as store:
        older = begun(store, "deployment")
        older.sites([SiteRow("cleveland"), SiteRow("hungary")])
        older.finish(status="failed", reason="the disk is full", seconds=1.0)
        begun(store, "inprocess").sites([SiteRow("basel")])
        newer = begun(store, "deployment", "other")
        newer.sites([SiteRow("cleveland", status="refused", reason="the study expired on 2026-01-01")])
        newer.sites([SiteRow("basel", status="refused", reason="the bundle is another one")])
        newer.events([
            EventRow(None, "lyon", "fault", "not there: its node is not online", "not-there/node-offline"),
            EventRow(None, None, "fault", "a node did not enrol: no reply before the deadline"),
        ])  # fmt: skip
        return newer.run


def test_the_last_run_of_each_site_says_what_it_answered_and_why(recorded: str):
    found = last_runs()
    assert {site: (last.answer, last.reason) for site, last in found.items()} == {
        "cleveland": ("refused", "the study expired on 2026-01-01"), "hungary": ("accepted", ""),
        "lyon": ("not there", "its node is not online"), "basel": ("refused", "the bundle is another one"),
    }  # fmt: skip
    assert (found["cleveland"].run, found["cleveland"].study) == (recorded, "other")
    assert (found["hungary"].study, found["hungary"].state) == ("heart-disease", "failed")
    assert (found["hungary"].round, found["hungary"].of) == (0, 40)


@pytest.mark.parametrize(("online_since", "seconds", "said"), [
    ("2026-11-20T10:00:00", 3.4, ["online", "3 s ago", "2026-11-20 10:00"]),
    ("", 75.0, ["offline", "75 s ago", ""]), ("", None, ["offline", "", ""]),
])  # fmt: skip
def test_the_status_says_how_long_ago_a_site_asked_last(online_since: str, seconds: float | None, said: list[str]):
    site = SiteStatus("cleveland", "admitted", "", "offline", online_since, seconds, None)
    assert coordinator._row(site)[2:5] == said
    assert site.as_json()["seconds-since-request"] == seconds


def test_the_status_without_a_server_says_who_is_admitted_and_that_nothing_serves(call, folder, recorded):
    found = json.loads(call("status", "--json"))
    assert (found["title"], found["address"], found["serving"]) == ("Heart consortium", "127.0.0.1:18443", False)
    assert found["server-days"] > 30
    assert [(site["site"], site["status"], site["node"]) for site in found["sites"]] == [
        ("basel", "revoked", ""), ("cleveland", "admitted", "not known"), ("hungary", "admitted", "not known"),
        ("lyon", "invited", ""),
    ]  # fmt: skip
    cleveland = found["sites"][1]
    assert cleveland["since"] == "2026-11-20T10:00:00+00:00" and cleveland["online-since"] is None
    assert cleveland["seconds-since-request"] is None
    assert cleveland["last-run"]["reason"] == "the study expired on 2026-01-01"
    assert cleveland["last-run"]["of"] == 40
    said = call("status")
    assert said.splitlines()[0] == ("Heart consortium, 127.0.0.1:18443: NOT serving. To serve: flfed coordinator serve")
    assert "refused: the study expired on 2026-01-01" in said and "0 of 40" in said


def test_a_site_whose_file_is_damaged_is_named_and_the_others_are_shown(call: Call, folder: CoordinatorFolder):
    damaged = folder.sites / "hungary.json"
    damaged.write_text("{")
    found = json.loads(call("status", "--json"))
    assert [site["site"] for site in found["sites"]] == ["basel", "cleveland", "lyon"]
    said = f"{damaged}: is damaged; restore it from a backup, or remove it and invite the site again"
    assert found["problems"] == [said]
    assert f"Left out: {said}." in call("status").splitlines()
    with pytest.raises(UsageError, match="not admitted: hungary"):
        call("run", "heart-disease", "--site", "cleveland", "--site", "hungary")


@pytest.mark.parametrize(("days", "is_renewed"), [(396, False), (30, False), (29, True)])
def test_the_status_says_how_long_the_servers_certificate_holds(call, folder, days, is_renewed):
    renew_server(folder, now=now_utc() - timedelta(days=396 - days))
    assert json.loads(call("status", "--json"))["server-days"] == days
    lines = call("status").splitlines()
    assert lines[1] == f"The server certificate is valid for {days} days."
    assert lines[2].startswith("A serving coordinator renews it while no run is in progress.") == is_renewed


def test_a_coordinator_without_sites_says_how_to_invite_one(call: Call, folder: CoordinatorFolder):
    for file in folder.sites.glob("*.json"):
        file.unlink()
    assert "flfed coordinator invite SITE" in call("status")
    assert len(status(folder).sites) == 0


@pytest.mark.parametrize("words", [("status",), ("serve",)])
def test_without_a_coordinator_each_says_how_to_make_one(call: Call, words: tuple[str, ...]):
    with pytest.raises(UsageError, match="flfed coordinator init") as error:
        call(*words)
    assert error.value.exit_code == 2


def test_where_it_cannot_listen_is_said_before_anything_starts(call: Call, folder: CoordinatorFolder):
    with pytest.raises(UsageError, match="--listen") as error:
        call("serve", "--listen", "example.org:443")
    assert error.value.exit_code == 2
    assert list(folder.server.iterdir()) == []


def test_a_study_is_run_at_the_institutions_that_are_admitted(call: Call, folder: CoordinatorFolder):
    with pytest.raises(UsageError, match="not admitted: lyon") as error:
        call("run", "heart-disease", "--site", "cleveland", "--site", "lyon")
    assert error.value.exit_code == 2


def test_nothing_heavy_is_loaded_with_the_commands():
    text = Path(coordinator.__file__).read_text()
    top = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert len(top) == 11
    assert [line for line in top if "flfed.deployment" in line or "flwr" in line] == []
