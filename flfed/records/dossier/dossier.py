"""Dossier of a run: a folder with report, record, answer sheets as pages, and the metadata of an RO-Crate.

Each page is an HTML file that loads nothing and prints on A4. The crate is of the profile Process Run, with the Five
Safes as entities.

Sources: RO-Crate 1.1; Process Run Crate 0.5. The Five Safes: Desai, Ritchie and Welpton 2016, "Five Safes: designing
data access for research".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flfed.errors import UsageError, require_extra
from flfed.paths import private_folder, write_private
from flfed.records.document.document import document, html_file
from flfed.records.document.sections import Markup, bullets, element, paragraphs, section, table
from flfed.records.dossier.answers import (
    Answer,
    Counts,
    Facts,
    Sheet,
    answer_sheet,
    as_object,
    count_answers,
    find_evidence,
    read_sheets,
    write_template,
)
from flfed.records.dossier.record import Finding, Member, RunRecord
from flfed.records.store import tables
from flfed.records.store.reader import RunReader
from flfed.records.text import moment
from flfed.words import render, sentences, usage_error

MARK = "<!DOCTYPE html>\n<!-- Dossier of a run by flfed -->\n"
MORE_STYLE = """
td.drawn p, td.drawn ul { margin: 0 0 .25rem; }
.status-record { color: #1a5c37; } .status-people { color: #3d4955; } .status-unmet { color: #a03c00; }
.small { font-size: .85em; }
table.signed td { height: 2.6em; }
@media print, (min-width: 641px) {
  table.items { table-layout: fixed; } table.items td:nth-child(1) { white-space: normal; }
  table.items th:nth-child(1) { width: 13%; } table.items th:nth-child(2) { width: 22%; }
  table.items th:nth-child(3) { width: 16%; } table.signed td:first-child { width: 30%; }
}
"""
"""What a sheet needs beside the style of a report."""
VERSION = "1.1"
"""Version of RO-Crate on which the profile is based."""
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
FLFED = "https://github.com/flfed/flfed"
FORMATS = {"html": "text/html", "json": "application/json", "toml": "application/toml"}
STUDY = "study.toml"
RESULTS = ("report.html", "record.json")
SAFES = {
    "people": (),
    "projects": ("purpose", "legal-basis"),
    "settings": ("link", "secure-sums"),
    "data": ("rows", "encoding"),
    "outputs": ("output-control", "weights"),
}
"""Evidence of each of the Five Safes."""
ENDED = {"completed": "CompletedActionStatus", "running": "ActiveActionStatus"}
"""Status of an action by that of a run; of any other run it failed."""
FACTS = "facts.toml"
METADATA = "ro-crate-metadata.json"
ADVICE = "choose another folder with --dossier"
Answers = Mapping[str, Sequence[Answer]]


def sheet_page(sheet: Sheet, answers: Sequence[Answer], record: RunRecord) -> str:
    """Return a sheet with its answers as an HTML file."""
    parts = []
    title = ""
    lines: list[dict[str, object]] = []
    for answer in answers:
        if answer.item.part:
            parts += _part(title, lines)
            title, lines = answer.item.part, []
        lines.append(_line(answer))
    parts += _part(title, lines)
    counts = count_answers(answers)
    head = [
        paragraphs([render("dossier.pages.run", **vars(record.run))], class_="facts-line"),
        paragraphs([render("dossier.pages.reader", reader=sheet.reader)], class_="facts-line"),
        paragraphs([render("dossier.pages.source", **vars(sheet))], class_="facts-line"),
        element(
            "div",
            paragraphs([render("dossier.pages.counts", items=len(answers), **counts._asdict())]),
            class_="verdict",
        ),
        paragraphs([render("dossier.pages.meaning")], class_="note"),
    ]
    return _page(sheet.title, head, [*parts, _signature()])


def _part(title: str, lines: Sequence[Mapping[str, object]]) -> list[Markup]:
    return [section(title, table(lines, class_="items"))] if lines else []


def _line(answer: Answer) -> dict[str, object]:
    """Return an item's line: number, title, status, and the answer."""
    item = answer.item
    status = render(f"dossier.status.{answer.status}", by=item.by)
    if answer.status == "people" and answer.text:
        status = render("dossier.status.written", by=item.by)
    cells = [_fact(finding) for finding in answer.findings]
    if answer.text:
        cells.append(element("p", render("dossier.pages.text", by=item.by, text=answer.text)))
    elif answer.status == "record" and item.rest:
        cells.append(element("p", render("dossier.pages.rest", **vars(item)), class_="small"))
    shown = element("span", status, class_=f"status-{answer.status}")
    return {"Item": item.number, "Asks for": item.title, "Status": shown, "Answer": element("div", *cells)}


def _fact(finding: Finding) -> Markup:
    """Return a fact, and where it is."""
    places = []
    if finding.section:
        places.append(render("dossier.pages.section", section=finding.section))
    if finding.record:
        places.append(render("dossier.pages.record", keys=", ".join(finding.record)))
    where = element("span", "; ".join(places), class_="small")
    return element("p", finding.sentence(), " ", where)


def cover_page(
    record: RunRecord, sheets: Sequence[Sheet], answers: Answers, facts: Facts, left_out: Sequence[str]
) -> str:
    """Return the first page: sheets with their counts, open questions, files, and lines for a signature."""
    run = record.run
    head = [
        paragraphs([render("dossier.pages.run", **vars(run))], class_="facts-line"),
        paragraphs([render("dossier.pages.begun", started=moment(record.entry.started), status=run.status)]),
    ]
    lines = []
    for sheet in sheets:
        counts = count_answers(answers[sheet.name])
        written = sum(answer.status == "people" and bool(answer.text) for answer in answers[sheet.name])
        link = element("a", sheet.title, href=f"{sheet.name}.html")
        line: dict[str, object] = {"Sheet": link, "For": sheet.reader, "Items": len(answers[sheet.name])}
        line |= {"By the record": counts.record, "Written": written}
        lines.append(line | {"To be written": counts.people - written, "Not met": counts.unmet})
    people = [
        {"What": question, "Answer": facts.person(key) or render("dossier.pages.open")}
        for key, question in sentences("dossier", "people").items()
    ]
    files = [
        {"File": element("a", name, href=name), "What": what} for name, what in sentences("dossier", "files").items()
    ]
    parts = [
        section(render("dossier.pages.sheets"), table(lines), bullets(left_out)),
        section(render("dossier.pages.people"), table(people)),
        section(render("dossier.pages.files"), table(files)),
        _signature(),
    ]
    return _page(render("dossier.pages.title", study=run.study), head, parts)


def _signature() -> Markup:
    lines = [{"": what, " ": ""} for what in sentences("dossier", "signature").values()]
    return section(render("dossier.pages.signed"), table(lines, class_="signed"))


def _page(title: str, head: Sequence[Markup], parts: Sequence[Markup]) -> str:
    body = element("body", element("header", element("h1", title), *head), element("main", *parts))
    return html_file(MARK, title, body, MORE_STYLE)


def describe_crate(record: RunRecord, facts: Facts, files: Iterable[str]) -> Mapping[str, Any]:
    """Return the metadata of a crate with these files, as JSON-LD."""
    # Imported late: the extra `flfed[dossier]`.
    from rocrate.rocrate import ROCrate

    run = record.run
    crate = ROCrate(version=VERSION)
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    owner = facts.person("owner")
    agent = _add(crate, "#owner", "Organization", name=owner or render("dossier.crate.owner"))
    what = sentences("dossier", "files")
    parts = {}
    for name in files:
        properties = {
            "name": name,
            "description": what.get(name, render("dossier.crate.sheet")),
            "encodingFormat": FORMATS[name.rpartition(".")[2]],
        }
        parts[name] = crate.add_file(dest_path=name, properties=properties)
    licence = facts.person("licence") or render("dossier.crate.licence")
    root = {
        "name": render("dossier.pages.title", study=run.study),
        "description": render("dossier.pages.run", **vars(run)),
        "license": _add(crate, "#licence", "CreativeWork", name=licence, description=licence),
        "author": agent,
        "conformsTo": profile,
        "mentions": [_action(crate, record, parts, agent), *_safes(crate, record, facts)],
    }
    for key, value in root.items():
        crate.root_dataset[key] = value
    metadata: Mapping[str, Any] = crate.metadata.generate()
    return metadata


def _add(crate: Any, identifier: str, kind: str, **properties: Any) -> Any:
    return crate.add_jsonld({"@id": identifier, "@type": kind, **properties})


def _action(crate: Any, record: RunRecord, parts: Mapping[str, Any], agent: Any) -> Any:
    """Return the run as an action: its software, its study and rows, and its results."""
    entry = record.entry
    software = {"name": "flfed", "version": record.version, "url": FLFED}
    tool = _add(crate, f"{FLFED}#software", "SoftwareApplication", **software)
    rows = []
    for site in record.sites:
        words = render("dossier.crate.rows", site=site.title or site.site)
        rows.append(_add(crate, f"#rows-{site.site}", "CreativeWork", name=words, description=words))
    status = ENDED.get(record.run.status, "FailedActionStatus")
    action = {
        "name": render("dossier.crate.run", run=entry.run),
        "description": render("dossier.pages.run", **vars(entry)),
        "startTime": _whole_seconds(entry.started),
        "actionStatus": f"http://schema.org/{status}",
        "instrument": tool,
        "agent": agent,
        "object": [parts[STUDY], *rows],
        "result": [parts[name] for name in RESULTS],
    }
    if entry.finished:
        action |= {"endTime": _whole_seconds(entry.finished)}
    made = _add(crate, f"#run-{entry.run}", "CreateAction")
    for key, value in action.items():
        made[key] = value
    return made


def _whole_seconds(stamp: str) -> str:
    """Return a time of the record without fractions of a second, which the profile does not name.

    Examples
    --------
    >>> _whole_seconds("2026-11-28T02:47:48.719Z")
    '2026-11-28T02:47:48+00:00'
    """
    return datetime.fromisoformat(stamp).isoformat(timespec="seconds")


def _safes(crate: Any, record: RunRecord, facts: Facts) -> Sequence[Any]:
    """Return the Five Safes, each with the facts of the record, or with the texts of people."""
    made = []
    for name, evidence in SAFES.items():
        findings = [find_evidence(key, record) for key in evidence]
        lines = [finding.sentence() for finding in findings if finding is not None]
        text = facts.person(f"safe-{name}")
        if text:
            lines.append(text)
        words = " ".join(lines) or render("dossier.crate.open")
        title = render(f"dossier.safes.{name}")
        made.append(_add(crate, f"#safe-{name}", "DefinedTerm", name=title, description=words))
    return made


@dataclass(frozen=True)
class Dossier:
    """Written dossier.

    Attributes
    ----------
    folder : Path
    run : str
    counts : mapping of sheet to Counts
    left_out : sequence of str
        Sentences on sheets that are not there.
    facts : Path or None
        The file of facts that was absent and is now written.
    """

    folder: Path
    run: str
    counts: Mapping[str, Counts]
    left_out: Sequence[str]
    facts: Path | None

    def as_object(self) -> dict[str, object]:
        """Return it for `--json`."""
        facts = str(self.facts) if self.facts else None
        sheets = {name: counts._asdict() for name, counts in self.counts.items()}
        return {"folder": str(self.folder), "run": self.run, "sheets": sheets, "facts-written": facts}


def write_dossier(
    folder: Path, name: str, *, facts_file: Path | None = None, store: str | None = None, members: Sequence[Member] = ()
) -> Dossier:
    """Write the dossier of a run into a new or empty folder.

    Parameters
    ----------
    folder : Path
    name : str
        Id of a run or a series, or "latest".
    facts_file : Path, optional
        Texts that only people can write; written with empty ones where it is absent.
    store : str, optional
        Database URL.
    members : sequence of Member
        The coordinator's list of institutions.

    Raises
    ------
    UsageError
        If there is no such run, the folder has something in it or cannot be written, the file of facts is wrong, or
        the extra `flfed[dossier]` is not installed. Nothing is written.
    """
    require_extra("rocrate", render("dossier.folder.feature"), "dossier")
    _check_free(folder)
    every = read_sheets()
    facts = Facts.read(facts_file, every) if facts_file else Facts()
    with RunReader.open(store) as reader:
        record = RunRecord.read(reader, name, members)
    # "latest" may be another run by now.
    report = document(record.run.run, store=store)
    trains = record.content.shown.trains
    chosen = [sheet.for_run(trains=trains, validates=record.validates) for sheet in every]
    sheets = [sheet for sheet in chosen if sheet is not None]
    answers = {sheet.name: answer_sheet(sheet, record, facts) for sheet in sheets}
    left_out = [render("dossier.folder.unread")]
    left_out += [render("dossier.folder.untrained", title=sheet.title) for sheet in every if sheet.name not in answers]
    files = {
        "index.html": cover_page(record, sheets, answers, facts, left_out),
        "report.html": report,
        **{f"{sheet.name}.html": sheet_page(sheet, answers[sheet.name], record) for sheet in sheets},
        "answers.json": _json({sheet.name: as_object(sheet, answers[sheet.name]) for sheet in sheets}),
        "record.json": _json(record.as_object()),
        "study.toml": record.content.shown.study_text,
        FACTS: write_template(every, facts),
    }
    files[METADATA] = _json(describe_crate(record, facts, list(files)))
    _write(folder, files)
    absent = _write_facts(facts_file, files[FACTS])
    counts = {name: count_answers(of) for name, of in answers.items()}
    return Dossier(folder, record.run.run, counts, left_out, absent)


def _write_facts(path: Path | None, text: str) -> Path | None:
    """Write the file of facts where it is absent, and return its path then."""
    if path is None or path.exists():
        return None
    write_private(path, text, advice=render("dossier.folder.facts"))
    return path


def _json(content: object) -> str:
    return json.dumps(tables.plain(content), indent=1, ensure_ascii=False) + "\n"


def _check_free(folder: Path) -> None:
    """Refuse a folder that has something in it, and anything else of its name."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise usage_error("dossier.folder.taken", folder=folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}): {ADVICE}") from None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        private_folder(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}): {ADVICE}") from None
    for name, text in files.items():
        write_private(folder / name, text, advice=ADVICE)
