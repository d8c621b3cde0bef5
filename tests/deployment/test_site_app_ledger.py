"""What the app of a site reads of its ledger: going on from where it was equals reading the whole, whatever came."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.deployment.site_app.ledger_reader import MOST_LINES, LedgerReader, Left, checked_whole, gone_on
from flfed.deployment.site_state.ledger_loss import keep_receipt, read_receipts
from flfed.paths import SiteFolder
from flfed.records.ledger import LockedLedger, Receipt, ledger_of
from flfed.records.ledger_line import Line, Totals
from flfed.signatures import sign_as_coordinator, signing_public

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LINES = MOST_LINES + 10


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folder of the first test is kept for the others."""
    return tmp_path_factory.mktemp("ledger") / "site-01"


@pytest.fixture
def folder(home: Path, kept: Path) -> SiteFolder:
    """A site with a ledger of more lines than are kept one by one, that was begun anew."""
    made = SiteFolder("site-01")
    if kept.exists():
        made.make()
        shutil.copytree(kept, made.root, dirs_exist_ok=True)
        return made
    made.make()
    made.terms.write_text(f'site = "site-01"\nsigning-key = "{signing_public(KEY)}"\n')
    ledger_of(made).append(kind="restarted", by="Dr Kim", why="a disk broke")
    add(made, LINES - 1)
    shutil.copytree(made.root, kept)
    return made


def add(folder: SiteFolder, many: int) -> None:
    """Add lines of three studies and kinds, in turns."""
    for n in range(many):
        kind, study = ("train", "evaluate", "refused")[n % 3], f"study-{n % 7 % 3}"
        ledger_of(folder).append(kind=kind, study=study, run="r1", round=n, bytes=100 + n)


def sign(folder: SiteFolder, n: int, run: str) -> None:
    """Have the coordinator sign that the ledger has line `n`."""
    receipt = Receipt(site="site-01", run=run, n=n, head=ledger_of(folder).hash_at(n))
    keep_receipt(folder, receipt, sign_as_coordinator(receipt.facts(), KEY))


def tear(folder: SiteFolder) -> None:
    """Leave what a crash does: the start of a line."""
    with folder.ledger.open("ab") as stream:
        stream.write(b'{"at":"2026-11-20T10:00')


def repair(folder: SiteFolder) -> None:
    assert ledger_of(folder).repair(by="Dr Kim", why="a crash") is not None


def tamper(folder: SiteFolder) -> None:
    """Change a figure in the third line, where the file keeps its length and its last line."""
    folder.ledger.write_bytes(folder.ledger.read_bytes().replace(b'"round":1,', b'"round":8,', 1))


def untamper(folder: SiteFolder) -> None:
    folder.ledger.write_bytes(folder.ledger.read_bytes().replace(b'"round":8,', b'"round":1,', 1))


def raws(folder: SiteFolder) -> list[bytes]:
    return folder.ledger.read_bytes().splitlines(keepends=True)


def again(which: int) -> Callable[[SiteFolder], None]:
    """Return what writes a line that is there once more, at the end."""
    return lambda folder: folder.ledger.write_bytes(b"".join([*raws(folder), raws(folder)[which]]))


def cut(many: int) -> Callable[[SiteFolder], None]:
    return lambda folder: folder.ledger.write_bytes(b"".join(raws(folder)[:-many]))


def forge(folder: SiteFolder) -> None:
    """Replace the last line by one that nobody wrote, which fits the one before it, and go on from there."""
    cut(1)(folder)
    ledger_of(folder).append(kind="train", study="study-0", bytes=1)


def blank(folder: SiteFolder) -> None:
    with folder.ledger.open("ab") as stream:
        stream.write(b"\n")


def set_aside_nothing(folder: SiteFolder) -> None:
    """Add a line that says it sets aside what is not there."""
    ledger_of(folder).append(kind="repaired", torn_bytes=5, torn_sha256="0" * 64, by="x", why="y")


CAME = {
    "nothing": [],
    "lines": [lambda folder: add(folder, 5)],
    "lines-and-receipts": [lambda folder: add(folder, 5), lambda folder: sign(folder, LINES + 3, "r2")],
    "an-early-receipt": [lambda folder: sign(folder, 2, "r0")], "a-torn-line": [lambda folder: add(folder, 2), tear],
    "a-repair": [tear, repair, lambda folder: add(folder, 2)], "a-repair-of-nothing": [set_aside_nothing],
    "a-changed-early-line": [tamper, lambda folder: add(folder, 2)],
    "a-change-taken-back": [tamper, untamper, lambda folder: add(folder, 2)],
    "an-early-line-again": [again(4)],
    "the-last-line-again": [again(-1), lambda folder: add(folder, 0)],
    "a-cut-tail": [cut(3)],
    "a-cut-tail-that-was-signed": [lambda folder: sign(folder, LINES, "r1"), cut(3)],
    "a-signed-line-written-anew": [lambda folder: sign(folder, LINES, "r1"), forge],
    "an-empty-line": [blank],
    "an-open-file": [lambda folder: folder.ledger.chmod(0o644)],
    "a-lost-ledger": [lambda folder: folder.ledger.unlink()],
}  # fmt: skip
"""What comes to a ledger between two looks at it."""


