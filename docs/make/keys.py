"""Keys of a file that a user writes, read off the class that checks them: type, default, meaning, example."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import json
import re
import tomllib
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pandas as pd
import tomli_w
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from docs.make.docstrings import Entry, read
from flfed.registry import kebab
from flfed.study.settings import format_range, hints_of

WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", datetime.date: "date"}
MANY = {bool: "flags", int: "whole numbers", float: "numbers", str: "texts"}
REQUIRED = object()
"""Default of a key that must be given."""


class Undocumented(Exception):
    """A key without a meaning or an example; says which, and where to add it."""


@dataclass(frozen=True)
class Key:
    """One key of a table.

    Attributes
    ----------
    name : str
        As it is written in the file.
    hint : Any
        Its Python type, with its ranges.
    default : Any
        `REQUIRED` where there is none.
    meaning : str
    example : str
        One line of the file.
    python_type : str
        Of an argument of a call, its type as the docstring has it.
    """

    name: str
    hint: Any
    default: Any
    meaning: str
    example: str

    python_type: str = ""

    def row(self) -> list[str]:
        """Return the cells of the key's line on a page."""
        words = self.python_type or type_in_words(self.hint)
        shown = default_in_words(self.default, python=bool(self.python_type))
        return [f"`{self.name}`", words, shown, self.meaning, f"`{self.example}`"]


def keys_of(kind: type, *, python: bool = False, without: Collection[str] = ()) -> list[Key]:
    """Return the keys of a class, in its own order.

    Parameters
    ----------
    kind : type
        A pydantic model, a dataclass, or a class whose constructor takes the keys.
    python : bool
        Whether they are arguments of a call, such as `decimal=","`, and no lines of TOML.
    without : collection of str
        Fields that are no keys of the file.

    Raises
    ------
    Undocumented
        If a key has no meaning in the docstring of the class that defines it, or no example.
    """
    found = []
    for name, (hint, default) in fields_of(kind).items():
        if name in without:
            continue
        where = _definer(kind, name)
        entry = _entry(kind, name)
        key = name if python else kebab(name)
        if entry is None or not (entry.text or entry.type):
            raise Undocumented(f"{where.__qualname__}.{name} has no meaning: write one into the class's docstring")
        example = _example(key, hint, default, entry, python=python)
        if example is None:
            raise Undocumented(
                f"{where.__qualname__}.{name} has no example: end its meaning in the class's docstring with "
                f"Example: `{key}{'=' if python else ' = '}...`."
            )
        found.append(
            Key(key, hint, default, _meaning(entry, kind, python=python), example, entry.type if python else "")
        )
    return found


def fields_of(kind: type) -> dict[str, tuple[Any, Any]]:
    """Return the type, with its ranges, and the default of each key of a class."""
    if issubclass(kind, BaseModel):
        return {name: (_with_limits(field), _default_of(field)) for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, localns={"pd": pd}, include_extras=True)
    else:
        hints = hints_of(kind)
    parameters = inspect.signature(kind).parameters
    return {name: (hints[name], _default(kind, parameter)) for name, parameter in parameters.items()}


def _with_limits(field: FieldInfo) -> Any:
    """Return the type of a model's field with its limits."""
    hint: Any = field.annotation
    for limit in field.metadata:
        hint = Annotated[hint, limit]
    return hint


def _default_of(field: FieldInfo) -> Any:
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _default(kind: type, parameter: inspect.Parameter) -> Any:
    if parameter.default is inspect.Parameter.empty:
        return REQUIRED
    # A dataclass shows a mark in place of the value of its factory.
    made = next((f for f in dataclasses.fields(kind) if f.name == parameter.name), None) if (
        dataclasses.is_dataclass(kind)) else None  # fmt: skip
    if made is not None and made.default_factory is not dataclasses.MISSING:
        return made.default_factory()
    return parameter.default


def _definer(kind: type, name: str) -> type:
    """Return the class that defines a key, or whose constructor takes it first."""
    owners = [base for base in kind.__mro__ if name in vars(base).get("__annotations__", {})]
    owners += [
        base for base in kind.__mro__ if name in inspect.signature(vars(base).get("__init__", _nothing)).parameters
    ]
    return owners[0] if owners else kind


def _nothing() -> None:
    """Have no parameters."""


def _entry(kind: type, name: str) -> Entry | None:
    """Return the entry of a key in the class that defines it, or in a nearer class."""
    definer = _definer(kind, name)
    nearer = kind.__mro__[: kind.__mro__.index(definer)]
    found = [read(base).entry(name) for base in (definer, *nearer)]
    return next((entry for entry in found if entry is not None), None)


