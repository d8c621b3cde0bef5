"""Sections on privacy: mechanisms in force, charges and spending, attacks' figures, and bytes sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flfed.records.charts.privacy import attack_chart, left_chart, spent_chart
from flfed.records.reports import audit_headlines as audits
from flfed.records.reports import privacy as private
from flfed.records.reports import privacy_tables as tables
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics.noised_scores import COVERS
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import CrossedEntry, RunEntry, SiteEntry
from flfed.records.text import size_in_words
from flfed.words import counted, render

SITES_DRAWN = 24
"""Most sites in a chart; the table has all."""
IN_FILE = ("run", "attack", "site", "metric", "value", "low", "high", "promise", "verdict", "rows", "at")
"""Columns of the file of all figures, fields of `AuditFigure`."""


@dataclass(frozen=True)
class Promise:
    """The privacy promise of a run.

    Attributes
    ----------
    code : str
        Verdict of the measurements on it, in a few words.
    lines : list of str
        The promise, sentence by sentence.
    limits : list of str
        Its limits.
    """

    code: str
    lines: list[str]
    limits: list[str]


def promised(privacy: private.Private, audit: audits.Audit, run: RunEntry) -> Promise:
    """Return the promise of a run and the verdict of attacks on it."""
    code, sentence = audits.standing(privacy, audit, attackable=tables.has_model(run))
    lines = private.promise_in_words(privacy)
    if privacy["mechanism"] not in (None, "none") or audit:
        lines.append(sentence)
    # Here the run is known, for which a sentence of the terminal has a word.
    lines = [line.replace("RUN", run.series) for line in lines]
    trained = privacy.get(private.TRAINED, True)
    limits = audits.unpromised_in_words(len(privacy["uncharged"]), audit, trained=trained)
    return Promise(code, lines, limits)


def spent_section(privacy: private.Private) -> Section:
    """Return each site's spent ε and its budget."""
    title = render("pages.budget.title")
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        return Section(title=title, lead=(tables.why_nothing_spent(privacy),))
    lines = [tables.spent_line(site, line, privacy) for site, line in spent.items()]
    # Without a budget or a ledger a chart has nothing to compare ε with.
    spending = private.spending_in_words(privacy)
    if all(line["budget"] is None and line["spent-before"] is None for line in spent.values()):
        lead = (*spending, render("pages.budget.unrecorded"))
        return Section(title=title, lead=lead, tables=(Table(lines=lines),))
    # Sites with the least budget left deserve a look first.
    most = sorted(spent, key=lambda site: (-tables.share_of_budget(spent[site]), site))[:SITES_DRAWN]
    lead = (*_overdrawn(spent),)
    if len(most) < len(spent):
        lead += (render("pages.budget.least", shown=len(most), sites=len(spent)),)
    note = [render("pages.budget.steps"), render("pages.budget.ledgers"), render("pages.budget.overdraft")]
    if COVERS in privacy:
        note[0] = render("pages.budget.accounts")
    elif privacy.get(private.ONE_ANSWER):
        note[0] = render("pages.budget.reply")
    axis = render("pages.budget.axis", delta=private.power_of_ten(privacy["delta"]))
    draw = partial(spent_chart, {site: spent[site] for site in most})
    drawing = Drawing(title=axis, draw=draw, key="epsilon-spent", says="; ".join(spending), lines=lines)
    table = Table(lines=lines, is_drawn=True)
    return Section(title=title, lead=lead, charts=(drawing,), tables=(table,), note=note)


def _overdrawn(spent: Mapping[str, private.Private]) -> list[str]:
    """Return the sites that spent more than their budget, as a sentence."""
    over = []
    for site, line in spent.items():
        left = tables.left_of_budget(line) or 0.0
        if left < 0:
            over.append(render("pages.budget.site", site=site, epsilon=private.epsilon_in_words(-left)))
    return [render("pages.budget.overdrawn", sites=private.listed(over))] if over else []


def charged_section(privacy: private.Private) -> Section | None:
    """Return the charges of a run whose privacy budget covers everything a site releases, None of another run."""
    lines = tables.charged_lines(privacy)
    if not lines:
        return None
    table = Table(lines=lines)
    return Section(title=render("pages.budget.charged"), tables=(table,))


def attacks_section(privacy: private.Private, audit: audits.Audit, run: RunEntry) -> Section:
    """Return each attack's figures and the promise, or how to run an attack."""
    title = render("pages.attacks.title")
    if not audit:
        return Section(title=title, lead=(_why_no_attack(privacy, run),))
    first = audits.headlines(audit)
    several = len({line.run for line in audit}) > 1
    groups = audits.by_figure(first)
    summary = Table(lines=[_summary_line(lines) for lines in groups])
    all_figures = render("pages.attacks.every", figures=len(audit))
    every = [_figure_line(line, several) | {"It means": line.says} for line in audits.ordered(audit)]
    rows = [{key: getattr(line, key) for key in IN_FILE} for line in audit]
    folded = Table(title=all_figures, lines=every, key="attacks", rows=rows, is_folded=True)
    charts = [_attack(name, first, several) for name in dict.fromkeys(line.attack for line in first)]
    says = list(dict.fromkeys(f"{lines[0].attack}: {lines[0].says}" for lines in groups if lines[0].says))
    lead = (render("pages.attacks.main"),)
    note = (render("privacy.audit.verdicts"),)
    return Section(title=title, lead=lead, charts=charts, tables=(summary, folded), says=says, note=note)


