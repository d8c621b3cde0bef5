"""What tests send to the stand-in sites, and what came of it."""

from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from flfed.deployment.flower.link import Link
from flfed.flower_names import ask
from flfed.paths import CoordinatorFolder
from flfed.updates.messages.enrol import ENROL, EnrolRequest

SITES = ["site-1", "site-2", "site-3"]
CONFIG: dict[str, bool | float | int | str] = {"study": "format = 1\n", "repeat": 0, "run": "r1"}


def train(node: int, **config: Any) -> Message:
    return Message(RecordDict({"config": ConfigRecord(config)}), dst_node_id=node, message_type="train")


def enrol(node: int) -> Message:
    request = EnrolRequest(dataset="small", schema_sha256="0" * 64)
    return Message(request.to_record(), dst_node_id=node, message_type=ENROL)


def run_status(folder: CoordinatorFolder, run: int) -> tuple[str, str]:
    """Return Flower's status and sub-status of a run, such as ("finished", "completed")."""
    client = Link.of(folder).control()
    status = ask(client.ListRuns, run_id=run).run_dict[run].status
    client.close()
    return status.status, status.sub_status


def answers(grid: Any, messages: list[Message], timeout: float) -> dict[str, str]:
    """Return what came of each message, by its node's place among the sites: "ok", or why not."""
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive(messages, timeout=timeout)
    return {
        SITES[nodes.index(reply.metadata.src_node_id)]: reply.error.reason if reply.has_error() else "ok"
        for reply in replies
    }
