"""Dossier of a run: a folder with report, record, answer sheets as pages, and the metadata of an RO-Crate.

A sheet is a TOML file in `sheets/`. Its items name their evidence as paths into `record.json`: each part is a key, "*"
stands for every entry, and "|" stands between paths of which the first with a value counts. An item without evidence,
or whose record has none, is an empty line for people.

Sources: RO-Crate 1.1; Process Run Crate 0.5.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flfed.errors import UsageError, require_extra
from flfed.paths import private_folder, write_private
from flfed.records.document.content import Content
from flfed.records.document.document import document, html_file
from flfed.records.document.sections import Markup, element, paragraphs, section, table
from flfed.records.objects import read
from flfed.records.statistics.verdict import number
from flfed.records.store import tables
from flfed.records.store.reader import RunReader
from flfed.records.text import moment
from flfed.study.study_text import parsed_study

MARK = "<!DOCTYPE html>\n<!-- Dossier of a run by flfed -->\n"
MORE_STYLE = """
td.drawn p { margin: 0 0 .25rem; overflow-wrap: anywhere; }
.small { font-size: .85em; }
table.signed td { height: 2.6em; }
"""
"""What a sheet needs beside the style of a report."""
SHEETS = Path(__file__).parent / "sheets"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
FLFED = "https://github.com/flfed/flfed"
FORMATS = {"html": "text/html", "json": "application/json", "toml": "application/toml"}
METADATA = "ro-crate-metadata.json"
ADVICE = "choose another folder with --dossier"
ENDED = {"completed": "CompletedActionStatus", "running": "ActiveActionStatus"}
"""Status of an action by that of a run; of any other run it failed."""
FILES = {
    "index.html": "The cover of the dossier.",
    "report.html": "The report of the run.",
    "record.json": "The record of the run, as the sheets read it.",
    "study.toml": "The study, as the record has it.",
}
KEYS = ("site", "column", "group")
"""What an entry of a list is named by on a sheet."""
MOST = 12
"""Most values of a path that a sheet shows."""


@dataclass(frozen=True)
class Item:
    """Item of a sheet: its number in the source, its title in our words, and who writes what the record has not.

    `evidence` are the paths that answer it, `rest` what it asks beyond them, and `helps` paths that help its writer
    and answer nothing. `part` is a heading above it, empty where it continues the part before.
    """

    number: str
    title: str
    by: str
    part: str = ""
    evidence: Sequence[str] = ()
    rest: str = ""
    helps: Sequence[str] = ()


@dataclass(frozen=True)
class Sheet:
    """Answer sheet with the items of a publication; one that needs a model is left out for a statistic."""

    title: str
    reader: str
    source: str
    address: str
    version: str
    date: str
    items: list[Item]
    needs_model: bool = False
    name: str = ""


@dataclass(frozen=True)
class Dossier:
    """Written dossier: by sheet, how many items there are and how many of them the record answers."""

    folder: Path
    run: str
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def as_object(self) -> dict[str, object]:
        """Return it for `--json`."""
        sheets = {name: {"items": items, "record": record} for name, (items, record) in self.counts.items()}
        return {"folder": str(self.folder), "run": self.run, "sheets": sheets}


def read_sheets() -> list[Sheet]:
    """Return every sheet, by name."""
    read_tables = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(SHEETS.glob("*.toml"))}
    return [read(Sheet, of | {"name": name}) for name, of in read_tables.items()]


def resolve(record: object, path: str) -> list[Any]:
    """Return the values of a path into a record that say something, in their order.

    Examples
    --------
    >>> resolve({"sites": [{"rows": 80}, {"rows": None}]}, "sites.*.rows"), resolve({"a": 1}, "b|a")
    ([80], [1])
    """
    return [value for _, value in _named(record, path)]


def _named(record: object, path: str) -> list[tuple[str, Any]]:
    """Return these values, each with the names of what its stars stand for: site, column, metric."""
    for way in path.split("|"):
        values: list[tuple[str, Any]] = [("", record)]
        for part in way.split("."):
            values = [(f"{name} {more}".strip(), of) for name, value in values for more, of in _entries(value, part)]
        if found := [(name, value) for name, value in values if value not in (None, "", [], {})]:
            return found
    return []


def _entries(value: Any, part: str) -> Iterable[tuple[str, Any]]:
    if part == "*" and isinstance(value, Mapping):
        return value.items()
    if part == "*" and isinstance(value, list):
        return [(" ".join(of[key] for key in KEYS if isinstance(of, Mapping) and of.get(key)), of) for of in value]
    return [("", value[part])] if isinstance(value, Mapping) and part in value else ()


def is_answered(item: Item, record: object) -> bool:
    """Return whether the record has a value for each path of an item's evidence."""
    return bool(item.evidence) and all(resolve(record, path) for path in item.evidence)


