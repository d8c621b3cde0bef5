"""`flfed site ledger` as an operator, an auditor and a log collector call it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from flfed.cli.site.ledger import show_ledger
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.ledger_line import Total, Totals, moment_of
from flfed.records.site_state import SiteState
from flfed.rows.data.policy import Policy

BEGAN = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
Said = tuple[int, str, str]


@pytest.fixture
def ledger(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A function that calls the command: exit code, standard output, the sentence of an error."""
    app = typer.Typer()
    app.command()(show_ledger)

    def call(*words: object) -> Said:
        code, sentence = 0, ""
        try:
            app([str(word) for word in words], standalone_mode=False)
        except FlfedError as error:
            code, sentence = error.exit_code, str(error)
        said = capsys.readouterr()
        return code, said.out, sentence or said.err

    return call


@pytest.fixture
def package_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the site, of which only the policy is asked for."""
    package = SimpleNamespace(policy=Policy(epsilon=2.5))
    monkeypatch.setattr("flfed.rows.data.site_discovery.load", lambda name: package)


def clock() -> Iterator[datetime]:
    """The time, an hour later each time it is asked."""
    now = BEGAN
    while True:
        yield now
        now += timedelta(hours=1)


@pytest.fixture
def folder(home: Path) -> SiteFolder:
    """A site that answered six messages of two runs in two days, and refused one."""
    folder = SiteFolder("cleveland")
    folder.make()
    times = clock()
    ledger = ledger_of(folder, clock=lambda: next(times))
    ledger.append(kind="enrol", study="heart-disease", run="r1", bytes=150)
    ledger.append(kind="summarise", study="heart-disease", run="r1", bytes=2_000)
    for number in (1, 2):
        ledger.append(kind="train", study="heart-disease", run="r1", round=number, bytes=1_000)
    ledger.append(kind="train", study="heart-disease", run="r1", round=2, bytes=1_000)
    ledger.append(kind="refused", study="wine", run="r2", reason="paused")
    ledger.append(kind="enrol", study="wine", run="r3", bytes=70)
    return folder


def test_a_person_sees_the_lines_and_the_sums_by_study_and_day(ledger, folder):
    code, out, error = ledger("cleveland")
    assert (code, error) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["2", "2026-11-20", "23:00:00", "summarise", "heart-disease", "r1", "–", "2,000"] in rows
    assert ["4", "2026-11-21", "01:00:00", "train", "heart-disease", "r1", "2", "1,000"] in rows
    assert ["6", "2026-11-21", "03:00:00", "refused", "wine", "r2", "–", "0"] in rows
    assert ["heart-disease", "5", "5,150"] in rows and ["wine", "2", "70"] in rows
    assert ["2026-11-20", "2", "2,150"] in rows and ["2026-11-21", "5", "3,070"] in rows
    assert out.splitlines()[-1] == "In all 5,220 bytes in 7 lines."


def test_the_object_has_the_lines_as_they_stand_in_the_ledger(ledger, folder):
    found = json.loads(ledger("cleveland", "--json")[1])
    assert found["lines"] == len(found["entries"]) == 7
    assert found["entries"] == [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    assert [line["kind"] for line in json.loads(ledger("cleveland", "--run", "r3", "--json")[1])["entries"]] == [
        "enrol"
    ]


def test_of_a_long_ledger_the_last_lines_are_shown_and_all_are_counted(ledger, folder):
    for _ in range(60):
        ledger_of(folder).append(kind="train", study="wine", run="r4", round=1, bytes=1)
    _, out, _ = ledger("cleveland")
    assert "cleveland: the last 40 of 67 lines" in out
    assert sum(" train " in line for line in out.splitlines()) == 40
    assert out.splitlines()[-1] == "In all 5,280 bytes in 67 lines."


def test_a_program_reads_bytes_by_round_and_kind(ledger, folder):
    code, out, _ = ledger("cleveland", "--run", "r1", "--json")
    found = json.loads(out)
    assert (code, found["site"], found["run"], found["lines"], found["bytes"]) == (0, "cleveland", "r1", 5, 5_150)
    assert found["rounds"] == [
        {"round": 0, "kind": "enrol", "lines": 1, "bytes": 150},
        {"round": 0, "kind": "summarise", "lines": 1, "bytes": 2_000},
        {"round": 1, "kind": "train", "lines": 1, "bytes": 1_000},
        {"round": 2, "kind": "train", "lines": 2, "bytes": 2_000},
    ]
    whole = json.loads(ledger("cleveland", "--json")[1])
    assert [day["bytes"] for day in whole["days"]] == [2_150, 3_070]
    assert [(study["study"], study["lines"]) for study in whole["studies"]] == [("heart-disease", 5), ("wine", 2)]
    assert (whole["run"], "rounds" in whole) == (None, False)
    rows = [line.split() for line in ledger("cleveland", "--run", "r1")[1].splitlines()]
    assert ["2", "train", "2,000"] in rows


@pytest.mark.parametrize(
    ("since", "lines"),
    [("2026-11-21", 5), ("2026-11-20T23:00:00Z", 6), ("2026-11-21T00:00:00+01:00", 6), ("2027-01-01", 0)],
)
def test_lines_are_chosen_from_a_date_or_a_time_on(ledger, folder, since: str, lines: int):
    code, out, _ = ledger("cleveland", "--since", since, "--json")
    assert (code, json.loads(out)["lines"]) == (0, lines)
    exported = ledger("cleveland", "--since", since, "--export", "-")[1]
    assert len(exported.splitlines()) == lines


def test_a_log_collector_gets_the_lines_as_they_are(ledger, folder, tmp_path):
    code, out, _ = ledger("cleveland", "--export", "-")
    assert (code, out) == (0, folder.ledger.read_text())
    target = tmp_path / "lines.jsonl"
    code, out, said = ledger("cleveland", "--export", target)
    assert (code, out, said) == (0, "", f"7 lines written to {target}.\n")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (folder.ledger.read_bytes(), 0o600)
    assert ledger("cleveland", "--export", target)[0] == 2  # nothing is written over
    assert [json.loads(line)["n"] for line in ledger("cleveland", "--run", "r3", "--export", "-")[1].splitlines()] == [
        7
    ]


def test_verification_reads_every_line_and_finds_the_end_that_the_state_has(ledger, folder):
    code, out, error = ledger("cleveland", "--verify")
    assert (code, error) == (0, "")
    assert out.splitlines()[0].startswith("cleveland: 7 lines, 2026-11-20 to 2026-11-21; head: ")
    assert out.splitlines()[1:] == ["Every line is as it was written, and the last one is that of the site's state."]
    found = json.loads(ledger("cleveland", "--verify", "--json")[1])
    assert (found["lines"], found["head"], found["problems"]) == (7, ledger_of(folder).last().hash, [])


def test_a_problem_is_said_in_words_and_by_the_exit_code(ledger, folder):
    raws = folder.ledger.read_bytes().splitlines(keepends=True)
    folder.ledger.write_bytes(b"".join(raws[:2] + raws[3:]))
    said = "ledger.jsonl: the line after line 2 is not as it was written; see: flfed site ledger cleveland --verify"
    code, out, error = ledger("cleveland", "--verify")
    assert (code, out) == (1, f"- {said}.\n")
    assert error == f"the ledger of cleveland is not as it was written: {said}"
    code, out, _ = ledger("cleveland", "--verify", "--json")
    assert (code, json.loads(out)["problems"]) == (1, [said])
    for words in ((), ("--json",), ("--export", "-")):
        code, out, error = ledger("cleveland", *words)
        assert (code, error) == (1, said)
        assert "In all" not in out  # no sum over a part of it


def test_a_ledger_that_lost_its_end_begins_anew_with_a_reason_alone(ledger, folder, package_policy):
    folder.ledger.write_bytes(b"".join(folder.ledger.read_bytes().splitlines(keepends=True)[:-2]))
    code, out, error = ledger("cleveland", "--verify")
    assert code == 1 and "its ledger is lost or was cut" in error and "--restart --why TEXT" in out
    for words in (("--restart",), ("--restart", "--why", " "), ("--why", "a disk broke")):
        code, _, error = ledger("cleveland", *words)
        assert code == 2 and error == "--restart and --why go together: --restart --why 'the disk was lost'"
    code, out, _ = ledger("cleveland", "--restart", "--why", "a disk broke")
    lines = out.splitlines()
    assert code == 0 and lines[-1].endswith("records it with: flfed coordinator acknowledge cleveland --why TEXT")
    assert "The privacy budget counts as spent" in out and "--changed-sites and --unknown-releases" in out
    aside = [Path(line.removeprefix("Set aside, keep: ")) for line in lines if line.startswith("Set aside")]
    assert [path.suffix for path in aside] == [".jsonl", ".db"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in aside)
    assert SiteState(folder.state).restarted().epsilon == 2.5
    code, out, _ = ledger("cleveland", "--verify")
    assert code == 0 and ": a disk broke." in out
    assert ledger("cleveland", "--restart", "--why", "x", "--verify")[0] == 2


def test_a_torn_line_is_no_problem(ledger, folder):
    folder.ledger.write_bytes(folder.ledger.read_bytes()[:-30])
    assert ledger("cleveland", "--verify")[0] == 0
    assert json.loads(ledger("cleveland", "--json")[1])["lines"] == 6
    assert ledger_of(folder).append(kind="train").n == 8  # the state has the whole line


def test_a_site_that_answered_nothing_has_no_lines(ledger, home):
    SiteFolder("new").make()
    assert ledger("new")[:2] == (0, "new: nothing has left so far.\n")
    assert ledger("new", "--run", "r1")[:2] == (0, "new: nothing of run r1 has left so far.\n")
    code, out, _ = ledger("new", "--verify")
    assert (code, out.splitlines()[0]) == (0, "new: no lines.")
    assert json.loads(ledger("new", "--json")[1])["bytes"] == 0
    assert ledger("new", "--export", "-")[:2] == (0, "")


@pytest.mark.parametrize(("words", "said"), [
    (("nowhere",), "has no folder here"), (("../x",), "must be of a-z"),
    (("cleveland", "--since", "yesterday"), "'yesterday' is no date and no time"),
    (("cleveland", "--verify", "--export", "-"), "exclude each other"),
    (("cleveland", "--verify", "--restart", "--why", "x"), "exclude each other"),
    (("cleveland", "--verify", "--since", "2026-11-20"), "--since and --run select lines to show or export"),
    (("cleveland", "--export", "-", "--json"), "leave --json out"),
    (("cleveland", "--export", "/nowhere/x"), "cannot be written"),
])  # fmt: skip
def test_wrong_use_is_one_sentence(ledger, folder, words: tuple[str, ...], said: str):
    code, out, error = ledger(*words)
    assert (code, out) == (2, "")
    assert said in error


def test_sums_count_only_what_is_a_number(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for size in (5, None, "7", 2.5, True, 6):
        ledger.append(kind="train", bytes=size, round="one", study=None)
    found = Totals()
    for line in ledger.lines():
        found.add(line)
    assert found.all == Total(lines=6, bytes=11)
    assert (found.studies, found.rounds) == ({"": found.all}, {(0, "train"): found.all})
    assert moment_of("2026-11-20T08:30") == "2026-11-20T08:30:00.000Z"
