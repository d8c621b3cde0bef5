"""The app of a site's own people: its numbers are those of the commands, it only reads, and shows nothing of others."""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed.deployment import site_app
from flfed.deployment.gate.local_results import results_of
from flfed.deployment.site_app import SITE, closed
from flfed.deployment.site_app.pages.s50_results import judged
from flfed.deployment.site_app.reads import node_listens
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.trusted_files import make_signing_key
from flfed.federation.client.account import shown
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.reports.audit_headlines import share_in_words
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import SITE_ARMS, site_verdict
from flfed.records.statistics.verdict import ARM_NAMES, number
from flfed.records.store.reader import RunReader
from flfed.records.text import size_in_words
from flfed.signatures import gate_fingerprint
from flfed.study.study import Study
from flfed.updates.messages.compare import COMPARE, CompareReply, Figure
from flfed.words import render

pytestmark = [pytest.mark.slow, pytest.mark.studies]

APP = Path(site_app.__file__).with_name("app.py")
CANARY, CANARY_NUMBER = "harbour-canary-7f3a", 87_654_321
NAME = "site-01"


@pytest.fixture
def beside(ran: Any) -> None:
    """The folder of another site in the same home, full of canaries."""
    other = SiteFolder("site-02")
    other.make()
    ledger_of(other).append(kind="train", study=CANARY, run=CANARY, bytes=CANARY_NUMBER)
    approval.refuse(other, ran[0].study, by=CANARY)


def page(name: str) -> AppTest:
    """Return one page of the app, as its reader finds it."""
    opened = AppTest.from_file(str(APP), default_timeout=60).run()  # the first run registers the pages
    if name != next(iter(site_app.page_files())):
        opened.switch_page(str(site_app.page_files()[name])).run()
    assert not opened.exception, opened.exception
    return opened


def words(opened: AppTest) -> str:
    """Return all texts of a page, and its tables and figures."""
    kinds = ("title", "markdown", "caption", "info", "success", "warning", "error", "code")
    said = [part.value for kind in kinds for part in getattr(opened, kind)]
    said += [f"{part.label} {part.value}" for part in opened.metric]
    said += [str(part.value.to_dict("split")) for part in [*opened.table, *opened.dataframe]]
    return re.sub(r"\\(.)", r"\1", "\n".join(map(str, said)))


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, time and content of all that is in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (about.st_mode, about.st_mtime_ns, content)
    return found


def told(flfed: Callable[..., Any], *command: str) -> dict[str, Any]:
    """Return what a command says as JSON."""
    code, said, complained = flfed("site", *command, "--json")
    assert code == 0, complained
    found: dict[str, Any] = json.loads(said)
    return found


def test_the_figures_of_each_page_are_those_of_the_commands(ran: Any, flfed: Callable[..., Any]):
    ledger, verified = told(flfed, "ledger", NAME), told(flfed, "ledger", NAME, "--verify")
    said = words(page("ledger"))
    assert f"The chain is intact: {verified['lines']} lines from " in said.replace("*", "")
    assert f"{size_in_words(ledger['bytes'])} left in all" in said
    opened = page("ledger")
    by_study = opened.table[0].value
    counted = sum(int(cell.replace(",", "")) for cell in by_study["Bytes"])
    assert counted == ledger["bytes"] == sum(day["bytes"] for day in ledger["days"])
    assert sum(map(int, by_study["Lines"])) == ledger["lines"]
    assert len(opened.dataframe[0].value) == min(ledger["lines"], 200)

    account = told(flfed, "budget", NAME)
    said = words(page("budget"))
    assert f"ε spent {shown(account['spent'])}" in said and "Budget 9" in said
    assert 0 < account["spent"] < 9
    assert (
        page("budget").get("progress")[0].proto.text == f"{share_in_words(account['spent'] / 9)} of the budget is spent"
    )
    (run,) = account["runs"]
    for cell in (run["run"], run["study"], shown(run["epsilon"])):
        assert cell in said
    for left in account["uncharged"]:
        assert f"{left['bytes']:,}" in said

    status = told(flfed, "status", NAME)
    said = words(page("status"))
    assert "Studies with a decision: 1. While it serves, it replies to 1 of them: small." in said
    assert str(status["snapshots"][0]["rows"]) in said and status["snapshots"][0]["sha256"][:12] in said
    assert [line["n"] for line in status["last"]] == [int(cell) for cell in page("status").table[2].value["Line"]]
    assert "epsilon 9 of the site, at delta 1e-05" in said