def dossier_record(content: Content, reader: RunReader, members: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the record of a run as JSON, which the sheets read; `members` are the institutions of the coordinator.

    Only those whose sites took part go in, and none for a run on one machine.
    """
    shown = content.shown
    first = shown.names[0]
    rehearsed = any(event.code == "rehearsal" for event in shown.events)
    present = {site.site for site in shown.sites} if shown.runs[0].at_institutions and not rehearsed else set()
    plain: dict[str, Any] = json.loads(
        _json(
            {
                "report": shown.report,
                "runs": [asdict(run) for run in shown.runs],
                "sites": [asdict(site) for site in shown.sites if site.status != "refused"],
                "members": [dict(member) for member in members if member["site"] in present],
                "events": [asdict(event) for event in shown.events],
                "sent": [asdict(crossed) for crossed in content.crossed],
                "columns": (reader.summary(first, "columns") or {}).get("columns", []),
                "table-1": content.table_1,
                "leaks": shown.leaks,
                "encoder": reader.summary(first, "encoder"),
                "settings": parsed_study(shown.study_text),
                "study-sha256": content.study_sha256,
            }
        )
    )
    return plain


def write_dossier(
    folder: Path, name: str, *, store: str | None = None, members: Sequence[Mapping[str, Any]] = ()
) -> Dossier:
    """Write the dossier of a run, a series or "latest" into a new or empty folder.

    Raises
    ------
    UsageError
        If there is no such run, the folder has something in it or cannot be written, or the extra `flfed[dossier]` is
        not installed. Nothing is written.
    """
    require_extra("rocrate", "a dossier", "dossier")
    _check_free(folder)
    with RunReader.open(store) as reader:
        content = Content.read(reader, name)
        record = dossier_record(content, reader, members)
    run = content.shown.run
    has_model = content.shown.trains or run.is_validation
    sheets = [sheet for sheet in read_sheets() if has_model or not sheet.needs_model]
    counts = {of.name: (len(of.items), sum(is_answered(item, record) for item in of.items)) for of in sheets}
    files = {
        "index.html": _cover(content, sheets, counts),
        # "latest" may be another run by now.
        "report.html": document(run.run, store=store),
        "record.json": _json(record),
        "study.toml": content.shown.study_text,
        **{f"{sheet.name}.html": sheet_page(sheet, record) for sheet in sheets},
    }
    files[METADATA] = _json(describe_crate(content, files))
    try:
        private_folder(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}): {ADVICE}") from None
    for file, text in files.items():
        write_private(folder / file, text, advice=ADVICE)
    return Dossier(folder, run.run, counts)


def _check_free(folder: Path) -> None:
    """Refuse a folder that has something in it, and anything else of its name."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise UsageError(f"{folder}: is there and not empty; a dossier goes into a new or empty folder")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}): {ADVICE}") from None


def _json(content: object) -> str:
    return json.dumps(tables.plain(content), indent=1, ensure_ascii=False) + "\n"


def sheet_page(sheet: Sheet, record: Mapping[str, Any]) -> str:
    """Return a sheet with its answers as an HTML file."""
    parts: dict[str, list[dict[str, object]]] = {}
    part = sheet.title
    for item in sheet.items:
        part = item.part or part
        parts.setdefault(part, []).append(_line(item, record))
    answered = sum(is_answered(item, record) for item in sheet.items)
    facts = (
        f"Run {record['report']['run']} of the study {record['report']['study']}. For {sheet.reader}.",
        f"Source: {sheet.source}. Version {sheet.version}, {sheet.date}. {sheet.address}. Titles are in our own words.",
        f"{len(sheet.items)} items: answered by the record: {answered}; for people: {len(sheet.items) - answered}. "
        "An answer by the record means that record.json has the values beside it. Whether they suffice is for those "
        "who sign.",
    )
    head = [paragraphs([fact], class_="facts-line") for fact in facts]
    body = [section(title, table(lines, class_="items")) for title, lines in parts.items()]
    return _page(sheet.title, head, body)


def _line(item: Item, record: Mapping[str, Any]) -> dict[str, object]:
    """Return an item's line: number, title, status, and what the record has."""
    answered = is_answered(item, record)
    cells = []
    for path in (*item.evidence, *item.helps):
        if values := _named(record, path):
            more = f" … ({len(values)} values)" if len(values) > MOST else ""
            text = ", ".join(dict.fromkeys(_told(name, of) for name, of in values[:MOST])) + more
            cells.append(element("p", text, " ", element("span", path, class_="small")))
    if answered and item.rest:
        cells.append(element("p", f"Left to {item.by}: {item.rest}", class_="small"))
    status = "answered by the record" if answered else f"to be written by {item.by}"
    return {"Item": item.number, "Asks for": item.title, "Status": status, "Answer": element("div", *cells)}


