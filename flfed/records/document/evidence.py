"""Sections of a document on what the figures rest on: sites, data, privacy, limits and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.document import sections
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, bullets, element, paragraphs, section, table, verbatim
from flfed.records.objects import read_all
from flfed.records.reports import privacy as private
from flfed.records.reports import privacy_tables
from flfed.records.reports.audit_headlines import (
    VERDICTS_READ,
    Audit,
    AuditFigure,
    by_figure,
    figure_name,
    headlines,
    reached,
    unpromised_in_words,
)
from flfed.records.reports.events import (
    SUMS_ONLY,
    holdout_in_words,
    leak_lines,
    no_sums_in_words,
    set_aside_lines,
    site_facts,
)
from flfed.records.reports.glossary import GLOSSARY, of_no_model, of_noised_scores
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.reports.site_answer import NO_MORE, TOGETHER
from flfed.records.reports.site_verdict import varies
from flfed.records.sections.privacy import charged_section, left_section, mechanisms_section, spent_section
from flfed.records.statistics import importances, score_tables
from flfed.records.statistics.listed.noised_scores import TRAINED_ON, is_covered, is_uncompared
from flfed.records.statistics.mean_gain import ASSUMES, COVERAGE
from flfed.records.statistics.verdict import ABSENT, number, sentence_case
from flfed.records.store.entries import SiteEntry
from flfed.summaries.table_one import explained

Lines = list[dict[str, Any]]
SITES_A_TABLE = 5
"""Sites beside each other on a page of A4."""
MOST_SITES = 10
"""Of more, Table 1 has all sites together alone."""
OUTCOME = "With the outcome, of these"
ATTACKS, WORST = 40, 4
"""Of more lines of attacks than the first, so many sites of each are shown."""
FIRST_COLUMNS = ("Characteristic", "All sites")
HANDED_ON = "Versions, seed and hashes are in the report of the coordinator, who can hand them out."


def sites(content: Content) -> Markup:
    """Return who took part: rows, outcomes, what each sent, and what was rejected."""
    sent: dict[str, int] = {}
    for entry in content.crossed:
        if entry.direction == "to-server":
            sent[entry.site] = sent.get(entry.site, 0) + entry.bytes
    lines = [_site(content, entry, sent) for entry in content.sites]
    # Of no site is it known where the outcome is none of two classes, or no policy allows the counts; an analysis
    # is told no number of rows without noise.
    empty = (OUTCOME,) if content.runs[0].rounds_planned else (OUTCOME, "Rows", "Test rows")
    for key in empty:
        if all(line.get(key) == ABSENT for line in lines):
            lines = [{of: cell for of, cell in line.items() if of != key} for line in lines]
    parts = [table(lines)]
    if any(site.get("holdout-rows-range") and varies(site) for site in content.found["sites"].values()):
        parts.append(paragraphs(["About: repeats draw new test rows, of which this is the mean."], class_="note"))
    gone = set_aside_lines(content.found, content.events)
    whose = "" if content.only is None else f" of {content.only}"
    parts.append(element("h3", "Rejected, refused, odd"))
    parts.append(table(gone) if gone else paragraphs([f"Nothing{whose} was rejected or refused."]))
    if said := holdout_in_words(content.events):
        parts.append(paragraphs([" ".join(said)], class_="note"))
    return section("Sites", *parts)


def _site(content: Content, entry: SiteEntry, sent: Mapping[str, int]) -> dict[str, Any]:
    facts = site_facts(entry, content.found)
    told = content.found["sites"].get(entry.site) or {}
    holdout, classes = told.get("holdout-rows"), told.get("holdout-classes")
    about = "about " if told and varies(told) else ""
    outcome = ABSENT
    if classes is not None:
        share = score_tables.percent_of(classes["1"], classes["0"] + classes["1"])
        outcome = f"{about}{classes['1']} ({share} %)"
    # The title of a site that was cut out of a table is that of the table with its name, and says no more of it.
    cut = entry.title.endswith(f", {entry.site}")
    name = entry.site if cut or entry.title in ("", entry.site) else f"{entry.site} ({entry.title})"
    rows = {"Test rows": ABSENT if holdout is None else f"{about}{holdout}", OUTCOME: outcome}
    if is_covered(content.found):  # exact numbers of test rows do not leave
        rows = {}
    return {
        "Site": name,
        **{key: facts[key] for key in ("Status", "Rows", TRAINED_ON.capitalize()) if key in facts},
        **rows,
        "Disclosure": facts["Disclosure"],
        "Figures shared": facts["Figures shared"],
        "Sent": privacy_tables.size_in_words(sent[entry.site]) if entry.site in sent else ABSENT,
    }


def table_1(content: Content) -> Markup:
    """Return the federated Table 1, a few sites a table."""
    payload = content.summaries["table-1"]
    rows = [
        {key: str(cell) for key, cell in row.items() if cell is not None} for row in (payload or {}).get("rows", ())
    ]
    if payload is None or not rows:
        why = no_sums_in_words(content.found, content.events)
        return section("Who is in the data (Table 1)", paragraphs([SUMS_ONLY if content.only and payload else why]))
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in FIRST_COLUMNS]
    many = len(names) > MOST_SITES
    first = [name for name in FIRST_COLUMNS if any(name in row for row in rows)]
    groups = (
        [names[at : at + SITES_A_TABLE] for at in range(0, len(names), SITES_A_TABLE)] if names and not many else [[]]
    )
    tables = [
        table([{name: row.get(name, "") for name in [*first, *group]} for row in rows], class_="dense")
        for group in groups
    ]
    notes = explained(cell for row in rows for cell in row.values())
    notes += [str(payload["note"])] if payload.get("note") else []
    if many:
        notes.append(f"The {len(names)} sites, more than {MOST_SITES}, have no columns of their own here.")
    if len(content.runs) > 1:
        notes.append("The rows are the same in every repeat; these sums are the first one's.")
    parts = [*tables, paragraphs([" ".join(notes)] if notes else [], class_="note")]
    # One site's people are shown nothing of what the rows of all sites tell.
    if leaks := [] if content.only else leak_lines(content.events, content.summaries["leaks"]):
        parts += [element("h3", "Columns that may give the answer away"), bullets(list(map(sentence_case, leaks)))]
    return section("Who is in the data (Table 1)", *parts)


def privacy(content: Content) -> Markup:
    """Return what was promised, what was spent, what attacks reached, and what left."""
    of = content.found["privacy"]
    audit = read_all(AuditFigure, content.found["audit"])
    only = content.only
    run = content.runs[0]
    code, sentence = private.standing(of, audit, attackable=privacy_tables.has_model(run), only=only)
    lines = [*private.promise_in_words(of), *([sentence] if of["mechanism"] not in (None, "none") or audit else [])]
    box = element("div", element("p", element("strong", sentence_case(code))), bullets(lines), class_="verdict")
    parts = [box, bullets([f"Warning: {said}" for said in of["warnings"]], class_="warnings")]
    trained = of.get(private.TRAINED, True)
    parts.append(bullets(unpromised_in_words(len(of["uncharged"]), audit, only=only, trained=trained)))
    parts += sections.part(spent_section(of))
    if charged := charged_section(of):
        parts += sections.part(charged)
    parts += sections.part(mechanisms_section(of, content.sites, only=only))
    by_round = bytes_in_words(content.found["round-bytes"])
    left = left_section(content.crossed, len(content.runs), by_round)
    parts += [*_attacks(audit), *sections.part(left)]
    if of["uncharged"]:
        nothing = of["epsilon"] is None
        title = "Not covered, for nothing was promised" if nothing else "Not covered by the promise"
        parts += [element("h3", title), bullets(of["uncharged"], class_="small")]
    return section("Privacy", *parts)


def _attacks(audit: Audit) -> list[Markup]:
    """Return what attacks reached, the main figures of each."""
    if not audit:
        return []
    main = headlines(audit)
    # Of many sites those at which an attack got farthest, which stand first.
    first = main if len(main) <= ATTACKS else [line for lines in by_figure(main) for line in lines[:WORST]]
    lines = [
        {
            "Attack": line.attack,
            "Site": line.site or "all",
            "Figure": figure_name(line.metric),
            "Reached (95 %)": reached(line),
            "Promised, at most": number(line.promise) if line.promise is not None else "nothing",
            "Verdict": line.verdict,
        }
        for line in first
    ]
    means = dict.fromkeys(f"{lines[0].attack}: {lines[0].says}" for lines in by_figure(main) if lines[0].says)
    read = VERDICTS_READ
    if len(first) < len(main):
        read += f" Of {len(main)} lines those of the {WORST} sites at which an attack got farthest are shown."
    return [
        element("h3", "Attacks on the model, against the promise"),
        table(lines),
        bullets(list(means)),
        paragraphs([read]),
    ]


def limits(content: Content) -> Markup:
    """Return what the run does not show."""
    lines = [NO_MORE]
    if content.only is None and content.metric is not None:
        lines += [] if is_covered(content.found) else [TOGETHER]
        if content.found["mean-gain"].get(content.metric, {}).get("value") is not None:
            lines.append(f"The mean over sites holds for {ASSUMES}. {sentence_case(COVERAGE)}.")
    if content.counted is not None:
        lines.append(f"Not shown by the curves: {score_tables.NOT_SHOWN}")
    if content.found["audit"]:
        lines.append("An attack that gets nowhere proves nothing.")
    return section("What it does not show", bullets(lines))


def needed_columns(content: Content) -> Markup:
    """Return by how much the loss grows without what a column tells."""
    return sections.written(importances.needed_columns(content.found))


def split_columns(content: Content) -> Markup:
    """Return which columns trees split by."""
    return sections.written(importances.split_columns(content.found))


def words(content: Content) -> Markup:
    """Return the glossary."""
    terms = GLOSSARY if content.runs[0].rounds_planned else of_no_model()
    if is_covered(content.found):
        terms = of_noised_scores(compared=not is_uncompared(content.found))
    return section("What the words mean", bullets([f"*{term}*: {meaning}" for term, meaning in terms.items()]))


def hashes(content: Content) -> Markup:
    """Return what the run was made by: study, arrays, versions."""
    study = element("pre", verbatim(content.series.study_text))
    if content.viewer.role != "coordinator":
        whose = "without its comments, names of other sites and the figures that it expects" if content.only else ""
        said = f"The study{f', {whose}' if whose else ''}:"
        return section("The study", paragraphs([HANDED_ON, said]), study)
    run = content.runs[0]
    facts: dict[str, Any] = {"study, SHA-256": content.series.study_sha256, "engine": run.engine, "path": run.path}
    for of in content.runs:
        which = f"repeat {of.repeat + 1}: " if len(content.runs) > 1 else ""
        facts |= {f"{which}run": of.run, f"{which}seed": of.seed, f"{which}arrays, SHA-256": of.arrays_sha256 or ABSENT}
    for name, found in (("hash", run.hashes), ("version", run.versions)):
        facts |= {f"{name} of {key}": value for key, value in _flat(found).items()}
    lines = [{"What": key, "Is": value} for key, value in facts.items()]
    return section("Hashes, versions and the study", table(lines, class_="facts"), study)


def _flat(found: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested facts by their joined keys."""
    flat: dict[str, str] = {}
    for key, value in found.items():
        flat |= _flat(value, f"{before}{key} ") if isinstance(value, Mapping) else {f"{before}{key}": str(value)}
    return flat