def test_the_result_of_a_run_is_what_the_site_answered_and_what_the_store_has(ran: Any):
    site, grid = ran
    (reply,) = [reply for reply in grid.replied if reply.metadata.message_type == COMPARE]
    left = CompareReply.from_record(reply.content)
    (kept,), problems = results_of(site.folder)
    assert problems == [] and (kept.rows, kept.holdout_rows) == (left.num_examples, left.holdout_rows)
    assert str(kept.arms) == str(left.arms) and str(kept.differences) == str(left.differences)  # NaN is not NaN
    path = site.folder.results / "20261120-abcd.json"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.parent.iterdir()) == [path]
    opened = page("results")
    assert len(opened.metric) == 0  # a figure stands once: in the sentence, the chart and its table
    opened.session_state["own-result-table"] = True
    said = words(opened.run())
    lines = [line for part in opened.table for line in part.value.to_dict("records")]
    models = {line["Model"].replace("\\", ""): line for line in lines if "Model" in line}
    with RunReader.open() as reader:
        found = report(reader, "latest")["sites"][NAME]
    # The request says how many sites share figures: the verdict is that of the coordinator's page.
    assert site_verdict(found, "roc_auc_score")[1] in said
    assert "This result covers only this site" not in said
    # An intercept of its own ranks no row before another: the same figure is not shown twice.
    assert "The adjusted model has the same AUC here as the shared model, and is not shown." in said
    assert models.keys() == {ARM_NAMES["global"], ARM_NAMES["local-only"]}
    for arm in ("global", "local-only"):
        entry, line = found[arm]["roc_auc_score"], models[ARM_NAMES[arm]]
        figures = [line[key] for key in ("AUC", "95 % low", "95 % high")]
        assert figures == [number(entry[key]) for key in ("value", "low", "high")]
    assert f"Measured on {left.holdout_rows} rows of this site" in said
    assert render("site_app.results.question") in said


def test_a_difference_without_an_interval_is_told_with_its_reason(ran: Any):
    why, none = "every draw of rows gives the same value", float("nan")
    gap = Figure(
        metric="roc_auc_score", arm="global - local-only", value=0.0, low=none, high=none, extra=none, method=why
    )
    told = judged(replace(results_of(ran[0].folder)[0][0], arms=(), differences=(gap,)), "roc_auc_score")
    assert told == ("cannot be told", f"AUC cannot be compared here: {why}.")


