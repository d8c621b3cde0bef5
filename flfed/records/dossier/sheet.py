"""Answer sheets as data: the items of a checklist or a rule, with titles in our own words.

A sheet is a TOML file in `sheets/`. A sheet whose source could not be read is not there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flfed.records.objects import read

FOLDER = Path(__file__).parent / "sheets"


@dataclass(frozen=True)
class Item:
    """Item of a sheet.

    Attributes
    ----------
    number : str
        As the source numbers it.
    title : str
        In our own words.
    by : str
        Writer of the parts that the record does not have.
    part : str
        Heading above it, empty where it continues the part of the item before.
    evidence : sequence of str
        Names in `EVIDENCE`, each of which the answer needs; none where only people can answer.
    shows : sequence of str
        Names of facts that help its writer and answer nothing.
    rest : str
        Part that the record leaves to people where it answers the item.
    fact : str
        Key of the table [people] of the file of facts that answers it, empty for a key of its own.
    training : bool
        Whether it asks how the model was made, which a validation does not know.
    """

    number: str
    title: str
    by: str
    part: str = ""
    evidence: Sequence[str] = ()
    shows: Sequence[str] = ()
    rest: str = ""
    fact: str = ""
    training: bool = False


@dataclass(frozen=True)
class Sheet:
    """Answer sheet.

    Attributes
    ----------
    name : str
        Of its file.
    title, reader : str
        Its title, and for whom it is.
    source, address, file, version, date : str
        The publication whose items it has, and the part of it.
    items : list of Item
    runs : {"any", "model", "training"}
        Runs that it is for: every one, those with a model that they train or validate, those that train one.
    """

    title: str
    reader: str
    source: str
    address: str
    file: str
    version: str
    date: str
    items: list[Item]
    runs: Literal["any", "model", "training"] = "any"
    name: str = ""

    def for_run(self, *, trains: bool, validates: bool) -> Sheet | None:
        """Return the sheet with the items that a run can answer, None where it is not for that run."""
        if self.runs == "any" or trains:
            return self
        if self.runs == "training" or not validates:
            return None
        return replace(self, items=[item for item in self.items if not item.training])


def read_sheets() -> list[Sheet]:
    """Return every sheet, by name."""
    sheets = []
    for path in sorted(FOLDER.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        sheets.append(read(Sheet, tables | {"name": path.stem}))
    return sheets
