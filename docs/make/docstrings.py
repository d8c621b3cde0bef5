"""Docstrings in NumPy's style, read into their parts."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

_HEADING = re.compile(r"^([A-Z]\w+(?: \w+)?)\n-{3,}$", re.MULTILINE)
_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: : (?P<type>.*))?")
_EXAMPLES = re.compile(r"\s*Examples?: (`[^`]+`(?:,(?: and)? `[^`]+`)*)\.?")
LISTS = ("Parameters", "Other Parameters", "Attributes", "Returns", "Raises")
"""Sections that are lists of entries; the others are text."""
_CLOSING = re.compile(r"^(?=(?:Guarantee|Reveals|Source): )", re.MULTILINE)
"""Beginnings of the last paragraphs of a docstring, or of those before its examples."""


@dataclass(frozen=True)
class Entry:
    """Entry of a docstring for one name, or several.

    Attributes
    ----------
    names : tuple of str
    type : str
        From the docstring, or "".
    text : str
        In one line, without its examples.
    examples : tuple of str
        Such as `lr = 0.1`: texts in backticks after "Example:".
    """

    names: tuple[str, ...]
    type: str
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Docstring:
    """Parts of one docstring.

    Attributes
    ----------
    summary : str
        Its first paragraph.
    paragraphs : sequence of str
        Its other paragraphs before the first section, one line each.
    closing : sequence of str
        Its last paragraphs, such as "Source: ...", and other text after a list.
    entries : mapping of section to sequence of Entry
    texts : mapping of section to str
        Sections that are no lists, such as Notes and Examples, line by line.
    """

    summary: str = ""
    paragraphs: Sequence[str] = ()
    entries: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    closing: Sequence[str] = ()

    def entry(self, name: str) -> Entry | None:
        """Return the entry of a parameter or an attribute, or None."""
        listed = [entry for section in LISTS[:3] for entry in self.entries.get(section, ())]
        return next((entry for entry in listed if name in entry.names), None)


def read(thing: Any) -> Docstring:
    """Return the docstring of an object of its own, not that of a base."""
    text = thing if isinstance(thing, str) else getattr(thing, "__doc__", None) or ""
    head, *parts = _HEADING.split(inspect.cleandoc(text))
    head, closing = _until_closing(head)
    paragraphs = _paragraphs(head)
    entries: dict[str, Sequence[Entry]] = {}
    texts = {}
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        body, end = _until_closing(body)
        if title in LISTS:
            entries[title], more = _entries(body)
            closing += more
        else:
            texts[title] = body.strip("\n")
        closing += end
    return Docstring(paragraphs[0] if paragraphs else "", paragraphs[1:], entries, texts, closing)


def _until_closing(body: str) -> tuple[str, list[str]]:
    """Return a section's text without the paragraphs that end a docstring, and these."""
    text, *end = _CLOSING.split(body, maxsplit=1)
    return text, _paragraphs("".join(end))


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _entries(body: str) -> tuple[list[Entry], list[str]]:
    """Return the entries of a list, and the paragraphs after it."""
    found: list[Entry] = []
    more = []
    # An entry begins at the margin, and its text is indented.
    for block in re.split(r"\n(?=\S)", body.strip("\n")):
        first, _, rest = block.partition("\n")
        head = _ENTRY.fullmatch(first.strip())
        if head is None:
            more += _paragraphs(block)
            continue
        text = " ".join(textwrap.dedent(rest).split())
        quoted = _EXAMPLES.search(text)
        examples = tuple(re.findall(r"`([^`]+)`", quoted[1])) if quoted else ()
        text = _EXAMPLES.sub("", text).strip()
        found.append(Entry(tuple(head["names"].split(", ")), head["type"] or "", text, examples))
    return found, more


def said_of_value(module: ModuleType, name: str) -> str:
    """Return the text after an assignment in a module, or ""."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, after in zip(body, body[1:], strict=False):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if name in [getattr(target, "id", "") for target in targets] and isinstance(after, ast.Expr):
            return str(getattr(after.value, "value", ""))
    return ""
