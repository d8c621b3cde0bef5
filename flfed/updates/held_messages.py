"""Messages that cross as they are where both sides live in one process: sections are made for who looks at them."""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

import numpy as np
from flwr.app import RecordDict

from flfed.updates.content import count_bytes


class Crossing(Protocol):
    """A message of `flfed.updates.messages`: frozen, and nobody writes into its arrays."""

    def to_record(self) -> RecordDict:
        """Return the message's content, made anew."""
        ...

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        ...


Kind = TypeVar("Kind", bound=Crossing)


class HeldRecord(RecordDict):
    """Flower's record around a message: its sections are made when somebody looks, who may then change them.

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
        """Where all of Flower's methods find a record's sections."""
        return vars(self.written())

    def written(self) -> RecordDict:
        """Return Flower's own record of the message, made at the first look; later looks see what was changed."""
        if self._written is None:
            self._written = self.message.to_record()
        return self._written

    def untouched(self) -> bool:
        """Tell whether nobody has looked at the sections, so that nobody can have changed them."""
        return self._written is None

    def copy(self) -> RecordDict:  # type: ignore[override]  # - whoever copies a record may change it
        """Return a shallow copy, a record of Flower's own."""
        return self.written().copy()

    def deflate(self) -> bytes:
        """Return what Flower sends as an object: that of its own record, which the receiver knows by name."""
        return self.written().deflate()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return Flower's own record, for a pickle or a deep copy."""
        return RecordDict, (dict(self.items()),)


def read(kind: type[Kind], record: RecordDict) -> Kind:
    """Return the message that a record holds as it is, or read it from sections that somebody may have changed."""
    if type(record) is HeldRecord and type(record.message) is kind and record.untouched():
        return record.message
    return kind.from_record(record)


class Sizes:
    """Counts the bytes of messages as `count_bytes` does; of those that are held, each layout once."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def of(self, record: RecordDict) -> int:
        """Return the size of a message's content."""
        if type(record) is not HeldRecord or not record.untouched():
            return count_bytes(record)
        layout = _layout(record.message)
        size = self._known.get(layout)
        if size is None:
            size = self._known[layout] = count_bytes(record.message.to_record())
        return size


def _layout(value: Any) -> Any:
    """Return what alone decides how many bytes a value is: a number is as long as any other."""
    kind = type(value)
    if kind is np.ndarray:
        return value.shape, value.dtype
    if kind is float or kind is int:
        return 8
    if kind is dict:
        kinds = set(map(type, value.values()))
        if kinds == {np.ndarray}:
            return tuple(value), *[part.shape for part in value.values()], *[part.dtype for part in value.values()]
        return tuple(value), *(() if kinds <= {float, int} else map(_layout, value.values()))
    if kind in (str, bool, type(None)):
        return value
    if hasattr(kind, "__dataclass_fields__"):
        return kind, *map(_layout, vars(value).values())
    return object()  # equal to no other, so that the message is counted
