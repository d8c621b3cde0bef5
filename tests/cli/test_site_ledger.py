"""`flfed site ledger` as an operator, an auditor and a log collector call it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.cli.site.ledger import show_ledger
from flfed.deployment.site_state.ledger_loss import keep_receipt
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, Receipt, ledger_of
from flfed.records.ledger_line import Total, Totals, moment_of
from flfed.signatures import sign_as_coordinator, signing_public

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
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
    folder.terms.write_text(f'signing-key = "{signing_public(KEY)}"\n')
    times = clock()
    ledger = Ledger(folder.ledger, clock=lambda: next(times))
    ledger.append(kind="enrol", study="heart-disease", run="r1", bytes=150)
    ledger.append(kind="summarise", study="heart-disease", run="r1", bytes=2_000)
    for number in (1, 2):
        ledger.append(kind="train", study="heart-disease", run="r1", round=number, bytes=1_000)
    ledger.append(kind="train", study="heart-disease", run="r1", round=2, bytes=1_000)
    ledger.append(kind="refused", study="wine", run="r2", reason="paused")
    ledger.append(kind="enrol", study="wine", run="r3", bytes=70)
    return folder


def receipt(folder: SiteFolder, n: int) -> None:
    found = Receipt(site=folder.site, run=f"r{n}", n=n, head=ledger_of(folder).hash_at(n))
    keep_receipt(folder, found, sign_as_coordinator(found.facts(), KEY))


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


def test_verification_says_what_is_vouched_for(ledger, folder):
    code, out, error = ledger("cleveland", "--verify")
    assert (code, error) == (0, "")
    assert "The coordinator has signed none of them: it would not show if the last ones were cut off." in out
    receipt(folder, 5)
    _, out, _ = ledger("cleveland", "--verify")
    assert out.splitlines()[0].startswith("cleveland: 7 lines, 2026-11-20 to 2026-11-21; head: ")
    assert out.splitlines()[1:] == [
        "1 receipt of the coordinator, the last for line 5 (run r5).",
        "It would not show if the 2 lines after that were cut off.", "Every line is as it was written.",
    ]  # fmt: skip
    receipt(folder, 7)
    found = json.loads(ledger("cleveland", "--verify", "--json")[1])
    assert (found["lines"], found["signed-lines"], found["receipts"], found["problems"]) == (7, 7, 2, [])
    assert found["head"] == ledger_of(folder).head()[1]


def test_a_problem_is_said_in_words_and_by_the_exit_code(ledger, folder):
    receipt(folder, 6)
    raws = folder.ledger.read_bytes().splitlines(keepends=True)
    folder.ledger.write_bytes(b"".join(raws[:2] + raws[3:5]))
    code, out, error = ledger("cleveland", "--verify")
    assert code == 1
    assert (
        "- line 3 is missing.\n- the ledger ends at line 5 but had 6 lines, as the coordinator signed at run r6: line 6"
        in out
    )
    assert error == "the ledger of cleveland is not as it was written: line 3 is missing (and 1 more)"
    code, out, _ = ledger("cleveland", "--verify", "--json")
    assert (code, len(json.loads(out)["problems"])) == (1, 2)
    for words in ((), ("--json",), ("--export", "-")):
        code, out, error = ledger("cleveland", *words)
        assert (code, error.endswith("see: flfed site ledger cleveland --verify")) == (1, True)
        assert "In all" not in out  # no sum over a part of it


def test_a_forged_receipt_is_a_problem_and_that_of_another_key_counts_with_a_remark(ledger, folder):
    receipt(folder, 6)
    folder.terms.write_text(f'signing-key = "{"ab" * 32}"\n')
    code, out, _ = ledger("cleveland", "--verify")
    assert code == 0
    assert "1 receipt with another key than the coordinator's" in out
    assert "The coordinator has signed none of them" in out
    whole = folder.ledger.read_bytes()
    folder.ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    assert (ledger("cleveland", "--verify")[0], "line 6 is cut off" in ledger("cleveland", "--verify")[2]) == (1, True)
    folder.ledger.write_bytes(whole)
    folder.receipts.write_bytes(folder.receipts.read_bytes().replace(b'"line":6', b'"line":4'))
    code, out, error = ledger("cleveland", "--verify")
    assert (code, "receipts: line 1 was changed" in error) == (1, True)


def test_a_lost_ledger_begins_anew_in_the_words_that_are_printed(ledger, folder):
    receipt(folder, 6)
    assert (ledger("cleveland", "--restart", "to forget")[0], len(list(ledger_of(folder).lines()))) == (2, 7)
    folder.ledger.unlink()
    assert ledger("cleveland", "--verify")[0] == 1
    code, out, _ = ledger("cleveland", "--restart", "the disk broke")
    assert (code, out.splitlines()[-1]) == (
        0, "Inform the coordinator, who records it with: flfed coordinator ledger cleveland --restart WHY",
    )  # fmt: skip
    (aside,) = folder.gate.glob("receipts-before-*.jsonl")
    assert "Approved studies need a new approval. Until then the gate refuses their requests." in out
    assert f"Set aside, keep: {aside}" in out and aside.stat().st_mode & 0o777 == 0o600
    code, out, _ = ledger("cleveland", "--verify")
    assert code == 0 and ": the disk broke. The earlier ledger was lost." in out
    assert ledger("cleveland", "--restart", "x", "--verify")[0] == 2


def test_a_lost_ledger_is_no_whole_one_and_a_restart_needs_a_reason(ledger, folder):
    folder.ledger.unlink()
    (folder.gate / "rows.key").write_bytes(bytes(32))
    code, out, error = ledger("cleveland", "--verify")
    assert code == 1 and "it is lost or was cut, since there is a key of people's hashes" in error
    assert "Every line is as it was written" not in out
    for option in ("--restart", "--repair"):
        code, _, error = ledger("cleveland", option, " ")
        assert code == 2 and f"{option} needs a reason, which is recorded" in error
    assert "All comparisons of models count as used." in ledger("cleveland", "--restart", "disk")[1]


def test_a_torn_line_is_repaired_on_record_only(ledger, folder):
    folder.ledger.write_bytes(folder.ledger.read_bytes()[:-30])
    code, out, _ = ledger("cleveland", "--verify")
    assert code == 1
    assert "the file ends in the middle of a line, after line 6" in out
    assert out.splitlines()[-1] == "If a crash cut off the last line: flfed site ledger cleveland --repair WHY"
    assert ledger("cleveland")[0] == 1
    code, out, _ = ledger("cleveland", "--repair", "power cut on Friday")
    assert (code, "Line 7 records it, with user and reason." in out) == (0, True)
    assert "1 torn line set aside by a recorded repair." in ledger("cleveland", "--verify")[1]
    last = json.loads(ledger("cleveland", "--export", "-")[1].splitlines()[-1])
    assert (last["n"], last["kind"], last["why"]) == (7, "repaired", "power cut on Friday")
    assert len(last["by"]) >= 1
    code, out, _ = ledger("cleveland", "--repair", "once more", "--json")
    assert (code, json.loads(out)) == (0, {"site": "cleveland", "repaired": None})


def test_a_long_list_of_problems_is_cut_for_people_only(ledger, folder):
    for _ in range(60):
        ledger_of(folder).append(kind="train", bytes=1)
    raws = folder.ledger.read_bytes().splitlines(keepends=True)
    folder.ledger.write_bytes(b"".join(raw for at, raw in enumerate(raws) if at % 2))
    _, out, error = ledger("cleveland", "--verify")
    assert (out.count("\n- "), "… and 13 more lines: --json" in out) == (20, True)
    assert error.endswith("(and 32 more)")
    assert len(json.loads(ledger("cleveland", "--verify", "--json")[1])["problems"]) == 33


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
    (("cleveland", "--verify", "--repair", "why"), "exclude each other"),
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