def test_no_page_shows_anything_of_another_site(ran: Any, beside: None):
    for name in site_app.page_files():
        said = words(page(name))
        assert CANARY not in said and str(CANARY_NUMBER) not in said.replace(",", "")
        assert size_in_words(CANARY_NUMBER) not in said
        if name != "approvals":  # where the sites are named that a person let take part
            assert "site-02" not in said
    with RunReader.open() as reader:
        found = report(reader, "latest")["sites"]
    entries = [found[site][arm]["roc_auc_score"] for site in found if site != NAME for arm in SITE_ARMS]
    others = {tuple(number(entry[key]) for key in ("value", "low", "high")) for entry in entries}
    kept = results_of(ran[0].folder)[0][0]
    own = {tuple(map(number, (one.value, one.low, one.high))) for one in (*kept.arms, *kept.differences)}
    results = page("results")
    (chart,) = results.get("vega_lite_chart")
    drawn = pa.ipc.open_stream(io.BytesIO(chart.proto.data.data)).read_pandas()[["value", "low", "high"]]
    said = f"{words(results)} {' '.join(map(number, drawn.to_numpy().ravel()))}"
    assert len(others - own) > 2
    # One number of three digits stands there by chance now and then, an interval with its value does not.
    shown = {
        three for three in others | own if all(re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", said) for one in three)
    }
    assert shown & own and not shown - own


WRITES: list[str] = []
WATCHED: list[str] = []
CHANGING = {
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.link",
}  # fmt: skip


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if not WATCHED or not args or not str(args[0]).startswith(WATCHED[0]):
        return
    opened_to_write = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if opened_to_write or event in CHANGING:
        WRITES.append(f"{event} {args}")


sys.addaudithook(_heard)


def test_looking_writes_nothing_and_opens_nothing_to_write(ran: Any, home: Path):
    before = state(home)
    WATCHED.append(str(home / "sites"))
    try:
        for name in site_app.page_files():
            page(name)
        ledger_of(ran[0].folder).last()
        assert WRITES == []
        with ledger_of(ran[0].folder).lock():
            pass
        assert len(WRITES) > 0  # a write would have been heard
    finally:
        WATCHED.clear()
        WRITES.clear()
    assert len(before) > 10
    assert state(home) == before


def test_a_new_line_and_a_new_decision_show_at_the_next_look(ran: Any):
    site, _ = ran
    opened = page("ledger")
    many = len(opened.dataframe[0].value)
    ledger_of(site.folder).append(kind="train", study="small", run="r2", round=1, bytes=4321)
    opened.run()
    assert len(opened.dataframe[0].value) == many + 1
    assert opened.dataframe[0].value["Bytes"][0] == 4321
    opened = page("approvals")
    assert [badge.value for badge in opened.markdown if "holds" in badge.value]
    approval.withdraw(site.folder, "small", by="Dr Roe")
    assert "Withdrawn by Dr Roe" in words(opened.run())
    assert "It would get no reply now: the study was withdrawn here" in words(opened)


def test_the_ledger_can_be_asked_for_one_study_and_one_day(ran: Any):
    site, _ = ran
    ledger_of(site.folder).append(kind="train", study="second", run="r2", round=1, bytes=1000)
    opened = page("ledger")
    opened.selectbox(key="ledger-study").select("second").run()
    assert [int(cell) for cell in opened.dataframe[0].value["Bytes"]] == [1000]
    assert list(opened.table[0].value["Bytes"]) == ["1,000"]
    day = opened.selectbox(key="ledger-day").options[1]
    opened.selectbox(key="ledger-day").select(day).run()
    assert [int(cell) for cell in opened.dataframe[0].value["Bytes"]] == [1000]


def test_an_approval_shows_what_was_signed_and_what_it_allows(ran: Any):
    site, _ = ran
    opened = page("approvals")
    said = words(opened)
    for word in ('Purpose: "Test"', "Approved by Dr Kim", site.study.sha256(), "site-02, site-03"):
        assert word in said.replace("**", "")
    key = site.study.sha256()
    opened.session_state[f"text-{key}"] = True
    opened.session_state[f"allows-{key}"] = True
    said = words(opened.run())
    assert site.study.text.strip() in said and "Released in each of" in said
    assert said.count("Privacy: mechanism record-dp.") == 1


def test_an_approval_for_sums_shows_the_fingerprints_and_what_a_change_of_sites_gives_away(ran: Any):
    site, _ = ran
    own = make_signing_key(site.folder)[0]
    pins = {NAME: own} | {f"site-{n:02}": gate_fingerprint(bytes([n]).hex() * 32) for n in (2, 3, 4)}
    study = Study.parse(re.sub(r"\[privacy\]", '[privacy]\nsecure-aggregation = "on"', site.study.text))
    hashes = {"rows_sha256": "a" * 64, "schema_sha256": "b" * 64}
    approval.approve(
        site.folder, study, by="Dr Kim", co_sites=tuple(pins), sums=True, pins=pins, changed_sites=True, **hashes
    )
    opened = page("approvals")
    said = words(opened).replace("**", "")
    for word in (
        "Updates: secure aggregation",
        f"site-03 {pins['site-03']}",
        "Sums over other sites than before: allowed",
    ):
        assert word in said
    assert f"The fingerprint of its gate, for people of other sites, is {own}." in words(page("status"))
    opened.session_state[f"allows-{study.sha256()}"] = True
    said = words(opened.run())
    for word in (
        "over all 4 sites",
        "Changed: sums of small may be over other sites than before.",
    ):
        assert word in said


def test_a_changed_a_torn_and_a_lost_ledger_are_explained(ran: Any):
    path = ran[0].folder.ledger
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "are unchanged" in words(page("ledger"))
    path.write_bytes(whole.replace(b'"round":1', b'"round":9', 1))
    said = words(page("ledger"))
    assert "The ledger was changed." in said and "left in all" not in said
    assert re.search(r"the line after line \d+ is not as it was written", said)
    assert len(page("budget").error) == 1 and "site ledger site-01 --verify" in words(page("budget"))
    path.unlink()
    assert "Nothing leaves this site: its ledger is lost or was cut" in words(page("ledger"))


def test_a_line_changed_in_place_shows_though_the_file_s_time_is_set_back(ran: Any):
    path = ran[0].folder.ledger
    ledger, budget = page("ledger"), page("budget")
    assert "are unchanged" in words(ledger) and not budget.error
    before, whole = path.stat(), path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(whole.replace(b'"round":1', b'"round":9', 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert "is not as it was written" in words(ledger.run())
    assert len(budget.run().error) == 1


def test_a_site_that_has_nothing_yet_is_told_what_to_do(package: Path):
    for name, command in (
        ("status", "flfed site join site-01.kit.zip"),
        ("ledger", "This site has not sent anything yet"),
        ("budget", "No run has spent any of it."),
        ("approvals", "flfed site approve STUDY --site site-01"),
        ("results", "flfed app"),
    ):
        assert command in words(page(name))
    assert not SiteFolder(NAME).root.exists()


def test_wrong_use_is_answered_in_sentences(package: Path, flfed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    code, _, said = flfed("site", "app", "nobody")
    assert code == 2 and "site 'nobody' is not known" in said
    assert "Example: flfed site app cleveland" in flfed("site", "app", "--help")[1]
    monkeypatch.setenv(SITE, "nobody")
    opened = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not opened.exception and "site 'nobody' is not known" in words(opened)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
def test_only_the_user_with_the_data_may_look(home: Path):
    folder = SiteFolder(NAME)
    folder.make()
    assert closed(folder) == ""
    for place in (home / "sites", home, *home.parents):
        if place in (Path("/tmp"), Path("/")):
            break
        place.chmod(0o755)
    os.seteuid(65534)
    try:
        said = closed(folder)
    finally:
        os.seteuid(0)
    assert said.endswith("only user root, who has the data of site 'site-01', may read it; "
                         "as that user: flfed site app site-01")  # fmt: skip
    folder.root.chmod(0o700)
    os.seteuid(65534)
    try:
        said = closed(folder)
    finally:
        os.seteuid(0)
    assert "a folder above it is closed to this user (Permission denied)" in said
    assert said.endswith("the data of site 'site-01' may read it; as that user: flfed site app site-01")


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "time": lambda found: found | {"at": "yesterday"},
    "no-time": lambda found: {key: value for key, value in found.items() if key != "at"},
    "beyond-counting": lambda found: found | {"rows": float("inf")},
    "no-number": lambda found: found | {"holdout-rows": "many"}, "no-figures": lambda found: found | {"arms": [1]},
    "a-list": lambda found: [found],
}  # fmt: skip


@pytest.mark.parametrize("change", [*WRONG.values(), None], ids=[*WRONG, "deep"])
def test_a_result_that_is_wrong_is_said_beside_the_others(ran: Any, change: Callable[[dict[str, Any]], object] | None):
    folder = ran[0].folder
    right = (folder.results / "20261120-abcd.json").read_text()
    wrong = folder.results / "20261121-abcd.json"
    wrong.write_text("[" * 100_000 if change is None else json.dumps(change(json.loads(right))))
    wrong.chmod(0o600)
    found, problems = results_of(folder)
    assert [one.run for one in found] == ["20261120-abcd"]
    assert problems == [f"{wrong}: was changed since it was written; remove it"]
    said = words(page("results"))
    assert problems[0] in said and render("site_app.results.question") in said


def test_a_stray_error_shows_its_box_and_nothing_of_the_server():
    shown_error = AppTest.from_string("raise ValueError('/srv/flfed/site-01: Jane Roe')", default_timeout=60).run()
    (box,) = shown_error.exception
    assert "This app has encountered an error" in box.message
    said = str(box.proto)
    assert [word for word in ("Jane", "/srv", "ValueError", "line 1", __file__) if word in said] == []


def test_no_cell_of_the_lines_is_a_formula_in_a_spreadsheet(ran: Any):
    ledger_of(ran[0].folder).append(kind="refused", study="=1+1", run="@run", reason="=cmd|' /C calc'!A0", bytes=0)
    shown_lines = page("ledger").dataframe[0].value
    assert [shown_lines[name][0] for name in ("Study", "Run", "Reason")] == ["'=1+1", "'@run", "'=cmd|' /C calc'!A0"]


def test_a_node_is_found_by_the_systems_list_of_sockets(home: Path, tmp_path: Path):
    import socket

    folder = SiteFolder(NAME)
    folder.make()
    assert not node_listens(folder)
    listed = tmp_path / "unix"
    listed.write_text(f"Num\n0: 00000002 00000000 00010000 0001 01 4 {folder.socket}\n")
    assert node_listens(folder, listed)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder.socket))
        made.listen()
        assert node_listens(folder)
    assert not node_listens(folder)
