"""A coordinator's machine in whosever hands: sends any message of any run to the sites, over Flower's own interfaces.

`asking.py`, with FLFED_HOME of the coordinator; a JSON object a line in, one out.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from flwr.app import Message

from flfed.deployment.engine import deployed
from flfed.deployment.flower import control
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import FlfedError
from flfed.paths import CoordinatorFolder
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites_
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.fields import made, reason_of
from flfed.updates.messages.train import TRAIN, TrainRequest


def arrays_of(messages: StudyMessages, spoil: str) -> dict[str, np.ndarray]:
    """Return a model such as the study has, spoilt in one way."""
    found = {name: np.full(shape, 0.125, dtype) for name, (shape, dtype) in messages.model.items()}
    first = next(iter(found))
    if spoil == "nan":
        found[first].flat[0] = np.nan
    elif spoil == "shape":
        found[first] = found[first].reshape(*found[first].shape, 1)
    elif spoil == "large":
        found[first] = np.ones(1_500_000, found[first].dtype)
    elif spoil == "extra":
        found["extra"] = np.ones(3)
    elif spoil == "type":
        found[first] = found[first].astype(np.float32)
    return found


def request(kind: str, text: str, site: str, spoil: str) -> Any:
    """Return what a site is asked."""
    study = Study.parse(text)
    schema = datasets.load(study.dataset.name).schema
    if kind == ENROL:
        return EnrolRequest(dataset=study.dataset.name, schema_sha256=schema.sha256())
    messages = StudyMessages(study, schema, sites_.load(site))
    encoder = made(Encoder, {name: np.ones(shape) for name, shape in messages.layout.encoder_shapes().items()})
    plain = {"round": 1, "rounds": study.rounds, "lr_scale": 1.0, "fit": True, "score": True}
    settings = {name: float(value) for name, value in study.strategy.build("strategy").client_settings().items()}
    return TrainRequest(arrays=arrays_of(messages, spoil), encoder=encoder, settings=settings, **plain)


def ask(
    study: str, sites: list[str], kind: str = TRAIN, spoil: str = "", run: str = "run-1", bundle: str = "",
    built_as: str = "",
) -> dict[str, str]:  # fmt: skip
    """Return what each site answered: why not, or "answered".

    `bundle` is the file of another bundle than ours.
    """
    replaced: dict[str, Any] = {"bundle": control.bundle}
    if bundle:
        replaced["bundle"] = lambda: Path(bundle).read_bytes()
    folder = CoordinatorFolder.default()
    config: dict[str, bool | float | int | str] = {"study": study, "repeat": 0, "run": run}
    with mock.patch.multiple(control, **replaced), deployed(folder, sites, config, wait_seconds=60) as grid:
        by_node = {node: site for site, node in grid.nodes.items()}
        messages = [
            Message(request(kind, built_as or study, site, spoil).to_record(), dst_node_id=node, message_type=kind)
            for node, site in by_node.items()
        ]
        replies = grid.send_and_receive(messages, timeout=60)
    return {
        by_node[reply.metadata.src_node_id]: reason_of(reply) if reply.has_error() else "answered" for reply in replies
    }


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            said: dict[str, Any] = {"said": ask(**json.loads(line))}
        except FlfedError as error:
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)
