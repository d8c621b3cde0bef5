"""Settings of tables and listed classes.

The signature of a class is its schema: pydantic checks values by their types and ranges, and a refusal is
one sentence.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal, dataclass_transform, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from flfed.errors import UsageError, nearest
from flfed.parsers import parse_toml
from flfed.registry import kebab, snake
from flfed.words import render, sentences, usage_error

PARSED = re.compile("_(type|parsing|from_float)$")
"""How pydantic's name of an error ends where the value has another type."""
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
"""Limits of a number, by pydantic's names."""
BRACKETS = {"gt": "(", "ge": "[", "lt": ")", "le": "]"}
"""Ends of a range with two limits."""


@dataclass_transform(kw_only_default=True)
class Settings:
    """Base that makes a class a dataclass which checks its fields.

    One that has a constructor of its own stays as it is.
    A range stands in a field's type, as `Annotated[float, Field(gt=0)]`; a text after it says the range in other words.

    Parameters
    ----------
    where : str
        Place of the settings, for an error: `class Plan(Settings, where="[plan]")`.
    frozen : bool
        Whether fields stay as they are, and equal ones make equal objects.
    """

    where: ClassVar[str] = ""

    def __init_subclass__(cls, where: str = "", frozen: bool = False) -> None:
        cls.where = where or cls.where
        if "__init__" not in vars(cls):
            dataclass(cls, kw_only=True, frozen=frozen, eq=frozen)

    def __post_init__(self) -> None:
        """Refuse a value of a wrong type or out of its range."""
        check_ranges(self, self.where)


def check_ranges(made: object, where: str) -> None:
    """Refuse a dataclass with a value of a wrong type or out of its range."""
    _checked(type(made), vars(made), where, ranges=True)


def read_settings(
    target: Callable[..., Any], settings: Mapping[str, Any], where: str, *, beside: Collection[str] = ()
) -> dict[str, Any]:
    """Check settings and return keyword arguments.

    The `settings` keys are checked against the signature of `target`, and values against their types; ranges are
    the class's own affair.

    Parameters
    ----------
    target : callable
        A class or function whose parameters are `bool`, `int`, `float`, `str`, `tuple`, `Literal`
        or one of these or None, each with a default.
    settings : mapping of kebab-case key to value
        As read from TOML.
    where : str
        Place of the settings, for the error: "[plan]" or "model 'mlp'".
    beside : collection of str
        Further keys that may stand there, for the error: who calls took them out.

    Raises
    ------
    UsageError
        For an unknown key or a value of a wrong type: names key, value and the allowed values.

    Examples
    --------
    >>> def plan(*, lr: float = 0.1, batch_rows: int = 32): ...
    >>> read_settings(plan, {"batch-rows": 8, "lr": 1}, "[plan]")
    {'lr': 1.0, 'batch_rows': 8}
    """
    allowed = [kebab(name) for name in inspect.signature(target).parameters]
    # All keys are checked here, so that a misspelt one is never silently ignored.
    for key in settings:
        if key not in allowed:
            raise unknown_key(where, key, [*beside, *allowed])
    return _checked(target, {snake(key): value for key, value in settings.items()}, where, ranges=False)


def unknown_key(where: str, key: str, choices: list[str]) -> UsageError:
    """Return the error for a key that is not among the choices."""
    close = nearest(key, choices)
    return usage_error("study.settings.unknown", where=where, key=key, close=close, allowed=", ".join(choices))


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a callable's parameters."""
    source: Any = target
    if isinstance(target, type):
        # Python writes the constructor of a dataclass, whose types are those of its fields.
        made: Any = next(kind for kind in target.__mro__ if "__init__" in vars(kind))
        source = made if "__dataclass_fields__" in vars(made) else made.__init__
    hints = get_type_hints(source)
    return {name: hints.get(name, Any) for name in inspect.signature(target).parameters}


