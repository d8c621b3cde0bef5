"""A ledger is held to what was signed of it before a run's first round."""

import pytest

from flfed.deployment.coordinator.countersign import note_restart, unfollowed
from flfed.deployment.site_state.ledger_loss import read_receipts, restart
from flfed.errors import UsageError
from flfed.records.ledger import ledger_of
from tests.deployment.coordinator.test_sealing import SITES, Nodes, answered, sealed


def test_before_a_run_a_ledger_older_than_what_was_signed_is_found_with_its_receipts_put_back_too(coordinator, joined):
    for folder in joined:
        answered(folder, 4)
    sealed(coordinator, "run-1")
    site = joined[0]
    older = site.ledger.read_bytes(), site.receipts.read_bytes()
    for folder in joined:
        answered(folder, 3)
    sealed(coordinator, "run-2")
    site.ledger.write_bytes(older[0])
    site.receipts.write_bytes(older[1])
    # At the site nothing tells: its ledger agrees with its receipts, and no line of it was changed.
    assert ledger_of(site).problems(read_receipts(site).all()) == []
    with pytest.raises(UsageError, match="there is nothing to restart"):
        restart(site, by="op", why="to forget")
    grid, before = Nodes(), coordinator.receipts.read_bytes()
    whys, heads = unfollowed(grid, coordinator, "run-3", grid.nodes, timeout=10)
    assert list(whys) == ["cleveland"] and sorted(heads.replies) == sorted(SITES)
    assert whys["cleveland"].startswith(
        "cleveland's ledger was cut: it has 4 lines, and 7 lines were signed at run run-2; ask the site"
    )
    assert (coordinator.receipts.read_bytes(), grid.calls) == (before, 1)  # nothing is signed for it
    # Filled up again it has as many lines, and not those that were signed.
    answered(site, 5)
    whys, _ = unfollowed(grid, coordinator, "run-3", grid.nodes, timeout=10)
    assert "rewritten: line 7 is not the one that was signed at run run-2" in whys["cleveland"]
    assert note_restart(coordinator, "cleveland", by="co", why="a backup was put back").n == 7
    assert unfollowed(grid, coordinator, "run-4", grid.nodes, timeout=10)[0] == {}


def test_a_site_that_does_not_know_the_question_hinders_no_run(coordinator, joined):
    for folder in joined:
        answered(folder, 2)
    sealed(coordinator, "run-1")
    grid = Nodes()
    grid.change = lambda reply: None if reply.metadata.src_node_id == 1 else reply
    whys, heads = unfollowed(grid, coordinator, "run-2", grid.nodes, timeout=10)
    assert (whys, heads.faults) == ({}, {"cleveland": "no reply before the deadline"})