@pytest.mark.parametrize("steps", CAME.values(), ids=list(CAME))
def test_going_on_says_what_reading_the_whole_says(folder: SiteFolder, steps: list[Callable[[SiteFolder], None]]):
    marks = count(1)
    reader = LedgerReader(folder)
    assert reader.read(next(marks)).lines == LINES
    for step in [lambda _: None, *steps]:
        step(folder)
        assert reader.read(next(marks)) == LedgerReader(folder).read(1)
    said = reader.read(next(marks))
    problems = {
        "a-torn", "a-repair-of", "a-changed", "an-early-line", "the-last", "a-cut-tail-", "a-signed", "an-empty",
    }  # fmt: skip
    name = next(name for name, given in CAME.items() if given is steps)
    wrong = any(name.startswith(one) for one in problems)
    assert (
        bool(ledger_of(folder).problems(read_receipts(folder).all()))
        == bool(said.problems)
        == (wrong or name == "an-open-file")
    )
    assert bool(said.sums) == (not wrong and folder.ledger.exists())


def test_only_what_came_is_read_again_while_the_rest_is_as_it_was(folder: SiteFolder):
    ledger = ledger_of(folder)
    before, checked = checked_whole(ledger, [])
    assert checked is not None and checked.size == folder.ledger.stat().st_size
    add(folder, 3)
    after = gone_on(ledger, checked, [])
    assert after is not None and after.left.lines == LINES + 3 and before.lines == LINES
    assert after == checked_whole(ledger, [])[1]
    assert {key: len(seen) for key, seen in before.last.items()}[("", "")] == MOST_LINES
    # The sums are those of the command's own counting.
    counted = Totals()
    for line in ledger.lines():
        counted.add(line)
    assert sum(total.bytes for total in after.left.sums.values()) == counted.all.bytes == after.left.bytes
    # What was checked holds the new lines only if the earlier ones are as they were.
    tamper(folder)
    assert gone_on(ledger, checked, []) is None and gone_on(ledger, after, []) is None


def a_new_line(folder: SiteFolder, size: int) -> tuple[bytes, bytes]:
    """Return a ledger with lines that came, and the same where one of them was changed."""
    add(folder, 3)
    seen = folder.ledger.read_bytes()
    return seen, seen[:size] + seen[size:].replace(b'"round":1,', b'"round":8,', 1)


def the_line_before(folder: SiteFolder, size: int) -> tuple[bytes, bytes]:
    """Return a ledger with lines that follow another last line, and the same with the last line that was checked."""
    before, last = folder.ledger.read_bytes(), json.loads(raws(folder)[-1])
    cut(1)(folder)
    facts = {key: last[key] for key in ("kind", "study", "run", "round")}
    ledger_of(folder).append(**facts, bytes=last["bytes"] + 1)
    add(folder, 3)
    seen = folder.ledger.read_bytes()
    return seen, before + seen[size:]


@pytest.mark.parametrize("changed", [a_new_line, the_line_before])
def test_what_is_another_only_while_its_lines_are_read_is_found(folder, changed, monkeypatch):
    ledger = ledger_of(folder)
    checked = checked_whole(ledger, [])[1]
    assert checked is not None
    seen, stays = changed(folder, checked.size)
    assert seen != stays and len(seen) == len(stays)
    folder.ledger.write_bytes(stays)
    backwards = LockedLedger.backwards

    def meanwhile(held: LockedLedger) -> Iterator[Line]:
        folder.ledger.write_bytes(seen)
        found = list(backwards(held))
        folder.ledger.write_bytes(stays)
        return iter(found)

    with monkeypatch.context() as hooked:
        hooked.setattr(LockedLedger, "backwards", meanwhile)
        after = gone_on(ledger, checked, [])
    assert after is None or gone_on(ledger, after, []) is None
    assert len(checked_whole(ledger, [])[0].problems) > 0


def test_a_look_where_nothing_changed_reads_nothing(folder: SiteFolder):
    reader = LedgerReader(folder)
    first = reader.read("mark")
    folder.ledger.unlink()
    assert reader.read("mark") is first
    assert reader.read("another").lines == 0


def test_who_looks_keeps_what_it_got_when_lines_come(folder: SiteFolder):
    reader = LedgerReader(folder)
    first = reader.read(1)
    kept = replace(first.copy())
    add(folder, 4)
    assert reader.read(2).lines == LINES + 4
    assert first == kept and isinstance(first, Left)
    assert json.loads(folder.ledger.read_bytes().splitlines()[-1])["n"] == LINES + 4
