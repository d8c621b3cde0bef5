"""A flood of refused messages: the ledger counts them all, stays small, and is as it was written."""

import datetime
from typing import Any

import pytest

from flfed.deployment.gate import outbound
from flfed.deployment.gate.outbound import FULL
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

MEGABYTE = 1_000_000


def flood(site: Any, messages: int) -> None:
    """Send messages of an unknown kind; each is refused."""
    message = site.message("query.other", SummariseRequest())
    for number in range(messages):
        assert site.answer(message, run=f"2026-{number}").has_error()


def counts(site: Any) -> list[int]:
    return [line.facts.get("stands-for", 1) for line in site.lines() if line.kind == "refused"]


def test_after_a_thousand_a_day_a_line_stands_for_twice_as_many_as_the_last(
    gated: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbound, "FULL", 20)
    site = gated()
    flood(site, 20 + 2 + 4 + 8 + 15)
    assert counts(site) == [1] * 20 + [2, 4, 8]
    one, two = (next(line for line in site.lines() if line.facts.get("stands-for", 1) == n) for n in (1, 2))
    assert two.facts["bytes"] == 2 * one.facts["bytes"]
    # A new process goes on from the lines of the day; what leaves has its line as before.
    site.open()
    flood(site, 16)
    assert counts(site)[-1] == 16
    assert not site.answer(site.message(SUMMARISE, SummariseRequest())).has_error()
    assert site.lines()[-1].kind == "summarise"


def test_a_new_day_begins_with_a_line_each(gated: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbound, "FULL", 2)
    site = gated()
    flood(site, 5)
    assert counts(site) == [1, 1, 2]
    site.gate._leaving._today = lambda: site.today + datetime.timedelta(days=1)
    flood(site, 1)
    assert counts(site) == [1, 1, 2, 2]  # the one before is not lost


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_refused_messages_add_less_than_a_megabyte(gated: Any):
    site = gated()
    before = site.folder.ledger.stat().st_size if site.folder.ledger.exists() else 0
    flood(site, 100_000)
    assert site.folder.ledger.stat().st_size - before <= MEGABYTE
    assert sum(counts(site)) > 50_000 and len(counts(site)) < FULL + 20
    assert site.gate._ledger.problems() == []
