"""The ledger: lines are added in order by whoever writes, last on the disk, and what a crash tears costs nothing."""

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
FACTS = {"study": "heart-disease", "run": "r1", "round": 3, "bytes": 1024, "sha256": "ab" * 32}


def filled(path: Path, lines: int) -> Ledger:
    ledger = Ledger(path, clock=lambda: BEGAN)
    for number in range(1, lines + 1):
        ledger.append(kind="train", **{**FACTS, "round": number})
    return ledger


def head(ledger: Ledger) -> tuple[int, str]:
    with ledger.reading() as opened:
        return opened.head()


def hash_at(ledger: Ledger, n: int) -> str:
    with ledger.reading() as opened:
        return opened.hash_at(n)


def test_a_lines_hash_covers_all_of_it_and_the_hash_before(tmp_path: Path):
    # By hand: SHA-256 of the JSON text with sorted keys and no blanks, without the hash itself.
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=lambda: BEGAN)
    first = ledger.append(kind="train", **FACTS)
    text = (
        '{"at":"2026-11-20T15:30:12.005Z","before":"' + "0" * 64 + '","bytes":1024,"kind":"train","n":1,"round":3,'
        '"run":"r1","sha256":"' + "ab" * 32 + '","study":"heart-disease"}'
    )
    assert first.hash == hashlib.sha256(text.encode()).hexdigest()
    second = ledger.append(kind="refused", reason="paused", study_sha256="cd")
    assert (second.n, second.before) == (2, first.hash)
    assert dict(second.facts) == {"reason": "paused", "study-sha256": "cd"}  # keys are kebab-case
    told = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(t["n"], t["before"], t["hash"]) for t in told] == [(1, START, first.hash), (2, first.hash, second.hash)]
    assert (head(ledger), ledger.problems()) == ((2, second.hash), [])


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
    assert (head(ledger), list(ledger.lines()), ledger.problems()) == ((0, START), [], [])
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
    assert head(ledger)[0] == 1


