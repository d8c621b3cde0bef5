"""`flfed site approve`, `withdraw`, `pause` and `status`: what is shown, asked and written down."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from flfed.cli.site.approve import allow_runs, approve_study, pause_site, site_status, withdraw_study
from flfed.deployment.operator.study_description import reveals
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.freeze import freeze_first
from flfed.errors import FlfedError, UsageError
from flfed.export.run_folder import export
from flfed.federation.recording.source_model import named_start
from flfed.federation.server.run import run as run_study
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.summarise import SummariseReply
from flfed.updates.messages.train import Scores, TrainReply
from flfed.words import safe_line
from tests.approval_text import details
from tests.terminal import in_terminal

WITH = ("--with", "hungary,switzerland,long-beach")
Run = Callable[..., Result]


def commands() -> typer.Typer:
    app = typer.Typer()
    app.command("approve")(approve_study)
    app.command("allow")(allow_runs)
    app.command("withdraw")(withdraw_study)
    app.command("pause")(pause_site)
    app.command("status")(site_status)
    return app


@pytest.fixture
def run(heart: datasets.Dataset) -> Run:
    """A function that calls one of the commands, with Cleveland's rows at hand."""

    def call(*words: str, raises: type[Exception] | None = None) -> Result:
        result = CliRunner().invoke(commands(), list(words))
        if raises is None:
            assert result.exception is None, result.exception
        else:
            assert isinstance(result.exception, raises), result.exception
        return result

    return call


def test_approving_shows_the_words_freezes_the_rows_and_writes_who_and_when(run: Run):
    said = run("approve", "heart-disease", "--site", "cleveland", *WITH, "--by", "Dr Kim", "--all", "--yes").output
    folder, study = SiteFolder("cleveland"), Study.load("heart-disease")
    for word in ("Purpose: Predict coronary", "Legal basis: public data, CC BY 4.0", "age (number, years)",
                 "cleveland (this site) with hungary, long-beach, switzerland", "Released in each of 40 rounds",
                 "Rows: there is no snapshot yet", "the study has no last day", "is approved"):  # fmt: skip
        assert word in said
    written = approval.approval_of(folder, study.sha256())
    assert (written.decision, written.by, written.text) == ("approved", "Dr Kim", study.text)
    assert written.co_sites == ("hungary", "long-beach", "switzerland")
    facts = snapshot.read_facts(sites.load("cleveland"), folder.frozen)
    assert (facts.rows, facts.sha256) == (303, written.rows_sha256)
    assert written.schema_sha256 == datasets.load("heart-disease").schema.sha256()
    path = folder.approvals / f"{study.sha256()}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.approvals.stat().st_mode) == 0o700
    assert sorted(json.loads(path.read_text())) == [
        "at", "by", "changed-sites", "co-sites", "coordinator", "dataset", "decision", "earlier", "pins",
        "rows-sha256", "schema-sha256", "study", "study-sha256", "sums", "text",
    ]  # fmt: skip


def test_runs_are_shown_and_added_on_the_ledger(run: Run, monkeypatch: pytest.MonkeyPatch):
    closed = replace(sites.load("cleveland"), policy=Policy(runs=4))
    monkeypatch.setattr(sites, "load", lambda name: closed)
    said = run("approve", "heart-disease", "--site", "cleveland", *WITH, "--by", "Dr Kim", "--all", "--yes")
    assert "Runs: 4 of 4 runs of 'heart-disease' are left; all studies and coordinators count together" in said.output
    added = run("allow", "heart-disease", "--runs", "3", "--site", "cleveland", "--by", "Dr Kim")
    assert "7 of 7 runs of 'heart-disease' are left" in added.output
    (line,) = ledger_of(SiteFolder("cleveland")).lines()
    assert (line.kind, line.facts["runs"], line.facts["by"]) == ("allowed", 3, "Dr Kim")
    status = json.loads(run("status", "cleveland", "--json").stdout)
    assert {"dataset": "heart-disease", "remaining": 7, "most": 7} in status["runs"]
    other = run("allow", "no-such", "--runs", "3", "--site", "cleveland", raises=UsageError)
    assert "cleveland has no dataset 'no-such'" in str(other.exception)
    both = run("approve", "heart-disease", "--site", "cleveland", "--yes", "--refuse", raises=UsageError)
    assert str(both.exception) == "--yes and --refuse exclude each other"


def test_nothing_is_approved_where_nothing_would_be_answered(run: Run):
    run("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes")
    folder, asked = SiteFolder("cleveland"), ("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes")
    folder.gate.chmod(0o777)
    said = str(run(*asked, raises=UsageError).exception)
    assert said.startswith(f"nothing is approved: {folder.gate}: every account may write there")
    status = json.loads(run("status", "cleveland", "--json").stdout)
    assert status["problems"] == [said.partition(": ")[2]]
    folder.gate.chmod(0o700)
    assert json.loads(run("status", "cleveland", "--json").stdout)["problems"] == []


