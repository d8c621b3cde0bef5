"""The coordinator's side of a deployment, for tests: one JSON object a line in, one out.

`driver.py PORT FOLDER`; FOLDER holds `ca.crt` and `server.secret`. What it can do stands in DO.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from flfed.deployment.bundle import bundle

ASK = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class Driver:
    """One run at a time."""

    def __init__(self, port: str, folder: Path) -> None:
        self.address, self.ca = f"127.0.0.1:{port}", (folder / "ca.crt").read_bytes()
        self.secret = (folder / "server.secret").read_bytes()
        version = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        self.registered, self.grid = list[int](), None
        self.control = ControlHttpClient.from_server_address(self.address, False, self.ca, version)

    def register(self, key: str) -> dict[str, Any]:
        public = load_ssh_public_key(key.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.registered.append(self.control.RegisterNode(RegisterNodeRequest(public_key=public)).node_id)
        return {"node": self.registered[-1]}

    def forget(self) -> dict[str, Any]:
        """End the run that was begun, and cut off every node."""
        if self.grid is not None:
            self.end()
        for node in self.registered:
            self.control.UnregisterNode(UnregisterNodeRequest(node_id=node))
        self.registered.clear()
        return {}

    def begin(self, config: dict[str, Any]) -> dict[str, Any]:
        fab = Fab(hashlib.sha256(bundle()).hexdigest(), bundle(), {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(config), federation="")
        self.control.StartRun(request)
        version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
        signing = SuperExecAuthHttpInterceptor(master_secret=self.secret, protected_methods=ASK)
        poll = RuntimeHttpClient.from_server_address(self.address, False, self.ca, [version, signing])
        while not (got := poll.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))).token:
            time.sleep(0.05)
        self.grid = HttpGrid(runtime_api_address=self.address, root_certificates=self.ca, token=got.token)
        self.client = self.grid._runtime_client
        self.beating = HeartbeatSender(make_task_heartbeat_fn_http(self.client))
        self.beating.start()
        given = self.client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        self.grid.set_run(run_from_proto(given.run))
        self.context = given.context
        return {"run": fab.hash_str}

    def nodes(self, count: int, seconds: float = 90) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while len(found := list(self.grid.get_nodes())) != count and time.monotonic() < end:
            time.sleep(0.1)
        return {"nodes": [node.node_id for node in found]}

    def half(self, config: dict[str, Any]) -> dict[str, Any]:
        """Announce a message to all nodes and send no part of it, as a coordinator does that is killed meanwhile."""
        push, self.client.PushObject = self.client.PushObject, lambda request: PushObjectResponse(stored=True)
        content = RecordDict({"config": ConfigRecord(config)})
        messages = [Message(content, node.node_id, "train", group_id="1") for node in self.grid.get_nodes()]
        sent = list(self.grid.push_messages(messages))
        self.client.PushObject = push
        return {"sent": len(sent)}

    def ask(self, config: dict[str, Any], kind: str = "train", seconds: float = 60) -> dict[str, Any]:
        began = time.monotonic()
        content = RecordDict({"config": ConfigRecord(config), "arrays": ArrayRecord([np.ones((30, 64))])})
        ids = set(
            self.grid.push_messages(
                [Message(content, node.node_id, kind, group_id="1") for node in self.grid.get_nodes()]
            )
        )
        replies: list[Any] = []
        while ids and time.monotonic() - began < seconds:
            for reply in self.grid.pull_messages(ids):
                ids.discard(reply.metadata.reply_to_message_id)
                replies.append(dict(reply.content["config"]) if reply.has_content() else {"error": reply.error.reason})
            time.sleep(0.02)
        return {"replies": replies, "seconds": time.monotonic() - began}

    def end(self) -> dict[str, Any]:
        output = PushTaskOutputRequest(context=self.context, sub_status=SubStatus.COMPLETED, details="")
        self.client.PushTaskOutput(output)
        self.beating.stop()
        self.grid.close()
        self.grid = None
        return {}


if __name__ == "__main__":
    driver = Driver(sys.argv[1], Path(sys.argv[2]))
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(driver, asked.pop("do"))(**asked)), flush=True)