def _told(name: str, value: object) -> str:
    shown = _shown(value)
    return shown if name in ("", shown) else f"{name} {shown}"


def _shown(value: object) -> str:
    """Return a value of the record as a sheet has it; of a list or an object the number of its entries."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_shown(of)}" for key, of in value.items() if not isinstance(of, Mapping | list))
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) if not any(isinstance(of, Mapping) for of in value) else str(len(value))
    return number(value) if isinstance(value, float) else str(value)


def _cover(content: Content, sheets: Sequence[Sheet], counts: Mapping[str, tuple[int, int]]) -> str:
    """Return the first page: sheets with their counts, files, and lines for a signature."""
    run = content.shown.run
    started = moment(content.shown.runs[0].started)
    head = [paragraphs([f"Run {run.run} of the study {run.study}. Begun {started} UTC; {run.status}."])]
    lines = []
    for sheet in sheets:
        items, record = counts[sheet.name]
        link = element("a", sheet.title, href=f"{sheet.name}.html")
        lines.append({"Sheet": link, "For": sheet.reader, "Items": items, "By the record": record})
    named = [{"File": element("a", file, href=file), "What": what} for file, what in FILES.items()]
    return _page(f"Dossier of {run.study}", head, [section("Sheets", table(lines)), section("Files", table(named))])


def _page(title: str, head: Sequence[Markup], parts: Sequence[Markup]) -> str:
    signature = [{"": what, " ": ""} for what in ("Name and role", "Date", "Signature")]
    signed = section("Signature", table(signature, class_="signed"))
    body = element("body", element("header", element("h1", title), *head), element("main", *parts, signed))
    return html_file(MARK, title, body, MORE_STYLE)


def describe_crate(content: Content, files: Iterable[str]) -> Mapping[str, Any]:
    """Return the metadata of a crate with these files, as JSON-LD: the run is an action with its study and results."""
    # Imported late: the extra `flfed[dossier]`.
    from rocrate.rocrate import ROCrate

    run, entry = content.shown.run, content.shown.runs[0]
    crate = ROCrate(version="1.1")

    def add(identifier: str, kind: str, **properties: Any) -> Any:
        return crate.add_jsonld({"@id": identifier, "@type": kind, **properties})

    agent = add("#owner", "Organization", name="Owner: to be written")
    tool = add(
        f"{FLFED}#software", "SoftwareApplication", name="flfed", version=entry.versions.get("flfed", ""), url=FLFED
    )
    parts = {}
    for name in files:
        properties = {
            "name": name,
            "description": FILES.get(name, "An answer sheet."),
            "encodingFormat": FORMATS[name.rpartition(".")[2]],
        }
        parts[name] = crate.add_file(dest_path=name, properties=properties)
    rows = []
    for site in [site for site in content.shown.sites if site.status != "refused"]:
        words = f"Rows of {site.title or site.site}, which stay there and are not in this crate"
        rows.append(add(f"#rows-{site.site}", "CreativeWork", name=words, description=words))
    described = f"Run {run.run} of the study {run.study}."
    action = {
        "name": described,
        "description": described,
        "startTime": _whole_seconds(entry.started),
        "actionStatus": f"http://schema.org/{ENDED.get(run.status, 'FailedActionStatus')}",
        "instrument": tool,
        "agent": agent,
        "object": [parts["study.toml"], *rows],
        "result": [parts["report.html"], parts["record.json"]],
    }
    if entry.finished:
        action |= {"endTime": _whole_seconds(entry.finished)}
    made = add(f"#run-{entry.run}", "CreateAction")
    terms = "Terms of use: to be written"
    root = {
        "name": f"Dossier of {run.study}",
        "description": described,
        "license": add("#licence", "CreativeWork", name=terms, description=terms),
        "author": agent,
        "conformsTo": add(PROFILE, "CreativeWork", name="Process Run Crate", version="0.5"),
        "mentions": [made],
    }
    for thing, values in ((made, action), (crate.root_dataset, root)):
        for key, value in values.items():
            thing[key] = value
    metadata: Mapping[str, Any] = crate.metadata.generate()
    return metadata


def _whole_seconds(stamp: str) -> str:
    """Return a time of the record without fractions of a second, which the profile does not name.

    Examples
    --------
    >>> _whole_seconds("2026-11-28T02:47:48.719Z")
    '2026-11-28T02:47:48+00:00'
    """
    return datetime.fromisoformat(stamp).isoformat(timespec="seconds")
