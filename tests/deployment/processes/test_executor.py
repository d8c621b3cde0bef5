"""The gate's loop: one message after the other, through broken links and answers that raise."""

import logging
import os
import re
import signal
import stat
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from flfed.deployment.flower import message_parts
from flfed.deployment.flower import site_client as tasks_module
from flfed.deployment.flower.site_client import Tasks
from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.processes import message_loop, units
from flfed.deployment.processes.child_processes import BUSY, Pulse, shared_secret
from flfed.deployment.processes.connector import RelayClient
from flfed.deployment.processes.message_loop import ENDED, Executor, wait_for_secret
from flfed.deployment.processes.relay import relaying
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder
from flfed.refusals import TEMPLATES, Refusal

SAYS = r'Refusal\("([a-z-]+)"'
HERE = Path(__file__).parent
answered_by = list[int]()
"""Processes that answered, one a message."""


def echo(message: Message, context: Context) -> Message:
    n = message.content["config"]["n"]
    answered_by.append(os.getpid())
    if n == 13:
        raise KeyError("Jane Roe")
    return Message(RecordDict({"config": ConfigRecord({"echo": n})}), reply_to=message)


def executor_of(tasks: Tasks, node: Any) -> Executor:
    return Executor(tasks, echo, Pulse(node.socket.with_name("gate.pulse")))


@pytest.fixture
def running(gate_node: Any, gate_secret: bytes) -> Iterator[Executor]:
    tasks, ended = Tasks(gate_node.link.connect, gate_secret), threading.Event()
    executor = executor_of(tasks, gate_node)
    thread = threading.Thread(target=executor.run, args=(ended,))
    thread.start()
    yield executor
    ended.set()
    thread.join()
    tasks.close()


def ask(node: Any, n: int) -> Message:
    node.put(node.message(RecordDict({"config": ConfigRecord({"n": n})})))
    return node.reply()


def test_messages_are_answered_one_after_the_other_without_a_start(gate_node: Any, running: Executor):
    answered_by.clear()
    for n in range(1, 7):
        assert not ask(gate_node, n).has_error()
    # Flower starts a process for each message; here, the one that waits answers all.
    assert answered_by == [os.getpid()] * 6


def test_an_answer_that_raises_becomes_an_error_that_names_only_the_type(gate_node: Any, running: Executor):
    reply = ask(gate_node, 13)
    assert (reply.error.code, reply.error.reason) == (1, "KeyError: see the site's log")
    assert not ask(gate_node, 14).has_error()


def test_a_restarted_node_is_found_again(gate_node: Any, running: Executor, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "flfed.gate")
    assert not ask(gate_node, 1).has_error()
    for n in (2, 3):
        gate_node.restart()
        assert not ask(gate_node, n).has_error()
    assert sum("linked to the node" in line for line in caplog.messages) <= 3


def test_a_broken_socket_is_tried_again_and_said_once(gate_node, gate_secret, tmp_path, caplog, wait_until):
    caplog.set_level(logging.INFO, "flfed.gate")
    path, ended = tmp_path / "again.sock", threading.Event()
    link = RelayClient(path)
    tasks = Tasks(link.connect, gate_secret)
    thread = threading.Thread(target=executor_of(tasks, gate_node).run, args=(ended,))
    thread.start()
    try:
        for n in (1, 2):
            with relaying(path, gate_node.port):
                assert not ask(gate_node, n).has_error()
            wait_until(lambda n=n: sum("tried again" in line for line in caplog.messages) == n)
    finally:
        ended.set()
        thread.join()
        tasks.close()
        link.close()
    assert sum("linked to the node" in line for line in caplog.messages) == 2


def test_every_error_is_seen_before_it_leaves(gate_node: Any, gate_secret: bytes):
    seen: list[tuple[str, str, str]] = []

    def leaving(asked: Message, reply: Message, context: Context) -> Message:
        assert len(asked.content) == 0
        study = str(context.run_config.get("study", "none yet"))
        seen.append((asked.metadata.message_type, reply.error.reason, study))
        return Message(Error(code=1, reason="as the gate says it"), reply_to=asked)

    tasks, ended = Tasks(gate_node.link.connect, gate_secret, leaving=leaving), threading.Event()
    thread = threading.Thread(target=executor_of(tasks, gate_node).run, args=(ended,))
    thread.start()
    try:
        assert ask(gate_node, 13).error.reason == "as the gate says it"
        gate_node.put(run=78)
        assert gate_node.reply().error.reason == "as the gate says it"
        assert not ask(gate_node, 1).has_error()
    finally:
        ended.set()
        thread.join()
        tasks.close()
    assert seen == [("train", "KeyError: see the site's log", "text"), ("train", str(Refusal("two-runs")), "text")]


