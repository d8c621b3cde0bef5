"""Random changes of a message's content, each with whether its declaration must refuse it."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flfed.updates.sections import ArraySection, Columns, Plain, Section, Sections

VALUES: list[Any] = [
    "", "x", "a" * 70_000, "\x00", "../../etc/passwd", True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, -(2**63),
    0.0, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf"), b"", b"\x80\x05.", b"\xff" * 70_000,
    [], [1], [2.5] * 300, ["a"], [b"x"], [True],
]  # fmt: skip
DTYPES = ("float64", "float32", "int64", "uint8", "uint64", "bool", "complex128", "<U3", "object")


Parts = dict[str, Any]
"""Sections of a message by name."""


@dataclass
class Mutation:
    """Content of a message, changed.

    Attributes
    ----------
    record : RecordDict
    is_unfit : bool
        Whether a change is one that the sections rule out.
    changes : list of str
        Names of the changes.
    """

    record: RecordDict
    is_unfit: bool
    changes: list[str]


class Mutator:
    """Source of changed messages, the same for the same seed.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        part = self.change_part
        self.changes = (
            self.drop_section, self.add_section, self.replace_section, self.swap_sections, part, part, part, part
        )  # fmt: skip

    def mutate(self, record: RecordDict, sections: Sections) -> Mutation:
        """Return a copy with one to three changes; of several, a later one may take an unfit part away."""
        parts: Parts = dict(record.items())
        chosen = self.random.choices(self.changes, k=self.random.choice((1, 1, 2, 3)))
        unfit = [change(parts, sections) for change in chosen]
        return Mutation(RecordDict(parts), unfit == [True], [change.__name__ for change in chosen])

    def drop_section(self, record: Parts, sections: Sections) -> bool:
        if not record:
            return False
        name = self.random.choice(list(record))
        del record[name]
        return name in sections and sections[name].needed

    def add_section(self, record: Parts, sections: Sections) -> bool:
        record["more"] = self.record()
        return True

    def replace_section(self, record: Parts, sections: Sections) -> bool:
        if not record:
            return False
        name = self.random.choice(list(record))
        before, record[name] = record[name], self.record()
        return name in sections and type(record[name]) is not type(before)

    def swap_sections(self, record: Parts, sections: Sections) -> bool:
        """Give one section's content another section's name."""
        if len(record) < 2:
            return False
        one, other = self.random.sample(list(record), 2)
        kinds = type(record[one]), type(record[other])
        record[one], record[other] = record[other], record[one]
        return kinds[0] is not kinds[1] and one in sections and other in sections

    def record(self) -> ArrayRecord | ConfigRecord | MetricRecord:
        return self.random.choice(
            [ConfigRecord({"a": 1}), MetricRecord({"a": 1}), ArrayRecord({"a": Array(np.ones(2))}), ConfigRecord({})]
        )

    def change_part(self, record: Parts, sections: Sections) -> bool:
        """Change one value, list or array of a section."""
        if not record:
            return False
        name = self.random.choice(list(record))
        part, section = record[name], sections.get(name)
        if isinstance(part, ArrayRecord):
            entries: dict[str, Any] = dict(part)
            unfit = self.change_arrays(entries, section)
            record[name] = ArrayRecord(entries)
            return unfit
        kind = type(part)
        for _ in range(4):  # Flower itself refuses some values
            entries = dict(part)
            unfit = self.change_plain(entries, section)
            try:
                record[name] = kind(entries)
            except (TypeError, ValueError, OverflowError):
                continue
            return unfit
        return False

    def change_plain(self, entries: dict[str, Any], section: Section | None) -> bool:
        how = self.random.choice(("value", "value", "value", "key", "drop"))
        if how == "key" or not entries:
            entries["another-key"] = self.random.choice(VALUES)
            return section is not None
        key = self.random.choice(list(entries))
        if how == "drop":
            del entries[key]
            return isinstance(section, Plain) and section.all_fields and key not in section.optional
        value = self.similar(entries[key]) if self.random.random() < 0.4 else self.random.choice(VALUES)
        entries[key] = value
        if isinstance(section, Plain) and key in section.fields:
            return type(value) not in section.fields[key].types
        return isinstance(section, Columns) and not isinstance(value, list)

    def similar(self, value: Any) -> Any:
        """Return another value of the same type."""
        if isinstance(value, bool):
            return not value
        if isinstance(value, (int, float)):
            return self.random.choice([value + 1, value - 1, -value, 2 * value, 0 * value])
        return self.random.choice([value * 2, value[:-1], value[1:], value[::-1]])

    def change_arrays(self, entries: dict[str, Any], section: Section | None) -> bool:
        how = self.random.choice(("shape", "dtype", "bytes", "cut", "key", "drop", "values"))
        if how == "key" or not entries:
            entries["another-key"] = Array(np.ones(2))
            return isinstance(section, ArraySection) and section.codec is None
        key = self.random.choice(list(entries))
        array = entries[key]
        if how == "drop":
            del entries[key]
            return isinstance(section, ArraySection) and key in section.arrays
        if how in ("bytes", "cut"):
            raw = (
                array.data[: self.random.randrange(len(array.data) + 1)] if how == "cut" else self.random.randbytes(80)
            )
            entries[key] = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=raw)
            return isinstance(section, ArraySection) and raw != array.data
        return self.change_array(entries, key, how, section)

    def change_array(self, entries: dict[str, Any], key: str, how: str, section: Section | None) -> bool:
        """Put another array in place of one: of another shape or type, or with other numbers."""
        try:
            values = entries[key].numpy()
        except Exception:  # noqa: BLE001 – it was spoilt before, and cannot be read
            return False
        field = section.arrays.get(key) if isinstance(section, ArraySection) else None
        is_fixed = field is not None and not field.others and not field.dtypes
        if how == "shape":
            other = values[..., None] if self.random.random() < 0.5 else np.concatenate([values.ravel(), [0, 0]])
            entries[key] = Array(np.ascontiguousarray(other.astype(values.dtype)))
            return is_fixed
        if how == "dtype":
            dtype = self.random.choice([name for name in DTYPES if name != values.dtype.name])
            raw = np.zeros(values.shape, "float64" if dtype == "object" else dtype)
            made = Array(raw)
            entries[key] = Array(dtype=dtype, shape=made.shape, stype=made.stype, data=made.data)
            return is_fixed and dtype != "object"
        numbers = {"u": (0, 1, 255), "i": (0, -1, 100), "f": (np.nan, np.inf, -1e30, 0, -1, 1e9)}.get(values.dtype.kind)
        if values.size and numbers is not None:
            spoilt = values.copy()
            spoilt.flat[self.random.randrange(spoilt.size)] = self.random.choice(numbers)
            entries[key] = Array(spoilt)
        return False
