"""The node asks often while a study runs and seldom else, holds its files to their modes, and follows no redirect."""

import http.server
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.flower.pacing import Pace
from flfed.deployment.processes.child_processes import make_secret, node_command
from flfed.deployment.processes.node import LEAST, MOST, QUIET, PacedTime, free_port, nothing_left_unsent, parts_soon
from flfed.errors import FlfedError, UsageError
from flfed.files import write_whole
from flfed.flower_names import replace_name
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import new_node_key, private_text


def test_the_node_asks_fast_after_a_message_and_slower_the_longer_nothing_comes():
    clock, waits = SimpleNamespace(now=0.0), []

    def wait(seconds: float) -> None:
        clock.now += seconds
        waits.append(seconds)

    paced = PacedTime(Pace(LEAST, MOST, clock=lambda: clock.now), wait)
    while clock.now < 400:
        paced.sleep(3)
    by_then = [sum(waits[:n]) for n in range(len(waits))]
    near = {at: min(zip(by_then, waits), key=lambda pair: abs(pair[0] - at))[1] for at in (1, 20, 60, 390)}
    assert near == {1: 0.15, 20: pytest.approx(1, rel=0.1), 60: pytest.approx(3, rel=0.1), 390: 10}
    assert waits == sorted(waits)
    paced.sleep(0.5)  # a message is at the gate
    assert waits[-1] == 0.02
    paced.sleep(3)
    assert waits[-1] == 0.15


def test_flower_uses_its_clock_only_for_the_two_waits_that_we_replace():
    """What `paced` takes the place of; a Flower that sleeps elsewhere, or by another name, fails here."""
    import flwr.supernode.start_client_internal as loop

    text = Path(str(loop.__file__)).read_text()
    assert len(re.findall(r"\btime\.[a-z]", text)) == 3
    assert (text.count("time.sleep(3)"), text.count("time.sleep(0.5)")) == (1, 2)


def test_a_reply_that_was_left_is_sent_also_when_no_message_comes(monkeypatch):
    """Seen: a run killed in mid-round left its reply; the next run's enrolment then waited for the message after."""
    import flwr.supernode.start_client_internal as loop
    from flwr.app import Message, RecordDict
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supernode.nodestate import NodeStateFactory

    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0
    pulled, state = [7, None, None, None], NodeStateFactory(ObjectStoreFactory()).state()
    monkeypatch.setattr(loop, "_pull_and_store_message", lambda **_: pulled.pop(0))
    nothing_left_unsent()
    asked = Message(RecordDict(), dst_node_id=3, message_type="query.enrol")
    asked.metadata.__dict__["_message_id"] = "asked"
    state.store_message(asked)
    found = [loop._pull_and_store_message(state=state) for _ in range(2)]
    reply = Message(RecordDict(), reply_to=asked)
    reply.metadata.__dict__["_message_id"] = "reply"
    state.store_message(reply)
    found.append(loop._pull_and_store_message(state=state))
    assert [message.metadata.message_id for message in state.get_messages_legacy(is_reply=True)] == ["reply"]
    assert [*found, loop._pull_and_store_message(state=state)] == [7, None, 0, None]


def test_parts_that_come_a_little_later_are_asked_for_soon(monkeypatch):
    """Seen: a node that asked while messages were being sent waited a second for each, half of a round's time."""
    import flwr.supernode.start_client_internal as loop
    from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

    asked, waited = list[str](), list[float]()
    wait = threading.Event.wait

    def pull(part: str) -> bytes:
        asked.append(part)
        if len(asked) < 3:
            raise ObjectUnavailableError(part)
        return b"content"

    def noted(event: threading.Event, timeout: float | None = None) -> bool:
        waited.extend([] if timeout is None else [timeout])
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", noted)
    monkeypatch.setattr(loop, "pull_objects", loop.pull_objects)
    parts_soon()
    assert loop.pull_objects(["part"], pull_object_fn=pull) == {"part": b"content"}
    # Flower's own two waits are at least 0.8 and 1.6 s.
    assert len(asked) == 3 and len(waited) >= 2 and sum(waited) < 0.8


