"""A long honest fit is interrupted at neither process; a gate that hangs, or has lost its node, is started anew."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.processes.child_processes import BUSY, Pulse
from flfed.deployment.processes.serve import GATE_SILENCE, NODE_SILENCE, children
from flfed.deployment.processes.supervisor import Supervisor
from flfed.paths import SiteFolder

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

HERE = Path(__file__).parent


class SlowLine:
    """A line from a site to its server, over which from some time on only so many bytes a second come."""

    def __init__(self, port: int, speed: int) -> None:
        self._target, self._speed, self.slow = port, speed, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                site, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for here, there, back in ((site, server, False), (server, site, True)):
                    threading.Thread(target=self._pump, args=(here, there, back), daemon=True).start()

    def _pump(self, here: socket.socket, there: socket.socket, back: bool) -> None:
        with suppress(OSError), here, there:
            while piece := here.recv(self._speed // 10):
                there.sendall(piece)
                if back and self.slow.is_set():
                    time.sleep(len(piece) / self._speed)

    def close(self) -> None:
        self.slow.clear()
        self._listening.close()


def answers_slowly(
    consortium: Any,
    folder: SiteFolder,
    seconds: float,
    silence: tuple[float, float],
    before: Callable[[], object] = lambda: None,
) -> tuple[list[str], float]:
    """Have a site asked for what takes so long.

    Return what was said of its processes until it had answered, and the seconds from `before` on.
    """
    node, gate = children(folder, network=True, gate=True, silence=silence)
    gate = replace(gate, command=(sys.executable, str(HERE / "answering.py"), folder.site))
    told, replies, linked, stop = list[str](), list[Any](), threading.Event(), threading.Event()
    took = list[float]()

    def ask() -> None:
        consortium.do("begin", config={"study": "text"})
        linked.wait(120)
        before()
        answered = consortium.do("ask", config={"sleep": seconds}, seconds=seconds + 60)
        replies.extend(answered["replies"])
        took.append(answered["seconds"])
        stop.set()

    def look() -> None:
        """Until the gate is up, which takes as long as the machine is busy, this process gives its signs of life."""
        if not linked.is_set():
            for pulse in (folder.node_pulse, folder.gate_pulse):
                Pulse(pulse).beat()
            if gate.log.exists() and "linked to the node" in gate.log.read_text():
                linked.set()

    asking = threading.Thread(target=ask)
    with Supervisor([node, gate], notify=told.append) as supervisor:
        asking.start()
        supervisor.supervise(stop, look)
        asking.join()
    assert [reply["site"] for reply in replies] == [folder.site], (told, gate.log.read_text()[-1000:])
    return told, took[0]


@pytest.mark.proof
def test_a_message_that_comes_more_slowly_than_a_gate_may_be_silent_is_answered(consortium: Any, home: Path):
    folder, line = consortium.joined("cleveland"), SlowLine(consortium.port, 2000)  # of 16 kB
    folder.join.write_text(folder.join.read_text().replace(f":{consortium.port}", f":{line.port}"))
    try:
        told, took = answers_slowly(consortium, folder, 0.0, (NODE_SILENCE, 4.0), line.slow.set)
    finally:
        line.close()
    assert [said for said in told if "ended" in said] == []
    assert took > 6


@pytest.mark.proof
def test_a_fit_that_takes_longer_than_a_gate_may_be_silent_is_not_interrupted(consortium: Any, home: Path):
    told, _ = answers_slowly(consortium, consortium.joined("cleveland"), 8.0, (NODE_SILENCE, 5.0))
    assert [line for line in told if "ended" in line] == []


@pytest.mark.proof
def test_a_fit_of_three_minutes_is_not_interrupted(consortium: Any, home: Path):
    told, _ = answers_slowly(consortium, consortium.joined("cleveland"), 180.0, (NODE_SILENCE, GATE_SILENCE))
    assert [line for line in told if "ended" in line] == []


@pytest.mark.proof
def test_a_node_that_hangs_is_started_anew_and_so_is_the_gate_that_lost_it(consortium, home, wait_until):
    folder, told = consortium.joined("cleveland"), list[str]()
    with Supervisor(children(folder, network=True, gate=True, silence=(20.0, 10.0)), notify=told.append) as supervisor:

        def until(what: str) -> None:
            end = time.monotonic() + 150
            while not any(what in line for line in told):
                assert time.monotonic() < end, told
                supervisor.look()
                time.sleep(0.2)

        wait_until(lambda: supervisor.look() or folder.node_id.exists(), 60)
        os.kill(supervisor.processes["the node"], signal.SIGSTOP)
        until("the gate has not reached its node for 10 s, and was ended")
        until("the node had no successful request to the coordinator's server for 20 s, and was ended")
        folder.node_id.unlink()
        wait_until(lambda: supervisor.look() or folder.node_id.exists(), 90)


@pytest.mark.proof
def test_a_gate_that_loads_for_long_or_has_no_node_is_not_ended(home: Path, gate_secret: bytes):
    folder, told, silence = SiteFolder("cleveland"), list[str](), 7.0  # it asks for a node every 5 s
    folder.make()
    (gate,) = children(folder, network=False, gate=True, silence=(NODE_SILENCE, silence))
    slow = (sys.executable, str(HERE / "answering.py"), folder.site, str(1.3 * silence))
    with Supervisor([replace(gate, command=slow)], notify=told.append) as supervisor:

        def watch(what: Callable[[], bool], seconds: float) -> bool:
            end = time.monotonic() + seconds
            while not what() and time.monotonic() < end:
                supervisor.look()
                assert len(told) == 0, (told, gate.log.read_text())
                time.sleep(0.2)
            return what()

        pulse = Pulse(folder.gate_pulse)
        watch(lambda: False, 1.3 * silence)  # no node has written the secret that it waits for
        folder.secret.write_bytes(gate_secret)
        folder.secret.chmod(0o640)
        assert watch(lambda: pulse.seen() == BUSY, 10)
        assert watch(lambda: pulse.seen() != BUSY, 120)  # it loads
        watch(lambda: False, 1.8 * silence)  # and asks for a node that is not there