def _example(key: str, hint: Any, default: Any, entry: Entry, *, python: bool) -> str | None:
    """Return a line with the key: the docstring's own, or one that its type leaves no doubt about."""
    sign = "=" if python else " = "
    # A table within a table may be written with a dot: `columns.age = { ... }`.
    own = [example for example in entry.examples if re.split(r"[.=]", example)[0].strip() == key]
    if own:
        return own[0]
    plain = _without_none(_bare(hint))
    value: Any = None
    if plain is bool:
        value = not default if isinstance(default, bool) else True
    elif get_origin(plain) is Literal:
        # Of several values one that is not there already.
        value = next((choice for choice in get_args(plain) if choice != default), get_args(plain)[0])
    if value is None:
        return None
    return f"{key}{sign}{python_text(value) if python else toml_text(value)}"


def python_text(value: Any) -> str:
    """Return a value as Python code writes it, with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def toml_text(value: Any) -> str:
    """Return a value as TOML writes it in one line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_text(of)}" for key, of in value.items()) + " }" if value else "{}"
    return tomli_w.dumps({"_": value}).partition("=")[2].strip()


def _meaning(entry: Entry, kind: type, *, python: bool) -> str:
    """Return a meaning in the words of the file: its keys, and no Python."""
    text = entry.text or entry.type
    if python:
        return text
    names = [name for base in kind.__mro__ for name in vars(base).get("__annotations__", {})]
    for name in {name for name in names if "_" in name}:
        text = text.replace(f"`{name}`", f"`{kebab(name)}`")
    text = re.sub(r"(^|[.:] )None\b", r"\1Left out", text)
    return re.sub(r"\bNone\b", "left out", text)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _without_none(hint: Any) -> Any:
    """Return a type without its None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    left = [part for part in get_args(hint) if part is not type(None)]
    return left[0] if len(left) == 1 else Union[tuple(left)]  # noqa: UP007 - made of parts


def type_in_words(hint: Any) -> str:
    """Return a type as people call it, with its range.

    Examples
    --------
    >>> from pydantic import Field
    >>> type_in_words(Annotated[float | None, Field(gt=0, lt=1)]), type_in_words(tuple[str, ...])
    ('number, in (0, 1)', 'list of texts')
    """
    extras = hint.__metadata__ if get_origin(hint) is Annotated else ()
    words = [extra for extra in extras if isinstance(extra, str)]
    ends: dict[str, Any] = {}
    for extra in extras:
        for limit in extra.metadata if isinstance(extra, FieldInfo) else [extra]:
            ends |= vars_of(limit) if dataclasses.is_dataclass(limit) else {}
    # Words of the definition have precedence over those made from its ends.
    limits_in_words = words[-1:] or list(filter(None, [format_range("", ends)]))
    return ", ".join([_plain_in_words(_without_none(_bare(hint))), *limits_in_words])


def vars_of(limit: Any) -> dict[str, Any]:
    """Return the ends that a limit names."""
    return {field.name: getattr(limit, field.name) for field in dataclasses.fields(limit)}


def _plain_in_words(hint: Any) -> str:
    hint = _without_none(_bare(hint))
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return "value"
    if hint in WORDS:
        return WORDS[hint]
    if origin is Literal:
        return " or ".join(f"`{toml_text(value)}`" for value in args)
    if origin in (tuple, Sequence):
        inner = _without_none(_bare(args[0]))
        many = MANY.get(inner) or ("tables" if inspect.isclass(inner) else f"{_plain_in_words(inner)}")
        return f"list of {many}" if origin is Sequence or args[-1] is ... else f"list of {len(args)} {many}"
    if origin in (dict, Mapping) or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return f"table of name to {_plain_in_words(args[1])}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_plain_in_words, args)))
    if inspect.isclass(hint):
        return "table" if issubclass(hint, BaseModel) or hasattr(hint, "where") else f"`{hint.__name__}`"
    return "a callable" if "Callable" in str(hint) else str(hint)


def default_in_words(default: Any, *, python: bool = False) -> str:
    """Return a default as a file has it, "required" without one and "–" for a key that is left out."""
    if default is REQUIRED:
        return "**required**"
    if default is None:
        return "–"
    if dataclasses.is_dataclass(default) or isinstance(default, BaseModel):
        return f"`{type(default).__name__}()`"
    return f"`{python_text(default) if python else toml_text(default)}`"


def check_example(key: Key) -> None:
    """Refuse an example that is not TOML, is of another key, or whose value the key does not take."""
    given = tomllib.loads(key.example)
    if list(given) != [key.name]:
        raise Undocumented(f"the example {key.example!r} is not of {key.name!r}")
    hint = _bare(key.hint)
    nested = [part for part in (hint, *get_args(hint)) if inspect.isclass(part) and hasattr(part, "where")]
    value = given[key.name]
    if nested and isinstance(value, dict):
        from flfed.study.settings import read_settings

        nested[0](**read_settings(nested[0], value, key.name))
        return
    TypeAdapter(key.hint).validate_python(tuple(value) if isinstance(value, list) else value)
