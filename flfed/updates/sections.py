"""Declarations of what a message may hold, by its sections.

They are data: the parts of a study declare, and a gate has the checks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flfed.study.study import Study
from flfed.summaries.summary import Layout
from flfed.trees.cut_points import cell_shapes
from flfed.trees.forest import depth_of
from flfed.updates.arrays import CIPHERTEXT, Shapes
from flfed.updates.codec import Codec
from flfed.updates.messages.fields import LARGEST
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.updates.messages.kinds import PROTOCOL

Shape = tuple[int, ...]
WORDS = r"[A-Za-z0-9 .,:;'()<>=/%+-]*"
"""Fixed phrases of ours have no other characters; a name with an accent has."""
SENTENCE = 200
"""Characters of a fixed phrase, at most."""
HASH = r"[0-9a-f]{64}"
HEAD = 256
"""Most bytes before an array's own in NumPy's format, for the few dimensions that ours have."""
FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Field:
    """What one plain value may be.

    Attributes
    ----------
    types : tuple of type
        Just these, without subclasses.
    most : int
        Bytes, at most.
    values : frozenset, optional
        The only ones.
    low, high : float
        Bounds of a number, included.
    nan : bool
        Whether a number may be unknown.
    integral : bool
        Whether a float must be whole.
    beside : int, optional
        A whole number that may stand in place of one within the bounds.
    pattern : str
        Of a whole text.
    shortest, longest : int
        Characters of a text, bytes, or items of a list.
    item : Field, optional
        Of each item of a list.
    """

    types: tuple[type, ...]
    most: int = 8
    values: frozenset[Any] | None = None
    low: float = -math.inf
    high: float = math.inf
    nan: bool = False
    integral: bool = False
    beside: int | None = None
    pattern: str = ""
    shortest: int = 0
    longest: int = 0
    item: Field | None = None


def equal(wanted: str | int | float | bool) -> Field:
    """Return the field of one value and type."""
    return Field(types=(type(wanted),), values=frozenset({wanted}), most=_bytes_of(wanted))


def one_of(words: Collection[str]) -> Field:
    """Return the field of one text of several."""
    return Field(types=(str,), values=frozenset(words), most=max(map(len, words)))


def text(pattern: str, longest: int) -> Field:
    """Return the field of a text, all of which fits the pattern, with at most `longest` characters."""
    return Field(types=(str,), pattern=pattern, longest=longest, most=longest)


def flag() -> Field:
    """Return the field of true or false."""
    return Field(types=(bool,), most=1)


def whole(low: int = 0, high: int = LARGEST, *, beside: int | None = None) -> Field:
    """Return the field of a whole number, bounds included.

    `beside` is one more that it may be.
    """
    return Field(types=(int,), low=low, high=high, beside=beside)


def number(low: float = -math.inf, high: float = math.inf, *, nan: bool = False) -> Field:
    """Return the field of a finite number within bounds.

    With `nan` an unknown number passes too.
    """
    return Field(types=(float, int), low=low, high=high, nan=nan)


def whole_float(high: float) -> Field:
    """Return the field of a float from 0 that is a whole number: Flower's metrics have few integers."""
    return Field(types=(float,), low=0, high=high, integral=True)


def float_of(values: Collection[float]) -> Field:
    """Return the field of one float of several."""
    return Field(types=(float,), values=frozenset(values))


def byte_string(longest: int, shortest: int = 0) -> Field:
    """Return the field of so many bytes."""
    return Field(types=(bytes,), shortest=shortest, longest=longest, most=longest)


def list_of(item: Field, longest: int) -> Field:
    """Return the field of a list of at most so many items."""
    return Field(types=(list,), item=item, longest=longest, most=longest * item.most)


def _bytes_of(value: str | int | float | bool) -> int:
    return len(value) if isinstance(value, str) else 8


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A section of plain values.

    Attributes
    ----------
    fields : mapping of key to Field
    metrics : bool
        Whether it is Flower's record of numbers only, else that of any plain values.
    needed, all_fields : bool
        Whether the section, and each of its fields, must be there.
    optional : frozenset of str
        Fields that need not be there where all others must.
    """

    fields: Mapping[str, Field]
    metrics: bool = False
    needed: bool = True
    all_fields: bool = True
    optional: frozenset[str] = frozenset()

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(key) + field.most for key, field in self.fields.items())


def config(fields: Mapping[str, Field], *, optional: Collection[str] = ()) -> Plain:
    """Return the section that each message has, with the protocol's number and these fields."""
    return Plain(fields={"protocol": equal(PROTOCOL), **fields}, optional=frozenset(optional))


