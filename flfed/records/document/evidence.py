"""Sections of a document on what the figures rest on: sites, data, scores, privacy, limits and hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flfed.records.dashboard.components.axes import STRETCH, end_of_calibration, is_stretched, stretched_ticks, ticks_of
from flfed.records.dashboard.components.colours import NEUTRAL, Looks, site_looks
from flfed.records.document import charts
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, bullets, element, paragraphs, section, table, verbatim
from flfed.records.reports import privacy as private
from flfed.records.reports import privacy_tables
from flfed.records.reports.audit_headlines import (
    VERDICTS_READ,
    by_figure,
    figure_name,
    headlines,
    reached,
    unpromised_in_words,
)
from flfed.records.reports.events import (
    SUMS_ONLY,
    holdout_in_words,
    no_sums_in_words,
    set_aside_lines,
    site_facts,
)
from flfed.records.reports.glossary import GLOSSARY
from flfed.records.reports.report import varies
from flfed.records.reports.site_answer import NO_MORE, TOGETHER
from flfed.records.statistics import importances, point_tables, score_tables
from flfed.records.statistics.mean_gain import ASSUMES, COVERAGE
from flfed.records.statistics.operating_points import RARE, OperatingPoint, at_budget, at_threshold, edges
from flfed.records.statistics.score_curves import (
    average_precision,
    calibration,
    precision_recall,
    roc,
    roc_auc,
    steps,
    thinned,
)
from flfed.records.statistics.verdict import ABSENT, number, sentence_case
from flfed.records.store.entries import SiteEntry
from flfed.summaries.table_one import explained

Lines = list[dict[str, Any]]
SITES_A_TABLE = 5
"""Sites beside each other on a page of A4."""
MOST_SITES = 10
"""Of more, Table 1 has all sites together alone."""
OUTCOME = "With the outcome, of these"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CALIBRATED = 6
"""Charts of calibration at most: all sites together, and those with most rows."""
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
    # Of no site is it known where the outcome is none of two classes, or no policy allows the counts.
    if all(line[OUTCOME] == ABSENT for line in lines):
        lines = [{key: cell for key, cell in line.items() if key != OUTCOME} for line in lines]
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
    facts = site_facts(entry)
    told = content.found["sites"].get(entry.site) or {}
    holdout, classes = told.get("holdout-rows"), told.get("holdout-classes")
    about = "about " if told and varies(told) else ""
    outcome = ABSENT
    if classes is not None:
        share = score_tables.percent_of(classes["1"], classes["0"] + classes["1"])
        outcome = f"{about}{classes['1']} ({share} %)"
    name = entry.site if entry.title in ("", entry.site) else f"{entry.site} ({entry.title})"
    return {
        "Site": name,
        "Status": facts["Status"],
        "Rows": facts["Rows"],
        "Test rows": ABSENT if holdout is None else f"{about}{holdout}",
        OUTCOME: outcome,
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
        why = no_sums_in_words(content.found, content.events, only=content.only)
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
        notes.append(f"The columns of the {len(names)} sites stand on the page Data.")
    if len(content.runs) > 1:
        notes.append("The rows are the same in every repeat; these sums are the first one's.")
    return section(
        "Who is in the data (Table 1)", *tables, paragraphs([" ".join(notes)] if notes else [], class_="note")
    )


def curves(content: Content) -> Markup:
    """Return ROC, precision and recall, with the areas below them."""
    title, counted = "How well it ranks", content.counted
    if counted is None:
        why = score_tables.no_curves_in_words(content.runs[0], content.found, content.sites)
        return section(title, paragraphs([why]))
    found = _drawn(counted.payload)
    whose = score_tables.says_whose(counted.payload, content.sites, only=content.only)
    which = [score_tables.one_repeat_alone(counted.run.repeat + 1, len(content.runs))] if len(content.runs) > 1 else []
    there = {name: counts for name, counts in found.items() if counts.has_both}
    looks = site_looks(site.site for site in content.sites)
    pictures = element("div", _roc(there, looks), _precision(there, looks), class_="charts") if there else ""
    areas = table([score_tables.area_line(name, counts, counted.found) for name, counts in found.items()])
    left = "" if len(there) == len(found) else " Not drawn: where all rows are of one class."
    return section(
        title,
        paragraphs([*which, " ".join(whose)], class_="lead"),
        pictures,
        areas,
        paragraphs([score_tables.AREAS_READ + left], class_="note"),
    )


def _drawn(payload: Mapping[str, Any]) -> score_tables.Found:
    """Return the score counts of all sites together, and of those with most rows."""
    found = score_tables.found_in(payload)
    first = set(score_tables.drawn_first(found))
    return {name: counts for name, counts in found.items() if name in first or score_tables.is_together(name)}


def _look(name: str, looks: Looks) -> dict[str, Any]:
    if score_tables.is_together(name):
        return {"colour": NEUTRAL, "width": 3.2}
    colour, dash = looks[name]
    return {"colour": colour, "dash": dash}


def _places(line: tuple[Any, Any]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*line, strict=True)]


def _roc(there: score_tables.Found, looks: Looks) -> Markup:
    lines = [
        charts.Drawn(f"{name}: AUC {number(roc_auc(counts))}", _places(thinned(*roc(counts))), **_look(name, looks))
        for name, counts in there.items()
    ]
    x = charts.Axis("false positive rate (1 − specificity)", SHARES)
    y = charts.Axis("true positive rate (sensitivity)", SHARES)
    return charts.chart("ROC curve (up and to the left is better)", lines, x, y, diagonal=True)


def _precision(there: score_tables.Found, looks: Looks) -> Markup:
    lines = []
    for name, counts in there.items():
        points = _places(thinned(*steps(*precision_recall(counts))))
        said = f"{name}: average precision {number(average_precision(counts))}"
        lines.append(charts.Drawn(said, points, **_look(name, looks)))
        share = counts.events / counts.rows
        chance = _look(name, looks) | {"width": 1, "dash": (5, 4)}
        lines.append(charts.Drawn(name, [(0.0, share), (1.0, share)], told=False, **chance))
    x = charts.Axis("recall (share of outcomes found)", SHARES)
    y = charts.Axis("precision (share of alarms that are right)", SHARES)
    return charts.chart("Precision and recall (up and right is better)", lines, x, y)


def calibrated(content: Content) -> Markup:
    """Return what was predicted against what happened, a chart for each of some sites."""
    counted = content.counted
    if counted is None:
        return Markup()
    found, looks = _drawn(counted.payload), site_looks(site.site for site in content.sites)
    groups = {name: of for name, counts in found.items() if (of := calibration(counts))}
    # One axis for all charts, so that they can be compared.
    pictures = [_calibration(name, score_tables.group_lines(groups), looks) for name in list(groups)[:CALIBRATED]]
    lines = [score_tables.calibration_line(name, counts, counted.found) for name, counts in found.items()]
    stretched = groups and is_stretched(score_tables.group_lines(groups))
    read = score_tables.CALIBRATION_READ + (score_tables.STRETCHED if stretched else "")
    pictured = element("div", *pictures, class_="charts") if pictures else ""
    return section(
        "Whether its probabilities hold (calibration)", pictured, table(lines), paragraphs([read], class_="note")
    )


def _calibration(name: str, lines: Lines, looks: Looks) -> Markup:
    top, stretched = end_of_calibration(lines), is_stretched(lines)
    ticks = stretched_ticks(top) if stretched else [tick for tick in ticks_of([0.0, top]) if tick <= top * 1.0001]
    mine = [line for line in lines if line["Rows of"] == name]
    drawn = charts.Drawn(
        name,
        [(line["Predicted, mean"], line["Observed share"]) for line in mine],
        spans=[(line["Predicted, mean"], line["95 % low"], line["95 % high"]) for line in mine],
        dots=True,
        told=False,
        **_look(name, looks),
    )
    x, y = (
        charts.Axis(title, ticks, power=STRETCH if stretched else 1.0, end=top)
        for title in ("predicted probability (mean of the group)", "observed share")
    )
    return charts.chart(sentence_case(name) if score_tables.is_together(name) else name, [drawn], x, y, diagonal=True)


def flagged(content: Content) -> Markup:
    """Return who would be flagged at a threshold and at an alert budget, by the stored score counts."""
    counted = content.counted
    found = _drawn(counted.payload) if counted else {}
    if not found:
        return Markup()
    share = point_tables.share_with_outcome(found)
    threshold = point_tables.first_threshold(edges(found.values()), share)
    budgets = [("alert-budget", budget) for budget in sorted({0.05, point_tables.first_budget(share)})]
    # Where the outcome is rare, hardly any probability is near a half.
    ways = [*budgets, ("threshold", threshold)] if share < RARE else [("threshold", threshold), *budgets]
    parts = []
    for by, at in ways:
        flag = at_threshold if by == "threshold" else at_budget
        points = {name: flag(counts, at) for name, counts in found.items()}
        parts += _points(points, point_tables.point_in_words(by, at))
    return section("Who would be flagged", *parts, paragraphs([point_tables.FROM_BINS], class_="note"))


def _points(points: Mapping[str, OperatingPoint], title: str, lines: Lines | None = None) -> list[Markup]:
    """Return confusion tables with their figures, under what flags rows."""
    said = point_tables.first_in_words(points)
    return [
        element("h3", f"At {title}"),
        paragraphs([said] if said else [], class_="lead"),
        table(lines or [point_tables.counts_line(name, point) for name, point in points.items()], class_="dense"),
        table([point_tables.figures_line(name, point) for name, point in points.items()], class_="dense"),
    ]


def exactly_flagged(content: Content) -> Markup:
    """Return the exact counts at the thresholds and alert budgets that the study names."""
    payload = content.found.get("operating-points")
    asked = point_tables.asked_points(payload) if payload else []
    if payload is None or not asked:
        return Markup()
    parts = []
    for by, at in asked:
        lines, known = point_tables.exact_lines(payload, by, at)
        parts += _points(known, point_tables.point_in_words(by, at), lines)
    at_budgets = any(by == "alert-budget" for by, _ in asked)
    read = point_tables.EXACT + (point_tables.AT_BUDGET if at_budgets else "")
    return section("Who would be flagged, at the study's own thresholds", *parts, paragraphs([read], class_="note"))


def privacy(content: Content) -> Markup:
    """Return what was promised, what was spent, what attacks reached, and what left."""
    of, audit = content.found["privacy"], content.found["audit"]
    only = content.only
    run = content.runs[0]
    code, sentence = private.standing(of, audit, attackable=privacy_tables.has_model(run), only=only)
    lines = [*private.promise_in_words(of), *([sentence] if of["mechanism"] not in (None, "none") or audit else [])]
    box = element("div", element("p", element("strong", sentence_case(code))), bullets(lines), class_="verdict")
    spent = {site: line for site, line in of["sites"].items() if line["epsilon"] is not None}
    parts = [box, bullets([f"Warning: {said}" for said in of["warnings"]], class_="warnings")]
    parts.append(bullets(unpromised_in_words(len(of["uncharged"]), audit, only=only)))
    parts.append(element("h3", "ε spent, against each site's budget"))
    parts.append(
        table([privacy_tables.spent_line(site, line, of) for site, line in spent.items()])
        if spent
        else paragraphs([privacy_tables.why_nothing_spent(of)])
    )
    parts += [element("h3", "Mechanisms in force"), table(privacy_tables.mechanism_lines(of, content.sites, only=only))]
    parts += [*_attacks(audit), *_left(content)]
    if of["uncharged"]:
        nothing = of["epsilon"] is None
        title = "Not covered, for nothing was promised" if nothing else "Not covered by the promise"
        parts += [element("h3", title), bullets(of["uncharged"], class_="small")]
    return section("Privacy", *parts)


def _attacks(audit: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return what attacks reached, the main figures of each."""
    if not audit:
        return []
    main = headlines([dict(line) for line in audit])
    # Of many sites those at which an attack got farthest, which stand first.
    first = main if len(main) <= ATTACKS else [line for lines in by_figure(main) for line in lines[:WORST]]
    lines = [
        {
            "Attack": line["attack"],
            "Site": line["site"] or "all",
            "Figure": figure_name(line["metric"]),
            "Reached (95 %)": reached(line),
            "Promised, at most": number(line["promise"]) if line["promise"] is not None else "nothing",
            "Verdict": line["verdict"],
        }
        for line in first
    ]
    means = dict.fromkeys(f"{lines[0]['attack']}: {lines[0]['says']}" for lines in by_figure(main) if lines[0]["says"])
    read = VERDICTS_READ
    if len(first) < len(main):
        read += f" Of {len(main)} lines those of the {WORST} sites at which an attack got farthest are shown."
    return [
        element("h3", "Attacks on the model, against the promise"),
        table(lines),
        bullets(list(means)),
        paragraphs([read]),
    ]


