"""The content of a message: named records, read with checks and written in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flfed.errors import FlfedError

PROTOCOL = 1

Arrays = dict[str, np.ndarray]


class MalformedMessage(FlfedError):
    """A message that does not have the shape of its class."""


def count_bytes(record: RecordDict) -> int:
    """Return the size of a message's content, as Flower counts it."""
    return sum(part.count_bytes() for part in record.values())


def config_record(**values: Any) -> ConfigRecord:
    """Return plain values as a record, keys in kebab-case."""
    return ConfigRecord({key.replace("_", "-"): value for key, value in values.items()})


def fields_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message by name."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


def array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return named arrays as a record."""
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def section(record: RecordDict, name: str) -> ConfigRecord:
    """Return one section of a message, or raise MalformedMessage."""
    if name not in record.config_records:
        raise MalformedMessage(f"the message has no {name!r}")
    return record.config_records[name]


def ndarrays(record: RecordDict, name: str) -> Arrays:
    """Return the named arrays of one section, or raise MalformedMessage."""
    if name not in record.array_records:
        raise MalformedMessage(f"the message has no arrays {name!r}")
    try:
        return {key: array.numpy() for key, array in record.array_records[name].items()}
    except (ValueError, TypeError, EOFError, OSError):
        raise MalformedMessage(f"the arrays {name!r} cannot be read") from None


def numbers(record: RecordDict, name: str) -> dict[str, float]:
    """Return the numbers of one section; none where there is no such section."""
    if name not in record.metric_records:
        return {}
    values = record.metric_records[name]
    return {key: float(value) for key, value in values.items() if not isinstance(value, list)}


def made(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a dataclass from kebab-case values, or say that the message is malformed."""
    given = {key.replace("-", "_"): value for key, value in values.items() if key != "protocol"}
    try:
        return kind(**given)
    except TypeError:
        raise MalformedMessage(f"the message is no {kind.__name__}") from None


def check_protocol(config: ConfigRecord) -> None:
    """Refuse a message of another version of the protocol."""
    if config.get("protocol") != PROTOCOL:
        raise MalformedMessage(
            f"protocol {config.get('protocol')!r} is not {PROTOCOL}: the other side runs another version of flfed"
        )


def text(config: ConfigRecord, key: str) -> str:
    """Return one text of a section, or raise MalformedMessage."""
    value = config.get(key)
    if not isinstance(value, str):
        raise MalformedMessage(f"the message has no text {key!r}")
    return value


def whole(config: ConfigRecord, key: str) -> int:
    """Return one whole number of a section, or raise MalformedMessage."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedMessage(f"the message has no whole number {key!r}")
    return value


def rows_record(items: Sequence[Any]) -> ConfigRecord:
    """Return equal dataclasses, at least one, as a record of columns."""
    return config_record(**{name: [getattr(item, name) for item in items] for name in fields_of(items[0])})


def read_rows(record: RecordDict, name: str, kind: type[Any]) -> tuple[Any, ...]:
    """Return the dataclasses of one section; none where there is no such section."""
    if name not in record.config_records:
        return ()
    columns = {key: value for key, value in record.config_records[name].items() if isinstance(value, list)}
    if len({len(value) for value in columns.values()}) > 1:
        raise MalformedMessage(f"the columns of {name!r} differ in length")
    return tuple(made(kind, dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