def numbers(fields: Mapping[str, Field], *, needed: bool = True) -> Plain:
    """Return a section of numbers, each of which may be absent."""
    return Plain(fields=fields, metrics=True, needed=needed, all_fields=False)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayField:
    """What one array may be.

    Attributes
    ----------
    shape : tuple of int
        Its shape; the largest one where it has `others`.
    dtype : dtype
        Its type; the largest that flfed writes where it has `dtypes`.
    others : tuple of (least, most)
        Shapes that it may have as well, between two of as many dimensions. A table without rows may have any columns.
    dtypes : tuple of dtype
        Types that it may have as well.
    positive : bool
        Whether all values must be > 0.
    values : array, optional
        What it must equal.
    """

    shape: Shape
    dtype: np.dtype[Any] = FLOAT64
    others: tuple[tuple[Shape, Shape], ...] = ()
    dtypes: tuple[np.dtype[Any], ...] = ()
    positive: bool = False
    values: np.ndarray | None = None

    @property
    def most(self) -> int:
        """Most bytes that it may have, its head included."""
        itemsize = max(dtype.itemsize for dtype in (self.dtype, *self.dtypes))
        return HEAD + math.prod(self.shape) * itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySection:
    """A section of arrays.

    Attributes
    ----------
    arrays : mapping of name to ArrayField
    needed, all_arrays : bool
        Whether the section, and each of its arrays, must be there.
    codec : Codec, optional
        Which packed them, of a model of the shapes `packed`.
    packed : mapping of name to (shape, dtype)
    """

    arrays: Mapping[str, ArrayField]
    needed: bool = True
    all_arrays: bool = True
    codec: Codec | None = None
    packed: Shapes = field(default_factory=dict)

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(name) + array.most for name, array in self.arrays.items())

    def fields_of(self, names: Collection[str]) -> Mapping[str, ArrayField]:
        """Return the fields that a section must have, or those that are among its names where it need not have all."""
        if self.all_arrays:
            return self.arrays
        return {name: array for name, array in self.arrays.items() if name in names}

    @property
    def entries(self) -> int:
        """Numbers in its arrays, at most."""
        return sum(math.prod(array.shape) for array in self.arrays.values())


def arrays(shapes: Shapes, *, needed: bool = True) -> ArraySection:
    """Return the section of arrays of just these shapes and types."""
    array_fields = {name: ArrayField(shape=shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
    return ArraySection(arrays=array_fields, needed=needed)


def packed_arrays(model: Shapes, codec: Codec) -> ArraySection:
    """Return the section of a model's arrays, or an update's, as a codec packs them."""
    return ArraySection(arrays=arrays(codec.shapes(model)).arrays, codec=codec, packed=model)


def some_bytes(most: int) -> ArrayField:
    """Return an array of at most so many bytes."""
    return ArrayField(shape=(most,), dtype=np.dtype(np.uint8), others=(((1,), (most,)),))


@dataclass(frozen=True, kw_only=True, eq=False)
class Encrypted:
    """A section of ciphertexts.

    Attributes
    ----------
    entries : int
        Of the vector that is encrypted.
    longest : int
        Bytes of its ciphertexts, at most.
    """

    entries: int
    longest: int
    needed: bool = True

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return len(CIPHERTEXT) + HEAD + self.longest


Section = Plain | Columns | ArraySection | Encrypted
Sections = Mapping[str, Section]
"""What a message may hold, by the names of its sections."""


def with_fields(section: Section, fields: Mapping[str, Field], *, optional: Collection[str] = ()) -> Plain:
    """Return a section of plain values with further fields.

    Raises TypeError for any other section.
    """
    if not isinstance(section, Plain):
        raise TypeError("only a section of plain values has fields")
    return replace(section, fields={**section.fields, **fields}, optional=section.optional | frozenset(optional))


def most_bytes(sections: Sections) -> int:
    """Return the most bytes that these sections may have."""
    return sum(section.most for section in sections.values())


def section_bytes(section: Section) -> int:
    """Return the most bytes of a section as flfed writes it."""
    if not isinstance(section, ArraySection):
        return section.most
    largest = {name: np.empty(array.shape, array.dtype) for name, array in section.arrays.items()}
    return count_array_bytes(largest)


def cell_counts(study: Study, layout: Layout) -> ArraySection:
    """Return the section of rows by cell, of which trees' cut points are chosen."""
    small = (np.dtype(np.uint16),)
    counts = {}
    for name, shape in cell_shapes(layout, int(study.strategy.settings.get("min-rows", 0))).items():
        counts[name] = ArrayField(shape=shape, dtype=np.dtype(np.uint32), dtypes=small)
    return ArraySection(arrays=counts)


def node_sums(study: Study, layout: Layout, model: Shapes, *, whole_tree: bool) -> ArraySection:
    """Return the section of the sums of one level of trees, or of all nodes of a round that are asked for.

    They are of gradients and Hessians, and of rows where these are counted, by node and code.
    """
    (_, outputs, nodes), _ = model["value"]
    depth = depth_of(nodes)
    # Of each split the smaller child: 1, 1, 2, 4, ... nodes, together as many as the last level but one has.
    node_count = 2 ** (depth - 1) if whole_tree else max(1, 2 ** (depth - 2))
    of_number = int(study.model.build("model").max_bins) + 1
    cells = sum(of_number if column.kind == "number" else len(column.cells) for column in layout.features)
    kinds = 3 if study.strategy.settings.get("min-rows", 0) else 2
    most = (outputs * node_count, cells, kinds)
    sums = ArrayField(shape=most, dtype=np.dtype(np.int64), others=(((0, 0, kinds), most),))
    return ArraySection(arrays={"sums": sums})
