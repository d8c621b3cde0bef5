"""File of facts: texts that only people can write, with a table for people and one for each sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import tomli_w

from flfed.errors import UsageError, unknown
from flfed.parsers import parse_toml
from flfed.records.dossier.sheet import Item, Sheet
from flfed.words import render, sentences, usage_error

PEOPLE = "people"
"""Table of what several sheets need."""


@dataclass(frozen=True)
class Facts:
    """Texts of people.

    Attributes
    ----------
    tables : mapping of table to mapping of key to text
        Table [people], and for each sheet the texts by number of the item.
    """

    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, sheets: Sequence[Sheet]) -> Self:
        """Return the texts of a file, none where it is absent.

        Raises
        ------
        UsageError
            If it cannot be read, or has a table or key that no sheet asks for, or a value that is no text.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        tables = parse_toml(content, f"{path}:")
        allowed = list_keys(sheets)
        for name, table in tables.items():
            if name not in allowed or not isinstance(table, Mapping):
                raise unknown(f"{path}: table", name, list(allowed))
            for key, text in table.items():
                if key not in allowed[name]:
                    raise unknown(f"{path}: key of [{name}]", key, allowed[name])
                if not isinstance(text, str):
                    raise usage_error("dossier.facts.text", file=path, table=name, key=key)
        return cls(tables)

    def person(self, key: str) -> str:
        """Return a text of the table [people], empty where nobody wrote it."""
        return self.tables.get(PEOPLE, {}).get(key, "").strip()

    def text(self, sheet: str, item: Item) -> str:
        """Return the text for an item of a sheet, empty where nobody wrote it."""
        own = self.tables.get(sheet, {}).get(item.number, "").strip()
        return own or self.person(item.fact)


def list_keys(sheets: Sequence[Sheet]) -> dict[str, list[str]]:
    """Return the keys of each table of a file of facts."""
    keys = {PEOPLE: list(sentences("dossier", PEOPLE))}
    for sheet in sheets:
        keys[sheet.name] = [item.number for item in sheet.items]
    return keys


def write_template(sheets: Sequence[Sheet], facts: Facts) -> str:
    """Return a file of facts with the texts of people, and an empty one for all that nobody wrote."""
    lines = [f"# {render('dossier.facts.head')}", "", f"[{PEOPLE}]"]
    for key, question in sentences("dossier", PEOPLE).items():
        lines += [f"# {question}", f"{key} = {_quoted(facts.person(key))}"]
    for sheet in sheets:
        lines += ["", f"# {sheet.title}", f"[{sheet.name}]"]
        for item in sheet.items:
            text = facts.tables.get(sheet.name, {}).get(item.number, "")
            lines += [f"# {item.title} ({item.by})", f'"{item.number}" = {_quoted(text)}']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as a TOML string."""
    return tomli_w.dumps({"text": text}).removeprefix("text = ").rstrip("\n")