@cache
def _types(target: Any, ranges: bool) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Return the type of each parameter, or field, and what checks it."""
    hints = hints_of(target)
    # Ranges are those of the fields, whatever parameters a subclass of another package takes.
    if ranges:
        made = next(kind for kind in target.__mro__ if "__dataclass_fields__" in vars(kind))
        every = get_type_hints(made, include_extras=True)
        hints = {field.name: every[field.name] for field in fields(made) if field.init}
    return {name: (hint, _adapter(hint).validator.validate_python) for name, hint in hints.items()}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Return what checks a type, in which numbers are finite."""
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


def _checked(target: Callable[..., Any], settings: Mapping[str, Any], where: str, *, ranges: bool) -> dict[str, Any]:
    """Return values in their types, or refuse the first that is wrong."""
    checked = {}
    for name, (hint, check) in _types(target, ranges).items():
        if name not in settings:
            continue
        value = tuple(settings[name]) if isinstance(settings[name], list) else settings[name]
        # In Python True equals 1, which a Literal may name.
        if isinstance(value, bool) and get_origin(hint) is Literal:
            value = ()
        try:
            checked[name] = check(value)
        except ValidationError as error:
            limit = getattr(hint, "__metadata__", [""])[-1]
            raise UsageError(f"{where}: {kebab(name)}{describe_error(error, settings[name], limit)}") from None
    return checked


def describe_error(refused: ValidationError, value: Any = None, limit: str | FieldInfo = "") -> str:
    """Return a wrong value and the allowed ones, in words.

    Parameters
    ----------
    refused : ValidationError
        Its first broken rule is described.
    value : object, optional
        The whole value; default: the part that is wrong.
    limit : str or FieldInfo, optional
        The allowed range of the whole value; default: the limit that is broken.
    """
    error = refused.errors(include_url=False)[0]
    rule = kebab(PARSED.sub("", error["type"]))
    facts = error.get("ctx", {})
    is_listed = rule in sentences("study", "rules")
    if value is None or (is_listed and error["loc"]):  # of a list, one of its values is named
        value = error["input"]
    if rule == "literal-error":
        facts = {"expected": facts["expected"].replace(" or ", ", ")}
    if is_listed:
        return render(f"study.rules.{rule}", value=value, **facts)
    if rule == "string-pattern-mismatch":
        limit = sentences("study", "patterns").get(facts["pattern"], facts["pattern"])
    if allowed := format_range(limit, facts):
        return render("study.settings.range", value=value, range=allowed)
    return ": " + error["msg"].removeprefix("Value error, ")


def format_range(limit: str | FieldInfo, ends: Mapping[str, Any]) -> str:
    """Return the range of a limit, or else of its ends by pydantic's names: "in (0, 1]", or ">= 0"."""
    if limit and isinstance(limit, str):
        return limit
    for one in getattr(limit, "metadata", ()):
        ends = {**ends, **{name: getattr(one, name) for name in SIGNS if hasattr(one, name)}}
    names = [name for name in SIGNS if name in ends]
    if len(names) == 2:
        low, high = names
        return f"in {BRACKETS[low]}{ends[low]}, {ends[high]}{BRACKETS[high]}"
    return "".join(f"{SIGNS[name]} {ends[name]}" for name in names)


def check_table(value: object, where: str, example: str) -> None:
    """Refuse a value that is no table; raises UsageError."""
    if not isinstance(value, dict):
        raise usage_error("study.settings.table", where=where, value=value, example=example)


def toml_value(word: str) -> Any:
    """Return what `--set` and `--grid` mean by a value.

    A word that is no TOML stands for itself.

    Examples
    --------
    >>> toml_value("0.1"), toml_value("[8, 4]"), toml_value("sgd")
    (0.1, [8, 4], 'sgd')
    """
    try:
        return parse_toml(f"value = {word}", "the value")["value"]
    except UsageError:
        return word


def are_shares(values: tuple[float, ...]) -> bool:
    """Return whether numbers are different ones between 0 and 1."""
    return all(0 < value < 1 for value in values) and len(set(values)) == len(values)