def test_nan_and_too_long_lines_are_refused_and_leave_nothing(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append(kind="train", epsilon=float("nan"))
    with pytest.raises(UsageError, match="too long"):
        ledger.append(kind="refused", reason="x" * LONGEST)
    assert (head(ledger)[0], ledger.problems()) == (1, [])
    longest = "x" * (LONGEST - 1 - len(ledger.append(kind="refused", reason="").raw))
    with pytest.raises(UsageError, match=f"{LONGEST} bytes is too long"):
        ledger.append(kind="refused", reason=longest + "x")
    assert len(ledger.append(kind="refused", reason=longest).raw) == LONGEST - 1
    assert (ledger.append(kind="train").n, ledger.problems()) == (4, [])  # the tail is longer than one block


def test_the_hash_of_an_earlier_line_is_found_from_the_end(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 120)  # some 40 kB, more than two blocks
    hashes = [START, *(line.hash for line in ledger.lines())]
    assert [hash_at(ledger, n) for n in range(121)] == hashes
    assert (hash_at(ledger, 121), hash_at(ledger, 10**9)) == ("", "")
    assert (hash_at(Ledger(tmp_path / "none"), 0), hash_at(Ledger(tmp_path / "none"), 1)) == (START, "")


def test_no_hash_is_told_across_a_line_that_was_changed(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"1024", b"1025")
    ledger.path.write_bytes(b"".join(lines))
    assert hash_at(ledger, 7) == read_line(lines[6].strip()).hash
    for n in (5, 4, 1):
        with pytest.raises(LedgerError, match="the line before line 6 is not as it was written"):
            hash_at(ledger, n)


def test_a_hash_is_told_only_where_all_later_lines_follow_from_it(tmp_path: Path):
    # Line 5 with another fact and with its own, right hash: only that line 6 names another one tells.
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    old = read_line(lines[4].strip())
    lines[4] = new_line(5, old.before, old.at, "train", {**FACTS, "bytes": 1}).raw + b"\n"
    ledger.path.write_bytes(b"".join(lines))
    assert len(hash_at(ledger, 6)) == 64
    for n in (5, 4):
        with pytest.raises(LedgerError, match="the line before line 6 is not as it was written"):
            hash_at(ledger, n)


def test_no_hash_is_told_across_what_is_no_line(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([*lines[:4], b"no line\n", *lines[4:]]))
    assert len(hash_at(ledger, 5)) == 64
    with pytest.raises(LedgerError, match="the line before line 5 is not as it was written"):
        hash_at(ledger, 4)
    ledger.path.write_bytes(b"".join(lines[2:]))
    assert len(hash_at(ledger, 3)) == 64
    with pytest.raises(LedgerError, match="its first line is missing"):
        hash_at(ledger, 2)


def test_a_reader_sees_the_ledger_as_it_was_when_it_began(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 3)
    reading = ledger.lines()
    assert next(reading).n == 1
    ledger.append(kind="train")
    assert [line.n for line in reading] == [2, 3]
    assert [line.n for line in ledger.lines()] == [1, 2, 3, 4]


@pytest.mark.parametrize(("change", "last"), [
    (lambda raws: raws[:3] + raws[4:], 3), (lambda raws: raws[1:], 0),
    (lambda raws: [*raws[:4], raws[3], *raws[4:]], 4),
    (lambda raws: [*raws[:3], raws[4], raws[3], *raws[5:]], 3),
    (lambda raws: [*raws[:3], raws[3].replace(b"1024", b"1025"), *raws[4:]], 3),
])  # fmt: skip
def test_lines_end_with_an_error_before_the_first_that_is_not_as_it_was_written(tmp_path, change, last):
    ledger = filled(tmp_path / "ledger.jsonl", 9)
    ledger.path.write_bytes(b"".join(change(ledger.path.read_bytes().splitlines(keepends=True))))
    read: list[int] = []
    said = f"the line after line {last} is not as it was written" if last else "the line at the start is not"
    with pytest.raises(LedgerError, match=said):
        read.extend(line.n for line in ledger.lines())
    assert read == list(range(1, last + 1))
    assert len(ledger.problems()) == 1


# What a crash leaves.


def test_wherever_a_crash_cuts_the_last_line_the_next_one_takes_its_place(tmp_path: Path):
    whole = filled(tmp_path / "whole.jsonl", 3).path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start + 1, len(whole)):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(whole[:cut])
        path.chmod(0o600)
        ledger = Ledger(path)
        # A reader sees the whole lines, and changes nothing.
        assert ([line.n for line in ledger.lines()], ledger.problems(), head(ledger)[0]) == ([1, 2], [], 2)
        assert path.read_bytes() == whole[:cut]
        assert (ledger.append(kind="train").n, ledger.problems()) == (3, [])
        assert path.read_bytes().startswith(whole[:start])


def test_blocks_that_never_reached_the_disk_are_cut_off_too(tmp_path: Path):
    # A file system may keep a file's length and lose what was in it.
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    with ledger.path.open("ab") as stream:
        stream.write(b"\0" * 40_000)
    assert ledger.append(kind="train").n == 3
    assert [line.n for line in ledger.lines()] == [1, 2, 3] and ledger.problems() == []


def test_to_a_last_line_that_was_changed_no_line_is_added(tmp_path: Path):
    ledger = filled(tmp_path / "ledger.jsonl", 2)
    raw = ledger.path.read_bytes()
    for text in (raw.replace(b'"n":2,"round":2', b'"n":2,"round":9'), raw + b"no line\n"):
        ledger.path.write_bytes(text)
        with pytest.raises(LedgerError, match="its last line is not as it was written"):
            ledger.append(kind="train")
        assert len(ledger.problems()) == 1 and ledger.path.read_bytes() == text
