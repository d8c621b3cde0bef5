"""Whatever is done to a ledger's lines is found, and said of which line; also by who can compute hashes."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flfed.records.ledger import Ledger, Receipt
from flfed.records.ledger_line import START, Line, new_line, read_line

COUNT = 12


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a ledger with one torn line that was set aside: twelve lines in thirteen."""
    ledger = Ledger(tmp_path_factory.mktemp("made") / "ledger.jsonl")
    for number in range(1, COUNT):
        ledger.append(kind="train", study="heart-disease", run="r1", round=number, bytes=100 + number)
        if number == 5:
            with ledger.path.open("ab") as stream:
                stream.write(b'{"at":"2026')
            ledger.repair(by="ana", why="power cut")
    found = ledger.path.read_bytes().splitlines(keepends=True)
    assert len(found) == COUNT + 1
    return found


def problems(folder: Path, found: list[bytes], signed: dict[int, str] | None = None) -> list[str]:
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.path.write_bytes(b"".join(found))
    ledger.path.chmod(0o600)
    receipts = [Receipt(site="a", run=f"r{n}", n=n, head=head) for n, head in (signed or {}).items()]
    return ledger.problems(receipts)


def hash_of(found: list[bytes], n: int) -> str:
    return next(line.hash for raw in found if (line := read_line(raw[:-1])) and line.n == n)


