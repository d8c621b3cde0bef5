"""Sections of a document on the basis of its figures: sites, data, privacy and hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flfed.records.document.content import Content
from flfed.records.document.sections import (
    Markup,
    bullets,
    element,
    paragraphs,
    section,
    table,
    together,
    verbatim,
    written,
)
from flfed.records.objects import site_of
from flfed.records.reports.faults import leak_lines, no_sums_in_words, site_facts
from flfed.records.reports.privacy_tables import has_model
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.reports.site_verdict import varies
from flfed.records.sections import data
from flfed.records.sections import privacy as private
from flfed.records.sections.answer import set_aside
from flfed.records.statistics.noised_scores import TRAINED_ON
from flfed.records.statistics.verdict import ABSENT, sentence_case
from flfed.records.store.entries import SiteEntry
from flfed.records.text import percent_of, size_in_words
from flfed.words import render

MOST_SITES = 10
"""With more sites, Table 1 has only all sites together."""
CLASSES = ("0", "1")
"""Names of the classes of an outcome: without it, and with it."""
OUTCOME = "Test rows with outcome"


def sites(content: Content) -> Markup:
    """Return the sites with rows, outcomes, bytes sent, and rejections."""
    parts = [table(_site_lines(content))]
    if any(varies(site) for site in content.shown.run.sites.values()):
        why = "About: each repeat draws new test rows; these are means over the repeats."
        parts.append(paragraphs([why], class_="note"))
    return section("Sites", *parts, *together(set_aside(content.shown)))


def _site_lines(content: Content) -> list[dict[str, Any]]:
    """Return a line for each site, without columns that are empty for all."""
    sent: Counter[str] = Counter()
    for crossed in content.crossed:
        if crossed.direction == "to-server":
            sent[crossed.site] += crossed.bytes
    lines = [_site_line(content, entry, sent) for entry in content.shown.sites]
    unknown = [OUTCOME]
    # Counts of outcomes are missing where there are not two classes, or no policy allows them; an analysis gets
    # numbers of rows only with noise.
    if not content.shown.trains:
        unknown += ["Rows", "Test rows"]
    for key in unknown:
        if all(line.get(key) == ABSENT for line in lines):
            for line in lines:
                line.pop(key, None)
    return lines


def _site_line(content: Content, entry: SiteEntry, sent: Mapping[str, int]) -> dict[str, Any]:
    facts = site_facts(entry, content.shown.report)
    line = {"Site": entry.site}
    # The title of a site that was cut out of a table only repeats its name.
    if entry.title not in ("", entry.site) and not entry.title.endswith(f", {entry.site}"):
        line["Site"] = f"{entry.site} ({entry.title})"
    line |= {key: facts[key] for key in ("Status", "Rows", TRAINED_ON.capitalize()) if key in facts}
    # Where the number of rows has noise, the site does not release exact numbers of test rows.
    if "Rows" in facts:
        line |= _test_rows(content.shown.run.sites.get(entry.site) or {})
    line["Disclosure"] = facts["Disclosure"]
    line["Sent"] = size_in_words(sent[entry.site]) if entry.site in sent else ABSENT
    return line


def _test_rows(test_rows: Any) -> dict[str, str]:
    """Return the number of a site's test rows, and of those with the outcome."""
    about = "about " if varies(test_rows) else ""
    site = site_of(test_rows)
    cells = {"Test rows": ABSENT, OUTCOME: ABSENT}
    if site.holdout_rows is not None:
        cells["Test rows"] = f"{about}{site.holdout_rows:,}"
    if site.holdout_classes is not None:
        without, with_ = (site.holdout_classes[name] for name in CLASSES)
        cells[OUTCOME] = f"{about}{with_:,} ({percent_of(with_, without + with_)} %)"
    return cells


def table_1(content: Content) -> Markup:
    """Return the federated Table 1, a few sites a table."""
    payload = content.table_1
    why = no_sums_in_words(content.shown.report, content.shown.events)
    hidden = data.table_1_sites(payload)
    notes = []
    if len(hidden) > MOST_SITES:
        many = f"{len(hidden)} sites, more than {MOST_SITES}"
        notes.append(f"Table 1 has no columns for single sites, as the run has {many}.")
    else:
        hidden = []
    if content.shown.is_repeated:
        notes.append("The rows are the same in every repeat; these sums are from the first one.")
    of = data.table_1(payload, hidden, why_none=why, note=notes)
    if of.tables and (leaks := leak_lines(content.shown.events, content.shown.leaks)):
        title = element("h3", render("pages.leaks.title"))
        return written(of, title, bullets(map(sentence_case, leaks)))
    return written(of)


def privacy(content: Content) -> Markup:
    """Return the privacy promise, spending, attacks' figures, and bytes sent."""
    of = content.shown.run.privacy
    audit = content.audit
    run = content.shown.runs[0]
    promise = private.promised(of, audit, run)
    code = element("p", element("strong", sentence_case(promise.code)))
    attacks = [private.attacks_section(of, audit, run)] if audit or has_model(run) else []
    parts = [
        element("div", code, bullets(promise.lines), class_="verdict"),
        bullets([f"Warning: {warning}" for warning in of["warnings"]], class_="warnings"),
        bullets(promise.limits),
        *together(
            private.charged_section(of),
            private.mechanisms_section(of, content.shown.sites),
            private.left_section(
                content.crossed, len(content.shown.runs), bytes_in_words(content.shown.run.round_bytes)
            ),
            private.spent_section(of),
            *attacks,
        ),
    ]
    return section("Privacy", *parts)


def hashes(content: Content) -> Markup:
    """Return study, seeds, hashes and versions of the run."""
    study = element("pre", verbatim(content.shown.study_text))
    run = content.shown.runs[0]
    facts: dict[str, Any] = {"study, SHA-256": content.study_sha256, "engine": run.engine, "path": run.path}
    for of in content.shown.runs:
        which = f"repeat {of.repeat + 1}: " if content.shown.is_repeated else ""
        hash_of_arrays = of.arrays_sha256 or ABSENT
        facts |= {f"{which}run": of.run, f"{which}seed": of.seed, f"{which}arrays, SHA-256": hash_of_arrays}
    facts |= _flat(run.hashes, "hash of ") | _flat(run.versions, "version of ")
    lines = [{"What": key, "Is": value} for key, value in facts.items()]
    return section("Hashes, versions and the study", table(lines, class_="facts"), study)


def _flat(tree: Mapping[str, Any], before: str) -> dict[str, str]:
    """Return nested facts by their joined keys."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{before}{key} ") if isinstance(value, Mapping) else {f"{before}{key}": str(value)}
    return flat
