"""Whatever is done to a ledger's lines is found, but for a cut at a line's end and for hashes made anew."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flfed.records.ledger import Ledger
from flfed.records.ledger_line import START, new_line, read_line

COUNT = 12


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    ledger = Ledger(tmp_path_factory.mktemp("made") / "ledger.jsonl")
    for number in range(1, COUNT + 1):
        ledger.append(kind="train", study="heart-disease", run="r1", round=number, bytes=100 + number)
    return ledger.path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def problems(folder: Path, found: list[bytes]) -> list[str]:
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.path.write_bytes(b"".join(found))
    ledger.path.chmod(0o600)
    return ledger.problems()


def is_beginning(found: list[bytes], lines: list[bytes]) -> bool:
    """Return whether whole lines of the ledger are there, from the first on, and no other."""
    whole = b"".join(found).rpartition(b"\n")[0]
    return whole == b"".join(lines)[: len(whole)] and b"".join(lines)[len(whole) : len(whole) + 1] in (b"\n", b"")


def test_a_ledger_as_it_was_written_has_no_problem(place: Path, lines: list[bytes]):
    assert problems(place, lines) == []
    assert len(list(Ledger(place / "ledger.jsonl").lines())) == COUNT


PLACES = st.integers(0, COUNT - 1)


@settings(max_examples=400)
@given(at=PLACES, where=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(place: Path, lines: list[bytes], at: int, where: int, byte: int):
    raw = bytearray(lines[at])
    where %= len(raw)
    assume(raw[where] != byte)
    raw[where] = byte
    found = [*lines[:at], bytes(raw), *lines[at + 1 :]]
    assert len(problems(place, found)) == (not is_beginning(found, lines))


@settings(max_examples=200)
@given(at=PLACES, where=st.integers(0, 10_000), count=st.integers(1, 30), more=st.binary(max_size=30))
def test_any_bytes_taken_out_or_put_in_are_found(place, lines, at, where, count, more):
    raw = lines[at]
    where %= len(raw)
    found = [*lines[:at], raw[:where] + more + raw[where + count :], *lines[at + 1 :]]
    assume(found != lines)
    assert len(problems(place, found)) == (not is_beginning(found, lines))


@given(removed=st.sets(PLACES, min_size=1))
def test_any_removed_lines_but_the_last_ones_are_found(place: Path, lines: list[bytes], removed: set[int]):
    left = [raw for at, raw in enumerate(lines) if at not in removed]
    assert len(problems(place, left)) == (left != lines[: len(left)])


@given(order=st.permutations(range(COUNT)))
def test_any_other_order_is_found(place: Path, lines: list[bytes], order: list[int]):
    assume(order != sorted(order))
    assert len(problems(place, [lines[at] for at in order])) == 1


@given(at=st.integers(0, COUNT), which=PLACES, other=st.binary(max_size=20), copy=st.booleans())
def test_any_inserted_line_is_found(place: Path, lines: list[bytes], at: int, which: int, other: bytes, copy: bool):
    raw = lines[which] if copy else other + b"\n"
    assert len(problems(place, [*lines[:at], raw, *lines[at:]])) == 1


def rewritten(found: list[bytes], start: int, change: dict[str, object]) -> list[bytes]:
    """Do what somebody can who knows how: change line `start` and give all lines after it new hashes."""
    made: list[bytes] = []
    before = START
    for raw in found:
        line = read_line(raw[:-1])
        facts = {**line.facts, **(change if line.n == start else {})}
        fresh = new_line(line.n, before, line.at, line.kind, facts)
        before = fresh.hash
        made.append(fresh.raw + b"\n")
    return made


def test_a_ledger_written_anew_is_another_one_from_there_on(place: Path, lines: list[bytes]):
    assert rewritten(lines, 0, {}) == lines
    forged = rewritten(lines, 9, {"bytes": 1})
    assert problems(place, forged) == []  # no hash is secret: alone, the file cannot tell
    assert [ours == theirs for ours, theirs in zip(lines, forged, strict=True)] == [True] * 8 + [False] * 4
    assert len(problems(place, [*lines[:9], *forged[9:]])) == 1


def test_the_tail_of_another_ledger_is_no_ledger(place: Path):
    first = new_line(1, "ab" * 32, "2026-11-20T15:30:12.005Z", "train", {})
    assert problems(place, [first.raw + b"\n"]) == [
        "ledger.jsonl: the line at the start is not as it was written; see: flfed site ledger NAME --verify"
    ]
