"""Global model in messages: arrays and encoder.

It is written once and read once for all sites.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from flwr.app import ArrayRecord, RecordDict

from flfed.summaries.summary import Encoder
from flfed.updates.messages import fields
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.in_memory_arrays import array_record, immutable


def model_sections(arrays: Arrays, encoder: Encoder) -> dict[str, Any]:
    """Return the sections that hold a model.

    Nobody can write into their arrays.
    """
    return {"arrays": array_record(immutable(arrays)), "encoder": _encoder_record(encoder).copy()}


@lru_cache(maxsize=64)
def _encoder_record(encoder: Encoder) -> ArrayRecord:
    """Return an encoder's arrays, the same in every round."""
    return array_record(immutable(encoder.arrays()))


def read_model(record: RecordDict) -> dict[str, Any]:
    """Return a request's model fields, or raise MalformedMessage."""
    return {"arrays": fields.ndarrays(record, "arrays"), "encoder": _read_encoder(record)}


def _read_encoder(record: RecordDict) -> Encoder:
    """Return the encoder of a message.

    It is the same one for all sites that hold the very same arrays.
    """
    return _encoder_of(_Same(fields.ndarrays(record, "encoder")))


class _Same:
    """Named arrays, compared by identity.

    They are equal only where every array is the very same object. They are kept, so no other has its id.
    """

    __slots__ = ("_ids", "arrays")

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._ids = (*arrays, *map(id, arrays.values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)


@lru_cache(maxsize=64)
def _encoder_of(same: _Same) -> Encoder:
    return cast(Encoder, fields.made(Encoder, same.arrays))
