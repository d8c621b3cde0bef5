"""The deployment engine over a real SuperLink, Caddy and SuperNodes."""

import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from flfed.deployment.coordinator.status import status as status_of_sites
from flfed.deployment.engine import deployed
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, database
from flfed.errors import FlfedError, UsageError
from flfed.updates.messages.enrol import EnrolReply
from tests.deployment.engine.stand_in_messages import CONFIG, SITES, answers, enrol, run_status, train

pytestmark = [pytest.mark.slow, pytest.mark.servers]


def test_three_sites_answer_by_name_and_nothing_of_it_stays_at_the_server(world: Any):
    # 2,000 numbers that occur nowhere else, as an update would; kept as Flower keeps an array.
    canary = np.random.default_rng(7).normal(size=2000)
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        names = [EnrolReply.from_record(r.content).site for r in by_node(grid, [enrol(n) for n in nodes], nodes)]
        messages = [train(node, n=number) for number, node in enumerate(nodes)]
        for message in messages:
            message.content["arrays"] = ArrayRecord([canary])
        replies = by_node(grid, messages, nodes)
        during, log_before = stored(world), wal(world)
    assert names == SITES
    for number, reply in enumerate(replies):
        assert reply.content["config"]["n"] == number
        assert reply.content["config"]["sites"] == "site-1,site-2,site-3"
        assert reply.content["config"]["study"] == CONFIG["study"]
        np.testing.assert_array_equal(reply.content["arrays"].to_numpy_ndarrays()[0], canary)
    piece = canary[1000:1004].tobytes()
    assert piece in during
    assert piece not in stored(world)
    # A heart-beat since then may have written a few pages of 4,096 bytes.
    assert wal(world) < 30_000 < log_before
    with sqlite3.connect(database(world.folder)) as connection:
        counts = [connection.execute(f"select count(*) from {t}").fetchone()[0] for t in TABLES]
    connection.close()
    assert counts == [0, 0, 0, 0]


TABLES = ("objects", "message_ins", "message_res", "run_objects")


def by_node(grid: Any, messages: list[Message], nodes: list[int], timeout: float = 90) -> list[Message]:
    """Send, and return the replies in the nodes' order."""
    replies = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(messages, timeout=timeout)}
    assert sorted(replies) == sorted(nodes)
    return [replies[node] for node in nodes]


def stored(world: Any) -> bytes:
    """Return all bytes that Flower keeps on the disk: database, its log, whatever else."""
    return b"".join(path.read_bytes() for path in Path(world.folder.server).rglob("*") if path.is_file())


def wal(world: Any) -> int:
    path = Path(f"{database(world.folder)}-wal")
    return path.stat().st_size if path.exists() else 0


def test_a_run_ends_in_flower_as_completed_and_an_error_in_it_as_failed(world: Any):
    with deployed(world.folder, SITES[:2], CONFIG) as grid:
        good = grid.run.run_id
        assert len(list(grid.get_node_ids())) == 2
        assert run_status(world.folder, good)[0] == "running"
    with pytest.raises(ZeroDivisionError), deployed(world.folder, SITES, CONFIG) as grid:
        bad = grid.run.run_id
        grid.push_messages([train(node) for node in grid.get_node_ids()])
        _ = 1 / 0
    assert run_status(world.folder, good) == ("finished", "completed")
    assert run_status(world.folder, bad) == ("finished", "failed")
    assert b"ConfigRecord" not in stored(world)


@pytest.mark.proof
def test_a_deadline_is_kept_and_who_was_slow_answers_the_next_message(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        by_node(grid, [train(node) for node in nodes], nodes)
        began = time.monotonic()
        by_node(grid, [train(node) for node in nodes], nodes)
        # On a busy machine an answer that is not slow takes longer, too.
        deadline = min(max(5.0, 3 * (time.monotonic() - began)), 20.0)
        late = deadline + 6
        slow = [train(node, sleep=late if node == nodes[0] else 0.0) for node in nodes]
        began = time.monotonic()
        replies = grid.send_and_receive(slow, timeout=deadline)
        took = time.monotonic() - began
        assert sorted(r.metadata.src_node_id for r in replies) == sorted(nodes[1:])
        assert deadline <= took < late
        assert [r.content["config"]["n"] for r in by_node(grid, [train(n, n=5) for n in nodes], nodes)] == [5, 5, 5]


def test_a_run_that_was_ended_at_the_server_stops_at_once_and_no_signal_is_raised(world: Any):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FlfedError, match="ended"), deployed(world.folder, SITES, CONFIG) as grid:
        with Control(Link.of(world.folder)) as control:
            control.stop_run(grid.run.run_id)
        began = time.monotonic()
        grid.send_and_receive([train(node) for node in grid.get_node_ids()], timeout=60)
    assert time.monotonic() - began < 40
    assert signal.getsignal(signal.SIGINT) == before


