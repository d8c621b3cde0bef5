"""Answer sheets: their items, each with the facts of a run's record and the text of people for it.

A sheet is a TOML file in `sheets/`. A sheet whose source could not be read is not there. The file of facts has a table
for people and one for each sheet.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import tomli_w

from flfed.errors import UsageError, unknown
from flfed.parsers import parse_toml
from flfed.records.dossier import model_evidence, run_evidence
from flfed.records.dossier.record import Finding, RunRecord
from flfed.records.objects import read
from flfed.words import render, sentences, usage_error

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


PEOPLE = "people"
"""Table of what several sheets need."""
EVIDENCE = run_evidence.EVIDENCE | model_evidence.EVIDENCE
"""Every evidence by its name in a sheet; a validation has other facts for some (`find_evidence`)."""
Status = Literal["record", "people", "unmet"]


@dataclass(frozen=True)
class Facts:
    """File of facts: texts that only people can write.

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
        return self.tables.get(sheet, {}).get(item.number, "").strip() or self.person(item.fact)


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


@dataclass(frozen=True)
class Answer:
    """Answer of an item.

    Attributes
    ----------
    item : Item
    status : {"record", "people", "unmet"}
        "record" where the record answers it, "unmet" where the record shows that it is not fulfilled.
    findings : list of Finding
        Facts of the record for it, also where people must answer.
    text : str
        From the file of facts.
    """

    item: Item
    status: Status
    findings: list[Finding]
    text: str = ""


def find_evidence(name: str, record: RunRecord) -> Finding | None:
    """Return what the record has for an evidence, None where it has nothing."""
    if record.validates and name in model_evidence.OF_VALIDATION:
        return model_evidence.OF_VALIDATION[name](record)
    return EVIDENCE[name](record)


def answer_sheet(sheet: Sheet, record: RunRecord, facts: Facts) -> list[Answer]:
    """Return the answer of each item, in their order."""
    return [_answer(sheet, item, record, facts) for item in sheet.items]


def _answer(sheet: Sheet, item: Item, record: RunRecord, facts: Facts) -> Answer:
    needed = [find_evidence(name, record) for name in item.evidence]
    findings = [finding for finding in needed if finding is not None]
    status: Status = "people"
    if any(not finding.met for finding in findings):
        status = "unmet"
    elif needed and len(findings) == len(needed):
        status = "record"
    helpful = [find_evidence(name, record) for name in item.shows]
    findings += [finding for finding in helpful if finding is not None]
    return Answer(item, status, findings, facts.text(sheet.name, item))


class Counts(NamedTuple):
    """Numbers of answers by status."""

    record: int
    people: int
    unmet: int


def count_answers(answers: Sequence[Answer]) -> Counts:
    """Return the number of answers by status."""
    statuses = [answer.status for answer in answers]
    return Counts(statuses.count("record"), statuses.count("people"), statuses.count("unmet"))


def as_object(sheet: Sheet, answers: Sequence[Answer]) -> Mapping[str, Any]:
    """Return a sheet with its answers as JSON."""
    lines = []
    for answer in answers:
        findings = [
            {
                "evidence": finding.key,
                "says": finding.sentence(),
                "facts": dict(finding.facts),
                "section": finding.section,
                "record": list(finding.record),
                "met": finding.met,
            }
            for finding in answer.findings
        ]
        item = answer.item
        named = {"number": item.number, "title": item.title, "by": item.by}
        lines.append({**named, "status": answer.status, "findings": findings, "text": answer.text})
    named = {"title": sheet.title, "source": sheet.source, "address": sheet.address}
    return {**named, "version": sheet.version, "date": sheet.date, "items": lines}
