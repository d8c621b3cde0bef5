"""Fields of messages, read with checks.

A message's content is named records, which are written in one way. A site says in words how a figure was made, why
there is none, and which rows were left out. Whoever holds a site's key may send any text instead: any other text is
counted, and not written down. A new sentence is a new line here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
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

from flfed import registry
from flfed.errors import FlfedError
from flfed.refusals import CONTROL, LONGEST, SLOTS, Refusal, any_of, plain, recorded, refusal_of
from flfed.summaries.score_bins import BINS
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import Arrays
from flfed.updates.messages.in_memory import STYPE, InMemoryArray, Sizes, kebab_record, record_of
from flfed.updates.messages.kinds import PROTOCOL
from flfed.words import sentences

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

Check = Callable[[Any], bool]
Reply = TypeVar("Reply")
Kind = TypeVar("Kind")


class MalformedMessage(FlfedError):
    """Error for a message that lacks its class's shape."""


def fields_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message by name."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


# A RecordDict's `array_records` and kin are made anew, of all sections, at each look: `get` is not.
def section(record: RecordDict, name: str) -> ConfigRecord:
    """Return one section of a message, or raise MalformedMessage."""
    config = record.get(name)
    if not isinstance(config, ConfigRecord):
        raise MalformedMessage(Refusal("no-section", section=name))
    return config


def ndarrays(record: RecordDict, name: str) -> Arrays:
    """Return one section's read-only arrays, or raise MalformedMessage.

    An array that is held is the very one; of bytes a copy is made. Nobody may write into either, for
    others may read the same array: so it is the same whatever engine brought the message.
    """
    arrays = record.get(name)
    if not isinstance(arrays, ArrayRecord):
        raise MalformedMessage(Refusal("no-arrays", section=name))
    return arrays_of(arrays, name)


def arrays_if_there(record: RecordDict, name: str) -> Arrays:
    """Return one section's arrays as `ndarrays` does, none where it is absent."""
    return ndarrays(record, name) if name in record else {}


def arrays_of(record: ArrayRecord, name: str = "") -> Arrays:
    """Return a record's read-only arrays; its name is for an error."""
    return {key: _ndarray(array, name) for key, array in record.items()}


def content_sha256(record: RecordDict) -> str:
    """Return the hash of a message's content, whatever its form in bytes is; the ledger has it of each reply.

    It covers sorted sections, each with its kind, its keys and its values; arrays by name, dtype, shape and
    little-endian bytes. Raises `MalformedMessage` if an array cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(record):
        part = record[name]
        # Arrays are hashed by value, all else as JSON with sorted keys: the same content has one hash.
        if isinstance(part, ArrayRecord):
            kind = "arrays"
            content = arrays_sha256(ndarrays(record, name))
        else:
            kind = "config" if isinstance(part, ConfigRecord) else "metrics"
            content = json.dumps(dict(part.items()), sort_keys=True, default=bytes.hex)
        digest.update(json.dumps([name, kind, content]).encode() + b"\n")
    return digest.hexdigest()


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
        order: Literal["F", "C"] = "F" if start[2] == b"True" else "C"
        values = np.ndarray(shape, dtype, array.data, start.end(), order=order)
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


def made(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Build a dataclass from kebab-case values.

    An error says what of it is missing, unknown or of a wrong type.

    Numbers, texts and vectors are checked; other fields are taken as they are.
    """
    arguments = {key.replace("-", "_"): value for key, value in values.items() if key != "protocol"}
    checks, required = _fields(cast(Hashable, kind))
    wrong = [name for name, value in arguments.items() if name in checks and not checks[name](value)]
    # The error names fields of ours alone: a name that came over the border is not repeated.
    for code, names in (("fields-missing", required - arguments.keys()), ("fields-unfit", wrong)):
        if names:
            raise MalformedMessage(Refusal(code, message=kind.__name__, fields=", ".join(sorted(names))))
    if arguments.keys() - checks.keys():
        raise MalformedMessage(Refusal("field-unknown", message=kind.__name__))
    return kind(**arguments)


@cache
def _fields(kind: Hashable) -> tuple[dict[str, Check], set[str]]:
    """Return each field's check, and the required fields.

    A check returns whether a value is of the field's type. Required fields have no default.
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

    It returns whether a value that crossed is of that type, if that is a plain one.
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
    """Return whether a text can be shown as it is."""
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
    sentence = message.error.reason or ""
    if sentence.strip():
        return recorded(sentence, site)
    return Refusal("error-code", number=message.error.code)


@dataclasses.dataclass(frozen=True, eq=False)
class Received(Generic[Reply]):
    """What came for one message to each of some sites.

    Attributes
    ----------
    replies : dict of site to reply
    faults : dict of site to Refusal
        Of the sites whose answer cannot be used, or who sent none.
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
    inbox = Received[Reply]()
    left = dict(sites)
    sizes = Sizes()
    for message in messages:
        # The first reply of a site counts: a second one must not replace it.
        site = left.pop(message.metadata.src_node_id, None)
        if site is None:
            continue
        if message.has_error():
            site_name = site if named else ""
            inbox.faults[site] = reason_of(message, site_name)
            continue
        inbox.bytes[site] = sizes.of(message.content)
        # A reply that breaks its format costs this site its turn, and not the run.
        try:
            inbox.replies[site] = reading(message.content)
        except MalformedMessage as error:
            inbox.faults[site] = refusal_of(error)
    silent = dict.fromkeys(left.values(), Refusal("no-reply"))
    return dataclasses.replace(inbox, faults=silent | inbox.faults)