def test_a_lost_ledger_is_told_by_status_and_approval(run: Run, monkeypatch: pytest.MonkeyPatch):
    closed = replace(sites.load("cleveland"), policy=Policy())
    monkeypatch.setattr(sites, "load", lambda name: closed)
    asked = ("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes")
    run(*asked)
    folder = SiteFolder("cleveland")
    # The state has the last line still and appends it again; of two the first is lost.
    for _ in range(2):
        ledger_of(folder).append(kind="train")
    folder.ledger.unlink()
    lost = str(Refusal("ledger-lost", site="cleveland"))
    assert str(run(*asked, raises=UsageError).exception) == f"nothing is approved: {lost}"
    status = json.loads(run("status", "cleveland", "--json").stdout)
    assert (status["problems"], status["runs"]) == ([lost], [])
    assert [one["reason"] for one in status["studies"]] == [lost]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_table_that_the_run_would_refuse_is_not_approved(run: Run, monkeypatch: pytest.MonkeyPatch, frozen: bool):
    cleveland = sites.load("cleveland")
    if frozen:
        freeze_first(SiteFolder("cleveland"), cleveland)
    # About 90 of 303 rows are held out.
    small = replace(cleveland, policy=Policy(cell_minimum=120))
    monkeypatch.setattr(sites, "load", lambda name: small)
    said = run("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes", raises=UsageError)
    assert str(said.exception) == (
        "site 'cleveland' would not answer this study: it has fewer than 120 holdout rows; see: flfed site check "
        "cleveland --dataset heart-disease"
    )
    assert approval.approvals(SiteFolder("cleveland")) == [] and "Released" not in said.output


def test_features_that_the_site_does_not_have_are_not_shown_as_read(run: Run, monkeypatch: pytest.MonkeyPatch):
    cleveland = sites.load("cleveland")
    gone = dict.fromkeys(["trestbps", "chol", "fbs", "thalach", "exang", "oldpeak", "ca"])
    monkeypatch.setattr(sites, "load", lambda name: replace(cleveland, mapping={**cleveland.mapping, **gone}))
    said = run("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes").output
    assert "Columns: age, sex, cp, restecg, slope, thal. Predicted: disease." in said


def test_an_approval_and_the_status_say_how_many_of_those_who_opted_out_are_in_the_table(run: Run):
    folder = SiteFolder("cleveland")
    folder.make()
    folder.excluded.write_text("age\n29\n999\n998\n")
    folder.excluded.chmod(0o600)
    asked = ("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes")
    assert "of 3 identifiers on the list of people, 1 are" in str(run(*asked, raises=UsageError).exception)
    run(*asked, "--allow-unmatched")
    assert "1 of 3 identifiers of people who opted out matched" in " ".join(run(*asked).output.split())
    assert "People who opted out of heart-disease: 3 identifiers listed, 1 found" in run("status", "cleveland").output


def test_a_study_whose_model_would_need_74_gigabytes_is_not_approved(run: Run, tmp_path: Path):
    text = Study.load("heart-disease").text.replace('name = "logistic"', 'name = "mlp"\nhidden = [100000, 100000]')
    (tmp_path / "huge.toml").write_text(text)
    refused = run("approve", str(tmp_path / "huge.toml"), "--site", "cleveland", *WITH, "--yes", raises=UsageError)
    assert "10,003,400,001 parameters are more than the 16,777,216" in str(refused.exception)


def test_status_tells_what_would_be_answered_and_why_not(run: Run):
    found = json.loads(run("status", "cleveland", "--json").stdout)
    assert (found["joined"], found["paused"], found["snapshots"], found["studies"]) == ("", False, [], [])
    run("approve", "heart-disease", "--site", "cleveland", *WITH, "--yes")
    ledger_of(SiteFolder("cleveland")).append(kind="train", study="heart-disease", bytes=1234)
    found = json.loads(run("status", "cleveland", "--json").stdout)
    assert [(one["study"], one["decision"], one["reason"]) for one in found["studies"]] == [
        ("heart-disease", "approved", "")
    ]
    assert [(one["dataset"], one["rows"]) for one in found["snapshots"]] == [("heart-disease", 303)]
    assert [(line["n"], line["kind"], line["bytes"]) for line in found["last"]] == [(1, "train", 1234)]
    assert found["policy"]["least-cohort"] == 2 and found["problems"] == []
    run("pause", "cleveland")
    found = json.loads(run("status", "cleveland", "--json").stdout)
    assert (found["paused"], found["studies"][0]["reason"]) == (True, "the site is paused by its operator")
    said = run("status", "cleveland").output
    assert "Paused: yes" in said and "no: the site is paused by its operator" in said
    assert "answers again" in run("pause", "cleveland", "--resume").output
    assert "(as before)" in run("pause", "cleveland", "--resume").output


