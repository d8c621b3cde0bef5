"""A person's decisions about a mapping, as TOML: columns, units and codes that this person typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import ConfigDict, StrictFloat, TypeAdapter, ValidationError, with_config

from flfed.files import write_whole
from flfed.parsers import parse_toml, read_text
from flfed.words import usage_error

MISSING_CODE = ""
"""Value of a code for "not known"."""
Factor = dict[Literal["multiply", "add"], StrictFloat]
"""A conversion of numbers that a person typed."""


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass
class Answers:
    """Decisions of a person.

    Attributes
    ----------
    columns : dict of schema column to own column
        "" where the site does not have it.
    units : dict of schema column to Factor
    codes : dict of schema column to {own code: schema value}
        "" for a code that means "not known". An empty table leaves the codes open.
    """

    columns: dict[str, str] = field(default_factory=dict)
    units: dict[str, Factor] = field(default_factory=dict)
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
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            # The third part may be a code, which is a cell.
            place = error.errors()[0]["loc"][:2]
            raise usage_error("proposals.answers.wrong", path=path, place=".".join(map(str, place))) from None

    def write(self, path: Path) -> None:
        """Write them to a file of mode 600."""
        write_whole(path, tomli_w.dumps(vars(self)).encode())
