"""The deployment engine over a real SuperLink, Caddy and SuperNodes."""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from flfed.deployment.engine import deployed
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, database
from flfed.errors import FlfedError, UsageError
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest

pytestmark = [pytest.mark.slow, pytest.mark.servers]

SITES = ["site-1", "site-2", "site-3"]
CONFIG: dict[str, bool | float | int | str] = {"study": "format = 1\n", "repeat": 0, "run": "r1"}


def train(node: int, **config: Any) -> Message:
    return Message(RecordDict({"config": ConfigRecord(config)}), dst_node_id=node, message_type="train")


def enrol(node: int) -> Message:
    request = EnrolRequest(dataset="small", schema_sha256="0" * 64)
    return Message(request.to_record(), dst_node_id=node, message_type=ENROL)


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


def status(world: Any, run: int) -> tuple[str, str]:
    with Control(Link.of(world.folder)) as control:
        return control.status_of(run)


def test_a_run_ends_in_flower_as_completed_and_an_error_in_it_as_failed(world: Any):
    with deployed(world.folder, SITES[:2], CONFIG) as grid:
        good = grid.run.run_id
        assert len(list(grid.get_node_ids())) == 2
        assert status(world, good)[0] == "running"
    with pytest.raises(ZeroDivisionError), deployed(world.folder, SITES, CONFIG) as grid:
        bad = grid.run.run_id
        grid.push_messages([train(node) for node in grid.get_node_ids()])
        _ = 1 / 0
    assert status(world, good) == ("finished", "completed")
    assert status(world, bad) == ("finished", "failed")
    assert b"ConfigRecord" not in stored(world)


def test_a_deadline_is_kept_and_who_was_slow_answers_the_next_message(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        began = time.monotonic()
        slow = [train(node, sleep=14.0 if node == nodes[0] else 0.0) for node in nodes]
        replies = grid.send_and_receive(slow, timeout=6)
        took = time.monotonic() - began
        assert sorted(r.metadata.src_node_id for r in replies) == sorted(nodes[1:])
        assert 6 <= took < 14
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
    assert str(error.value) == ("not admitted: nobody; admitted are: site-1, site-2, site-3 (flfed coordinator status)")
    assert error.value.exit_code == 2


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
