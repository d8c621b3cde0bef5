"""What a rule is, how one is checked, and the rules that every listed class keeps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args, get_origin

import numpy as np

from flfed.errors import FlfedError
from flfed.registry import BROKEN, kebab
from flfed.study.settings import hints_of, read_settings

PLAIN = {bool, int, float, str}


class RuleBroken(FlfedError, AssertionError):
    """A rule of the contract that does not hold: its name, its subject and the observation."""


@dataclass(frozen=True)
class Subject:
    """A class to check, and how to make one.

    Attributes
    ----------
    kind : type
    settings : mapping of parameter to value, optional
        For its constructor; others have their defaults.
    """

    kind: type[Any]
    settings: Mapping[str, Any] | None = None

    def make(self) -> Any:
        """Return a new one."""
        return self.kind(**self.settings or {})


def check(rules: Mapping[str, Any], subject: Any) -> None:
    """Check a class, or a site, against the rules of a module; raises RuleBroken with the first that does not hold.

    A rule is a function of the module (`rules` are its globals) whose name says what holds, and whose docstring why.
    """
    own = [one for one in rules.values() if inspect.isfunction(one) and one.__module__ == rules["__name__"]]
    name, listed = (subject.kind.__name__, LISTED) if isinstance(subject, Subject) else (subject.name, ())
    for rule in (*listed, *(one for one in own if not one.__name__.startswith(("_", "check_")))):
        title = f"{name}: {rule.__name__.replace('_', ' ')}"
        try:
            rule(subject)
        except RuleBroken as error:
            raise RuleBroken(f"{title}: {error}") from None
        except BROKEN as error:
            raise RuleBroken(f"{title}: {type(error).__name__}: {error}") from error


def hold(condition: object, observation: str) -> None:
    """Break the rule unless `condition` is true."""
    if not condition:
        raise RuleBroken(observation)


def largest_gap(arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of two sets of arrays, which must have the same names and shapes."""
    shapes, wanted = ({name: value.shape for name, value in of.items()} for of in (arrays, expected))
    hold(shapes == wanted, f"its arrays are {shapes} instead of {wanted}")
    return max((float(np.abs(arrays[name] - value).max()) for name, value in expected.items() if value.size), default=0)


def are_same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Return whether two sets of arrays have the same names and entries."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def the_docstring_names_a_source(subject: Subject) -> None:
    """A reader can look up what it computes: a paper, a section, an equation."""
    hold("Source:" in (inspect.getdoc(subject.kind) or ""), "its docstring has no line 'Source:'")


def the_signature_is_the_config_schema(subject: Subject) -> None:
    """What a study may set is what the constructor takes: typed, with a default, documented."""
    hints = hints_of(subject.kind)
    documented = set().union(*(_documented(base.__doc__ or "") for base in subject.kind.__mro__))
    for name, parameter in inspect.signature(subject.kind).parameters.items():
        hold(parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name!r} is not keyword-only; put it after *")
        hint = hints.get(name)
        listed = get_origin(hint) is tuple and get_args(hint)[0] in PLAIN and get_args(hint)[1:] == (...,)
        hold(hint in PLAIN or get_origin(hint) is Literal or listed, f"{name!r} is no bool, int, float, str, Literal")
        hold(parameter.default is not inspect.Parameter.empty, f"{name!r} has no default")
        hold(name in documented, f"{name!r} is not in the docstring's Parameters")
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        read = read_settings(subject.kind, {kebab(name): default}, subject.kind.__name__)
        hold(read == {name: parameter.default}, f"{name!r}: its default is not a value that a study may set")


LISTED = (the_docstring_names_a_source, the_signature_is_the_config_schema)


def _documented(text: str) -> set[str]:
    """Return the names that a numpydoc text describes: `name : type`, or `a, b : type`."""
    heads = [line.strip().partition(" : ")[0] for line in text.splitlines() if " : " in line]
    return set(chain.from_iterable(head.split(", ") for head in heads))
