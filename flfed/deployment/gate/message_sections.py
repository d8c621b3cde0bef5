"""Sections of messages, and the checks of their content.

What a section may hold follows from the study and the schema alone, in both directions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flfed import registry
from flfed.folders import RUN
from flfed.refusals import Refusal
from flfed.updates.codec import Shapes
from flfed.updates.messages.fields import LARGEST, Check, MalformedMessage, ndarrays
from flfed.updates.messages.in_memory import InMemoryArray, count_array_bytes, count_bytes
from flfed.updates.messages.kinds import SEAL, SEALED

WORDS = r"[A-Za-z0-9 .,:;'()<>=/%+-]*"
"""Fixed phrases of ours have no other characters; a name with an accent has."""
SENTENCE = 200
HEAD = 256
"""Most bytes before an array's own in NumPy's format, for the few dimensions that ours have."""
PACKED_UNFIT = Refusal("packed-unfit")
"""What a gate says of arrays that the codec of another package refuses for a reason of its own."""


class Section(Protocol):
    """What one section of a message may be."""

    @property
    def needed(self) -> bool:
        """Whether the message must have it."""
        ...

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        ...

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why a section does not fit.

        None where it does. The text never has a word of the content.
        """
        ...


Sections = Mapping[str, Section]
"""What a message may hold, by the names of its sections."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One plain value's check and largest size in bytes."""

    fits: Check
    most: int = 8


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A section of plain values.

    Attributes
    ----------
    fields : mapping of key to Field
    kind : type
        Flower's record: ConfigRecord or MetricRecord.
    needed, all_fields : bool
        Whether the section, and each of its fields, must be there.
    optional : frozenset of str
        Fields that need not be there where all others must.
    """

    fields: Mapping[str, Field]
    kind: type = ConfigRecord
    needed: bool = True
    all_fields: bool = True
    optional: frozenset[str] = frozenset()

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(key) + field.most for key, field in self.fields.items())

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit.

        None where it does.
        """
        found = record[name]
        if type(found) is not self.kind:
            return Refusal("other-kind")
        wrong = names_defect(
            found, self.fields, "value", needed=set(self.fields) - self.optional if self.all_fields else set()
        )
        if wrong:
            return wrong
        unfit = [key for key, value in found.items() if not self.fields[key].fits(value)]
        return Refusal("value-unfit", key=unfit[0]) if unfit else None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A section of equally long lists.

    Attributes
    ----------
    fields : mapping of key to Field
        Of one item of each list.
    longest : int
        Most items.
    distinct : str
        Key of the list whose items all differ; "" where none must.
    """

    fields: Mapping[str, Field]
    longest: int
    needed: bool = False
    distinct: str = ""

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(key) + field.most * self.longest for key, field in self.fields.items())

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit.

        None where it does.
        """
        found = record[name]
        if type(found) is not ConfigRecord:
            return Refusal("other-kind")
        wrong = names_defect(found, self.fields, "list")
        if wrong:
            return wrong
        lists = {key: values for key, values in found.items() if isinstance(values, list)}
        if len(lists) < len(found):
            return Refusal("no-list")
        # Lists of one length are the columns of a table; more rows than there are figures are refused.
        lengths = {len(values) for values in lists.values()}
        if len(lengths) != 1 or not 1 <= lengths.pop() <= self.longest:
            return Refusal("lengths-unfit")
        unfit = [key for key, values in lists.items() if not all(map(self.fields[key].fits, values))]
        if not unfit and self.distinct and len(set(lists[self.distinct])) < len(lists[self.distinct]):
            unfit = [self.distinct]
        return Refusal("list-unfit", key=unfit[0]) if unfit else None