def test_status_says_with_whom_the_site_has_joined_and_what_cannot_be_read(run: Run):
    folder = SiteFolder("cleveland")
    folder.make()
    folder.terms.write_text('coordinator = "Heart consortium"\nsite = "cleveland"\n')
    assert run("status", "cleveland").output.startswith("cleveland: joined Heart consortium\n")
    folder.join.write_text('coordinator = "Heart consortium"\naddress = "fl.example.org:443"\n')
    folder.approvals.mkdir()
    (folder.approvals / "x.json").write_text("[]")
    os.chmod(folder.approvals / "x.json", 0o600)
    found = json.loads(run("status", "cleveland", "--json").stdout)
    assert found["joined"] == "joined Heart consortium at fl.example.org:443"
    assert len(found["problems"]) == 1 and "is damaged; remove it" in found["problems"][0]
    only = json.loads(run("approve", "heart-disease", "--refuse", "--json").stdout)
    assert only["site"] == "cleveland"  # the only one that has joined here


def test_a_withdrawal_keeps_what_was_decided_before(run: Run):
    run("approve", "heart-disease", "--site", "cleveland", *WITH, "--by", "A", "--yes")
    assert "cannot be called back" in run("withdraw", "heart-disease", "--site", "cleveland", "--by", "B").output
    study = Study.load("heart-disease")
    written = approval.approval_of(SiteFolder("cleveland"), study.sha256())
    assert (written.decision, written.by) == ("withdrawn", "B")
    error = run("withdraw", "heart-disease", "--site", "cleveland", raises=UsageError).exception
    assert "has no valid approval of study 'heart-disease'" in str(error)
    run("approve", "heart-disease", "--site", "cleveland", *WITH, "--by", "C", "--yes")
    again = approval.approval_of(SiteFolder("cleveland"), study.sha256())
    assert [line.rpartition(" at ")[0] for line in again.earlier] == ["approved by A", "withdrawn by B"]
    by_hash = run("withdraw", study.sha256()[:12], "--site", "cleveland", "--json")
    assert [one["decision"] for one in json.loads(by_hash.stdout)["withdrawn"]] == ["withdrawn"]


def test_a_refusal_is_a_decision_too_and_needs_no_rows(run: Run):
    said = json.loads(run("approve", "heart-disease", "--site", "cleveland", "--refuse", "--json").stdout)
    assert (said["decision"], said["study"], said["rows-sha256"]) == ("refused", "heart-disease", "")
    assert said["by"] != ""
    assert not SiteFolder("cleveland").frozen.exists()


@pytest.mark.parametrize(("words", "expected"), [
    (("heart-disease", *WITH, "--yes"), "sites that have joined here: none; name one with --site NAME"),
    (("heart-disease", "--site", "cleveland", "--yes"), "say who else may take part with --with A,B,C"),
    (("heart-disease", "--site", "cleveland", "--with", "Hungary", "--yes"), "a site's name is of a-z, 0-9"),
    (
        ("heart-disease", "--site", "cleveland", *WITH),
        "there is no terminal to ask at: decide with --yes or --refuse",
    ),
    (("wine", "--site", "cleveland", *WITH, "--yes"), "would not answer this study: its table is mapped to"),
    (("heart-disease", "--site", "cleveland", "--yes", "--refuse"), "--yes and --refuse exclude each other"),
])  # fmt: skip
def test_what_cannot_be_approved_is_said_and_nothing_is_written(run: Run, words: tuple[str, ...], expected: str):
    error = run("approve", *words, raises=UsageError).exception
    assert expected in str(error)
    assert list(SiteFolder("cleveland").root.rglob("*")) == []


def test_a_study_that_the_gate_would_refuse_is_not_approved(run: Run, tmp_path: Path):
    over = tmp_path / "over.toml"
    over.write_text(Study.load("heart-disease").text.replace("rounds = 40", "rounds = 4000"))
    error = run("approve", str(over), "--site", "cleveland", *WITH, "--yes", raises=UsageError).exception
    assert str(error).endswith("its policy allows 1000 rounds, the study has 4000")
    assert not SiteFolder("cleveland").approvals.exists()