def test_a_flower_without_the_name_is_refused():
    there = SimpleNamespace(time=1)
    replace_name(there, "time", 2)
    assert there.time == 2
    with pytest.raises(FlfedError, match="no 'sleep' where flfed needs it; install flwr 1.42"):
        replace_name(there, "sleep", 2)


@pytest.fixture
def folder(home: Path) -> SiteFolder:
    found = SiteFolder("site-a")
    found.make()
    found.join.write_text('site = "site-a"\naddress = "fl.example.org:443"\n')
    write_whole(found.node_key, private_text(new_node_key()))
    return found


def test_the_command_line_names_files_and_holds_no_secret(folder: SiteFolder):
    words = node_command(folder, 1234)
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--superlink"] == "fl.example.org:443"
    assert (given["--host"], given["--port"]) == ("127.0.0.1", "1234")
    assert (given["--isolation"], given["--node-config"]) == ("process", 'site="site-a"')
    assert "--insecure" not in words
    make_secret(folder)
    secret = folder.secret.read_text()
    assert len(secret) == 64
    assert secret not in " ".join(words)
    make_secret(folder)
    assert folder.secret.read_text() == secret
    assert QUIET == {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def test_a_key_that_others_may_read_and_a_site_that_has_not_joined_are_refused(folder: SiteFolder):
    folder.node_key.chmod(0o640)
    with pytest.raises(FlfedError, match="others may read"):
        node_command(folder, 1)
    folder.node_key.chmod(0o600)
    assert node_command(folder, 1)[-1] == "1"
    folder.join.write_text('site = "site-b"\naddress = "fl.example.org:443"\n')
    with pytest.raises(FlfedError, match="this site's name"):
        node_command(folder, 1)
    folder.join.unlink()
    with pytest.raises(UsageError, match="has not joined"):
        node_command(folder, 1)


Heard = list[str]


@pytest.fixture
def redirecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, int, Heard, Heard]]:
    """Two TLS servers of one authority: `localhost` sends everybody on to `127.0.0.1`, which only listens."""
    keys = CoordinatorFolder(tmp_path / "coordinator")
    initialise(keys, Settings("Test", "localhost:1"))
    heard: tuple[Heard, Heard] = ([], [])
    servers = []

    def serving(number: int, target: str) -> http.server.ThreadingHTTPServer:
        class ClientGenerator(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard[number].append(self.path)
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(307 if target else 500)
                if target:
                    self.send_header("location", f"{target}{self.path}")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        made = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), ClientGenerator)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(keys.keys / "server.crt", keys.keys / "server.key")
        made.socket = tls.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append(made)
        return made

    other = serving(1, "").server_address[1]
    first = serving(0, f"https://127.0.0.1:{other}").server_address[1]
    yield keys.keys / "ca.crt", int(first), *heard
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.servers
@pytest.mark.parametrize("guarded", [True, False])
def test_a_redirect_to_another_host_is_not_followed(redirecting, folder, guarded, wait_until):
    authority, port, first, other = redirecting
    folder.authority.write_bytes(authority.read_bytes())
    folder.join.write_text(f'site = "site-a"\naddress = "localhost:{port}"\n')
    make_secret(folder)
    ours = [sys.executable, "-m", "flfed.deployment.processes.node", "site-a"]
    flowers = [str(Path(sys.executable).parent / "flower-supernode"), *node_command(folder, free_port())[1:]]
    node = subprocess.Popen(
        ours if guarded else flowers, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **QUIET, "FLWR_HOME": str(folder.network)},
    )  # fmt: skip
    try:
        said = node.communicate(timeout=60)[1]
    finally:
        node.kill()
        node.wait()
    assert node.returncode == 1
    assert len(first) >= 1
    if guarded:
        assert len(other) == 0
        assert "307" in said
        assert not folder.socket.exists()
    else:  # that the trap is one: Flower's own command walks into it
        assert other == ["/v1/fleet/activate-node"]
