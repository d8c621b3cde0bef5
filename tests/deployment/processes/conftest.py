"""A real node's Runtime API behind a real relay, into which a test puts messages, also such as no coordinator sends."""

import gc
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.processes.connector import RelayClient
from flfed.deployment.processes.node import free_port
from flfed.deployment.processes.relay import relaying
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import new_node_key, private_text, public_text
from tests.machines import is_listening

RUN, NODE = 77, 4711
BUNDLE = b"a bundle that nobody opens"
SECRET = b"0" * 64


def until(there: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is there, or fail."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.02)


class GateNode:
    """Flower's own node state and Runtime API on a loopback port, without a SuperLink."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.port = socket, free_port()
        self.link = RelayClient(socket)
        self._start()

    def _start(self) -> None:
        factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state, self.store = factory.state(), factory.objectstore_factory.store()
        app = create_app(state_factory=factory, superexec_auth_secret=SECRET)
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def restart(self) -> None:
        """Come back with an empty memory, as a node does."""
        self.stop()
        self._start()

    def message(self, content: RecordDict | None = None, kind: str = "train") -> Message:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN, 1, 1
        if content is None:
            content = RecordDict({"config": ConfigRecord({"n": 3}), "arrays": ArrayRecord([np.arange(6.0)])})
        return Message(content, dst_node_id=NODE, message_type=kind, group_id="1")

    def put(
        self,
        message: Message | None = None,
        *,
        run: int = RUN,
        bundle: bytes = BUNDLE,
        late: float = 0,
        download: float = 0,
    ) -> str:
        """Let a message wait for the gate; return its id.

        Its context is of a run, the message's own by default. `late` seconds pass before each part of it, and
        `download` seconds between its envelope and all parts.
        """
        message = message or self.message()
        digest = hashlib.sha256(bundle).hexdigest()
        created = Run.create_empty(RUN)
        created.fab_hash = digest
        config = {"study": "text", "sites": "site-a,site-b"}
        context = Context(run, NODE, {"site": "site-a"}, RecordDict(), config)
        self.state.set_run_series_context(created.series_id, context)
        self.state.store_run(created)
        self.state.fab_store[digest] = Fab(digest, bundle, {})
        assert self.state.create_task(TaskType.CLIENT_APP, RUN, digest) is not None
        time.sleep(late)
        # As `_pull_and_store_message` of the SuperNode does: the envelope here, the objects there.
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            self.store.preregister(RUN, get_object_tree(message))
            self.state.store_message(remove_content_from_message(message))
            time.sleep(download)
            for name, part in get_all_nested_objects(message).items():
                time.sleep(late)
                self.store.put(name, part.deflate())
        return message.metadata.message_id

    def reply(self, seconds: float = 60.0) -> Message:
        """Wait for the one reply that the gate gave."""
        found: list[Message] = []

        def there() -> bool:
            found.extend(self.state.get_messages_legacy(is_reply=True))
            return bool(found)

        until(there, seconds)
        assert len(found) == 1
        return found[0]


def pytest_itemcollected(item: pytest.Item) -> None:
    # httpcore drops a socket that could not be connected without closing it; Python does, and says so.
    item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def unconnected_sockets() -> Iterator[None]:
    """Let go of what httpcore forgets to close where it could not connect, before another test is blamed for it.

    What is left is kept out of the next search: over all that earlier tests left, each took half a second.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.freeze()


@pytest.fixture
def gate_node(tmp_path: Path) -> Iterator[GateNode]:
    node = GateNode(tmp_path / "gate.sock")
    try:
        with relaying(node.socket, node.port):
            yield node
            node.link.close()
    finally:
        node.stop()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture
def gate_secret() -> bytes:
    return SECRET


class Consortium:
    """A SuperLink with TLS and node authentication, and the coordinator's side driven from outside."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        keys = CoordinatorFolder(root / "coordinator")
        initialise(keys, Settings("Test", f"localhost:{self.port}"))
        for name in ("ca.crt", "server.crt", "server.key"):
            shutil.copy(keys.keys / name, root)
        (root / "server.secret").write_bytes(secrets.token_hex(32).encode())
        self._running: list[subprocess.Popen[str]] = []
        words = [
            f"{Path(sys.executable).parent}/flower-superlink --host 127.0.0.1 --port {self.port}",
            "--ssl-certfile server.crt --ssl-keyfile server.key --ssl-ca-certfile ca.crt --enable-supernode-auth",
            "--disable-runtime-dependency-installation --database state.db --isolation process",
            "--superexec-auth-secret-file server.secret",
        ]
        self.server = self.start(" ".join(words).split(), "superlink.log", FLWR_HOME=str(root / "flower"))
        until(lambda: self._listening(), 120)
        driver = [sys.executable, str(Path(__file__).with_name("driver.py")), str(self.port), str(root)]
        self.driver = subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._running.append(self.driver)

    def _listening(self) -> bool:
        assert self.server.poll() is None, (self.root / "superlink.log").read_text()[-2000:]
        return is_listening("127.0.0.1", self.port)

    def start(self, words: list[str], log: str, **environment: str) -> subprocess.Popen[str]:
        """Start a process that is ended with the consortium; its output goes to a file of this name."""
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        with (self.root / log).open("w") as out:
            made = subprocess.Popen(
                words, cwd=self.root, stdout=out, stderr=out, text=True, env={**os.environ, **quiet, **environment}
            )
        self._running.append(made)
        return made

    def do(self, what: str, **given: Any) -> dict[str, Any]:
        assert self.driver.stdin is not None and self.driver.stdout is not None
        self.driver.stdin.write(json.dumps({"do": what, **given}) + "\n")
        self.driver.stdin.flush()
        return json.loads(self.driver.stdout.readline())

    def joined(self, name: str) -> SiteFolder:
        """Return the folder of a site that has joined, and is registered."""
        folder, key = SiteFolder(name), new_node_key()
        folder.make()
        folder.join.write_text(f'site = "{name}"\naddress = "localhost:{self.port}"\n')
        shutil.copy(self.root / "ca.crt", folder.authority)
        write_whole(folder.node_key, private_text(key))
        self.do("register", key=public_text(key.public_key()))
        return folder

    def forget(self) -> None:
        """End what was started besides the server, the run and the sites."""
        self._end(self._running[2:])
        del self._running[2:]
        self.do("forget")

    def _end(self, processes: list[subprocess.Popen[str]]) -> None:
        for running in processes:  # what serves is killed, and the kernel kills what it had started
            running.kill()
        for running in processes:
            running.wait()

    def close(self) -> None:
        self._end(self._running)
        for stream in (self.driver.stdin, self.driver.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def fresh_consortium() -> Iterator[Consortium]:
    # Not under pytest's folder, which only root may enter: other users' processes run from here.
    root = Path(tempfile.mkdtemp(prefix="flfed-", dir="/tmp"))
    root.chmod(0o711)
    made = None
    try:
        made = Consortium(root)
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Consortium]:
    """The SuperLink and its driver, for the tests of a file."""
    with fresh_consortium() as made:
        yield made


@pytest.fixture
def consortium(server: Consortium) -> Iterator[Consortium]:
    """The server as no site and no run knows it; what a test starts is ended with it."""
    yield server
    server.forget()