@dataclass(frozen=True, kw_only=True)
class Held:
    """A section of arrays, finite ones.

    Attributes
    ----------
    shapes : mapping of name to (shape, dtype)
    needed : bool
    positive : frozenset of str
        Arrays all of whose values must be > 0.
    values : mapping of name to array
        Arrays that must have just these values.
    dtypes : mapping of name to dtypes
        Arrays that may be of any of these, none of them larger than the one in `shapes`.
    check : callable (arrays) → Refusal or None
        What a codec finds wrong with arrays that it packed.
    """

    shapes: Shapes
    needed: bool = True
    positive: frozenset[str] = field(default_factory=frozenset)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    dtypes: Mapping[str, Collection[np.dtype[Any]]] = field(default_factory=dict)
    check: Callable[[Mapping[str, np.ndarray]], Refusal | None] = lambda arrays: None

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(name) + HEAD + _bytes(*like) for name, like in self.shapes.items())

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit.

        None where it does. Nothing is decoded before its size is known to fit.
        """
        found = record[name]
        if type(found) is not ArrayRecord:
            return Refusal("other-kind")
        most = {key: HEAD + _bytes(*like) for key, like in self.shapes.items()}
        wrong = names_defect(found, self.shapes, "array") or size_defect(found, most)
        if wrong:
            return wrong
        arrays = ndarrays(record, name)
        reasons = (_array_defect(key, arrays[key], self) for key in self.shapes)
        return next((reason for reason in reasons if reason), None) or self._packed_defect(arrays)

    def _packed_defect(self, arrays: Mapping[str, np.ndarray]) -> Refusal | None:
        found = self.check(arrays)
        if found is None:
            return None
        if found.code == "scale-unfit":
            return Refusal("not-positive", key=found.facts["array"])
        return Refusal("places-unfit", key=found.facts["array"]) if found.code == "index-unfit" else PACKED_UNFIT


def message_defect(record: RecordDict, sections: Mapping[str, Section]) -> Refusal | None:
    """Return why a message does not fit its sections.

    None where it does.

    Parameters
    ----------
    record : RecordDict
    sections : mapping of name to Section

    Notes
    -----
    The sentence names only what was expected: a name that somebody else chose may say something.
    """
    many = len(set(record) - set(sections))
    if many:
        return Refusal("extra-sections", many=many)
    for name, section in sections.items():
        if name not in record:
            if section.needed:
                return Refusal("section-missing", section=name)
            continue
        try:
            wrong = section.defect(record, name)
        except MalformedMessage:
            wrong = Refusal("unreadable")
        if wrong:
            return Refusal("section-unfit", section=name, wrong=wrong)
    # The whole is measured too: there could be bytes beside the values that were checked.
    size, most = count_bytes(record), most_bytes(sections)
    return Refusal("too-large", size=size, most=most) if size > most else None


def most_bytes(sections: Mapping[str, Section]) -> int:
    """Return the most bytes that these sections may have."""
    return sum(section.most for section in sections.values())


def names_defect(
    found: Mapping[str, Any], known: Collection[str], word: str, *, needed: Collection[str] | None = None
) -> Refusal | None:
    """Return why the names in a section do not fit, None where they do.

    Parameters
    ----------
    found : mapping of name to value
    known : collection of str
    word : str
        What a name is of: "array", "list" or "value".
    needed : collection of str, optional
        Names that must be there; all that are known unless told.
    """
    # An unknown name is counted and not repeated: whoever chose it may have put something into it.
    many = len(set(found) - set(known))
    if many:
        return Refusal("extra-items", many=many, item=word)
    absent = sorted(set(known if needed is None else needed) - set(found))
    return Refusal("item-missing", item=word, key=absent[0]) if absent else None


def size_defect(found: Mapping[str, Array], most: Mapping[str, int]) -> Refusal | None:
    """Return why arrays that are not yet decoded are too large, None where none is.

    Parameters
    ----------
    found : mapping of name to Array
        With these names at least.
    most : mapping of name to int
        Bytes that each may have.
    """
    sizes = {name: _size(found[name]) for name in most}
    wrong = [name for name in most if sizes[name] > most[name]]
    return Refusal("array-too-large", key=wrong[0], size=sizes[wrong[0]], most=most[wrong[0]]) if wrong else None


def _size(array: Array) -> int:
    return array.count_bytes() if type(array) is InMemoryArray else len(array.data)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def _array_defect(name: str, value: np.ndarray, held: Held) -> Refusal | None:
    shape, dtype = held.shapes[name]
    if value.shape != shape:
        return Refusal("other-shape", key=name, shape=shape)
    if value.dtype not in held.dtypes.get(name, (dtype,)):
        return Refusal("other-dtype", key=name, dtype=dtype)
    # A value that is not finite would spread through every later sum.
    if not np.isfinite(value).all():
        return Refusal("infinite", key=name)
    if name in held.positive and not (value > 0).all():
        return Refusal("not-positive", key=name)
    if name in held.values and not np.array_equal(value, held.values[name]):
        return Refusal("other-values", key=name)
    return None


def equal(wanted: str | int | float | bool) -> Field:
    """Return the field of one value and type."""
    return Field(fits=lambda value: type(value) is type(wanted) and value == wanted, most=_most(wanted))


def one_of(words: Sequence[str]) -> Field:
    """Return the field of one text of several."""
    known = frozenset(words)
    return Field(fits=lambda value: isinstance(value, str) and value in known, most=max(map(_most, known)))


def text(pattern: str, longest: int) -> Field:
    """Return the field of a text with this pattern.

    The whole text must fit it, with at most `longest` characters.
    """
    shape = re.compile(pattern)
    return Field(
        fits=lambda value: isinstance(value, str) and len(value) <= longest and shape.fullmatch(value) is not None,
        most=longest,
    )


def flag() -> Field:
    """Return the field of true or false."""
    return Field(fits=lambda value: type(value) is bool, most=1)


def whole(low: int = 0, high: int = LARGEST) -> Field:
    """Return the field of a whole number, bounds included."""
    return Field(fits=lambda value: type(value) is int and low <= value <= high)


def number(low: float = -math.inf, high: float = math.inf, *, nan: bool = False) -> Field:
    """Return the field of a finite number within bounds.

    With `nan` an unknown number passes too.
    """

    def fits(value: Any) -> bool:
        # A boolean is an int in Python and none here; larger ints lose digits as floats.
        if type(value) is not float and (type(value) is not int or abs(value) > LARGEST):
            return False
        return nan if math.isnan(value) else math.isfinite(value) and low <= value <= high

    return Field(fits=fits)


def numbers(fields: Mapping[str, Field], *, needed: bool = True, all_fields: bool = True) -> Plain:
    """Return a section of numbers only."""
    return Plain(fields=fields, kind=MetricRecord, needed=needed, all_fields=all_fields)


def _most(value: str | int | float | bool) -> int:
    return len(value) if isinstance(value, str) else 8


def section_bytes(section: Section) -> int:
    """Return the most bytes of a section as this version writes it."""
    if not isinstance(section, Held):
        return section.most
    # Of several types that an array may have, this version writes whole numbers alone.
    types = {name: max(known, key=lambda of: (of.kind == "u", of.itemsize)) for name, known in section.dtypes.items()}
    arrays = {name: np.empty(shape, types.get(name, dtype)) for name, (shape, dtype) in section.shapes.items()}
    return count_array_bytes(arrays)


HASH, SIGNATURE = r"[0-9a-f]{64}", r"[0-9a-f]{128}"
SEALING: Mapping[str, Mapping[str, Field]] = {
    SEAL: {"run": text(RUN.pattern, 100), "n-known": whole()},
    SEALED: {"run": text(RUN.pattern, 100), "n": whole(), "head": text(HASH, 64), "signature": text(SIGNATURE, 128)},
}
"""What asks for the ledger's head, and what brings the coordinator's signature over it."""
SEALINGS: Mapping[str, Mapping[str, Field]] = {
    SEAL: {"n": whole(), "head": text(HASH, 64), "at-known": text(f"({HASH})?", 64)},
    SEALED: {},
}
"""What they are answered with."""


def attacks() -> list[str]:
    """Return the attacks that a site may run on itself.

    They are those that flfed brings; another package's are not run when asked.
    """
    return [name for name in registry.names("attack") if name not in registry.others("attack")]
