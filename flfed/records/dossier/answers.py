"""Answers of a sheet: the facts of a run's record for each item, and the texts of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from flfed.records.dossier import model_evidence, run_evidence, validation_evidence
from flfed.records.dossier.facts import Facts
from flfed.records.dossier.record import Finding, RunRecord
from flfed.records.dossier.sheet import Item, Sheet

EVIDENCE = run_evidence.EVIDENCE | model_evidence.EVIDENCE
"""Every evidence by its name in a sheet; a validation has other facts for some (`find_evidence`)."""
Status = Literal["record", "people", "unmet"]


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
    findings: list[Finding] = field(default_factory=list)
    text: str = ""


def find_evidence(name: str, record: RunRecord) -> Finding | None:
    """Return what the record has for an evidence, None where it has nothing."""
    if record.validates and name in validation_evidence.EVIDENCE:
        return validation_evidence.EVIDENCE[name](record)
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
        line = {"number": item.number, "title": item.title, "status": answer.status, "by": item.by}
        lines.append(line | {"findings": findings, "text": answer.text})
    source = {"source": sheet.source, "address": sheet.address, "version": sheet.version, "date": sheet.date}
    return {"title": sheet.title} | source | {"items": lines}
