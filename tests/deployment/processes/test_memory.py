"""A gate has a bound on its memory: what asks for more gets a sentence, or ends the gate, and the next is answered."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.processes.child_processes import LEAST, VARIABLE, bytes_of, half_of_machine
from flfed.deployment.processes.serve import serve
from flfed.deployment.processes.supervisor import Child, Supervisor
from flfed.errors import UsageError
from flfed.federation.client.redaction import _no_memory
from flfed.paths import SiteFolder
from flfed.refusals import Refusal
from flfed.rows.data import site_discovery as sites

HERE = Path(__file__).parent
LIMIT = 1 << 30


@pytest.fixture
def limited(gate_node: Any, gate_secret: bytes, home: Path, tmp_path: Path) -> Iterator[list[str]]:
    """What a supervisor says of a gate that may have a gigabyte, and that answers `gate_node`."""
    folder = SiteFolder("site-a")
    folder.make()
    folder.secret.write_bytes(gate_secret)
    folder.secret.chmod(0o640)
    folder.socket.symlink_to(gate_node.socket)
    words, told, stop = (sys.executable, str(HERE / "answering.py"), "site-a"), [], threading.Event()
    child = Child("the gate", words, tmp_path / "gate.log", environment={VARIABLE: str(LIMIT)})

    def supervise() -> None:
        with Supervisor([child], notify=told.append, pauses=(0.1,)) as supervisor:
            supervisor.supervise(stop)

    thread = threading.Thread(target=supervise)
    thread.start()
    yield told
    stop.set()
    thread.join()


@pytest.mark.servers
@pytest.mark.proof
def test_what_asks_for_twice_the_memory_is_told_so_and_the_next_is_answered(gate_node, limited, tmp_path):
    def ask(**asked: float) -> Message:
        gate_node.put(gate_node.message(RecordDict({"config": ConfigRecord(asked)})))
        return gate_node.reply(90)

    assert not ask(n=1).has_error()
    for what in ("table", "tensor"):
        assert ask(**{what: 2 * LIMIT}).error.reason == Refusal("no-memory")
        assert not ask(**{what: LIMIT // 8}).has_error()
    assert limited == []
    gate_node.put(gate_node.message(RecordDict({"config": ConfigRecord({"killed": 1.0})})))
    assert not ask(n=2).has_error()
    assert [line.partition(",")[0] for line in limited] == ["the gate ended (SIGKILL)"]
    assert "it may have 1024 MB of memory" in (tmp_path / "gate.log").read_text()


def test_the_sentence_is_one_that_the_gate_lets_out_and_other_errors_keep_theirs():
    assert may_leave(Refusal("no-memory"), sites.load("cleveland"))
    assert [
        _no_memory(error) for error in (MemoryError(), RuntimeError("memory"), RuntimeError("cannot allocate"))
    ] == [True, False, False]


@pytest.mark.parametrize("size", ["4", "511M", "-1G", "4GB", "many", "0x4000000000", "1 G"])
def test_a_size_that_is_none_or_too_small_is_refused_before_anything_starts(size: str, home: Path):
    with pytest.raises(UsageError, match="--memory") as caught:
        serve(SiteFolder("site-a"), threading.Event(), notify=print, memory=size)
    assert caught.value.exit_code == 2
    assert not SiteFolder("site-a").root.exists()


def test_the_default_is_half_of_the_machine():
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = 1024 * int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    assert bytes_of("") == max(LEAST, half_of_machine())
    assert abs(half_of_machine() / total - 0.5) < 0.01
