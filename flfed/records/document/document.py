"""Document of a run: one HTML file without scripts that loads nothing.

It is made of the store through `reports` and `statistics`, which the pages and `flfed run show` use as well: no figure
and no verdict is computed here.
"""

from __future__ import annotations

from pathlib import Path

from flfed.errors import UsageError
from flfed.paths import replace_whole
from flfed.records.dashboard.components.text import moment
from flfed.records.document import evidence, results
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, element, joined, paragraphs, plain
from flfed.records.reports.events import STATUS_WORDS
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import Viewer

MARK = "<!DOCTYPE html>\n<!-- Report of a run by flfed -->\n"
"""Begins each document: only a file that begins so is replaced."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser lets the document load: its own style, and nothing else."""
SECTIONS = (
    results.answer,
    results.forest,
    results.figures,
    evidence.sites,
    evidence.table_1,
    results.by_round,
    results.learning,
    evidence.curves,
    evidence.calibrated,
    results.further,
    evidence.privacy,
    evidence.limits,
    evidence.hashes,
)
"""Sections in the order in which they are read."""
OWN = "Figures of {site} only: those over all sites would, with its own taken away, tell of others."
STYLE = """
@page { size: A4; margin: 15mm 14mm 17mm;
  @bottom-right { content: counter(page) " / " counter(pages); font-size: 8pt; } }
:root { color-scheme: light; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 54rem; background: #fff; color: #1b2733;
  font: 15px/1.45 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 2px solid #d5dbe1; }
h3 { font-size: 1rem; margin: 1.1rem 0 .4rem; }
p { margin: .4rem 0; }
ul { margin: .4rem 0; padding-left: 1.2rem; }
li { margin: .15rem 0; }
code, pre { font-family: "Liberation Mono", Consolas, monospace; font-size: .85em; }
pre { white-space: pre-wrap; background: #f4f6f8; padding: .6rem .8rem; border-radius: 4px; }
.facts-line, .note, .notes, .small, figcaption { color: #3d4955; font-size: .92em; }
.purpose { font-size: 1.05rem; }
.verdict { border-left: 5px solid #0072B2; background: #eef4f9; padding: .5rem .9rem; margin: .7rem 0; }
.verdict p:first-child { font-size: 1.1rem; }
.warnings { list-style: none; padding: .4rem .9rem; border-left: 5px solid #D55E00; background: #fdf3ea; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .84rem; }
th, td { text-align: left; vertical-align: top; padding: .28rem .45rem; border-bottom: 1px solid #dde2e7; }
th { border-bottom: 2px solid #b8c2cc; font-weight: 600; vertical-align: bottom; }
th, td { overflow-wrap: break-word; }
td:first-child { min-width: 5.5rem; }
td.figure { font-variant-numeric: tabular-nums; }
td.short { white-space: nowrap; }
table.dense { font-size: .78rem; }
table.facts td:last-child { overflow-wrap: anywhere; font-family: "Liberation Mono", Consolas, monospace; }
.charts { margin: 0 -.5rem; }
figure { display: inline-block; vertical-align: top; width: 336px; max-width: 100%; margin: .4rem .5rem; }
figcaption { font-weight: 600; }
svg.chart { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; fill: #3d4955; }
.grid { stroke: #e3e7eb; stroke-width: 1; }
.legend { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .78rem; }
.legend svg { vertical-align: middle; }
table.forest td { vertical-align: middle; padding-top: 0; padding-bottom: 0; height: 2.1rem; }
table.forest td.drawn { min-width: 10rem; width: 30%; padding: 0 1.2rem; }
table.forest td:first-child { min-width: 7rem; }
table.forest tbody tr:last-child td { border-top: 2px solid #b8c2cc; }
table.forest tfoot td { border: 0; }
svg.forest, svg.forest-axis { display: block; width: 100%; overflow: visible; }
svg.forest { height: 2.1rem; }
svg.forest-axis { height: 42px; }
.zero { stroke: #808080; stroke-width: 1; stroke-dasharray: 5 4; }
.axis { stroke: #3d4955; stroke-width: 1; }
footer { margin-top: 2rem; color: #3d4955; font-size: .8rem; }
@media screen and (max-width: 640px) {
  thead, table.forest tfoot td:not(.drawn) { display: none; }
  table, tbody, tfoot, tr, td { display: block; width: 100%; }
  tr { border-bottom: 2px solid #b8c2cc; padding: .35rem 0; }
  td { border: 0; padding: .1rem 0; display: grid; gap: .5rem;
    grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); }
  td::before { content: attr(data-label); color: #3d4955; }
  td:empty { display: none; }
  td:first-child, table.forest td:first-child { display: block; font-weight: 600; }
  td:first-child::before { content: none; }
  table.forest td, table.forest td.drawn { height: auto; min-width: 0; width: 100%; }
  table.forest td.drawn { display: block; padding: .2rem 1.2rem; }
  table.forest td.drawn::before { content: none; }
  table.forest tbody tr:last-child td { border-top: 0; }
}
@media print {
  body { padding: 0; max-width: none; font-size: 9.5pt; }
  table { font-size: 8.2pt; }
  table.dense { font-size: 7.6pt; }
  svg text { font-size: 11px; }
  figure { width: 48%; margin: .4rem 1% .4rem 0; }
  .charts { margin: 0; }
  h1, h2, h3, figcaption, .facts-line, .lead { break-after: avoid; }
  .note, .notes { break-before: avoid; }
  thead { display: table-header-group; }
  tfoot { display: table-footer-group; }
  tr, figure, li, .verdict, .warnings, .whole { break-inside: avoid; }
  p { orphans: 3; widows: 3; }
  a { color: inherit; text-decoration: none; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


def document(name: str, *, store: str | None = None, viewer: Viewer | None = None) -> str:
    """Return a run, or a series of repeats, as one HTML file.

    Parameters
    ----------
    name : str
        Id of a run or a series, or "latest".
    store : str, optional
        Database URL.
    viewer : Viewer, optional
        Who reads it; the people of one site get its figures alone, others than the coordinator no hashes. By default
        the coordinator.

    Raises
    ------
    UsageError
        If there is no such run that the viewer may see.
    """
    reads = viewer or Viewer()
    with RunReader.open(store, only=reads.site) as reader:
        content = Content.read(reader, name, reads)
    found = content.found
    head = joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{plain(POLICY)}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", f"{found['study']} ({found['run']})"),
            element("style", Markup(STYLE)),
        ]
    )
    parts = [section(content) for section in SECTIONS]
    body = element(
        "body", element("header", *_head(content)), element("main", *parts), element("footer", *_foot(content))
    )
    return f'{MARK}<html lang="en">{element("head", head)}{body}</html>\n'


def _head(content: Content) -> list[Markup]:
    """Return the title, and what run it is."""
    found, runs = content.found, content.runs
    seconds = found["seconds"]
    took = "" if seconds is None else f", {seconds:.0f} seconds" if seconds >= 10 else f", {seconds:.1f} seconds"
    repeats = ""
    if runs[0].repeats > 1:
        one = f"repeat {runs[0].repeat + 1} of {runs[0].repeats}"
        repeats = f", {one if len(runs) == 1 else f'{len(runs)} of {runs[0].repeats} repeats'}"
    rounds = f"{found['rounds']} of {runs[0].rounds_planned} rounds"
    went = f"{STATUS_WORDS[found['status']]}, {rounds}{repeats}"
    line = f"Run {found['run']}: {went}, started {moment(runs[0].started)} UTC{took}."
    whose = [element("p", OWN.format(site=content.only), class_="facts-line")] if content.only else []
    return [element("h1", found["study"]), element("p", line, class_="facts-line"), *whose]


def _foot(content: Content) -> list[Markup]:
    """Return from what the document was made, and when."""
    state = (
        "" if content.found["status"] == "completed" else " The run has not been completed: a later report may differ."
    )
    made = f"Made by flfed from the record of run {content.found['run']}."
    return [paragraphs([f"{made} The file loads nothing and can be kept as it is.{state}"])]


def write_document(path: Path, name: str, *, store: str | None = None, viewer: Viewer | None = None) -> None:
    """Write a run's document into a file for its owner alone.

    Parameters
    ----------
    path : Path
        A new file, or an earlier document of a run, which is replaced.
    name, store, viewer
        As for `document`.

    Raises
    ------
    UsageError
        If there is no such run, something else is at `path`, or it cannot be written.
    """
    text = document(name, store=store, viewer=viewer)
    try:
        if path.is_symlink() or (path.exists() and not _is_document(path)):
            raise UsageError(f"{path}: is there already and no report of a run; it is not replaced")
        replace_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): choose another file") from None


def _is_document(path: Path) -> bool:
    """Tell whether a file begins as a document does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(MARK)) == MARK.encode()
