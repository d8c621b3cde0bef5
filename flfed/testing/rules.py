"""What a rule is, how one is checked, and the rules that every listed class keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args, get_origin

import numpy as np

from flfed.errors import FlfedError
from flfed.registry import BROKEN, kebab
from flfed.study.settings import hints_of, read_settings
from flfed.words import render

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


Rule = Callable[[Any], None]
"""Checks one subject; its name is the rule, its docstring why there is one."""


def keep(rule: Rule, subject: Any) -> None:
    """Check one rule.

    Parameters
    ----------
    rule : Rule
    subject : Subject, or Site

    Raises
    ------
    RuleBroken
        If it does not hold, or the subject fails on the way.
    """
    name = subject.kind.__name__ if isinstance(subject, Subject) else subject.name
    title = f"{name}: {rule.__name__.replace('_', ' ')}"
    try:
        rule(subject)
    except RuleBroken as error:
        raise RuleBroken(f"{title}: {error}") from None
    except BROKEN as error:
        raise RuleBroken(f"{title}: {type(error).__name__}: {error}") from error


def check(rules: Iterable[Rule], subject: Any) -> None:
    """Check every rule; the first that does not hold is raised."""
    for rule in rules:
        keep(rule, subject)


def hold(condition: object, sentence: str, /, **facts: object) -> None:
    """Break the rule unless `condition` is true.

    Parameters
    ----------
    condition : object
    sentence : str
        Key of the sentence in `flfed/words/testing.toml`.
    **facts
        Of the sentence.

    Examples
    --------
    >>> hold(False, "no-default", name="rate")
    Traceback (most recent call last):
    flfed.testing.rules.RuleBroken: 'rate' has no default
    """
    if not condition:
        raise RuleBroken(render(f"testing.rules.{sentence}", **facts))


def largest_gap(arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of two sets of arrays.

    They must have the same names and shapes.
    """
    hold(list(arrays) == list(expected), "names", names=list(arrays), expected=list(expected))
    for name, value in expected.items():
        hold(arrays[name].shape == value.shape, "shape", name=name, shape=arrays[name].shape, expected=value.shape)
    return max(
        (float(np.abs(arrays[name] - value).max()) for name, value in expected.items() if value.size), default=0.0
    )


def are_same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Return whether two sets of arrays have the same names and entries."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def hold_paragraph(subject: Subject, word: str, what: str) -> None:
    """Hold that a docstring says something in a paragraph, or line, of its own."""
    hold(f"{word}:" in (inspect.getdoc(subject.kind) or ""), "paragraph", what=what, word=word)


def the_docstring_names_a_source(subject: Subject) -> None:
    """A reader can look up what it computes: a paper, a section, an equation."""
    hold_paragraph(subject, "Source", "line")


def the_signature_is_the_config_schema(subject: Subject) -> None:
    """What a study may set is what the constructor takes: typed, with a default, documented."""
    hints = hints_of(subject.kind)
    documented = set().union(*(_documented(base.__doc__ or "") for base in subject.kind.__mro__))
    for name, parameter in inspect.signature(subject.kind).parameters.items():
        hold(parameter.kind is inspect.Parameter.KEYWORD_ONLY, "keyword-only", name=name)
        hint = hints.get(name)
        listed = get_origin(hint) is tuple and get_args(hint)[0] in PLAIN and get_args(hint)[1:] == (...,)
        hold(hint in PLAIN or get_origin(hint) is Literal or listed, "hint", name=name)
        hold(parameter.default is not inspect.Parameter.empty, "no-default", name=name)
        hold(name in documented, "undocumented", name=name)
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        read = read_settings(subject.kind, {kebab(name): default}, subject.kind.__name__)
        hold(read == {name: parameter.default}, "default", name=name)


LISTED: tuple[Rule, ...] = (the_docstring_names_a_source, the_signature_is_the_config_schema)
"""What every listed class keeps, whatever it is."""


def _documented(text: str) -> set[str]:
    """Return the names that a numpydoc text describes: `name : type`, or `a, b : type`."""
    heads = [line.strip().partition(" : ")[0] for line in text.splitlines() if " : " in line]
    return set(chain.from_iterable(head.split(", ") for head in heads))
