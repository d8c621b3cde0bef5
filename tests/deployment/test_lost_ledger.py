"""A ledger that is gone or cut: nothing is answered until a person begins another, and what was spent stays spent."""

import threading
from typing import Any

import pytest

from flfed.deployment.operator.lost_runs import restart_ledger
from flfed.deployment.site_state.ledger_loss import Continuity, restart
from flfed.errors import UsageError
from flfed.federation.client.account import spent_at
from flfed.records.ledger import Ledger, ledger_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

LOST = "its ledger is lost or was cut, so nothing leaves the site; at the site: put it back, or flfed site ledger "

PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'


@pytest.fixture
def protected(gated, small_study: str):
    """An approved institution behind its gate that was charged with two runs."""
    site = gated(small_study.replace("epochs = 1", "steps = 4") + PRIVATE, policy=Policy(epsilon=4.5))
    for run in ("2026-a", "2026-b"):
        assert not site.answer(site.trained(), run=run).has_error()
    return site


def said(site: Any, run: str = "2026-x") -> str:
    reply = site.answer(site.trained(), run=run)
    return str(reply.error.reason) if reply.has_error() else ""


def spent(site: Any) -> float:
    return spent_at(site.folder).epsilon(1e-5)


@pytest.mark.studies
@pytest.mark.parametrize("harm", ["gone", "empty", "begun by another line"])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_budget_does_not_begin_again_with_a_lost_ledger(protected, harm: str, reopened: bool):
    site = protected
    before = spent(site)
    site.folder.ledger.unlink()
    if harm != "gone":
        site.folder.ledger.touch(0o600)
    if harm == "begun by another line":
        ledger_of(site.folder).append(kind="enrol", bytes=1)
    if reopened:
        site.open()
    left = site.folder.ledger.read_bytes() if harm != "gone" else None
    for _ in range(2):
        assert said(site) == f"{LOST}site-01 --restart WHY"
    assert (site.folder.ledger.read_bytes() if site.folder.ledger.exists() else None) == left  # and no line says so
    found = restart_ledger(site.folder, lambda: site.site, by="op", why="the disk broke")
    assert (found.line.n, found.carried) == (1, 0) and 2.0 < before < 4.5 == spent(site)
    assert said(site) == Refusal("approved-before-loss")
    site.approve()
    assert said(site).startswith("privacy budget: epsilon 4.5 of 4.5 is spent")
    site.policy(epsilon=7.0)
    assert said(site) == "" and spent(site) == pytest.approx(6.5, rel=0.01)


def test_what_can_be_read_of_a_damaged_ledger_is_carried_over(protected):
    site = protected
    before, lines = spent(site), site.lines()
    last = [line for line in lines if line.kind == "train"][-1]
    raw = site.folder.ledger.read_bytes()
    site.folder.ledger.write_bytes(raw.replace(last.raw, last.raw.replace(b'"round":1', b'"round":2')))
    assert said(site).startswith("its ledger cannot be written")
    found = restart_ledger(site.folder, lambda: site.site, by="op", why="a damaged line")
    assert spent(site) == 4.5 > before
    carried = [line for line in lines if line.n != last.n]
    assert [line.kind for line in carried].count("spent") == 2 and found.carried == len(carried) == 2 + 4 + 1
    came = site.lines()[1 : 1 + len(carried)]
    ended = [line for line in site.lines()[1 + len(carried) :] if line.kind != "released"]
    assert [(line.kind, line.facts["carried-from"], line.facts["carried-at"]) for line in came] == [
        (line.kind, line.n, line.at) for line in carried
    ]
    # Both runs were under way: their state may be of a backup, whose masks were used.
    assert [(line.kind, line.facts["run"]) for line in ended] == [("run-ended", "2026-a"), ("run-ended", "2026-b")]
    # Both runs count as runs of the study.
    assert said(site) == Refusal("approved-before-loss")
    site.approve()
    site.policy(runs=2, epsilon=9.0)
    assert said(site, "2026-a") == Refusal("run-ended") and "runs of a study have answers" in said(site, "2026-z")


def test_a_ledger_that_is_shorter_than_its_receipts_answers_nothing(gated):
    site = gated()  # an open site: nothing else tells
    for _ in range(3):
        site.answer(site.message(SUMMARISE, SummariseRequest()))
    n, head = ledger_of(site.folder).head()
    assert n == 3
    Ledger(site.folder.receipts).append(kind="receipt", site="site-01", run="r", line=n, head=head)
    site.open()
    assert said(site) == ""
    raws = site.folder.ledger.read_bytes().splitlines(keepends=True)
    for kept in (2, 0):
        site.folder.ledger.write_bytes(b"".join(raws[:kept]))
        assert said(site).startswith(LOST)
        assert site.open() and said(site).startswith(LOST)
    site.folder.ledger.write_bytes(b"".join(raws))
    assert said(site) == ""


def test_only_new_lines_are_read_while_the_ledger_goes_on(gated, monkeypatch: pytest.MonkeyPatch):
    site = gated()
    ledger = ledger_of(site.folder)
    for _ in range(50):
        ledger.append(kind="enrol", bytes=1)
    found = Continuity(site.folder, ledger)
    assert found.refusal() is None
    ledger.append(kind="enrol", bytes=1)
    site.folder.gate.joinpath("rows.key").touch()
    site.folder.receipts.write_bytes(b"torn")  # is looked at once only
    assert found.refusal() is None == found.refusal()


def test_a_good_ledger_is_not_begun_anew(gated):
    site = gated()
    site.answer(site.message(SUMMARISE, SummariseRequest()))
    before = site.folder.ledger.read_bytes()
    with pytest.raises(UsageError, match="the ledger of site-01 is as it was written: there is nothing to restart"):
        restart(site.folder, by="op", why="to forget")
    assert (site.folder.ledger.read_bytes(), len(list(site.folder.gate.glob("*before*")))) == (before, 0)


def test_who_waits_for_a_ledger_that_is_begun_anew_writes_into_the_new_one(gated):
    site = gated()
    ledger = ledger_of(site.folder)
    for _ in range(3):
        ledger.append(kind="enrol", bytes=1)
    coming = site.folder.ledger.with_name("coming.jsonl")
    Ledger(coming).append(kind="restarted", by="op", why="?")
    waiting = threading.Thread(target=lambda: ledger_of(site.folder).append(kind="enrol", bytes=2))
    with ledger.lock():
        old = site.folder.ledger.with_name("old.jsonl")
        old.hardlink_to(site.folder.ledger)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        coming.replace(site.folder.ledger)
    waiting.join(60)
    assert [line.kind for line in site.lines()] == ["restarted", "enrol"] and len(list(Ledger(old).lines())) == 3