def _fits(value: float) -> bool:
    """Return whether a number is no bool and not too large.

    Not Python alone can hold it.
    """
    return isinstance(value, float) or (not isinstance(value, bool) and abs(value) <= LARGEST)


def config_of(record: RecordDict) -> ConfigRecord:
    """Return the plain values of a message.

    A message of another version of the protocol is refused.
    """
    config = section(record, "config")
    protocol = config.get("protocol")
    if protocol != PROTOCOL:
        # What came is shown only where it is a number.
        shown = repr(protocol) if isinstance(protocol, int) and _fits(protocol) else "of no number"
        raise MalformedMessage(Refusal("protocol-differs", theirs=shown, ours=PROTOCOL))
    return config


def message_record(
    sections: Mapping[str, ArrayRecord | ConfigRecord | MetricRecord] | None = None, /, **plain: Any
) -> RecordDict:
    """Return the content of a message: its plain values in one section, and its other sections."""
    return record_of({"config": kebab_record(protocol=PROTOCOL, **plain), **(sections or {})})


class PlainMessage:
    """Message whose fields are all plain values of one section."""

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return message_record(**fields_of(self))

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        return made(cls, config_of(record))


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


def rows_records(message: Any, *names: str) -> dict[str, Any]:
    """Return the sections of a message's rows, which are equal dataclasses, as columns."""
    records = {}
    for name in names:
        # A record of columns needs at least one row, so that no rows are no section.
        if items := getattr(message, name):
            columns = {}
            for key in fields_of(items[0]):
                columns[key] = [getattr(item, key) for item in items]
            records[name] = kebab_record(**columns)
    return records


def read_rows(record: RecordDict, name: str, kind: type[Any]) -> tuple[Any, ...]:
    """Return one section's dataclasses, none where it is absent."""
    config = record.get(name)
    if not isinstance(config, ConfigRecord):
        return ()
    columns = {key: value for key, value in config.items() if isinstance(value, list)}
    # Columns of different lengths would put values of different rows together.
    lengths = {len(value) for value in columns.values()}
    if len(lengths) > 1 or max(lengths, default=0) > LONGEST:
        raise MalformedMessage(Refusal("columns-uneven", section=name))
    return tuple(made(kind, dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))


def read_figures(record: RecordDict, name: str, kind: type[Any], *, of: str = "metric") -> tuple[Any, ...]:
    """Return one section's figures, their words checked.

    They are read as `read_rows` does. A text that is not one of ours is counted.
    """
    text_fields = [field for field in ("method", "says") if field in kind.__dataclass_fields__]
    figures = []
    for figure in read_rows(record, name, kind):
        words = {field: recorded_words(getattr(figure, field), of) for field in text_fields}
        figures.append(dataclasses.replace(figure, **words))
    return tuple(figures)


TITLE = 100
"""Characters of a site's title."""
METHODS = (
    "", "DeLong", "Hanley-McNeil", "Hanley-McNeil over people", "Wilson", "Agresti-Min", "bootstrap",
    "bootstrap over groups", "noised score counts", "identical scores", "order statistics", "no rows",
)  # fmt: skip
"""Methods of figures and their intervals, beside those of `flfed/words/figures.toml`."""
OF_ANOTHER_PACKAGE = re.compile(r"[A-Za-z0-9 .,:;()<>='%+-]{0,500}")
"""What an attack or a metric of another package may say, which is not known here: no address fits in."""


def recorded_note(note: str) -> str:
    """Return the recorded text of a comparison's note."""
    text = plain(note[:LONGEST])
    if not text or _notes().fullmatch(text):
        return text
    return _else(note)


def recorded_words(words: str, kind: str) -> str:
    """Return the recorded text of a figure's words.

    They say how it was made, or what it means.

    Parameters
    ----------
    words : str
    kind : {"attack", "metric"}
        What makes such figures. Where another package brings some here, words of its own are taken, too.
    """
    text = plain(words[:LONGEST])
    # Words of another package cannot be known here: only their characters are checked.
    if _words().fullmatch(text) or (registry.others(kind) and OF_ANOTHER_PACKAGE.fullmatch(text)):
        return text
    return _else(words)


def _else(words: str) -> str:
    return f"said something else ({len(words)} characters)"


@cache
def _notes() -> re.Pattern[str]:
    slots = SLOTS | {"share": r"0\.\d{1,6}|\de-\d{2}"}
    notes = any_of(tuple(sentences("figures", "notes").values()), slots)
    withheld = rf"withheld by the site's policy: {_withheld()}(?:; {_withheld()})*"
    # A note has the rows left out, what the others are a sample of, why figures are withheld, or several of these.
    return re.compile(rf"(?:{notes})(?:; {notes}){{0,2}}(?:; {withheld})?|{withheld}")


@cache
def _words() -> re.Pattern[str]:
    methods = any_of((*METHODS, *sentences("figures", "methods").values()), SLOTS)
    counts = dict.fromkeys(("right", "guesses", "coins", "bound", "near", "blind"), SLOTS["n"])
    phrases = {name: any_of(sentences("figures", name).values(), SLOTS) for name in ("rows", "noise", "how")}
    why = any_of(sentences("figures", "missing").values(), SLOTS)
    meanings = (*sentences("figures", "attacks").values(), *sentences("figures", "members").values())
    attacks = any_of(meanings, SLOTS | counts | phrases | {"why": why})
    return re.compile(f"{methods}|withheld: {_withheld()}|{attacks}")


def _withheld() -> str:
    return f"(?:{any_of(sentences('figures', 'withheld').values(), SLOTS)})"