def _left(content: Content) -> list[Markup]:
    """Return the bytes that left each site, by kind of message."""
    out = [entry for entry in content.crossed if entry.direction == "to-server"]
    if not out:
        return [element("h3", "What left each site"), paragraphs(["Nothing has left a site yet."])]
    lines = []
    for line in privacy_tables.left_lines(content.crossed):
        sizes = {
            key.removesuffix(", bytes"): privacy_tables.size_in_words(size)
            for key, size in line.items()
            if key != "Site"
        }
        lines.append({"Site": line["Site"]} | sizes)
    together = f", of all {len(content.runs)} repeats together" if len(content.runs) > 1 else ""
    said = [f"Bytes of the messages' content, added up over all rounds{together}.", privacy_tables.why_so_many(out)]
    return [
        element("h3", "What left each site"),
        table(lines),
        paragraphs([" ".join(filter(None, said))], class_="note"),
    ]


def limits(content: Content) -> Markup:
    """Return what the run does not show."""
    lines = [NO_MORE]
    if content.only is None and content.metric is not None:
        lines += [TOGETHER]
        if content.found["mean-gain"].get(content.metric, {}).get("value") is not None:
            lines.append(f"The mean over sites holds for {ASSUMES}. {sentence_case(COVERAGE)}.")
    if content.counted is not None:
        lines.append(f"Not shown by the curves: {score_tables.NOT_SHOWN}")
    if content.found["audit"]:
        lines.append("An attack that gets nowhere proves nothing.")
    return section("What it does not show", bullets(lines))


def needed_columns(content: Content) -> Markup:
    """Return by how much the loss grows without what a column tells."""
    found = content.found.get("importances")
    if found is None:
        return Markup()
    said = paragraphs(importances.importance_in_words(found, content.found["global"]), class_="note")
    return section(importances.TITLE, table(importances.importance_lines(found)), said)


def words(content: Content) -> Markup:
    """Return the glossary."""
    return section("What the words mean", bullets([f"*{term}*: {meaning}" for term, meaning in GLOSSARY.items()]))


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