def _attack(name: str, first: audits.Audit, several: bool) -> Drawing:
    """Return the chart of one attack's main figures."""
    lines = [line for line in first if line.attack == name]
    drawn_lines = [line for line in lines if line.value is not None]
    table = [_figure_line(line, several) for line in lines]
    says = " ".join(audits.audit_in_words(drawn_lines))
    return Drawing(title=name, draw=partial(attack_chart, drawn_lines), key=f"attack-{name}", says=says, lines=table)


def _why_no_attack(privacy: private.Private, run: RunEntry) -> str:
    """Return why no attack has a figure, and how to run one where that is allowed."""
    if run.status == "running":
        why = render("pages.attacks.running")
    elif not tables.has_model(run):
        why = render("pages.attacks.unmodelled")
    elif privacy.get(COVERS) == "study":
        why = render("pages.attacks.charged")
    else:
        why = render("pages.attacks.none", run=run.run)
    if privacy["epsilon"] is None:
        return why
    return f"{render('pages.attacks.unmeasured')} {why}"


def _summary_line(lines: audits.Audit) -> dict[str, str]:
    """Return one line for an attack's figure at several sites, the worst of them first."""
    worst = lines[0]
    site = worst.site or "all"
    if len({line.run for line in lines}) > 1:
        site = f"{site}, run {worst.run}"
    line = {"Attack": worst.attack, "Main figure": audits.figure_name(worst.metric), "Most at": site}
    line["Reached there (95 %)"] = audits.reached(worst)
    values = [line.value for line in lines if line.value is not None]
    span = audits.range_of(values) if values else number(None)
    # The count includes figures without a value, which the range does not have.
    line["Lowest to highest"] = f"{span}, of {counted(len(lines), 'figure')}"
    return line | {"Promised, at most": audits.limit_in_words(worst), "Verdict": _verdict(lines)}


def _verdict(lines: audits.Audit) -> str:
    """Return the verdict that figures share; without a guarantee, also where the attack succeeded."""
    verdict = lines[0].verdict
    count = sum(audits.gave_away(line) for line in lines)
    if count:
        return render("pages.attacks.succeeded", verdict=verdict, count=count, sites=len(lines))
    return verdict


def _figure_line(line: audits.AuditFigure, several: bool) -> dict[str, str]:
    """Return one figure of an attack, for a table of several; `several` runs are named."""
    cells = {"Run": line.run} if several else {}
    cells |= {"Attack": line.attack, "Site": line.site or "all", "Figure": audits.figure_name(line.metric)}
    cells |= {"Reached (95 %)": audits.reached(line), "Promised, at most": audits.limit_in_words(line)}
    return cells | {"Its verdict": line.verdict}


def mechanisms_section(privacy: private.Private, sites: Sequence[SiteEntry]) -> Section:
    """Return what protects the rows, and what no promise covers."""
    mechanisms = Table(lines=tables.mechanism_lines(privacy, sites))
    title = render("pages.privacy.unpromised" if privacy["epsilon"] is None else "pages.privacy.uncovered")
    lines = [{title: line} for line in privacy["uncharged"]]
    title = f"{title}: {counted(len(lines), 'item')}"
    note = []
    if not lines:
        unknown = render("pages.privacy.unknown", reason=privacy["reason"])
        note.append(unknown if privacy["mechanism"] is None else render("pages.privacy.covered"))
    uncovered = Table(title=title, lines=lines, is_folded=True)
    shown = (mechanisms, uncovered) if lines else (mechanisms,)
    return Section(title=render("pages.privacy.protected"), tables=shown, note=note)


def left_section(crossed: Sequence[CrossedEntry], repeats: int, more: str = "") -> Section:
    """Return the bytes that each site sent, by kind of message; `more` is a sentence on a round."""
    title = render("pages.sent.title")
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        return Section(title=title, lead=(render("pages.sent.none"),))
    totals: Counter[str] = Counter()
    for entry in out:
        totals[entry.site] += entry.bytes
    most = sorted(totals, key=lambda site: (-totals[site], site))[:SITES_DRAWN]

    lines = tables.left_lines(crossed)
    shown = []
    for line in lines:
        sizes = {key.removesuffix(", bytes"): size_in_words(size) for key, size in line.items() if key != "Site"}
        shown.append({"Site": str(line["Site"])} | sizes)
    lead = []
    if len(most) < len(totals):
        lead.append(render("pages.sent.most", shown=len(most), sites=len(totals)))
    content = render("pages.sent.rounds" if "train" in tables.kinds_of(out) else "pages.sent.bytes")
    if repeats > 1:
        content = render("pages.sent.repeats", repeats=repeats)
    says = "; ".join(f"{site} {size_in_words(totals[site])}" for site in most)
    draw = partial(left_chart, out, most)
    drawing = Drawing(title=render("pages.sent.chart"), draw=draw, key="bytes", says=says, lines=lines)
    table = Table(lines=shown, is_drawn=True)
    note = list(filter(None, (content, render("pages.sent.access"), tables.why_so_many(out), more)))
    return Section(title=title, lead=lead, charts=(drawing,), tables=(table,), note=note)
