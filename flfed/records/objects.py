"""Objects of a record as dataclasses, read and written by cattrs.

A field's key is its name with hyphens, without an underscore at its end. What JSON has no type for is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

T = TypeVar("T")


def read(kind: type[T], found: Any) -> T:
    """Return an object of a record as a dataclass; keys that it does not name are passed over.

    One that is of this class already is returned as it is.
    """
    if isinstance(found, kind):
        return found
    return _converter().structure(found, kind)


def read_all(kind: type[T], found: Sequence[Any]) -> list[T]:
    """Return a list of objects of a record as dataclasses."""
    return [read(kind, one) for one in found]


def read_some(kind: type[T], found: Sequence[Any]) -> list[T]:
    """Return those objects of a list that are not None as dataclasses."""
    return [read(kind, one) for one in found if one is not None]


def write(value: Any) -> Any:
    """Return a dataclass as JSON has it, keys in the order of its fields."""
    return _converter().unstructure(value)


@cache
def _converter() -> Converter:
    converter = Converter()
    # Figures are told as they were written: 5 does not become 5.0.
    for kind in (float, int, str, bool):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook_factory(
        is_dataclass, lambda kind: make_dict_structure_fn(kind, converter, **_keys(kind))
    )
    converter.register_unstructure_hook_factory(
        is_dataclass, lambda kind: make_dict_unstructure_fn(kind, converter, **_keys(kind))
    )
    return converter


def _as_it_is(value: Any, _kind: object) -> Any:
    return value


def _keys(kind: Any) -> Mapping[str, Any]:
    """Return the key of each field in JSON."""
    return {field.name: override(rename=field.name.rstrip("_").replace("_", "-")) for field in fields(kind)}