def test_a_study_that_begins_from_a_model_needs_a_copy_of_it_once(run: Run, tmp_path: Path):
    study = Study.load("heart-disease").replace(
        {"strategy.rounds": 1, "compare.site-model": "same", "compare.resamples": 200}
    )
    earlier = run_study(study).run
    model, late = str(export(earlier, tmp_path / "model").folder), tmp_path / "late.toml"
    begun = named_start(study.replace({"model.warm-start": earlier}), approved=False)
    late.write_text(begun.text)
    words = ("approve", str(late), "--site", "cleveland", *WITH, "--yes")
    said = str(run(*words, raises=UsageError).exception)
    assert f"begins from the model {earlier!r}, of which this site needs a copy" in said
    assert said.endswith("add: --start FOLDER")
    assert not SiteFolder("cleveland").approvals.exists()
    assert str(run(*words, "--start", str(tmp_path), raises=UsageError).exception) == (
        f"--start {tmp_path}: is not a model folder, it has no model.json; make one with: flfed run export RUN"
    )
    other = str(export(run_study(study.replace({"seed": 5})).run, tmp_path / "other").folder)
    assert "another model" in str(run(*words, "--start", other, raises=UsageError).exception)
    said = run(*words, "--start", model, "--all").output
    assert f"begins with the model {earlier} (SHA-256 {begun.start_sha256})" in " ".join(said.split())
    run("withdraw", begun.name, "--site", "cleveland")
    # As frozen rows do, the copy stays: it is good for the next study.
    late.write_text(begun.replace({"seed": 6}).text)
    run(*words)
    found = json.loads(run("status", "cleveland", "--json").stdout)["studies"]
    assert sorted(one["decision"] for one in found) == ["approved", "withdrawn"]
    error = run("approve", "heart-disease", *words[2:], "--start", model, raises=UsageError).exception
    assert "begins from no earlier model" in str(error)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("typed", "decision"), [("approve", "approved"), ("refuse", "refused"), ("", None), ("yes\nlater", None)]
)
def test_a_person_at_a_terminal_is_asked(heart: datasets.Dataset, typed: str, decision: str | None):
    words = ("site", "approve", "heart-disease", "--site", "cleveland", *WITH)
    code, said = in_terminal(*words, columns=200, typed=f"{typed}\n")
    assert any(line.startswith("Type approve, refuse or later") for line in said) and code == 0
    written = approval.approval_of(SiteFolder("cleveland"), Study.load("heart-disease").sha256())
    assert (written and written.decision) == decision


def test_the_words_say_what_every_reply_reveals(small_sites: Callable[..., list[Site]], small_study: str):
    (site,) = small_sites(1, policy=Policy())
    words = details(Study.parse(small_study), site, ["site-02", "site-03"])
    whole = "\n".join(words)
    for message in (EnrolReply, TrainReply, Scores, CompareReply):
        assert reveals(message)[:200] in whole
    assert reveals(SummariseReply).startswith("the exact number of training rows. Under disclosure")
    assert "It suppresses counts of fewer than 10 rows." in whole
    assert "x1 (number, mm); x2 (number); flag (flag); colour (category, red, green, blue)" in whole
    assert "a run asks at least 3 sites" in whole and "Released in each of 5 rounds" in whole
    assert "person" not in whole.partition("Columns: ")[2].partition("\n")[0]
    assert "holds this site's own updates" in whole and "can compute the rows of the columns above" in whole
    with pytest.raises(FlfedError, match="run Python without -OO"):
        reveals(type("Silent", (), {}))


@pytest.mark.parametrize(("changes", "told"), [
    ({}, "updates of crafted models let it compute this site's rows and outcomes"),
    ({"secure-aggregation": "on"}, "reveal rows of all sites together"),
    ({"privacy.name": "record-dp", "privacy.epsilon": 3.0}, "no more than the study's epsilon allows"),
])  # fmt: skip
def test_the_words_say_what_a_coordinator_learns_that_makes_its_own_models(small_sites, small_study, changes, told):
    (site,) = small_sites(1, policy=Policy())
    study = Study.parse(small_study).replace(changes)
    (said,) = (words for words in details(study, site, ["site-02", "site-03"]) if words.startswith("What the coor"))
    assert told in said


def test_a_purpose_can_neither_hide_what_follows_nor_pretend_to_be_ours():
    assert safe_line("Good\x1b[8m\nUntil: 2027\u202e") == "Good [8m Until: 2027"
    long = safe_line("x" * 5000)
    assert len(long) < 700 and long.endswith("(4400 characters more: flfed study show)")


def test_an_approval_under_the_hash_of_another_study_is_none_of_it(small_study: str):
    folder, study = SiteFolder("site-01"), Study.parse(small_study)
    approval.refuse(folder, study, by="A")
    (path,) = folder.approvals.iterdir()
    path.rename(folder.approvals / f"{'0' * 64}.json")
    with pytest.raises(FlfedError, match="is the approval of another study"):
        approval.approval_of(folder, "0" * 64)
    assert approval.approval_of(folder, study.sha256()) is None
