"""Requests as a site reads them that has the encoder of its run, which crosses once."""

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from flfed.summaries.summary import Encoder
from flfed.updates.messages.train import TrainRequest, lacks_encoder, with_encoder

ENCODER = Encoder(
    center=np.array([1.5, 0.0]), scale=np.array([2.0, 1.0]), frequency=np.array([0.25, 0.75, 0.1]),
    spread=np.array([0.4, 0.4, 0.3]), class_weight=np.array([0.6, 3.0]),
)  # fmt: skip


def whole_request(message: Message, encoder: Encoder) -> TrainRequest:
    """Return a request to train, with the encoder where the message names it by its hash alone."""
    content = message.content
    if lacks_encoder(content):
        content = with_encoder(content, encoder.arrays())
    return TrainRequest.from_record(content)


def through_bytes(record: RecordDict) -> RecordDict:
    """Return what a network makes of a record."""
    proto = recorddict_to_proto(record)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))
