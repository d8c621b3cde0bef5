"""Messages within one process, without bytes.

They cross as they are, and sections are made for who looks at them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from flwr.app import Message, Metadata, RecordDict

from flfed.updates.messages.in_memory_arrays import count_bytes


class Crossing(Protocol):
    """Message that can cross, such as `TrainRequest`.

    It is a class of `flfed.updates.messages`: frozen, and nobody writes into its arrays.
    """

    def to_record(self) -> RecordDict:
        """Return the message's content, made anew."""
        ...

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        ...


Kind = TypeVar("Kind", bound=Crossing)


class InMemoryRecord(RecordDict):
    """Flower's record around a message.

    Its sections are made when somebody looks, who may then change them.

    Parameters
    ----------
    message : a message of `flfed.updates.messages`
        Held without a copy. Many records may hold the same one; each makes sections of its own.

    Notes
    -----
    What leaves the process (Flower's protobuf and objects, a pickle, a copy) is Flower's own record.
    """

    __slots__ = ("_written", "message")

    def __init__(self, message: Crossing) -> None:
        self.message: Crossing = message
        self._written: RecordDict | None = None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # - nobody assigns it, all look into it
        """Sections of the record, where Flower's methods look."""
        return vars(self.written())

    def written(self) -> RecordDict:
        """Return Flower's own record of the message.

        It is made at the first look; later looks see what was changed.
        """
        if self._written is None:
            self._written = self.message.to_record()
        return self._written

    def untouched(self) -> bool:
        """Tell whether nobody has looked at the sections.

        Nobody can then have changed them.
        """
        return self._written is None

    def copy(self) -> RecordDict:  # type: ignore[override]  # - whoever copies a record may change it
        """Return a shallow copy, a record of Flower's own."""
        return self.written().copy()

    def deflate(self) -> bytes:
        """Return the record as an object that Flower sends.

        It is Flower's own record, which the receiver knows by name.
        """
        return self.written().deflate()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return Flower's own record for pickles and deep copies."""
        return RecordDict, (dict(self.items()),)


def read(kind: type[Kind], record: RecordDict) -> Kind:
    """Return the message that a record holds.

    It is read from the sections where somebody may have changed them.
    """
    # A record that nobody looked at is unchanged, so that it need not be read and checked again.
    if type(record) is InMemoryRecord and type(record.message) is kind and record.untouched():
        return record.message
    return kind.from_record(record)


class Sizes:
    """Counter of messages' bytes.

    It counts as `count_bytes` does, and messages in memory once for each layout.
    """

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def of(self, record: RecordDict) -> int:
        """Return the size of a message's content."""
        if type(record) is not InMemoryRecord or not record.untouched():
            return count_bytes(record)
        # Messages of one layout are equally long, so that one of ten thousand is written out.
        layout = _layout(record.message)
        size = self._known.get(layout)
        if size is None:
            size = self._known[layout] = count_bytes(record.message.to_record())
        return size


def _layout(message: Crossing) -> tuple[Any, ...]:
    """Return what alone decides a message's size.

    A number is as long as any other.
    """
    found: list[Any] = [type(message)]
    _add_layout(found, vars(message).values())
    return tuple(found)


def _add_layout(found: list[Any], values: Iterable[Any]) -> None:
    """Add the layout of values, one after the other.

    It is what decides how many bytes they are. The kind of each tells where it ends.
    """
    for value in values:
        kind = type(value)
        # A number has one size, so that its value is left out of the layout.
        if kind is float or kind is int:
            found.append(8)
        elif kind is np.ndarray:
            found += (value.shape, value.dtype)
        elif kind is dict:
            found.append(tuple(value))
            _add_layout(found, value.values())
        elif kind is str or kind is bool or value is None:
            found.append(value)
        elif hasattr(kind, "__dataclass_fields__"):
            found.append(kind)
            _add_layout(found, vars(value).values())
        else:
            found.append(object())  # equal to no other, so that the message is counted


def addressed(like: Message, node: int, content: RecordDict) -> Message:
    """Return a message like another, to another node.

    It has a content of its own.
    """
    return _made(content, vars(like.metadata) | {"_dst_node_id": node})


def replying(content: RecordDict, to: Message) -> Message:
    """Return `Message(content, reply_to=to)`."""
    # The reply goes back the way that the message came, and within what is left of its time.
    asked, now = vars(to.metadata), time.time()
    answers = {
        "_message_id": "",
        "_src_node_id": asked["_dst_node_id"],
        "_dst_node_id": asked["_src_node_id"],
        "_src_task_id": asked["_dst_task_id"],
        "_dst_task_id": asked["_src_task_id"],
        "_reply_to_message_id": asked["_message_id"],
        "_created_at": now,
        "_ttl": asked["_created_at"] + asked["_ttl"] - now,
        "_delivered_at": "",
    }
    return _made(content, asked | answers)


def _made(content: RecordDict, metadata: Mapping[str, Any]) -> Message:
    """Return a message with this content and metadata.

    Both are known to be such as Flower takes.

    The one place that knows how Flower's messages keep their values: to have Flower look at each
    argument takes ten times as long.
    """
    own, found = object.__new__(Metadata), object.__new__(Message)
    vars(own).update(metadata)
    vars(found).update(_metadata=own, _content=content, _error=None)
    return found
