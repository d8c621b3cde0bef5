"""Messages within one process, without bytes.

They cross as they are: arrays are held without a copy, and sections are made for who looks at them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict

KINDS = "biuf"
"""NumPy's letters for booleans, whole numbers and numbers."""
STYPE = "numpy.ndarray"
"""Flower's name for bytes as `numpy.save` writes them."""

_SIZES: dict[type, int] = {float: 8, int: 8, bool: 1}
AnyRecord = TypeVar("AnyRecord", ArrayRecord, ConfigRecord, MetricRecord, RecordDict)
PlainRecord = TypeVar("PlainRecord", ConfigRecord, MetricRecord)
_CONFIG = ConfigRecord()
_METRICS = MetricRecord()
_ARRAYS = ArrayRecord()
_RECORDS = RecordDict()
_PLAIN: dict[type, frozenset[type]] = {
    ConfigRecord: frozenset({bool, int, float, str, bytes}),
    MetricRecord: frozenset({int, float}),
}
"""What Flower's records take, without subclasses such as NumPy's numbers: Flower itself judges those."""


class InMemoryArray(Array):
    """Flower's array around an ndarray.

    Nothing is written as bytes unless someone asks for them.

    Parameters
    ----------
    values : ndarray of booleans, whole numbers or numbers, in C order
        Held without a copy, read-only. Many messages may share it, and a reader gets this very array.

    Raises
    ------
    TypeError
        For any other array.

    Notes
    -----
    Outside the process (Flower's protobuf and objects, a pickle) it is Flower's own array with the
    bytes of `numpy.save`. No attribute can be set: who wants another array in a message puts it there.
    """

    def __init__(self, values: np.ndarray) -> None:
        flags = values.flags
        dtype = values.dtype
        if type(values) is not np.ndarray or dtype.kind not in KINDS or not flags.c_contiguous:
            raise TypeError("only a plain array of numbers in C order can be held")
        # A view is made read-only, so that the caller's own array stays as it is.
        if flags.writeable:
            values = values.view()
            values.setflags(write=False)
        attributes = self.__dict__
        attributes["values"] = values
        attributes["shape"] = values.shape
        attributes["stype"] = STYPE
        attributes["dtype"], attributes["start"] = _written_as(dtype, values.shape)

    values: np.ndarray
    start: bytes

    @property
    def data(self) -> bytes:
        """The array as `numpy.save` writes it, made anew."""
        return self.start + self.values.tobytes()

    @data.setter
    def data(self, value: bytes) -> None:
        """Refuse to replace the array.

        The notes say why.
        """
        raise AttributeError("a held array is shared: put another array in its place")

    def count_bytes(self) -> int:
        """Return the length of `data`."""
        return len(self.start) + self.values.nbytes

    def numpy(self) -> np.ndarray:
        """Return a copy, which may be written into."""
        return self.values.copy()

    def deflate(self) -> bytes:
        """Return the array as an object that Flower sends.

        It is Flower's own array, which the receiver knows by name.
        """
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change the array.

        Flower's own marks may be set.
        """
        if name in ("values", "start", "dtype", "shape", "stype"):
            raise AttributeError("a held array is shared: put another array in its place")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        """Return whether type, shape and bytes are the same."""
        if not isinstance(other, Array):
            return NotImplemented
        return self.__reduce__() == (Array, (other.dtype, other.shape, other.stype, other.data))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return Flower's own array for pickles and deep copies."""
        return Array, (self.dtype, self.shape, self.stype, self.data)


