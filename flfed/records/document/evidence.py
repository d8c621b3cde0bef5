"""Sections of a document on what the figures rest on: sites, data, privacy and hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, bullets, element, paragraphs, section, table, verbatim
from flfed.records.document.sections import part, written
from flfed.records.objects import site_of
from flfed.records.reports.faults import (
    holdout_in_words,
    leak_lines,
    no_sums_in_words,
    set_aside_lines,
    site_facts,
)
from flfed.records.reports.privacy_tables import size_in_words
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.reports.site_verdict import varies
from flfed.records.sections import data
from flfed.records.sections import privacy as private
from flfed.records.statistics.noised_scores import TRAINED_ON
from flfed.records.statistics.score_curves import percent_of
from flfed.records.statistics.verdict import ABSENT, sentence_case
from flfed.records.store.entries import SiteEntry
from flfed.words import render

MOST_SITES = 10
"""Of more, Table 1 has all sites together alone."""
CLASSES = ("0", "1")
"""Names of the classes of an outcome: without it, and with it."""
OUTCOME = "With the outcome, of these"
HANDED_ON = "Versions, seed and hashes are in the report of the coordinator, who can hand them out."


def sites(content: Content) -> Markup:
    """Return who took part: rows, outcomes, what each sent, and what was rejected."""
    parts = [table(_site_lines(content))]
    if any(varies(site) for site in content.run.sites.values()):
        parts.append(paragraphs(["About: repeats draw new test rows, of which this is the mean."], class_="note"))
    whose = "" if content.only is None else f" of {content.only}"
    nothing = paragraphs([f"Nothing{whose} was rejected or refused."])
    parts += [
        element("h3", "Rejected, refused, odd"),
        table(set_aside_lines(content.report, content.events)) or nothing,
    ]
    if sentences := holdout_in_words(content.events):
        parts.append(paragraphs([" ".join(sentences)], class_="note"))
    return section("Sites", *parts)


def _site_lines(content: Content) -> list[dict[str, Any]]:
    """Return a line for each site, without columns that tell nothing of any."""
    sent: Counter[str] = Counter()
    for crossed in content.crossed:
        if crossed.direction == "to-server":
            sent[crossed.site] += crossed.bytes
    lines = [_site_line(content, entry, sent) for entry in content.sites]
    untold = [OUTCOME]
    # Of no site is it known where the outcome is none of two classes, or no policy allows the counts; an analysis
    # is told no number of rows without noise.
    if not content.trains:
        untold += ["Rows", "Test rows"]
    for key in untold:
        if all(line.get(key) == ABSENT for line in lines):
            for line in lines:
                line.pop(key, None)
    return lines


def _site_line(content: Content, entry: SiteEntry, sent: Mapping[str, int]) -> dict[str, Any]:
    facts = site_facts(entry, content.report)
    line = {"Site": entry.site}
    # The title of a site that was cut out of a table is that of the table with its name, and says no more of it.
    if entry.title not in ("", entry.site) and not entry.title.endswith(f", {entry.site}"):
        line["Site"] = f"{entry.site} ({entry.title})"
    line |= {key: facts[key] for key in ("Status", "Rows", TRAINED_ON.capitalize()) if key in facts}
    # Where the number of rows has noise, exact numbers of test rows stay at the site.
    if "Rows" in facts:
        line |= _test_rows(content.run.sites.get(entry.site) or {})
    line |= {key: facts[key] for key in ("Disclosure", "Figures shared")}
    line["Sent"] = size_in_words(sent[entry.site]) if entry.site in sent else ABSENT
    return line


def _test_rows(test_rows: Any) -> dict[str, str]:
    """Return how many test rows a site of a report has, and how many of them with the outcome."""
    about = "about " if varies(test_rows) else ""
    site = site_of(test_rows)
    cells = {"Test rows": ABSENT, OUTCOME: ABSENT}
    if site.holdout_rows is not None:
        cells["Test rows"] = f"{about}{site.holdout_rows}"
    if site.holdout_classes is not None:
        without, with_ = (site.holdout_classes[name] for name in CLASSES)
        cells[OUTCOME] = f"{about}{with_} ({percent_of(with_, without + with_)} %)"
    return cells


def table_1(content: Content) -> Markup:
    """Return the federated Table 1, a few sites a table."""
    payload = content.table_1
    why = no_sums_in_words(content.report, content.events)
    if content.only and payload:
        why = render("faults.sums.alone")
    hidden = data.table_1_sites(payload)
    notes = []
    if len(hidden) > MOST_SITES:
        notes.append(f"The {len(hidden)} sites, more than {MOST_SITES}, have no columns of their own here.")
    else:
        hidden = []
    if content.is_repeated:
        notes.append("The rows are the same in every repeat; these sums are the first one's.")
    of = data.table_1(payload, hidden, why_none=why, note=notes)
    # One site's people are shown nothing of what the rows of all sites tell.
    if of.tables and not content.only and (leaks := leak_lines(content.events, content.leaks)):
        title = element("h3", "Columns that may give the answer away")
        return written(of, title, bullets(map(sentence_case, leaks)))
    return written(of)


def privacy(content: Content) -> Markup:
    """Return what was promised, what was spent, what attacks reached, and what left."""
    of = content.run.privacy
    audit = content.audit
    only = content.only
    run = content.runs[0]
    promise = private.promised(of, audit, run, only=only)
    code = element("p", element("strong", sentence_case(promise.code)))
    parts = [
        element("div", code, bullets(promise.lines), class_="verdict"),
        bullets([f"Warning: {warning}" for warning in of["warnings"]], class_="warnings"),
        bullets(promise.limits),
        *part(private.spent_section(of)),
        *part(private.charged_section(of)),
        *part(private.mechanisms_section(of, content.sites, only=only)),
    ]
    if audit:
        parts += part(private.attacks_section(of, audit, run, only=only))
    by_round = bytes_in_words(content.run.round_bytes)
    parts += part(private.left_section(content.crossed, len(content.runs), by_round))
    if of["uncharged"]:
        title = "Not covered by the promise"
        if of["epsilon"] is None:
            title = "Not covered, for nothing was promised"
        parts += [element("h3", title), bullets(of["uncharged"], class_="small")]
    return section("Privacy", *parts)


def hashes(content: Content) -> Markup:
    """Return what the run was made by: study, arrays, versions."""
    study = element("pre", verbatim(content.series.study_text))
    if content.viewer.role != "coordinator":
        heading = "The study:"
        if content.only:
            heading = "The study, without its comments, names of other sites and the figures that it expects:"
        return section("The study", paragraphs([HANDED_ON, heading]), study)
    run = content.runs[0]
    facts: dict[str, Any] = {"study, SHA-256": content.series.study_sha256, "engine": run.engine, "path": run.path}
    for of in content.runs:
        which = f"repeat {of.repeat + 1}: " if content.is_repeated else ""
        facts |= {f"{which}run": of.run, f"{which}seed": of.seed, f"{which}arrays, SHA-256": of.arrays_sha256 or ABSENT}
    facts |= _flat(run.hashes, "hash of ") | _flat(run.versions, "version of ")
    lines = [{"What": key, "Is": value} for key, value in facts.items()]
    return section("Hashes, versions and the study", table(lines, class_="facts"), study)


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested facts by their joined keys."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{before}{key} ") if isinstance(value, Mapping) else {f"{before}{key}": str(value)}
    return flat
