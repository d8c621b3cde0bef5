"""Members whose shares do not unseal: the others sum without them, unless one of them opened the larger list."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message

from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Site
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.secure_sum import LIST, UNMASK
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import Consortium, Coordinator, Lie
from tests.deployment.test_secure_sums_killed import (
    ALL,
    LAST,
    ROUNDS,
    THREE,
    arrays_without,
    consortium,
    difference,
    ended,
    in_round,
    lists_by_question,
)

__all__ = ["consortium"]
Make = Callable[..., Consortium]


def spoiling(senders: str, receivers: str = ALL, kind: str = TRAIN, rounds: Collection[int] = range(1, 99)) -> Lie:
    """Return the lie of sites whose shares for some sites are random bytes, in their nth answers of a kind."""
    answered: list[str] = []

    def go(site: str, what: str, reply: Message) -> Message:
        if site not in senders.split(",") or what != kind:
            return reply
        answered.append(site)
        if answered.count(site) not in rounds:
            return reply
        masked = {name: values.copy() for name, values in ndarrays(reply.content, "masked").items()}
        for place, receiver in enumerate(ALL.split(",")):
            if receiver in receivers.split(","):
                masked["shares"][place] = np.random.default_rng(place).integers(0, 256, masked["shares"].shape[1])
        reply.content["masked"] = ArrayRecord({name: Array(values) for name, values in masked.items()})
        return reply

    return go


def asked(coordinator: Coordinator, kind: str) -> list[str]:
    """Return the sites that answered a kind of message, in order."""
    return [site for site, message, _ in coordinator.grid.sent if message.metadata.message_type == kind]


def faults(run: str) -> list[str]:
    with RunReader.open() as reader:
        return [f"{event.site}: {event.reason}" for event in reader.events([run]) if event.kind == "fault"]


@pytest.mark.parametrize("own", ["its own too", "not its own"])
def test_one_of_four_that_seals_wrong_shares_to_all_is_left_out_and_after_two_sums_for_the_run(
    consortium: Make, own: str
):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling(LAST, ALL if own == "its own too" else THREE)))
    assert difference(run, arrays_without(found, in_round(1, LAST, TRAIN, times=99))) < 1e-6
    # One that can open its own share has opened the larger list, alone: nobody confirmed it.
    of_others = {line.facts["listed"] for line in found.lines("site-01") if line.kind in ("list", "unmask")}
    assert of_others == {THREE}
    assert asked(coordinator, LIST) == THREE.split(",") * ROUNDS
    # In the third round it is not asked to train: what it would spend for that, no sum would have.
    assert asked(coordinator, TRAIN).count(LAST) == 2
    told = [line for line in faults(run.run) if line.startswith(LAST) and "could not be opened" in line]
    assert [line.rpartition(": ")[2] for line in told] == [
        "the sum is made without it",
        "the run has no further sum with it",
    ]
    assert all("at site-01, site-02, site-03" in line for line in told)


def test_two_of_four_stop_the_run_and_each_of_the_others_names_both(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling("site-03,site-04")), "stopped", 0)
    assert "0 sites opened the list of the sum, 3 are needed" in run.reason
    for site in ("site-01", "site-02"):
        named = f"{site}: the shares of 2 sites are not ones for this site and this sum: site-03, site-04"
        assert named in run.reason
    assert not asked(coordinator, LIST) and lists_by_question(found) == {}


def test_good_shares_to_one_site_only_stop_the_run_and_no_list_stands_beside_the_one_opened(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling(LAST, "site-02,site-03")), "stopped", 0)
    assert "site-02: the share of site 'site-04' is not one for this site and this sum" in run.reason
    assert list(lists_by_question(found).values()) == [{ALL}]
    assert not asked(coordinator, LIST) and set(asked(coordinator, UNMASK)) == set(ALL.split(","))
    # Also where the run goes on: the list that was opened is asked for, and no other.
    ended(coordinator.run(run.run), "stopped", 0)
    assert list(lists_by_question(found).values()) == [{ALL}] and not asked(coordinator, LIST)