@lru_cache(maxsize=256)
def _written_as(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[str, bytes]:
    """Return a type's name and its arrays' first bytes.

    An array of one type and shape starts alike in NumPy's format in every round of a run.
    """
    start = BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return str(dtype), start.getvalue()


def immutable(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return copies that nobody can write into.

    Nobody can make them writable again: many sites share them.
    """
    return {name: _of_bytes(value) for name, value in arrays.items()}


def _of_bytes(value: np.ndarray) -> np.ndarray:
    """Return an array of bytes, which never change: objects made of them stay as they are."""
    if isinstance(value.base, bytes):
        return value
    return np.ndarray(value.shape, value.dtype, value.tobytes())


def array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return named arrays as a record.

    Each is held as it is, or copied where it is not in C order.
    """
    return _holding(_ARRAYS, {name: _wrap_array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def _wrap_array(value: np.ndarray) -> Array:
    """Return an array for a message.

    One of another kind is left to Flower to judge.
    """
    return InMemoryArray(value) if value.dtype.kind in KINDS else Array(value)


def config_record(values: Mapping[str, Any]) -> ConfigRecord:
    """Return plain values as a record."""
    return _of_plain(_CONFIG, values)


def kebab_record(**values: Any) -> ConfigRecord:
    """Return plain values as a record, keys in kebab-case."""
    return config_record({key.replace("_", "-"): value for key, value in values.items()})


def metric_record(values: Mapping[str, Any]) -> MetricRecord:
    """Return numbers as a record."""
    return _of_plain(_METRICS, values)


def _of_plain(empty: PlainRecord, values: Mapping[str, Any]) -> PlainRecord:
    """Return plain values as a record like `empty`.

    Where Flower would take all of them unchanged, it need not look at each again.
    """
    kind = type(empty)
    if _PLAIN[kind].issuperset(map(type, values.values())) and set(map(type, values)) <= {str}:
        return _holding(empty, dict(values))
    return kind(dict(values))


def record_of(sections: Mapping[str, ArrayRecord | ConfigRecord | MetricRecord]) -> RecordDict:
    """Return sections as the content of a message."""
    return _holding(_RECORDS, dict(sections))


def own_copy(record: RecordDict) -> RecordDict:
    """Return a message's content for one receiver.

    The receiver may change it: only what cannot change is shared.

    No section may hold a list.
    """
    return record_of({name: part.copy() for name, part in record.items()})


def _holding(empty: AnyRecord, values: dict[str, Any]) -> AnyRecord:
    """Return a record like `empty` with other values.

    They are known to be such as Flower takes.

    The one place that knows how Flower's records keep their values. To have Flower check each as it is put in costs
    more than all else that is done with a message.
    """
    record = object.__new__(type(empty))
    vars(record).update(vars(empty), _data=values)
    return record


def count_bytes(record: Mapping[str, Any]) -> int:
    """Return the bytes of a message's content.

    The content may be some of its sections: keys, texts, numbers as 8 bytes, arrays.

    As Flower counts it, but Flower's own count raises on an empty text or list, which any site may send.
    """
    total = 0
    for part in record.values():
        for key, value in part.items():
            total += len(key) + (_SIZES.get(type(value)) or _value_bytes(value))
    return total


def count_array_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the bytes of a section that holds these arrays, as `count_bytes` counts them."""
    return count_bytes({"": {name: InMemoryArray(np.ascontiguousarray(value)) for name, value in arrays.items()}})


def _value_bytes(value: Any) -> int:
    if isinstance(value, InMemoryArray):
        return value.count_bytes()
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, bool):
        return 1
    return 8


class Crossing(Protocol):
    """Message that can cross, such as `TrainRequest`.

    It is a class of `flfed.updates.messages`: frozen, and nobody writes into its arrays.
    """

    def to_record(self) -> RecordDict:
        """Return the message's content, made anew."""

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""


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
    Outside the process (Flower's protobuf and objects, a pickle, a copy) it is Flower's own record.
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

        It is made at the first look; later looks see changes.
        """
        if self._written is None:
            self._written = self.message.to_record()
        return self._written

    def untouched(self) -> bool:
        """Return whether nobody has looked at the sections.

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


def is_in_memory(record: RecordDict) -> bool:
    """Return whether a record holds a message as it was made: nobody looked at its sections."""
    return type(record) is InMemoryRecord and record.untouched()


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
        self._bytes_by_layout: dict[Any, int] = {}

    def of(self, record: RecordDict) -> int:
        """Return the size of a message's content."""
        if type(record) is not InMemoryRecord or not record.untouched():
            return count_bytes(record)
        # Messages of one layout are equally long, so that one of ten thousand is written out.
        layout = _layout(record.message)
        size = self._bytes_by_layout.get(layout)
        if size is None:
            size = self._bytes_by_layout[layout] = count_bytes(record.message.to_record())
        return size


def _layout(message: Crossing) -> tuple[Any, ...]:
    """Return what alone decides a message's size.

    A number is as long as any other.
    """
    layout: list[Any] = [type(message)]
    _add_layout(layout, vars(message).values())
    return tuple(layout)


def _add_layout(layout: list[Any], values: Iterable[Any]) -> None:
    """Add the layout of values, one after the other.

    It is what decides how many bytes they are. The kind of each shows where it ends.
    """
    for value in values:
        kind = type(value)
        # A number has one size, so that its value is left out of the layout.
        if kind is float or kind is int:
            layout.append(8)
        elif kind is np.ndarray:
            layout += (value.shape, value.dtype)
        elif kind is dict:
            layout.append(tuple(value))
            _add_layout(layout, value.values())
        elif kind is str or kind is bool or value is None:
            layout.append(value)
        elif hasattr(kind, "__dataclass_fields__"):
            layout.append(kind)
            _add_layout(layout, vars(value).values())
        else:
            layout.append(object())  # equal to no other, so that the message is counted


def addressed(like: Message, node: int, content: RecordDict) -> Message:
    """Return a message like another, to another node.

    It has a content of its own.
    """
    return _made(content, vars(like.metadata) | {"_dst_node_id": node})


def replying(content: RecordDict, to: Message) -> Message:
    """Return `Message(content, reply_to=to)`."""
    # The reply goes back the way that the message came, and within the rest of its time.
    metadata = vars(to.metadata)
    now = time.time()
    answers = {
        "_message_id": "",
        "_src_node_id": metadata["_dst_node_id"],
        "_dst_node_id": metadata["_src_node_id"],
        "_src_task_id": metadata["_dst_task_id"],
        "_dst_task_id": metadata["_src_task_id"],
        "_reply_to_message_id": metadata["_message_id"],
        "_created_at": now,
        "_ttl": metadata["_created_at"] + metadata["_ttl"] - now,
        "_delivered_at": "",
    }
    return _made(content, metadata | answers)


def _made(content: RecordDict, metadata: Mapping[str, Any]) -> Message:
    """Return a message with this content and metadata.

    Both are known to be such as Flower takes.

    The one place that knows how Flower's messages keep their values: to have Flower look at each
    argument takes ten times as long.
    """
    own = object.__new__(Metadata)
    message = object.__new__(Message)
    vars(own).update(metadata)
    vars(message).update(_metadata=own, _content=content, _error=None)
    return message
