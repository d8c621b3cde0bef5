"""What the deployment engine makes of nodes that die, lie, are cut off or are not there, and of a server that dies."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from flfed.deployment.coordinator.status import status
from flfed.deployment.engine import deployed
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, database
from flfed.errors import FlfedError
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest

pytestmark = [pytest.mark.slow, pytest.mark.servers]

SITES = ["site-1", "site-2", "site-3"]
CONFIG: dict[str, bool | float | int | str] = {"study": "format = 1\n", "repeat": 0, "run": "r1"}


def train(node: int, **config: Any) -> Message:
    return Message(RecordDict({"config": ConfigRecord(config)}), dst_node_id=node, message_type="train")


def enrol(node: int) -> Message:
    request = EnrolRequest(dataset="small", schema_sha256="0" * 64)
    return Message(request.to_record(), dst_node_id=node, message_type=ENROL)


def answers(grid: Any, messages: list[Message], timeout: float) -> dict[str, str]:
    """Return what came of each message, by its node's place among the sites: "ok", or why not."""
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive(messages, timeout=timeout)
    return {
        SITES[nodes.index(reply.metadata.src_node_id)]: reply.error.reason if reply.has_error() else "ok"
        for reply in replies
    }


@pytest.mark.proof
def test_a_node_that_enrols_under_another_name_is_an_error_and_the_others_are_not(own_world: Any):
    for site in SITES:
        own_world.site(site, runs=False)
    own_world.serve()
    own_world.run_site("site-1")
    own_world.run_site("site-2", says="site-1")
    assert own_world.until(lambda: own_world.online() == 2, 150)
    told: list[str] = []
    began = time.monotonic()
    with deployed(own_world.folder, SITES, CONFIG, wait_seconds=3, told=told.append) as grid:
        assert 3 <= time.monotonic() - began < 40
        found = answers(grid, [enrol(node) for node in grid.get_node_ids()], 90)
    # The third was never there: known by its name, and no time is lost on it.
    assert found == {
        "site-1": "ok",
        "site-2": "site-2: its node says it is site 'site-1', and was admitted as 'site-2'",
        "site-3": "site-3: its node is not online: it never was, or was revoked",
    }
    waiting = r"waiting for site-3 to come online; online: site-1, site-2; given up at \d\d:\d\d:\d\d \(in 3 s\)"
    assert re.fullmatch(waiting, told[0])
    # On a slow machine it is said of the others too that their first answer is waited for.
    assert [line for line in told[1:] if "answered:" not in line] == ["without site-3: not online"]
    with (
        pytest.raises(FlfedError, match="^not online: site-3; at least 2 sites are needed"),
        deployed(own_world.folder, ["site-2", "site-3"], CONFIG, wait_seconds=1),
    ):
        pass
    with Control(Link.of(own_world.folder)) as control:
        assert control.unfinished() == set()


def test_a_revoked_key_is_cut_off_in_the_middle_of_a_round_and_for_good(own_world: Any):
    for site in SITES:
        own_world.site(site, runs=False)
    own_world.serve()
    for site in SITES:
        own_world.run_site(site)
    assert own_world.until(lambda: own_world.online() == 3, 150)
    with deployed(own_world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        later = threading.Timer(1.0, lambda: own_world.record("site-2", "revoked"))
        later.start()
        found = answers(grid, [train(node, sleep=8.0) for node in nodes], 90)
        later.join()
        again = answers(grid, [train(node) for node in nodes], 90)
    assert (found["site-1"], found["site-3"]) == ("ok", "ok")
    assert found["site-2"] in ("site-2: its node is not online", "site-2: its reply was lost on the way")
    gone = "site-2: its node is not online: it never was, or was revoked"
    assert again == {"site-1": "ok", "site-2": gone, "site-3": "ok"}
    assert own_world.log("serve").count("is cut off: no admitted site has its key") == 1
    assert b'"status":401' in (own_world.folder.server / "caddy.log").read_bytes()
    # By mistake admitted again with the old key, it stays out, and the coordinator says why.
    own_world.record("site-2", "admitted")
    assert own_world.until(lambda: "never holds again" in own_world.log("serve"), 60)
    assert own_world.online() == 2
    nodes_now = {site.site: site.node for site in status(own_world.folder).sites}
    assert nodes_now == {"site-1": "online", "site-2": "unregistered", "site-3": "online"}


@pytest.mark.proof
def test_a_server_killed_in_the_middle_of_a_round_is_started_again_and_the_round_ends(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        superlink = next(pid for pid in world.server_children() if b"superlink" in command_line(pid))
        later = threading.Timer(2.0, lambda: os.kill(superlink, signal.SIGKILL))
        later.start()
        found = answers(grid, [train(node, sleep=6.0) for node in nodes], 120)
        later.join()
        run = grid.run.run_id
    assert found == dict.fromkeys(SITES, "ok")
    with Control(Link.of(world.folder)) as control:
        assert control.status_of(run) == ("finished", "completed")
    assert world.log("serve").count("superlink ended (SIGKILL)") == 1


def command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def test_what_a_coordinator_that_was_killed_left_is_ended_and_removed_by_the_next_run(world: Any):
    with Control(Link.of(world.folder)) as control:
        left = control.start_run({**CONFIG, "study": "of a process that died before it acquired its task"})
        with deployed(world.folder, SITES, CONFIG) as grid:
            assert grid.run.run_id != left
            assert answers(grid, [train(node) for node in grid.get_node_ids()], 90) == dict.fromkeys(SITES, "ok")
        assert control.status_of(left) == ("finished", "failed")
        assert control.unfinished() == set()


@pytest.mark.proof
def test_a_node_killed_in_the_middle_of_a_round_is_an_error_before_the_deadline(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        later = threading.Timer(2.0, world.nodes["site-3"].kill)
        later.start()
        began = time.monotonic()
        found = answers(grid, [train(node, sleep=6.0) for node in nodes], 90)
        took = time.monotonic() - began
        later.join()
        assert found == {"site-1": "ok", "site-2": "ok", "site-3": "site-3: its node is not online"}
        # Flower counts a node as gone after its second heart-beat that did not come.
        assert 6 <= took < 60
        began = time.monotonic()
        again = answers(grid, [train(node) for node in nodes], 60)
        assert again == found
        assert time.monotonic() - began < 50
    with open(database(world.folder), "rb") as file:
        assert b"objects" in file.read()
    assert world.online() == 2


def test_an_answer_of_a_site_with_its_own_name_is_read_as_it_is(world: Any):
    with deployed(world.folder, SITES[:2], CONFIG) as grid:
        replies = grid.send_and_receive([enrol(node) for node in grid.get_node_ids()], timeout=90)
        assert sorted(EnrolReply.from_record(reply.content).site for reply in replies) == SITES[:2]
        assert len(grid.send_and_receive([], timeout=5)) == 0
