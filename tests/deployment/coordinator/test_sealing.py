"""The coordinator signs the head of a ledger that goes on from the one it signed before, over real messages."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flfed.deployment.coordinator.certificates import signing_key
from flfed.deployment.coordinator.countersign import (
    Sealed,
    UnfollowedHead,
    last_signed,
    note_restart,
    seal_all,
    show_lost,
    sign_head,
)
from flfed.deployment.site_state import ledger_loss
from flfed.deployment.site_state.ledger_loss import read_receipts, restart
from flfed.errors import UsageError
from flfed.federation.client.redaction import redact
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.records.ledger import Ledger, LedgerError, Receipt, ledger_of
from flfed.records.ledger_line import START, new_line
from flfed.signatures import coordinator_signed, signing_public
from flfed.updates.messages.enrol import SEAL, SEALED, SealReply
from flfed.updates.messages.in_memory import count_bytes

SITES = ("cleveland", "hungarian", "switzerland")


class Nodes(InProcessGrid):
    """Nodes whose client app has the two handlers, and which write down what crossed."""

    def __init__(self, sites: tuple[str, ...] = SITES) -> None:
        app = ClientApp(mods=[redact])
        app.query(SEAL.partition(".")[2])(self.stacked_compute(ledger_loss.seal))
        app.query(SEALED.partition(".")[2])(self.stacked_compute(ledger_loss.sealed))
        super().__init__(app, sites, {})
        self.nodes = {site: number for number, site in enumerate(sites, start=1)}
        self.change: Callable[[Message], Message | None] = lambda reply: reply
        self.bytes: list[int] = []
        self.calls = 0

    @staticmethod
    def stacked_compute(handler):
        def answer(message: Message, context: Context) -> Message:
            site = str(context.node_config["site"])
            return Message(handler(message, site).to_record(), reply_to=message)

        return answer

    def send_and_receive(self, messages, *, timeout=None):
        self.calls += 1
        replies = [self.change(reply) for reply in super().send_and_receive(messages, timeout=timeout)]
        kept = [reply for reply in replies if reply is not None]
        self.bytes += [count_bytes(reply.content) for reply in kept if reply.has_content()]
        return kept


def answered(folder: SiteFolder, messages: int) -> None:
    for _ in range(messages):
        ledger_of(folder).append(kind="train", bytes=10)


def sealed(coordinator: CoordinatorFolder, run: str, grid: Nodes | None = None) -> Sealed:
    grid = grid or Nodes()
    return seal_all(grid, coordinator, run, grid.nodes, timeout=10)


def test_every_site_gets_a_receipt_of_its_ledger_and_the_coordinator_keeps_it(coordinator, joined):
    for number, folder in enumerate(joined):
        answered(folder, 3 * number)
    grid = Nodes()
    found = sealed(coordinator, "run-1", grid)
    assert found.faults == {}
    assert {site: receipt.n for site, receipt in found.signed.items()} == dict(zip(SITES, (0, 3, 6), strict=True))
    for folder in joined:
        kept = read_receipts(folder)
        assert kept.signed == [found.signed[folder.site]]
        assert ledger_of(folder).problems(kept.signed) == []
        assert kept.signed[0].head == ledger_of(folder).head()[1]
    public = signing_public(signing_key(coordinator))
    for line in Ledger(coordinator.receipts, ordered=False).lines():
        facts = found.signed[line.facts["site"]].facts()
        assert {key: line.facts["line" if key == "n" else key] for key in facts} == facts
        assert coordinator_signed(facts, line.facts["signature"], public)
    assert last_signed(coordinator, SITES) == dict(found.signed)
    counted = [size for _, answers in found.crossed for size in answers.to_server.values()]
    assert counted == grid.bytes
    # Keys and texts by length, numbers as 8: protocol, run, n-known.
    assert set(found.crossed[0][1].to_node.values()) == {(8 + 8) + (3 + 5) + (7 + 8)}
    assert [kind for kind, _ in found.crossed] == ["query.seal", "query.sealed"]


def test_ledgers_that_grow_are_signed_run_after_run(coordinator, joined):
    for run in range(1, 4):
        for folder in joined:
            answered(folder, run)
        found = sealed(coordinator, f"run-{run}")
        assert (found.faults, found.signed["cleveland"].n) == ({}, run * (run + 1) // 2)
    assert sealed(coordinator, "run-4").faults == {}  # nothing new: signed again, for another run
    assert [receipt.n for receipt in read_receipts(joined[0]).signed] == [1, 3, 6, 6]
    assert len(list(Ledger(coordinator.receipts, ordered=False).lines())) == 12


def forge(folder: SiteFolder, n: int) -> None:
    """Write line n of a ledger anew, and all hashes from there on."""
    lines, before, texts = list(ledger_of(folder).lines()), START, []
    for line in lines:
        facts = dict(line.facts) | ({"bytes": 1} if line.n == n else {})
        fresh = new_line(line.n, before, line.at, line.kind, facts, format=line.format)
        before = fresh.hash
        texts.append(fresh.raw + b"\n")
    folder.ledger.write_bytes(b"".join(texts))


def cut(folder: SiteFolder, lines: int) -> None:
    folder.ledger.write_bytes(b"".join(folder.ledger.read_bytes().splitlines(keepends=True)[:lines]))


def test_a_ledger_that_was_cut_or_written_anew_shows_at_the_coordinator(coordinator, joined):
    for folder in joined:
        answered(folder, 6)
    sealed(coordinator, "run-1")
    for folder in joined:
        answered(folder, 2)
    cut(joined[0], 5)
    forge(joined[1], 4)
    found = sealed(coordinator, "run-2")
    assert list(found.signed) == ["switzerland"]
    assert found.faults["cleveland"] == (
        "cleveland's ledger was cut: it has 5 lines, and 6 lines were signed at run run-1; "
        "ask the site for the reason: flfed site ledger cleveland --verify; "
        "where it was lost: flfed coordinator ledger cleveland --help"
    )
    assert "rewritten: line 6 is not the one that was signed at run run-1" in found.faults["hungarian"]
    # Filling it up again does not help, and what was refused is not on record as signed.
    answered(joined[0], 40)
    again = sealed(coordinator, "run-3")
    assert sorted(again.faults) == ["cleveland", "hungarian"]
    assert {site: receipt.n for site, receipt in last_signed(coordinator, SITES).items()} == dict(
        zip(SITES, (6, 6, 8), strict=True)
    )
    # The site's own receipts say the same.
    for folder in joined[:2]:
        assert len(ledger_of(folder).problems(read_receipts(folder).signed)) == 1


def test_a_lost_ledger_is_a_fault_until_both_sides_have_it_on_record(coordinator, joined):
    site = joined[0]
    for folder in joined:
        answered(folder, 6)
    sealed(coordinator, "run-1")
    site.ledger.unlink()
    answered(site, 2)
    assert list(sealed(coordinator, "run-2").faults) == ["cleveland"]
    found = restart(site, by="op", why="the disk broke")
    facts = {"by": "op", "why": "the disk broke", "signed-run": "run-1", "signed-line": 6}
    assert (found.line.n, found.line.kind) == (1, "restarted") and facts.items() <= found.line.facts.items()
    assert [len(path.read_bytes().splitlines()) for path in found.aside] == [1, 2]
    answered(site, 9)
    assert ledger_of(site).problems(read_receipts(site).all()) == []
    # The site alone cannot have it forgotten.
    assert list(sealed(coordinator, "run-3").faults) == ["cleveland"]
    assert note_restart(coordinator, "cleveland", by="co", why="told by telephone").n == 6
    again = sealed(coordinator, "run-4")
    assert (again.faults, again.signed["cleveland"].n) == ({}, 10)
    assert ledger_of(site).problems(read_receipts(site).all()) == []
    cut(site, 8)
    assert "it has 8 lines, and 10 lines were signed at run run-4" in sealed(coordinator, "run-5").faults["cleveland"]
    noted = [line for line in Ledger(coordinator.receipts, ordered=False).lines() if line.kind == "restarted"]
    assert [(line.facts["by"], line.facts["why"], line.facts["line"]) for line in noted] == [
        ("co", "told by telephone", 6)
    ]


def test_a_site_that_comes_from_a_backup_gets_the_receipt_of_what_it_lacks(coordinator, joined):
    site = joined[0]
    for folder in joined:
        answered(folder, 6)
    sealed(coordinator, "run-1")
    whole, receipts = site.ledger.read_bytes(), site.receipts.read_bytes()
    answered(site, 3)
    sealed(coordinator, "run-2")
    site.ledger.write_bytes(whole)
    site.receipts.write_bytes(receipts)
    grid = Nodes()
    # Who goes on gets none; who does not has it afterwards, by the coordinator's present key.
    assert show_lost(grid, coordinator, grid.nodes, (), timeout=10).to_node == {}
    with pytest.raises(UsageError, match="nothing to restart"):
        restart(site, by="op", why="a disk")
    shown = show_lost(grid, coordinator, grid.nodes, ["cleveland"], timeout=10)
    assert shown.faults == {"cleveland": "RefusedReceipt: see the site's log"}
    assert [receipt.n for receipt in read_receipts(site).signed] == [6, 9]
    # A restart that the coordinator alone has noted is shown to a site that knows of none.
    site.receipts.write_bytes(receipts)
    note_restart(coordinator, "cleveland", by="co", why="told by telephone")
    assert list(show_lost(grid, coordinator, grid.nodes, (), timeout=10).faults) == ["cleveland"]
    restart(site, by="op", why="a disk")
    assert show_lost(grid, coordinator, grid.nodes, (), timeout=10).faults == {} and not site.receipts.exists()
    assert sealed(coordinator, "run-3").faults == {}
    assert show_lost(grid, coordinator, grid.nodes, (), timeout=10).to_node == {}


def test_a_ledger_that_is_whole_torn_or_was_never_signed_is_not_restarted(coordinator, joined):
    answered(joined[0], 6)
    sealed(coordinator, "run-1")
    before = joined[0].ledger.read_bytes()
    with pytest.raises(UsageError, match="as the coordinator signed it: there is nothing to restart"):
        restart(joined[0], by="op", why="to forget")
    joined[0].ledger.write_bytes(before[:-9])
    with pytest.raises(UsageError, match="--repair WHY"):
        restart(joined[0], by="op", why="a crash")
    assert (joined[0].ledger.read_bytes(), len(list(joined[0].gate.glob("*before*")))) == (before[:-9], 0)
    for site in ("hungarian", "nobody"):
        with pytest.raises(UsageError, match=f"no line of {site}'s ledger is signed"):
            note_restart(coordinator, site, by="co", why="?")


def test_what_was_forged_after_the_last_receipt_cannot_show(coordinator, joined):
    answered(joined[0], 6)
    sealed(coordinator, "run-1")
    answered(joined[0], 4)
    forge(joined[0], 8)
    found = sealed(coordinator, "run-2")
    assert (found.faults, found.signed["cleveland"].n) == ({}, 10)


def test_a_damaged_ledger_gives_no_head_and_says_nothing_of_itself(coordinator, joined):
    for folder in joined:
        answered(folder, 4)
    joined[0].ledger.write_bytes(joined[0].ledger.read_bytes()[:-7])
    raws = joined[1].ledger.read_bytes().replace(b'"n":4', b'"n":5')
    joined[1].ledger.write_bytes(raws)
    found = sealed(coordinator, "run-1")
    assert found.faults == {
        "cleveland": "its ledger is not signed: LedgerError: see the site's log",
        "hungarian": "its ledger is not signed: LedgerError: see the site's log",
    }
    assert len(found.signed) == 1


def test_a_site_that_does_not_answer_is_a_fault_and_hinders_no_other(coordinator, joined):
    for folder in joined:
        answered(folder, 2)
    grid = Nodes()

    def change(reply: Message) -> Message | None:
        node, kind = reply.metadata.src_node_id, reply.metadata.message_type
        return None if (node, kind) in ((1, SEAL), (2, SEALED)) else reply

    grid.change = change
    found = sealed(coordinator, "run-1", grid)
    assert found.faults == {
        "cleveland": "its ledger is not signed: no reply before the deadline",
        "hungarian": "it has no receipt of its ledger: no reply before the deadline",
    }
    assert {site: receipt.n for site, receipt in found.signed.items()} == {"hungarian": 2, "switzerland": 2}
    assert sealed(coordinator, "run-2").faults == {}


def test_where_no_site_has_a_head_nothing_is_asked_twice(coordinator, joined):
    grid = Nodes()
    grid.change = lambda reply: None
    found = sealed(coordinator, "run-1", grid)
    assert (len(found.faults), found.signed, found.crossed[1][1].to_node) == (3, {}, {})
    assert grid.calls == 1


def test_a_site_keeps_no_receipt_by_another_key(coordinator, joined):
    answered(joined[0], 2)
    joined[0].terms.write_text(f'signing-key = "{"ab" * 32}"\n')
    found = sealed(coordinator, "run-1")
    assert found.faults == {"cleveland": "it has no receipt of its ledger: RefusedReceipt: see the site's log"}
    assert len(read_receipts(joined[1]).signed) == 1


A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.mark.parametrize(("n", "head", "n_known", "at_known", "why"), [
    (5, A, 5, A, ""), (9, B, 5, A, ""), (5, B, 5, A, "was rewritten"), (5, A, 5, B, "was rewritten"),
    (9, B, 5, B, "was rewritten"), (9, B, 5, "", "was rewritten"), (4, A, 5, "", "was cut: it has 4 lines"),
    (4, A, 5, A, "was cut"), (0, START, 5, "", "was cut: it has 0 lines"), (9, B, 0, START, "meanwhile"),
    (3, B, 2, C, "meanwhile"),
])  # fmt: skip
def test_a_head_is_signed_only_where_it_goes_on_from_the_last(coordinator, n, head, n_known, at_known, why):
    public = signing_public(signing_key(coordinator))
    sign_head(coordinator, Receipt(site="a", run="r0", n=3, head=C), base_line=0, base_hash=START)
    sign_head(coordinator, Receipt(site="a", run="r1", n=5, head=A), base_line=3, base_hash=C)
    # Another site's head is no hindrance.
    sign_head(coordinator, Receipt(site="b", run="r1", n=99, head=C), base_line=0, base_hash=START)
    receipt = Receipt(site="a", run="r2", n=n, head=head)
    before = coordinator.receipts.read_bytes()
    if why:
        with pytest.raises(UnfollowedHead, match=why):
            sign_head(coordinator, receipt, base_line=n_known, base_hash=at_known)
        assert coordinator.receipts.read_bytes() == before
        assert last_signed(coordinator, ["a"])["a"].n == 5
    else:
        signature = sign_head(coordinator, receipt, base_line=n_known, base_hash=at_known)
        assert coordinator_signed({"site": "a", "run": "r2", "n": n, "head": head}, signature, public)
        assert (last_signed(coordinator, ["a"])["a"].n, last_signed(coordinator, ["a"])["a"].head) == (n, head)


def test_the_same_head_asked_again_gives_the_same_signature_and_one_line(coordinator):
    receipt = Receipt(site="a", run="r1", n=5, head=A)
    first = sign_head(coordinator, receipt, base_line=0, base_hash=START)
    assert sign_head(coordinator, receipt, base_line=5, base_hash=A) == first
    assert len(coordinator.receipts.read_bytes().splitlines()) == 1


def test_no_first_head_is_signed_over_a_start_that_is_none(coordinator):
    with pytest.raises(UnfollowedHead, match="line 0"):
        sign_head(coordinator, Receipt(site="a", run="r1", n=5, head=A), base_line=0, base_hash=B)
    with pytest.raises(UnfollowedHead):
        sign_head(coordinator, Receipt(site="a", run="r1", n=0, head=A), base_line=0, base_hash=START)
    assert last_signed(coordinator, ["a"])["a"].n == 0


def test_a_torn_receipt_of_the_coordinator_was_never_sent_and_is_set_aside_on_record(coordinator, joined):
    answered(joined[0], 2)
    sealed(coordinator, "run-1")
    whole = coordinator.receipts.read_bytes()
    coordinator.receipts.write_bytes(whole + b'{"at":"2026-')
    answered(joined[0], 2)
    assert sealed(coordinator, "run-2").faults == {}
    kinds = [line.kind for line in Ledger(coordinator.receipts, ordered=False).lines()]
    assert (kinds.count("repaired"), kinds.count("signed")) == (1, 6)


def test_over_receipts_that_were_changed_nothing_is_signed(coordinator):
    sign_head(coordinator, Receipt(site="a", run="r1", n=5, head=A), base_line=0, base_hash=START)
    raw = coordinator.receipts.read_bytes()
    told = json.loads(raw)
    told["line"] = 3
    coordinator.receipts.write_bytes(json.dumps(told).encode() + b"\n")
    with pytest.raises(LedgerError, match="receipts.jsonl: its last line is not as it was written"):
        sign_head(coordinator, Receipt(site="a", run="r2", n=3, head=B), base_line=3, base_hash=A)
    assert len(coordinator.receipts.read_bytes().splitlines()) == 1


SIGN = """
import sys
from pathlib import Path
from flfed.paths import CoordinatorFolder
from flfed.deployment.coordinator.countersign import UnfollowedHead, sign_head
from flfed.records.ledger import Receipt
print("ready", flush=True)
sys.stdin.readline()
head = sys.argv[2] * 64
try:
    receipt = Receipt(site="a", run="r-1", n=5, head=head)
    sign_head(CoordinatorFolder(Path(sys.argv[1])), receipt, base_line=0, base_hash="0" * 64)
    print("signed")
except UnfollowedHead:
    print("refused")
"""


@pytest.mark.proof
@pytest.mark.servers
def test_of_two_heads_shown_at_once_only_one_is_signed(coordinator):
    pipe = subprocess.PIPE
    commands = [[sys.executable, "-c", SIGN, str(coordinator.root), letter] for letter in "abc"]
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for command in commands]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sorted(said) == ["refused\n"] * 2 + ["signed\n"]
    assert len(coordinator.receipts.read_bytes().splitlines()) == 1


def test_a_reply_that_is_no_head_is_a_fault(coordinator, joined):
    grid = Nodes()

    def change(reply: Message) -> Message:
        if reply.metadata.message_type == SEAL and reply.metadata.src_node_id == 1:
            reply.content["config"]["n"] = -4
        return reply

    grid.change = change
    found = sealed(coordinator, "run-1", grid)
    assert found.faults["cleveland"].startswith("its ledger is not signed: the message is no SealReply")
    assert len(found.signed) == 2
    assert SealReply(n=1, head=A).at_known == ""
