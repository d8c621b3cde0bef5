"""What a coordinator keeps of the ends of its sites' ledgers, and when a run ends at its beginning."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flfed.deployment.coordinator.ledger_heads import LedgerHeads
from flfed.errors import FlfedError, RunStopped
from flfed.paths import CoordinatorFolder
from flfed.records.ledger_line import START
from flfed.updates.messages.enrol import EnrolReply


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    folder = CoordinatorFolder(tmp_path / "coordinator")
    folder.make()
    return folder


def reply(n: int, known_hash: str = START, site: str = "a", head: str = "") -> EnrolReply:
    ends = {"ledger_lines": n, "ledger_head": head or f"{n:064x}", "known_hash": known_hash}
    return EnrolReply(site=site, title="A", version="1", accepted=True, **ends)


def enrolled(folder: CoordinatorFolder, *replies: EnrolReply) -> dict[str, int]:
    """Return what is asked for, after the site's replies to that were taken."""
    heads = LedgerHeads(folder)
    asked = heads.lines()
    heads.check(replies)
    return asked


def test_a_ledger_that_grows_is_asked_for_its_last_known_line_at_each_run(folder: CoordinatorFolder):
    assert enrolled(folder, reply(3), reply(7, site="b")) == {}
    assert enrolled(folder, reply(9, f"{3:064x}")) == {"a": 3, "b": 7}
    assert enrolled(folder, reply(9, f"{9:064x}"), reply(8, f"{7:064x}", site="b")) == {"a": 9, "b": 7}
    assert LedgerHeads(folder).lines() == {"a": 9, "b": 8}
    assert folder.heads.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("found", [
    reply(6, ""), reply(10, ""), reply(10, "ab" * 32), reply(9, head="ab" * 32), reply(0, ""),
    EnrolReply(site="a", title="A", version="1", accepted=True),
], ids=["shorter", "without", "other", "same length", "none", "no ledger"])  # fmt: skip
def test_a_ledger_that_does_not_continue_ends_the_run_until_a_person_acknowledges_it(folder, found: EnrolReply):
    enrolled(folder, reply(9))
    for _ in range(2):
        with pytest.raises(RunStopped, match="the ledger of a does not continue line 9, .* acknowledge a --why TEXT"):
            enrolled(folder, found, reply(4, site="b"))
    assert LedgerHeads(folder).lines() == {"a": 9, "b": 4}
    assert LedgerHeads(folder).acknowledge("a", by="Dr Kim", why="an older backup") == 9
    enrolled(folder, found)
    known = json.loads(folder.heads.read_text())["a"]
    assert known["n"] == found.ledger_lines
    assert [(one["by"], one["why"], one["n"]) for one in known["acknowledged"]] == [("Dr Kim", "an older backup", 9)]


def test_of_two_runs_at_once_the_later_end_is_kept(folder: CoordinatorFolder):
    enrolled(folder, reply(3))
    first, second = LedgerHeads(folder), LedgerHeads(folder)
    assert first.lines() == second.lines() == {"a": 3}
    second.check([reply(8, f"{3:064x}")])
    first.check([reply(6, f"{3:064x}")])
    assert LedgerHeads(folder).lines() == {"a": 8}


def test_a_damaged_file_of_heads_takes_no_run(folder: CoordinatorFolder):
    enrolled(folder, reply(3))
    for content in ("{", "[]", '{"a": {"n": "many", "head": ""}}', '{"a": 3}'):
        folder.heads.write_text(content)
        with pytest.raises(FlfedError, match="heads.json"):
            LedgerHeads(folder).lines()


def test_a_reply_takes_no_other_site_s_place(folder: CoordinatorFolder):
    enrolled(folder, reply(3), reply(3, site="b"))
    with pytest.raises(RunStopped, match="the ledger of b does not continue"):
        enrolled(folder, reply(5, f"{3:064x}"), replace(reply(5, "cd" * 32), site="b"))
