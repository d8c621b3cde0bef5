"""The gate's checks of messages against their declared sections.

Study and schema alone determine what a section may hold, in both directions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flfed.refusals import CONTROL, CROSSING, TABLE, Refusal, read_of_site
from flfed.rows.data import datasets
from flfed.rows.data.parsing.fields import Field as OwnField
from flfed.rows.data.site import Site
from flfed.updates.arrays import CIPHERTEXT, Arrays
from flfed.updates.masks import ckks
from flfed.updates.messages.fields import LARGEST, MalformedMessage, ndarrays
from flfed.updates.messages.in_memory import InMemoryArray, count_bytes
from flfed.updates.sections import (
    ArrayField,
    ArraySection,
    Columns,
    Encrypted,
    Field,
    Plain,
    Section,
    Sections,
    Shape,
    most_bytes,
)

PACKED_UNFIT = Refusal("packed-unfit")
"""The gate's refusal of arrays that the codec of another package refuses for its own reason."""
LONGEST = 500
"""Characters of an error's text that leaves."""


def message_defect(record: RecordDict, sections: Sections) -> Refusal | None:
    """Return why a message does not fit its sections, or None.

    Parameters
    ----------
    record : RecordDict
    sections : mapping of name to Section

    Notes
    -----
    The sentence names expected names alone: a name that the sender chose may carry a value.
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
            wrong = _section_defect(section, record, name)
        except MalformedMessage:
            wrong = Refusal("unreadable")
        if wrong:
            return Refusal("section-unfit", section=name, wrong=wrong)
    # The size of the whole is checked too: there could be bytes beside the checked values.
    size = count_bytes(record)
    most = most_bytes(sections)
    return Refusal("too-large", size=size, most=most) if size > most else None


def _section_defect(section: Section, record: RecordDict, name: str) -> Refusal | None:
    """Return why the named section does not fit, or None.

    No text has a word of the content.
    """
    content = record[name]
    if isinstance(section, Plain):
        kind = MetricRecord if section.metrics else ConfigRecord
        return _plain_defect(section, content) if type(content) is kind else Refusal("other-kind")
    if isinstance(section, Columns):
        return _columns_defect(section, content) if type(content) is ConfigRecord else Refusal("other-kind")
    if type(content) is not ArrayRecord:
        return Refusal("other-kind")
    if isinstance(section, Encrypted):
        return _ciphertexts_defect(section, content, record, name)
    return _arrays_defect(section, content, record, name)


def _plain_defect(section: Plain, content: Mapping[str, Any]) -> Refusal | None:
    needed = set(section.fields) - section.optional if section.all_fields else set[str]()
    wrong = _names_defect(content, section.fields, "value", needed=needed)
    if wrong:
        return wrong
    for key, value in content.items():
        if not fits(section.fields[key], value):
            return Refusal("value-unfit", key=key)
    return None


def _columns_defect(section: Columns, content: Mapping[str, Any]) -> Refusal | None:
    wrong = _names_defect(content, section.fields, "list", needed=section.fields)
    if wrong:
        return wrong
    if not all(isinstance(values, list) for values in content.values()):
        return Refusal("no-list")
    # Lists of one length are the columns of a table; more rows than figures are refused.
    lengths = {len(values) for values in content.values()}
    if len(lengths) != 1 or not 1 <= lengths.pop() <= section.longest:
        return Refusal("lengths-unfit")
    for key, values in content.items():
        if not all(fits(section.fields[key], value) for value in values):
            return Refusal("list-unfit", key=key)
    return _distinct_defect(section, content)


def _distinct_defect(section: Columns, content: Mapping[str, Any]) -> Refusal | None:
    distinct = section.distinct
    if distinct and len(set(content[distinct])) < len(content[distinct]):
        return Refusal("list-unfit", key=distinct)
    return None


def fits(field: Field, value: Any) -> bool:
    """Return whether a plain value fits a field.

    Examples
    --------
    >>> from flfed.updates.sections import number, whole
    >>> fits(number(0), 2.5), fits(number(0), -1.0), fits(whole(), True)
    (True, False, False)
    """
    # A boolean is an int in Python, but not in a message.
    if type(value) not in field.types:
        return False
    if field.values is not None:
        return value in field.values
    if isinstance(value, (str, bytes, list)):
        return field.shortest <= len(value) <= field.longest and _content_fits(field, value)
    return isinstance(value, bool) or _number_fits(field, value)


def _content_fits(field: Field, value: str | bytes | list[Any]) -> bool:
    if isinstance(value, str):
        return re.fullmatch(field.pattern, value) is not None
    return field.item is None or all(fits(field.item, one) for one in value)


def _number_fits(field: Field, value: float) -> bool:
    # Larger ints lose digits as floats.
    if isinstance(value, int):
        return value == field.beside or (abs(value) <= LARGEST and field.low <= value <= field.high)
    if math.isnan(value):
        return field.nan
    if field.integral and not value.is_integer():
        return False
    return math.isfinite(value) and field.low <= value <= field.high


def _arrays_defect(section: ArraySection, array_record: ArrayRecord, record: RecordDict, name: str) -> Refusal | None:
    """Return why a section's arrays do not fit.

    No array is decoded before its size was checked.
    """
    fields = section.fields_of(array_record)
    wrong = _names_defect(array_record, section.arrays, "array", needed=fields)
    wrong = wrong or _size_defect(array_record, {key: array.most for key, array in fields.items()})
    if wrong:
        return wrong
    content = ndarrays(record, name)
    for key, array in fields.items():
        wrong = _array_defect(key, content[key], array)
        if wrong:
            return wrong
    return _packed_defect(section, content)


def _array_defect(name: str, value: np.ndarray, array: ArrayField) -> Refusal | None:
    if value.shape != array.shape and not any(_is_between(value.shape, *bounds) for bounds in array.others):
        return Refusal("other-shape", key=name, shape=array.shape)
    if value.dtype not in (array.dtype, *array.dtypes):
        return Refusal("other-dtype", key=name, dtype=array.dtype)
    # A value that is not finite would spread through every later sum.
    if not np.isfinite(value).all():
        return Refusal("infinite", key=name)
    if array.positive and not (value > 0).all():
        return Refusal("not-positive", key=name)
    if array.values is not None and not np.array_equal(value, array.values):
        return Refusal("other-values", key=name)
    return None


def _is_between(shape: Shape, least: Shape, most: Shape) -> bool:
    """Return whether a shape is between two.

    A table without rows, where none is needed, may have any columns.
    """
    if len(shape) != len(most):
        return False
    if len(shape) == 2 and shape[0] == least[0] == 0:
        return True
    return all(low <= length <= high for low, length, high in zip(least, shape, most, strict=True))


def _packed_defect(section: ArraySection, content: Arrays) -> Refusal | None:
    if section.codec is None:
        return None
    defect = section.codec.defect(content, section.packed)
    if defect is None:
        return None
    if defect.code == "scale-unfit":
        return Refusal("not-positive", key=defect.facts["array"])
    if defect.code == "index-unfit":
        return Refusal("places-unfit", key=defect.facts["array"])
    return PACKED_UNFIT


def _ciphertexts_defect(section: Encrypted, array_record: ArrayRecord, record: RecordDict, name: str) -> Refusal | None:
    """Return why ciphertexts do not fit.

    Only the key's settings could show whether one is valid.
    """
    if set(array_record) != {CIPHERTEXT}:
        return Refusal("ciphertexts-unfit")
    wrong = _size_defect(array_record, {CIPHERTEXT: section.most})
    if wrong:
        return wrong
    chunks = ckks.unpacked(ndarrays(record, name)[CIPHERTEXT], section.entries)
    return Refusal("ciphertexts-unfit") if isinstance(chunks, Refusal) else None


def _names_defect(
    content: Mapping[str, Any], allowed_names: Collection[str], word: str, *, needed: Iterable[str]
) -> Refusal | None:
    """Return why the names in a section do not fit, or None.

    Parameters
    ----------
    content : mapping of name to value
    allowed_names : collection of str
    word : str
        Kind of the named item: "array", "list" or "value".
    needed : iterable of str
        Names that must be present.
    """
    # An unknown name is counted and not repeated: its sender may have put something into it.
    many = len(set(content) - set(allowed_names))
    if many:
        return Refusal("extra-items", many=many, item=word)
    absent = sorted(set(needed) - set(content))
    return Refusal("item-missing", item=word, key=absent[0]) if absent else None


def _size_defect(arrays: Mapping[str, Array], most: Mapping[str, int]) -> Refusal | None:
    """Return why encoded arrays are too large, or None.

    Parameters
    ----------
    arrays : mapping of name to Array
        With at least these names.
    most : mapping of name to int
        Bytes that each may have.
    """
    for name, limit in most.items():
        array = arrays[name]
        size = array.count_bytes() if type(array) is InMemoryArray else len(array.data)
        if size > limit:
            return Refusal("array-too-large", key=name, size=size, most=limit)
    return None


def may_leave(text: str, site: Site) -> Refusal | None:
    """Return the refusal in an error's text, or None.

    It is None where the text may not leave. The client app redacts errors first. This is the second check: a text that
    is no refusal stays at the site, whatever made it.

    Parameters
    ----------
    text : str
        The site's own name may precede it.
    site : Site
        Its columns may be named, no others.
    """
    plain = text.removeprefix(f"{site.name}: ")
    if len(plain) > LONGEST or CONTROL.search(plain):
        return None
    refusal = read_of_site(plain)
    if refusal is None:
        return None
    # A column may be named only where it is of the schema, with enough rows behind its count.
    if refusal.code in TABLE:
        rows = refusal.facts.get("rows", "")
        few = bool(rows) and 0 <= int(rows.rpartition(" ")[2]) < CROSSING
        if few or refusal.facts["column"] not in _columns(site):
            return None
    return refusal if plain == text else Refusal("of-site", site=site.name, why=refusal)


def _columns(site: Site) -> set[str]:
    """Return the column names that this site's errors may have.

    They are those of its schema, and of its own table.
    """
    columns = {str(getattr(site.holdout, "column", "") or "")}
    # The data owner knows a column by the name in its own table, the study by the schema's: either may occur.
    for dataset in site.datasets:
        columns |= set(datasets.load(dataset).schema.columns)
        for own in site.serving(dataset).mapping.values():
            name = own.column if isinstance(own, OwnField) else str(own or "")
            columns.add(name)
    return columns - {""}
