"""The ledger: lines are added in order by whoever writes, last on the disk, and a crash shows until it is recorded."""

import hashlib
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flfed.errors import UsageError
from flfed.records.ledger import Ledger, LedgerError
from flfed.records.ledger_line import LONGEST, START, new_line, read_line

BEGAN = datetime(2026, 11, 20, 15, 30, 12, 5000, tzinfo=UTC)
TORN = "a crash cut its last line off, so nothing may leave"
FACTS = {"study": "heart-disease", "run": "r1", "round": 3, "bytes": 1024, "sha256": "ab" * 32}


def filled(path: Path, lines: int) -> Ledger:
    ledger = Ledger(path, clock=lambda: BEGAN)
    for number in range(1, lines + 1):
        ledger.append(kind="train", **{**FACTS, "round": number})
    return ledger


def test_a_lines_hash_covers_all_of_it_and_the_hash_before(tmp_path: Path):
    # By hand: SHA-256 of the JSON text with sorted keys and no blanks, without the hash itself.
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=lambda: BEGAN)
    first = ledger.append(kind="train", **FACTS)
    text = (
        '{"at":"2026-11-20T15:30:12.005Z","before":"'
        + "0" * 64
        + '","bytes":1024,"format":2,"kind":"train","n":1,"round":3,'
        '"run":"r1","sha256":"' + "ab" * 32 + '","study":"heart-disease"}'
    )
    assert first.hash == hashlib.sha256(text.encode()).hexdigest()
    second = ledger.append(kind="refused", reason="paused", study_sha256="cd")
    assert (second.n, second.before) == (2, first.hash)
    assert dict(second.facts) == {"reason": "paused", "study-sha256": "cd"}  # keys are kebab-case
    told = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(t["n"], t["before"], t["hash"]) for t in told] == [(1, START, first.hash), (2, first.hash, second.hash)]
    assert (ledger.head(), ledger.problems()) == ((2, second.hash), [])


def test_a_line_is_on_the_disk_before_it_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file)), sync(file)))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(kind="train")
    folder, first = synced  # a new file's name is in its folder, which is synced too
    assert (stat.S_ISDIR(folder.st_mode), first.st_size) == (True, ledger.path.stat().st_size)
    ledger.append(kind="train")
    assert [found.st_size for found in synced[2:]] == [ledger.path.stat().st_size]


