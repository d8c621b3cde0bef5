"""Pages of a dossier: one HTML file a sheet, and a cover, which load nothing and print on A4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flfed.records.document.document import POLICY, STYLE
from flfed.records.document.sections import Markup, bullets, element, paragraphs, plain, section, table
from flfed.records.dossier.answers import Answer, Facts, Sheet, count_answers
from flfed.records.dossier.record import Finding, RunRecord
from flfed.records.text import moment
from flfed.words import render, sentences

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
Answers = Mapping[str, Sequence[Answer]]


def sheet_page(sheet: Sheet, answers: Sequence[Answer], record: RunRecord) -> str:
    """Return a sheet with its answers as an HTML file."""
    parts: list[Markup] = []
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
        paragraphs([render("dossier.pages.run", run=record.run.run, study=record.run.study)], class_="facts-line"),
        paragraphs([render("dossier.pages.reader", reader=sheet.reader)], class_="facts-line"),
        paragraphs([render("dossier.pages.source", **_source(sheet))], class_="facts-line"),
        element(
            "div",
            paragraphs([render("dossier.pages.counts", items=len(answers), **counts._asdict())]),
            class_="verdict",
        ),
        paragraphs([render("dossier.pages.meaning")], class_="note"),
    ]
    return _page(sheet.title, head, [*parts, _signature()])


def _source(sheet: Sheet) -> dict[str, str]:
    return {"source": sheet.source, "address": sheet.address, "version": sheet.version, "date": sheet.date}


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
        words = render("dossier.pages.text", by=item.by, text=answer.text)
        cells.append(element("p", words))
    elif answer.status == "record" and item.rest:
        cells.append(element("p", render("dossier.pages.rest", by=item.by, rest=item.rest), class_="small"))
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
        paragraphs([render("dossier.pages.run", run=run.run, study=run.study)], class_="facts-line"),
        paragraphs([render("dossier.pages.begun", started=moment(record.entry.started), status=run.status)]),
    ]
    if record.content.shown.note:
        head.append(paragraphs([render("document.document.note", note=record.content.shown.note)]))
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
    style = STYLE.read_text(encoding="utf-8") + MORE_STYLE
    elements = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{plain(POLICY)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(style)),
    ]
    body = element("body", element("header", element("h1", title), *head), element("main", *parts))
    return f'{MARK}<html lang="en">{element("head", *elements)}{body}</html>\n'
