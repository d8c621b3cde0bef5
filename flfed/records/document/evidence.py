"""Sections of a document on scores, and on what the figures rest on: sites, data, privacy, limits and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.charts.colours import Looks, site_looks
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, bullets, element, paragraphs, section, table, verbatim
from flfed.records.document.sections import part, written
from flfed.records.objects import figure_of, read_all, run_of, site_of
from flfed.records.reports import privacy as private
from flfed.records.reports import privacy_tables
from flfed.records.reports.audit_headlines import (
    AuditFigure,
    standing,
    unpromised_in_words,
)
from flfed.records.reports.faults import (
    SUMS_ONLY,
    holdout_in_words,
    leak_lines,
    no_sums_in_words,
    set_aside_lines,
    site_facts,
)
from flfed.records.reports.narrative import GLOSSARY, of_no_model, of_noised_scores
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.reports.site_answer import NO_MORE, TOGETHER
from flfed.records.reports.site_verdict import varies
from flfed.records.sections import data, scores
from flfed.records.sections.privacy import (
    attacks_section,
    charged_section,
    left_section,
    mechanisms_section,
    spent_section,
)
from flfed.records.statistics import Report, importances, score_curves
from flfed.records.statistics.noised_scores import SCORES, TRAINED_ON, is_covered, is_uncompared
from flfed.records.statistics.operating_points import (
    RARE,
    asked_points,
    edges,
    first_budget,
    first_threshold,
    share_with_outcome,
)
from flfed.records.statistics.verdict import ABSENT, ASSUMES, COVERAGE, sentence_case
from flfed.records.store.entries import SiteEntry

Lines = list[dict[str, Any]]
MOST_SITES = 10
"""Of more, Table 1 has all sites together alone."""
CLASSES = ("0", "1")
"""Names of the classes of an outcome: without it, and with it."""
OUTCOME = "With the outcome, of these"
HANDED_ON = "Versions, seed and hashes are in the report of the coordinator, who can hand them out."


def sites(content: Content) -> Markup:
    """Return who took part: rows, outcomes, what each sent, and what was rejected."""
    lines = _site_lines(content)
    parts = [table(lines)]
    if any(varies(site) for site in run_of(content.found).sites.values()):
        parts.append(paragraphs(["About: repeats draw new test rows, of which this is the mean."], class_="note"))
    gone = set_aside_lines(content.found, content.events)
    whose = "" if content.only is None else f" of {content.only}"
    parts.append(element("h3", "Rejected, refused, odd"))
    parts.append(table(gone) if gone else paragraphs([f"Nothing{whose} was rejected or refused."]))
    if said := holdout_in_words(content.events):
        parts.append(paragraphs([" ".join(said)], class_="note"))
    return section("Sites", *parts)


def _site_lines(content: Content) -> Lines:
    """Return a line for each site, without columns that tell nothing of any."""
    sent: dict[str, int] = {}
    for entry in content.crossed:
        if entry.direction == "to-server":
            sent[entry.site] = sent.get(entry.site, 0) + entry.bytes
    lines = [_site(content, entry, sent) for entry in content.sites]
    # Of no site is it known where the outcome is none of two classes, or no policy allows the counts; an analysis
    # is told no number of rows without noise.
    for key in (OUTCOME,) if content.runs[0].rounds_planned else (OUTCOME, "Rows", "Test rows"):
        if all(line.get(key) == ABSENT for line in lines):
            for line in lines:
                line.pop(key, None)
    return lines


def _site(content: Content, entry: SiteEntry, sent: Mapping[str, int]) -> dict[str, Any]:
    facts = site_facts(entry, content.found)
    # The title of a site that was cut out of a table is that of the table with its name, and says no more of it.
    is_cut = entry.title.endswith(f", {entry.site}")
    name = entry.site if is_cut or entry.title in ("", entry.site) else f"{entry.site} ({entry.title})"
    line = {"Site": name}
    line |= {key: facts[key] for key in ("Status", "Rows", TRAINED_ON.capitalize()) if key in facts}
    # Where all that leaves is charged, exact numbers of test rows do not.
    if not is_covered(content.found):
        line |= _test_rows(run_of(content.found).sites.get(entry.site) or {})
    return line | {
        "Disclosure": facts["Disclosure"],
        "Figures shared": facts["Figures shared"],
        "Sent": privacy_tables.size_in_words(sent[entry.site]) if entry.site in sent else ABSENT,
    }


def _test_rows(told: Report) -> dict[str, str]:
    """Return how many test rows a site of a report has, and how many of them with the outcome."""
    about = "about " if varies(told) else ""
    site = site_of(told)
    outcome = ABSENT
    if site.holdout_classes is not None:
        without, with_ = (site.holdout_classes[name] for name in CLASSES)
        outcome = f"{about}{with_} ({score_curves.percent_of(with_, without + with_)} %)"
    rows = ABSENT if site.holdout_rows is None else f"{about}{site.holdout_rows}"
    return {"Test rows": rows, OUTCOME: outcome}


def table_1(content: Content) -> Markup:
    """Return the federated Table 1, a few sites a table."""
    payload = content.table_1
    why = SUMS_ONLY if content.only and payload else no_sums_in_words(content.found, content.events)
    hidden = data.table_1_sites(payload)
    notes = []
    if len(hidden) > MOST_SITES:
        notes.append(f"The {len(hidden)} sites, more than {MOST_SITES}, have no columns of their own here.")
    else:
        hidden = []
    if len(content.runs) > 1:
        notes.append("The rows are the same in every repeat; these sums are the first one's.")
    of = data.table_1(payload, hidden, why_none=why, note=notes)
    # One site's people are shown nothing of what the rows of all sites tell.
    leaks = leak_lines(content.events, content.leaks) if of.tables and not content.only else []
    if not leaks:
        return written(of)
    return written(
        of, element("h3", "Columns that may give the answer away"), bullets([sentence_case(leak) for leak in leaks])
    )


def privacy(content: Content) -> Markup:
    """Return what was promised, what was spent, what attacks reached, and what left."""
    report = run_of(content.found)
    of = report.privacy
    audit = read_all(AuditFigure, content.found["audit"])
    only = content.only
    run = content.runs[0]
    code, sentence = standing(of, audit, attackable=privacy_tables.has_model(run), only=only)
    lines = private.promise_in_words(of)
    if of["mechanism"] not in (None, "none") or audit:
        lines = [*lines, sentence]
    box = element("div", element("p", element("strong", sentence_case(code))), bullets(lines), class_="verdict")
    parts = [box, bullets([f"Warning: {said}" for said in of["warnings"]], class_="warnings")]
    trained = of.get(private.TRAINED, True)
    parts.append(bullets(unpromised_in_words(len(of["uncharged"]), audit, only=only, trained=trained)))
    parts += part(spent_section(of))
    if charged := charged_section(of):
        parts += part(charged)
    parts += part(mechanisms_section(of, content.sites, only=only))
    by_round = bytes_in_words(report.round_bytes)
    left = left_section(content.crossed, len(content.runs), by_round)
    if audit:
        parts += part(attacks_section(of, audit, run, only=only))
    parts += part(left)
    if of["uncharged"]:
        nothing = of["epsilon"] is None
        title = "Not covered, for nothing was promised" if nothing else "Not covered by the promise"
        parts += [element("h3", title), bullets(of["uncharged"], class_="small")]
    return section("Privacy", *parts)


def limits(content: Content) -> Markup:
    """Return what the run does not show."""
    lines = [NO_MORE]
    if content.only is None and content.metric is not None:
        lines += [] if is_covered(content.found) else [TOGETHER]
        if figure_of(run_of(content.found).mean_gain, content.metric).value is not None:
            lines.append(f"The mean over sites holds for {ASSUMES}. {sentence_case(COVERAGE)}.")
    if content.counted is not None:
        lines.append(f"Not shown by the curves: {score_curves.NOT_SHOWN}")
    if content.found["audit"]:
        lines.append("An attack that gets nowhere proves nothing.")
    return section("What it does not show", bullets(lines))


def needed_columns(content: Content) -> Markup:
    """Return by how much the loss grows without what a column tells."""
    return written(importances.needed_columns(content.found))


def split_columns(content: Content) -> Markup:
    """Return which columns trees split by."""
    return written(importances.split_columns(content.found))


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
        said = f"The study, {whose}:" if whose else "The study:"
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


FIRST_ALONE = "Of one repeat alone, the first that has these figures."


def curves(content: Content) -> Markup:
    """Return ROC, precision and recall, with the areas below them."""
    counted = content.counted
    if is_covered(content.found) and SCORES in content.found:
        return written(scores.noised(content.found, lead=_alone(content)))
    if counted is None:
        why = score_curves.no_curves_in_words(content.runs[0], content.found, content.sites)
        return section("How well it ranks", paragraphs([why]))
    found = _drawn(counted.payload)
    whose = score_curves.says_whose(counted.payload, content.sites, only=content.only)
    lead = [" ".join(whose)]
    if len(content.runs) > 1:
        lead.insert(0, score_curves.one_repeat_alone(counted.run.repeat + 1, len(content.runs)))
    there = {name: counts for name, counts in found.items() if counts.has_both}
    return written(scores.ranking(found, there, _looks(content), counted.found, lead=lead))


def _alone(content: Content) -> list[str]:
    """Return that figures are of one repeat, where there are several."""
    return [FIRST_ALONE] if len(content.runs) > 1 else []


def _looks(content: Content) -> Looks:
    return site_looks(site.site for site in content.sites)


def _drawn(payload: Mapping[str, Any]) -> score_curves.Found:
    """Return the score counts of all sites together, and of those with most rows."""
    found = score_curves.found_in(payload)
    first = set(score_curves.drawn_first(found))
    return {name: counts for name, counts in found.items() if name in first or score_curves.is_together(name)}


def calibrated(content: Content) -> Markup:
    """Return what was predicted against what happened, a chart for each of some sites."""
    counted = content.counted
    if counted is None:
        return Markup()
    found = _drawn(counted.payload)
    known = [name for name, counts in found.items() if counts.rows >= score_curves.LEAST_ROWS]
    drawn = [[name] for name in known[: scores.DRAWN_BESIDE]]
    return written(scores.calibrated(found, counted.found, _looks(content), drawn, named=True))


def flagged(content: Content) -> Markup:
    """Return who would be flagged at a threshold and at an alert budget, by the stored score counts."""
    found = _drawn(content.counted.payload) if content.counted else {}
    if not found:
        return Markup()
    share = share_with_outcome(found)
    ways = [("alert-budget", budget) for budget in sorted({0.05, first_budget(share)})]
    # Where the outcome is rare, hardly any probability is near a half.
    ways.insert(len(ways) if share < RARE else 0, ("threshold", first_threshold(edges(found.values()), share)))
    return written(scores.flagged(found, ways))


def exactly_flagged(content: Content) -> Markup:
    """Return the exact counts at the thresholds and alert budgets that the study names."""
    payload = content.found.get("operating-points")
    asked = asked_points(payload) if payload else []
    return written(scores.exactly_flagged(payload, asked, note=_alone(content)))


def decision_curves(content: Content) -> Markup:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody."""
    found: score_curves.Found = {}
    report = content.found
    if content.counted is not None:
        found = _drawn(content.counted.payload)
        report = content.counted.found
    return written(scores.decision_curves(found, report.get("operating-points"), _looks(content)))


def by_group(content: Content) -> Markup:
    """Return how well the model ranks within the groups that the study names, a few groups a table."""
    return written(scores.within_groups(content.found.get("subgroups"), only=content.only, note=_alone(content)))