def test_the_refusals_of_this_part_are_ones_that_the_gate_lets_out():
    from flfed.rows.data import site_discovery as sites

    texts = [(Path(str(module.__file__))).read_text() for module in (message_loop, tasks_module, message_parts)]
    codes = {code for text in texts for code in re.findall(SAYS, text)} | {ENDED.code}
    assert len(codes) == 9
    places = {
        code: {fact: "7" for _, fact, _, _ in string.Formatter().parse(TEMPLATES[code]) if fact} for code in codes
    }
    said = [Refusal(code, **facts) for code, facts in places.items()]
    assert [refusal for refusal in said if may_leave(refusal, sites.load("cleveland")) != refusal] == []


def test_what_is_refused_while_it_is_read_stops_nothing(gate_node: Any, running: Executor):
    gate_node.put(run=78)
    assert gate_node.reply().error.reason == str(Refusal("two-runs"))
    assert not ask(gate_node, 5).has_error()


def linked_folder(gate_node: Any, gate_secret: bytes) -> SiteFolder:
    """Return the folder of a site whose gate reaches this node."""
    folder = SiteFolder("site-a")
    folder.make()
    folder.secret.write_bytes(gate_secret)
    folder.secret.chmod(0o640)
    folder.socket.symlink_to(gate_node.socket)
    return folder


@pytest.mark.servers
def test_a_gate_that_is_ended_in_the_middle_of_an_answer_says_so_at_once(
    gate_node: Any, gate_secret: bytes, home: Path, wait_until: Any
):
    folder = linked_folder(gate_node, gate_secret)
    gate = subprocess.Popen([sys.executable, str(HERE / "answering.py"), "site-a"], stderr=subprocess.PIPE, text=True)
    try:
        gate_node.put(gate_node.message(RecordDict({"config": ConfigRecord({"sleep": 60.0})})))
        wait_until(lambda: len(gate_node.state.time_store) == 1, 60)
        wait_until(lambda: Pulse(folder.gate_pulse).seen() == BUSY)  # it answers
        time.sleep(0.5)
        began = time.monotonic()
        gate.send_signal(signal.SIGTERM)
        assert gate_node.reply().error.reason == ENDED
        said = gate.communicate(timeout=60)[1]
        assert (gate.returncode, time.monotonic() - began < 40) == (0, True)  # of 60 s
        assert "Traceback" not in said
    finally:
        gate.kill()
        gate.communicate()


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="an empty network needs root here")
def test_it_works_under_what_its_unit_forbids(gate_node: Any, gate_secret: bytes, home: Path, wait_until: Any):
    linked_folder(gate_node, gate_secret)
    unit = units.write(home, units.filled("site-a", command=Path("/usr/bin/true")))[1]
    words = [
        sys.executable, str(HERE / "restricted.py"), str(unit), sys.executable, str(HERE / "answering.py"), "site-a",
    ]  # fmt: skip
    gate = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        asked = {"addresses": [f"127.0.0.1|{gate_node.port}", "::1|1", "example.org|0"]}
        gate_node.put(gate_node.message(RecordDict({"config": ConfigRecord(asked)})))
        parts = object_ids(gate_node, gate_node.reply(60))
        held: list[bytes] = []
        wait_until(lambda: held.extend(c for c in map(gate_node.store.get, parts) if b"reached" in c) or held)
        assert held[0].count(b"OSError") == 2
        assert held[0].count(b"gaierror") == 1
        gate.terminate()
        said = gate.communicate(timeout=60)[1]
        assert gate.returncode == 0
        assert "this process has no network" in said
    finally:
        gate.kill()
        gate.communicate()


def object_ids(node: Any, reply: Message) -> list[str]:
    return [part.object_id for part in iterate_object_tree(node.store.get_object_tree(reply.metadata.message_id))]


def test_a_secret_that_others_may_read_is_refused(home: Path):
    folder = SiteFolder("site-a")
    folder.make()
    folder.secret.write_bytes(b"s" * 64)
    for mode, fine in ((0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o604, False)):
        folder.secret.chmod(mode)
        if fine:
            assert wait_for_secret(folder, lambda: None) == b"s" * 64
        else:
            with pytest.raises(FlfedError, match="others may read or change it"):
                shared_secret(folder)
    assert stat.S_IMODE(folder.link.stat().st_mode) == 0o770
    folder.secret.unlink()
    folder.secret.symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="cannot be read"):
        shared_secret(folder)
