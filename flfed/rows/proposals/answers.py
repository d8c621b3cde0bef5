"""A person's decisions about a mapping, as TOML: columns, units and codes that this person typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from flfed.files import write_whole
from flfed.parsers import parse_toml, read_text
from flfed.words import usage_error

TABLES = ("columns", "units", "codes")
MISSING_CODE = ""
"""Value of a code for "not known"."""


@dataclass
class Answers:
    """Decisions of a person.

    Attributes
    ----------
    columns : dict of schema column to own column
        "" where the site does not have it.
    units : dict of schema column to {"multiply": number, "add": number}
    codes : dict of schema column to {own code: schema value}
        "" for a code that means "not known". An empty table leaves the codes open.
    """

    columns: dict[str, str] = field(default_factory=dict)
    units: dict[str, dict[str, float]] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Return the decisions in a file.

        Raises
        ------
        UsageError
            If it cannot be read, or has other tables or types.
        """
        content = parse_toml(read_text(path), str(path))
        for key in content:
            if key not in TABLES:
                raise usage_error("proposals.answers.key", path=path, key=key, tables=", ".join(TABLES))
        columns = _table(path, "columns", content.get("columns", {}))
        answers = cls(columns=_texts(path, "columns", columns))
        for name, unit in _table(path, "units", content.get("units", {})).items():
            answers.units[name] = _numbers(path, f"units.{name}", unit)
        for name, codes in _table(path, "codes", content.get("codes", {})).items():
            answers.codes[name] = _texts(path, f"codes.{name}", codes)
        return answers

    def write(self, path: Path) -> None:
        """Write them to a file of mode 600."""
        write_whole(path, tomli_w.dumps(vars(self)).encode())


def _table(path: Path, key: str, content: object) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise usage_error("proposals.answers.table", path=path, key=key)
    return content


def _texts(path: Path, key: str, content: object) -> dict[str, str]:
    table = _table(path, key, content)
    if not all(isinstance(value, str) for value in table.values()):
        raise usage_error("proposals.answers.text", path=path, key=key)
    return dict(table)


def _numbers(path: Path, key: str, content: object) -> dict[str, float]:
    table = _table(path, key, content)
    for name, value in table.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in ("multiply", "add") or not is_number or (name == "multiply" and not value):
            raise usage_error("proposals.answers.unit", path=path, key=key)
    return {name: float(value) for name, value in table.items()}