def test_an_absent_ledger_has_no_lines_and_a_new_one_is_private(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert (ledger.head(), list(ledger.lines()), ledger.problems()) == ((0, START), [], [])
    assert not ledger.path.exists()
    before = os.umask(0)
    try:
        ledger.append(kind="train")
    finally:
        os.umask(before)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_a_new_ledger_belongs_to_whom_its_folder_belongs_to(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file for another user")
    os.chown(tmp_path, 12345, 12346)
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    owner = ledger.path.stat()
    assert (owner.st_uid, owner.st_gid) == (12345, 12346)


def test_a_ledger_that_others_may_write_takes_no_line(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    ledger.path.chmod(0o620)
    with pytest.raises(LedgerError, match="chmod 600"):
        ledger.append(kind="train")
    assert len(list(ledger.lines())) == 2
    assert ledger.problems() == [f"others may read or write the file (mode 620): chmod 600 {ledger.path}"]


def test_a_link_in_the_ledgers_place_is_not_followed(tmp_path: Path):
    (tmp_path / "elsewhere").touch(mode=0o600)
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "ledger.jsonl").append(kind="train")
    assert (tmp_path / "elsewhere").stat().st_size == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    | st.dictionaries(st.integers(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(values=st.lists(JSON, min_size=1, max_size=4))
def test_whatever_json_holds_is_kept_and_covered(tmp_path_factory: pytest.TempPathFactory, values: list[object]):
    ledger = Ledger(tmp_path_factory.mktemp("any") / "ledger.jsonl")
    appended = [ledger.append(kind="any", epsilon=value) for value in values]
    assert list(ledger.lines()) == appended
    assert ledger.problems() == []
    # As JSON gives it back: a list for a tuple, text for a key that was a number.
    back = [json.loads(json.dumps(value)) for value in values]
    assert [line.facts["epsilon"] for line in ledger.lines()] == back


@pytest.mark.parametrize("key", ["n", "at", "before", "hash", "Study", "a b", "é", "-a", "a__b", ""])
def test_a_key_that_a_line_cannot_have_is_refused(tmp_path: Path, key: str):
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    with pytest.raises(UsageError, match="ledger key"):
        ledger.append(kind="train", **{key: 1})
    assert ledger.head()[0] == 1


def test_nan_and_too_long_lines_are_refused_and_leave_nothing(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append(kind="train", epsilon=float("nan"))
    with pytest.raises(UsageError, match="too long"):
        ledger.append(kind="refused", reason="x" * LONGEST)
    assert (ledger.head()[0], ledger.problems()) == (1, [])
    longest = "x" * (LONGEST - 1 - len(ledger.append(kind="refused", reason="").raw))
    with pytest.raises(UsageError, match=f"{LONGEST} bytes is too long"):
        ledger.append(kind="refused", reason=longest + "x")
    assert len(ledger.append(kind="refused", reason=longest).raw) == LONGEST - 1
    assert (ledger.append(kind="train").n, ledger.problems()) == (4, [])  # the tail is longer than one block


def test_the_hash_of_an_earlier_line_is_found_from_the_end(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 120)  # some 40 kB, more than two blocks
    hashes = [START, *(line.hash for line in ledger.lines())]
    assert [ledger.hash_at(n) for n in range(121)] == hashes
    assert (ledger.hash_at(121), ledger.hash_at(10**9)) == ("", "")
    assert (Ledger(tmp_path / "none").hash_at(0), Ledger(tmp_path / "none").hash_at(1)) == (START, "")


def test_no_hash_is_told_across_a_line_that_was_changed(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"1024", b"1025")
    ledger.path.write_bytes(b"".join(lines))
    assert ledger.hash_at(7) == read_line(lines[6].strip()).hash
    for n in (5, 4, 1):
        with pytest.raises(LedgerError, match="the line before line 6 is not as it was written"):
            ledger.hash_at(n)


def test_a_hash_is_told_only_where_all_later_lines_follow_from_it(tmp_path: Path):
    # Line 5 with another fact and with its own, right hash: only that line 6 names another one tells.
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    old = read_line(lines[4].strip())
    lines[4] = new_line(5, old.before, old.at, "train", {**FACTS, "bytes": 1}).raw + b"\n"
    ledger.path.write_bytes(b"".join(lines))
    assert len(ledger.hash_at(6)) == 64
    for n in (5, 4):
        with pytest.raises(LedgerError, match="the line before line 6 is not as it was written"):
            ledger.hash_at(n)


def test_no_hash_is_told_across_what_is_no_line(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([*lines[:4], b"no line\n", *lines[4:]]))
    assert len(ledger.hash_at(5)) == 64
    with pytest.raises(LedgerError, match="the line before line 5 is not as it was written"):
        ledger.hash_at(4)
    ledger.path.write_bytes(b"".join(lines[2:]))
    assert len(ledger.hash_at(3)) == 64
    with pytest.raises(LedgerError, match="its first line is missing"):
        ledger.hash_at(2)


def test_a_reader_sees_the_ledger_as_it_was_when_it_began(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 3)
    reading = ledger.lines()
    assert next(reading).n == 1
    ledger.append(kind="train")
    assert [line.n for line in reading] == [2, 3]
    assert [line.n for line in ledger.lines()] == [1, 2, 3, 4]


@pytest.mark.parametrize(("change", "last", "said"), [
    (lambda raws: raws[:3] + raws[4:], 3, "line 4 is missing"), (lambda raws: raws[1:], 0, "line 1 is missing"),
    (lambda raws: [*raws[:3], raws[4], raws[3], *raws[5:]], 3, "line 4 is out of order"),
    (lambda raws: [*raws[:3], raws[3].replace(b"1024", b"1025"), *raws[4:]], 3, "line 4 was changed"),
    (lambda raws: [*raws[:4], raws[3], *raws[4:]], 4, "a second line 4"),
])  # fmt: skip
def test_lines_end_with_an_error_before_the_first_that_is_not_as_it_was_written(tmp_path, change, last, said):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    ledger.path.write_bytes(b"".join(change(ledger.path.read_bytes().splitlines(keepends=True))))
    read: list[int] = []
    with pytest.raises(LedgerError, match=said):
        read.extend(line.n for line in ledger.lines())
    assert read == list(range(1, last + 1))


# What a crash leaves.


def test_wherever_a_crash_cuts_the_last_line_it_shows_and_is_repaired_on_record(tmp_path: Path):
    whole = filled(tmp_path / "whole.jsonl", 3).path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start + 1, len(whole)):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(whole[:cut])
        path.chmod(0o600)
        ledger = Ledger(path)
        with pytest.raises(LedgerError, match=TORN):
            ledger.append(kind="train")
        with pytest.raises(LedgerError, match=TORN):
            ledger.head()
        assert ledger.problems()[0].startswith("the file ends in the middle of a line, after line 2")
        assert path.read_bytes() == whole[:cut]  # nothing repairs it silently
        line = ledger.repair(by="ana", why="power cut")
        only_the_end = cut == len(whole) - 1
        assert (line.n, line.facts["torn-bytes"]) == ((4, 0) if only_the_end else (3, cut - start))
        assert (line.facts["by"], line.facts["why"], line.kind) == ("ana", "power cut", "repaired")
        assert path.read_bytes().startswith(whole[:cut] + b"\n")  # and nothing is taken away
        assert (ledger.append(kind="train").n, ledger.problems()) == (line.n + 1, [])
        assert ledger.hash_at(2) == read_line(whole.splitlines()[1]).hash


def test_blocks_that_never_reached_the_disk_are_repaired_too(tmp_path: Path):
    # A file system may keep a file's length and lose what was in it.
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    for torn in (b"\0" * 300, b"\0" * 300 + b'3","study":"x"}\n'):
        with ledger.path.open("ab") as stream:
            stream.write(torn)
        assert (ledger.is_torn(), len(ledger.problems())) == (True, 1)
        with pytest.raises(LedgerError, match=TORN):
            ledger.append(kind="train")
        assert ledger.repair(by="ana", why="power cut").facts["torn-bytes"] == len(torn.removesuffix(b"\n"))
        assert (ledger.problems(), ledger.is_torn()) == ([], False)
    assert [line.n for line in ledger.lines()] == [1, 2, 3, 4]


def test_a_whole_ledger_needs_no_repair_and_a_changed_line_gets_none(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    assert ledger.repair(by="ana", why="a guess") is None
    raw = ledger.path.read_bytes()
    changed = raw.replace(b'"n":2,"round":2', b'"n":2,"round":9')
    for text in (changed, changed[:-1], raw[:-2] + b" }"):  # also where its end was taken away with it
        ledger.path.write_bytes(text)
        with pytest.raises(LedgerError, match="its last line is not as it was written"):
            ledger.append(kind="train")
        assert len(ledger.problems()) >= 1
        with pytest.raises(LedgerError, match="not as it was written|was changed, which no crash does"):
            ledger.repair(by="mallory", why="to hide it")
        assert ledger.path.read_bytes() == text


def test_what_a_repair_set_aside_may_neither_change_nor_go(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-40])
    ledger.repair(by="ana", why="power cut")
    first, torn, repair = ledger.path.read_bytes().splitlines(keepends=True)
    for text, count in (
        (first + torn[:-2] + b"\n" + repair, 2),
        (first + repair, 1),
        (first + torn + torn + repair, 1),
    ):
        ledger.path.write_bytes(text)
        assert len(ledger.problems()) == count


def test_only_a_repair_sets_something_aside(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    torn = {"torn_bytes": 4, "torn_sha256": hashlib.sha256(b"torn").hexdigest()}
    ledger.append(kind="train", **torn)
    first, second = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(first + b"torn\n" + second)
    assert ledger.problems() == ["bytes that are no line are after line 1"]
    with pytest.raises(LedgerError, match="the line before line 2"):
        ledger.hash_at(1)
