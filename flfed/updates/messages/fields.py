"""Fields of messages, read with checks.

A message's content is named records, which are written in one way.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    Self,
    TypeGuard,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flfed.errors import FlfedError
from flfed.refusals import CONTROL, LONGEST, Refusal, recorded, refusal_of
from flfed.summaries.score_bins import BINS
from flfed.updates.messages.in_memory import STYPE, InMemoryArray, Sizes, kebab_record, record_of
from flfed.updates.messages.sentences import recorded_words

PROTOCOL = 1
COUNTS = tuple(map(np.dtype, (np.uint16, np.uint32)))
"""Types of counts of rows by class and predicted probability."""
LARGEST = 2**53
"""Of a whole number: every one up to it is a float too, and a database holds the sum of many."""
SiteName = Annotated[str, r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*"]
"""A site's name, and the pattern it must match."""
Version = Annotated[str, r"[0-9A-Za-z.+!-]{0,40}"]
"""A version of flfed."""
METRIC = r"[A-Za-z0-9_ -]{1,80}"
"""Pattern of a metric's or an arm's name, or of two."""
MetricName = Annotated[str, METRIC]

Arrays = dict[str, np.ndarray]
"""Arrays of a model, or of an update, by name."""
Check = Callable[[Any], bool]
Reply = TypeVar("Reply")


class MalformedMessage(FlfedError):
    """Error for a message that lacks its class's shape."""


def fields_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message by name."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


# A RecordDict's `array_records` and kin are made anew, of all sections, at each look: `get` is not.
def section(record: RecordDict, name: str) -> ConfigRecord:
    """Return one section of a message, or raise MalformedMessage."""
    found = record.get(name)
    if not isinstance(found, ConfigRecord):
        raise MalformedMessage(Refusal("no-section", section=name))
    return found


def ndarrays(record: RecordDict, name: str) -> Arrays:
    """Return one section's read-only arrays, or raise MalformedMessage.

    An array that is held is the very one; of bytes a copy is made. Nobody may write into either, for
    others may read the same array: so it is the same whatever engine brought the message.
    """
    found = record.get(name)
    if not isinstance(found, ArrayRecord):
        raise MalformedMessage(Refusal("no-arrays", section=name))
    return arrays_of(found, name)


def arrays_of(record: ArrayRecord, name: str = "") -> Arrays:
    """Return a record's read-only arrays; its name is for an error."""
    return {key: _ndarray(array, name) for key, array in record.items()}


_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][fiub]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]{0,99})\), \} *\n",
    re.DOTALL,
)
"""Start of an array in NumPy's format, version 1.0."""


def _ndarray(array: Array, name: str) -> np.ndarray:
    """Return one array of a message.

    NumPy's own reader takes archives, and sizes that only the header claims.
    """
    if type(array) is InMemoryArray:
        return array.values  # of a kind, an order and a shape that bytes could have: it holds no other
    start = _NPY.match(array.data) if isinstance(array.data, bytes) else None
    if start is None or array.stype != STYPE:
        raise MalformedMessage(Refusal("arrays-unreadable", section=name))
    shape = tuple(int(length) for length in start[3].replace(b",", b" ").split())
    try:
        dtype = np.dtype(start[1].decode())
        # A header may claim any size: only the bytes that are there are read.
        if len(array.data) - start.end() != math.prod(shape) * dtype.itemsize:
            raise MalformedMessage(Refusal("arrays-cut", section=name))
        values = np.ndarray(shape, dtype, array.data, start.end(), order="F" if start[2] == b"True" else "C")
    except (TypeError, ValueError):
        raise MalformedMessage(Refusal("arrays-unreadable", section=name)) from None
    # The copy lets the message's bytes go, and others may share it because nobody can write.
    values = values.copy()
    values.setflags(write=False)
    return values


_NAME = re.compile(METRIC)


def numbers(record: RecordDict, name: str) -> dict[str, float]:
    """Return one section's numbers, none where it is absent."""
    values = record.get(name)
    if not isinstance(values, MetricRecord):
        return {}
    if len(values) > LONGEST or not all(map(_NAME.fullmatch, values)):
        raise MalformedMessage(Refusal("numbers-unfit", section=name))
    return {key: float(value) for key, value in values.items() if _is_number(value)}