def test_a_site_that_is_not_admitted_is_not_asked(world: Any):
    with pytest.raises(UsageError) as error, deployed(world.folder, ["site-1", "nobody"], CONFIG):
        pass
    assert str(error.value) == (
        "not admitted: nobody; admitted: site-1, site-2, site-3 (see: flfed coordinator status); "
        "of several sites: --site A --site B"
    )
    assert error.value.exit_code == 2


@pytest.mark.proof
def test_two_runs_side_by_side_keep_their_own_messages(world: Any):
    with deployed(world.folder, SITES, CONFIG) as one:
        nodes = list(one.get_node_ids())
        waiting = list(one.push_messages([train(node, n=1) for node in nodes]))
        with deployed(world.folder, SITES, {**CONFIG, "run": "r2"}) as two:
            assert one.run.run_id != two.run.run_id
            # Flower builds messages for one run at a time in a process: the second one's.
            assert [r.content["config"]["n"] for r in by_node(two, [train(n, n=2) for n in nodes], nodes)] == [2, 2, 2]
        found: list[Message] = []
        end = time.monotonic() + 30
        while len(found) < 3 and time.monotonic() < end:
            found += one.pull_messages(waiting)
            time.sleep(0.1)
    assert [reply.content["config"]["n"] for reply in found] == [1, 1, 1]


def test_an_answer_of_a_site_with_its_own_name_is_read_as_it_is(world: Any):
    with deployed(world.folder, SITES[:2], CONFIG) as grid:
        replies = grid.send_and_receive([enrol(node) for node in grid.get_node_ids()], timeout=90)
        assert sorted(EnrolReply.from_record(reply.content).site for reply in replies) == SITES[:2]
        assert len(grid.send_and_receive([], timeout=5)) == 0


def test_what_a_coordinator_that_was_killed_left_is_ended_and_removed_by_the_next_run(world: Any):
    with Control(Link.of(world.folder)) as control:
        left = control.start_run({**CONFIG, "study": "of a process that died before it acquired its task"})
        with deployed(world.folder, SITES, CONFIG) as grid:
            assert grid.run.run_id != left
            assert answers(grid, [train(node) for node in grid.get_node_ids()], 90) == dict.fromkeys(SITES, "ok")
        assert run_status(world.folder, left) == ("finished", "failed")
        assert control.unfinished() == set()


def test_a_revoked_key_is_cut_off_in_the_middle_of_a_round_and_for_good(world: Any):
    """The last test of these sites: of the second the server takes no word any more."""
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        later = threading.Timer(1.0, lambda: world.record("site-2", "revoked"))
        later.start()
        found = answers(grid, [train(node, sleep=6.0) for node in nodes], 90)
        later.join()
        again = answers(grid, [train(node) for node in nodes], 90)
    assert (found["site-1"], found["site-3"]) == ("ok", "ok")
    assert found["site-2"] in ("site-2: its node is not online", "site-2: its reply was lost on the way")
    gone = "site-2: its node is not online: it never was, or was revoked"
    assert again == {"site-1": "ok", "site-2": gone, "site-3": "ok"}
    assert world.log("serve").count("is cut off: no admitted site has its key") == 1
    assert b'"status":401' in (world.folder.server / "caddy.log").read_bytes()
    # By mistake admitted again with the old key, it stays out, and the coordinator says why.
    world.record("site-2", "admitted")
    assert world.until(lambda: "is never valid again" in world.log("serve"), 60)
    assert world.online() == 2
    nodes_now = {site.site: site.node for site in status_of_sites(world.folder).sites}
    assert nodes_now == {"site-1": "online", "site-2": "unregistered", "site-3": "online"}