def head(found: list[bytes]) -> dict[int, str]:
    return {COUNT: hash_of(found, COUNT)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def test_a_ledger_as_it_was_written_has_no_problem(place: Path, lines: list[bytes]):
    assert problems(place, lines, head(lines) | {3: hash_of(lines, 3), 0: START}) == []
    assert len(list(Ledger(place / "ledger.jsonl").lines())) == COUNT


PLACES = st.integers(0, COUNT)


@settings(max_examples=400)
@given(at=PLACES, where=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(place: Path, lines: list[bytes], at: int, where: int, byte: int):
    raw = bytearray(lines[at])
    where %= len(raw)
    assume(raw[where] != byte)
    raw[where] = byte
    assert len(problems(place, [*lines[:at], bytes(raw), *lines[at + 1 :]])) >= 1


@settings(max_examples=200)
@given(at=PLACES, where=st.integers(0, 10_000), count=st.integers(1, 30), more=st.binary(max_size=30))
def test_any_bytes_taken_out_or_put_in_are_found(place, lines, at, where, count, more):
    raw = lines[at]
    where %= len(raw)
    changed = raw[:where] + more + raw[where + count :]
    assume(changed != raw)
    assert len(problems(place, [*lines[:at], changed, *lines[at + 1 :]], head(lines))) >= 1


@given(removed=st.sets(PLACES, min_size=1))
def test_any_removed_lines_are_found(place: Path, lines: list[bytes], removed: set[int]):
    left = [raw for at, raw in enumerate(lines) if at not in removed]
    assert len(problems(place, left, head(lines))) >= 1


@given(order=st.permutations(range(COUNT + 1)))
def test_any_other_order_is_found(place: Path, lines: list[bytes], order: list[int]):
    assume(order != sorted(order))
    assert len(problems(place, [lines[at] for at in order], head(lines))) >= 1


@given(at=st.integers(0, COUNT + 1), which=PLACES, other=st.binary(max_size=20), copy=st.booleans())
def test_any_inserted_line_is_found(place: Path, lines: list[bytes], at: int, which: int, other: bytes, copy: bool):
    raw = lines[which] if copy else other + b"\n"
    assert len(problems(place, [*lines[:at], raw, *lines[at:]], head(lines))) >= 1


@given(size=st.integers(0, 10_000))
def test_any_cut_end_is_found(place: Path, lines: list[bytes], size: int):
    whole = b"".join(lines)
    assert len(problems(place, [whole[: size % len(whole)]], head(lines))) >= 1


def rewritten(found: list[bytes], start: int, change: dict[str, object]) -> list[bytes]:
    """Do what somebody can who knows how: change line `start` and give all lines after it new hashes."""
    made: list[bytes] = []
    before = START
    for raw in found:
        line = read_line(raw[:-1])
        if line is None:
            made.append(raw)
            continue
        facts = {**line.facts, **(change if line.n == start else {})}
        fresh: Line = new_line(line.n, before, line.at, line.kind, facts, format=line.format)
        before = fresh.hash
        made.append(fresh.raw + b"\n")
    return made


@given(start=st.integers(1, COUNT), signed=st.integers(1, COUNT), size=st.integers(0, 50))
def test_a_ledger_written_anew_is_found_by_any_receipt_from_there_on(place, lines, start, signed, size):
    forged = rewritten(lines, start, {"bytes": size})
    assert problems(place, forged) == []  # no hash is secret: alone, the file cannot tell
    found = problems(place, forged, {signed: hash_of(lines, signed)})
    assert len(found) == (signed >= start)


def test_rewriting_nothing_gives_the_same_lines(lines: list[bytes]):
    assert rewritten(lines, 0, {}) == lines


@given(left=st.integers(0, COUNT), signed=st.integers(0, COUNT))
def test_a_cut_tail_is_found_by_a_receipt_of_what_was_cut_and_by_no_other(place, lines, left, signed):
    cut = lines[: left + (left >= 6)]  # the torn line stands before line 6
    receipt = {signed: START if signed == 0 else hash_of(lines, signed)}
    found = problems(place, cut, receipt)
    assert len(found) == (signed > left)
    if found:
        assert found[0].startswith(f"the ledger ends at line {left} but had {signed} lines, as the coordinator signed")


# Which line it was, in words.


def numbered(found: list[bytes], n: int) -> int:
    return next(at for at, raw in enumerate(found) if (line := read_line(raw[:-1])) and line.n == n)


def test_the_sentence_names_the_line(place: Path, lines: list[bytes]):
    nine = numbered(lines, 9)
    changed = [*lines[:nine], lines[nine].replace(b'"bytes":108', b'"bytes":18'), *lines[nine + 1 :]]
    assert problems(place, changed) == ["line 9 was changed: its hash is not that of its content"]
    assert problems(place, lines[:nine] + lines[nine + 1 :]) == ["line 9 is missing"]
    assert problems(place, lines[: nine - 2] + lines[nine + 1 :]) == ["lines 7 to 9 are missing"]
    assert problems(place, lines[2:]) == ["lines 1 to 2 are missing"]
    swapped = [*lines[:nine], lines[nine + 1], lines[nine], *lines[nine + 2 :]]
    assert problems(place, swapped) == ["line 9 is out of order: it is after line 10"]
    twice = [*lines[: nine + 1], *lines[nine:]]
    assert problems(place, twice) == ["a second line 9 is after line 9: one of the two was inserted"]
    foreign = [*lines[: nine + 1], b"\n", *lines[nine + 1 :]]
    assert problems(place, foreign) == ["bytes that are no line are after line 9"]
    assert problems(place, [*lines[:-1], lines[-1][:-5]]) == ["the file ends in the middle of a line, after line 11"]
    six = numbered(lines, 6)
    assert problems(place, lines[: six - 1] + lines[six:]) == ["the bytes that line 6 set aside are missing before it"]


def test_a_line_whose_hash_alone_was_changed_is_the_only_one_named(place: Path, lines: list[bytes]):
    nine = numbered(lines, 9)
    other = lines[nine].replace(hash_of(lines, 9).encode(), b"ab" * 32)
    found = problems(place, [*lines[:nine], other, *lines[nine + 1 :]], {9: hash_of(lines, 9)})
    assert found == ["line 9 was changed: its hash is not that of its content"]


def test_the_tail_of_another_ledger_is_no_ledger(place: Path):
    first = new_line(1, "ab" * 32, "2026-11-20T15:30:12.005Z", "train", {}, format=2)
    assert problems(place, [first.raw + b"\n"]) == ["line 1 was changed: it is not the first of its ledger"]


def test_a_line_changed_with_its_own_hash_is_one_of_two_that_do_not_fit(place: Path, lines: list[bytes]):
    nine = numbered(lines, 9)
    forged = rewritten(lines, 9, {"bytes": 1})
    mixed = [*lines[:nine], forged[nine], *lines[nine + 1 :]]
    assert problems(place, mixed) == ["line 10 does not follow line 9: line 9 was changed or replaced, or line 10 was"]


def test_a_rewritten_ledger_is_narrowed_down_by_its_receipts(place: Path, lines: list[bytes]):
    forged = rewritten(lines, 9, {"bytes": 1})
    signed = {n: hash_of(lines, n) for n in (12, 4, 11, 8)}
    assert problems(place, forged, signed) == [
        "lines 9 to 11 are not as the coordinator signed at run r11: changed, removed or rewritten"
    ]
    first = rewritten(lines, 1, {"bytes": 1})
    assert problems(place, first, {1: hash_of(lines, 1)}) == [
        "line 1 is not as the coordinator signed at run r1: changed, removed or rewritten"
    ]


def test_an_absent_ledger_with_a_receipt_was_cut(tmp_path: Path):
    receipt = Receipt(site="a", run="r7", n=3, head="ab" * 32)
    assert Ledger(tmp_path / "none.jsonl").problems([receipt]) == [
        "the ledger ends at line 0 but had 3 lines, as the coordinator signed at run r7: lines 1 to 3 are cut off"
    ]
    assert receipt.facts() == {"site": "a", "run": "r7", "n": 3, "head": "ab" * 32}