def read_settings(record: RecordDict, name: str) -> dict[str, float]:
    """Return one section's settings, none where it is absent."""
    if name not in record:
        return {}
    values = section(record, name)
    # A setting that is no number is refused: the client half would train without it.
    if not all(map(_is_number, values.values())):
        raise MalformedMessage(Refusal("settings-unfit", section=name))
    return {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}


def read_histogram(record: RecordDict, name: str) -> np.ndarray | None:
    """Return counts [2, bins], None where there are none.

    They are by class and predicted probability, and cross in a small whole type.
    """
    if name not in record:
        return None
    counts = ndarrays(record, name).get("counts")
    if counts is None or counts.shape != (2, BINS) or counts.dtype not in COUNTS:
        raise MalformedMessage(Refusal("bins-unfit", section=name, bins=BINS))
    return counts.astype(np.float64)


def made(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a dataclass from kebab-case values.

    An error says what of it is missing, unknown or of a wrong type.

    Numbers, texts and vectors are checked; other fields are taken as they are.
    """
    given = {key.replace("-", "_"): value for key, value in values.items() if key != "protocol"}
    checks, required = _fields(cast(Hashable, kind))
    wrong = [name for name, value in given.items() if name in checks and not checks[name](value)]
    # The error names fields of ours alone: a name that came over the border is not repeated.
    for code, names in (("fields-missing", required - given.keys()), ("fields-unfit", wrong)):
        if names:
            raise MalformedMessage(Refusal(code, message=kind.__name__, fields=", ".join(sorted(names))))
    if given.keys() - checks.keys():
        raise MalformedMessage(Refusal("field-unknown", message=kind.__name__))
    return kind(**given)


@cache
def _fields(kind: Hashable) -> tuple[dict[str, Check], set[str]]:
    """Return each field's check, and the required fields.

    A check tells whether a value is of the field's type. Required fields have no default.
    """
    missing = dataclasses.MISSING
    required = {
        field.name
        for field in dataclasses.fields(cast(Any, kind))
        if field.default is missing and field.default_factory is missing
    }
    hints = get_type_hints(kind, include_extras=True)
    return {name: _check_of(hint) for name, hint in hints.items()}, required


def _check_of(hint: Any) -> Check:
    """Return the check of a field's type.

    It tells whether a value that crossed is of that type, if that is a plain one.
    """
    if hint in _CHECKS:
        return _CHECKS[hint]
    if get_origin(hint) is Literal:
        return lambda value: isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is Annotated:
        return lambda value: isinstance(value, str) and re.fullmatch(hint.__metadata__[0], value) is not None
    return lambda value: True


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) is float or (isinstance(value, (int, float)) and _fits(value))


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and _fits(value)


_CHECKS: dict[Any, Check] = {
    float: _is_number,
    int: _is_whole,
    np.ndarray: lambda value: isinstance(value, np.ndarray) and value.dtype == np.float64,
    str: lambda value: isinstance(value, str) and _is_plain(value),
    bool: lambda value: isinstance(value, bool),
    bytes: lambda value: isinstance(value, bytes),
}


def _is_plain(value: str) -> bool:
    """Tell whether a text can be shown as it is."""
    return len(value) <= LONGEST and (value.isprintable() or not CONTROL.search(value))


def reason_of(message: Message, site: str = "") -> Refusal:
    """Return why a node gave no answer.

    It is one of our sentences, or how long the node's text was, as that came over the border.

    Parameters
    ----------
    message : Message
        An error.
    site : str
        Whose node it is; "" where nobody knows yet.
    """
    said = message.error.reason or ""
    return recorded(said, site) if said.strip() else Refusal("error-code", number=message.error.code)


@dataclasses.dataclass(frozen=True, eq=False)
class Received(Generic[Reply]):
    """What came for one message to each of some sites.

    Attributes
    ----------
    replies : dict of site to reply
    faults : dict of site to Refusal
        Of the sites whose answer cannot be used; who sent none is not among them.
    bytes : dict of site to int
        Of the replies' content; an error has none.
    """

    replies: dict[str, Reply] = dataclasses.field(default_factory=dict)
    faults: dict[str, Refusal] = dataclasses.field(default_factory=dict)
    bytes: dict[str, int] = dataclasses.field(default_factory=dict)


def receive(
    messages: Iterable[Message], sites: Mapping[int, str], reading: Callable[[RecordDict], Reply], *, named: bool = True
) -> Received[Reply]:
    """Read the first reply of each site.

    Parameters
    ----------
    messages : iterable of Message
    sites : mapping of node to site
    reading : callable
        Turns a reply's content into the reply, or raises MalformedMessage.
    named : bool
        Whether the sites' names are known, and not the nodes' numbers.
    """
    found, left = Received[Reply](), dict(sites)
    sizes = Sizes()
    for message in messages:
        # The first reply of a site counts: a second one must not replace it.
        site = left.pop(message.metadata.src_node_id, None)
        if site is None:
            continue
        if message.has_error():
            found.faults[site] = reason_of(message, site if named else "")
            continue
        found.bytes[site] = sizes.of(message.content)
        # A reply that breaks its format costs this site its turn, and not the run.
        try:
            found.replies[site] = reading(message.content)
        except MalformedMessage as error:
            found.faults[site] = refusal_of(error)
    return found


def _fits(value: float) -> bool:
    """Tell whether a number is no bool and not too large.

    Not Python alone can hold it.
    """
    return isinstance(value, float) or (not isinstance(value, bool) and abs(value) <= LARGEST)


def config_of(record: RecordDict) -> ConfigRecord:
    """Return the plain values of a message.

    A message of another version of the protocol is refused.
    """
    config = section(record, "config")
    found = config.get("protocol")
    if found != PROTOCOL:
        # What came is shown only where it is a number.
        shown = repr(found) if isinstance(found, int) and _fits(found) else "of no number"
        raise MalformedMessage(Refusal("protocol-differs", theirs=shown, ours=PROTOCOL))
    return config


class PlainMessage:
    """Message whose fields are all plain values of one section."""

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        config = kebab_record(protocol=PROTOCOL, **fields_of(self))
        return record_of({"config": config})

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        return cast(Self, made(cls, config_of(record)))


def text(config: ConfigRecord, key: str) -> str:
    """Return one text of a section, or raise MalformedMessage."""
    value = config.get(key)
    if not isinstance(value, str) or not _is_plain(value):
        raise MalformedMessage(Refusal("text-unfit", key=key))
    return value


def whole(config: ConfigRecord, key: str) -> int:
    """Return one whole number of a section, or raise MalformedMessage."""
    value = config.get(key)
    if not _is_whole(value):
        raise MalformedMessage(Refusal("number-missing", key=key))
    return value


def rows_record(items: Sequence[Any]) -> ConfigRecord:
    """Return one or more equal dataclasses as columns."""
    return kebab_record(**{name: [getattr(item, name) for item in items] for name in fields_of(items[0])})


def read_rows(record: RecordDict, name: str, kind: type[Any]) -> tuple[Any, ...]:
    """Return one section's dataclasses, none where it is absent."""
    found = record.get(name)
    if not isinstance(found, ConfigRecord):
        return ()
    columns = {key: value for key, value in found.items() if isinstance(value, list)}
    # Columns of different lengths would put values of different rows together.
    lengths = {len(value) for value in columns.values()}
    if len(lengths) > 1 or max(lengths, default=0) > LONGEST:
        raise MalformedMessage(Refusal("columns-uneven", section=name))
    return tuple(made(kind, dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))


def read_figures(record: RecordDict, name: str, kind: type[Any], *, kind_of: str) -> tuple[Any, ...]:
    """Return one section's figures, their words checked.

    They are read as `read_rows` does. A text that is not one of ours is counted.
    """
    figures = read_rows(record, name, kind)
    said = [field for field in ("method", "says") if field in kind.__dataclass_fields__]
    words = [{field: recorded_words(getattr(figure, field), kind_of) for field in said} for figure in figures]
    return tuple(dataclasses.replace(figure, **told) for figure, told in zip(figures, words, strict=True))
