"""Sections on privacy: mechanisms in force, charges and spending, attacks' figures, and bytes sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flfed.errors import counted
from flfed.records.charts.privacy import attack_chart, left_chart, spent_chart
from flfed.records.reports.audit_headlines import (
    Audit,
    AuditFigure,
    audit_in_words,
    by_figure,
    figure_name,
    gave_away,
    headlines,
    limit_in_words,
    ordered,
    range_of,
    reached,
    standing,
    unpromised_in_words,
)
from flfed.records.reports.privacy import (
    ONE_ANSWER,
    TRAINED,
    Private,
    epsilon_in_words,
    listed,
    power_of_ten,
    promise_in_words,
    spending_in_words,
)
from flfed.records.reports.privacy_tables import (
    charged_lines,
    has_model,
    kinds_of,
    left_lines,
    left_of_budget,
    mechanism_lines,
    share_of_budget,
    size_in_words,
    spent_line,
    why_nothing_spent,
    why_so_many,
)
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics.noised_scores import COVERS
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import CrossedEntry, RunEntry, SiteEntry
from flfed.words import render

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


def promised(privacy: Private, audit: Audit, run: RunEntry, *, only: str | None = None) -> Promise:
    """Return the promise of a run and the verdict of attacks on it; `only` is the one site whose people read it."""
    code, sentence = standing(privacy, audit, attackable=has_model(run), only=only)
    lines = promise_in_words(privacy)
    if privacy["mechanism"] not in (None, "none") or audit:
        lines.append(sentence)
    trained = privacy.get(TRAINED, True)
    return Promise(code, lines, unpromised_in_words(len(privacy["uncharged"]), audit, only=only, trained=trained))


def spent_section(privacy: Private) -> Section:
    """Return each site's spent ε and its budget."""
    title = render("pages.budget.title")
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        return Section(title=title, lead=(why_nothing_spent(privacy),))
    lines = [spent_line(site, line, privacy) for site, line in spent.items()]
    # Without a budget or a ledger a chart has nothing to compare ε with.
    if all(line["budget"] is None and line["spent-before"] is None for line in spent.values()):
        lead = (*spending_in_words(privacy), render("pages.budget.unrecorded"))
        return Section(title=title, lead=lead, tables=(Table(lines=lines),))
    # Sites with the least budget left deserve a look first.
    most = sorted(spent, key=lambda site: (-share_of_budget(spent[site]), site))[:SITES_DRAWN]
    lead = (*_overdrawn(spent),)
    if len(most) < len(spent):
        lead += (render("pages.budget.least", shown=len(most), sites=len(spent)),)
    note = [render("pages.budget.ledgers"), render("pages.budget.overdraft")]
    if COVERS in privacy:
        note.insert(1, render("privacy.spent.sides"))
        note.insert(0, render("pages.budget.accounts"))
    elif privacy.get(ONE_ANSWER):
        note.insert(0, render("pages.budget.reply", again=render("privacy.spent.again")))
    else:
        note.insert(0, render("pages.budget.steps"))
    drawing = Drawing(
        title=render("pages.budget.axis", delta=power_of_ten(privacy["delta"])),
        draw=lambda: spent_chart({site: spent[site] for site in most}),
        key="epsilon-spent",
        says="; ".join(spending_in_words(privacy)),
        lines=lines,
    )
    return Section(
        title=title,
        lead=lead,
        charts=(drawing,),
        tables=(Table(lines=lines, is_drawn=True),),
        note=tuple(note),
    )


def _overdrawn(spent: Mapping[str, Private]) -> list[str]:
    """Return the sites that spent more than their budget, as a sentence."""
    over = []
    for site, line in spent.items():
        left = left_of_budget(line) or 0.0
        if left < 0:
            over.append(render("pages.budget.site", site=site, epsilon=epsilon_in_words(-left)))
    return [render("pages.budget.overdrawn", sites=listed(over))] if over else []


def charged_section(privacy: Private) -> Section | None:
    """Return the charges of a run whose privacy budget covers everything a site releases, None of another run."""
    lines = charged_lines(privacy)
    if not lines:
        return None
    table = Table(lines=lines, spare=("Noise multiplier",))
    return Section(title=render("pages.budget.charged"), tables=(table,), note=(render("privacy.spent.shares"),))


def attacks_section(privacy: Private, audit: Audit, run: RunEntry, *, only: str | None = None) -> Section:
    """Return each attack's figures and the promise, or how to run an attack.

    `only` is the one site whose people read it: they see no figures of others.
    """
    title = render("pages.attacks.title")
    if not audit:
        return Section(title=title, lead=(_why_no_attack(privacy, run, only),))
    first = headlines(audit)
    several = len({line.run for line in audit}) > 1
    groups = by_figure(first)
    all_figures = render("pages.attacks.every" if only is None else "pages.attacks.site", figures=len(audit))
    every = [_figure_line(line, several) | {"It means": line.says} for line in ordered(audit)]
    rows = [{key: getattr(line, key) for key in IN_FILE} for line in audit]
    says = dict.fromkeys(f"{lines[0].attack}: {lines[0].says}" for lines in groups if lines[0].says)
    return Section(
        title=title,
        lead=(render("pages.attacks.main"),),
        charts=tuple(_attack(name, first, several) for name in dict.fromkeys(line.attack for line in first)),
        tables=(
            Table(lines=[_summary_line(lines, only) for lines in groups]),
            Table(title=all_figures, lines=every, key="attacks", rows=rows, is_folded=True),
        ),
        says=tuple(says),
        note=(render("privacy.audit.verdicts"),),
    )


def _attack(name: str, first: Audit, several: bool) -> Drawing:
    """Return the chart of one attack's main figures."""
    lines = [line for line in first if line.attack == name]
    drawn_lines = [line for line in lines if line.value is not None]
    return Drawing(
        title=name,
        draw=lambda: attack_chart(drawn_lines),
        key=f"attack-{name}",
        says=" ".join(audit_in_words(drawn_lines)),
        lines=[_figure_line(line, several) for line in lines],
    )


def _why_no_attack(privacy: Private, run: RunEntry, only: str | None) -> str:
    """Return why no attack has a figure, and how to run one where that is allowed."""
    if run.status == "running":
        why = render("pages.attacks.running")
    elif not has_model(run):
        why = render("pages.attacks.unmodelled")
    elif privacy.get(COVERS) == "study":
        why = render("pages.attacks.charged")
    elif only is not None:
        why = render("pages.attacks.own")
    else:
        why = render("pages.attacks.none", run=run.run)
    if privacy["epsilon"] is None:
        return why
    return f"{render('pages.attacks.unmeasured')} {why}"


def _summary_line(lines: Audit, only: str | None) -> dict[str, str]:
    """Return one line for an attack's figure at several sites, the worst of them first."""
    worst = lines[0]
    site = worst.site or "all"
    if len({line.run for line in lines}) > 1:
        site = f"{site}, run {worst.run}"
    line = {
        "Attack": worst.attack,
        "Main figure": figure_name(worst.metric),
        "Most at": site,
        "Reached there (95 %)": reached(worst),
    }
    if only is None:
        values = [line.value for line in lines if line.value is not None]
        span = range_of(values) if values else number(None)
        # The count includes figures without a value, which the range does not have.
        line["Lowest to highest"] = f"{span}, of {counted(len(lines), 'figure')}"
    return line | {"Promised, at most": limit_in_words(worst), "Verdict": _verdict(lines)}


def _verdict(lines: Audit) -> str:
    """Return the verdict that figures share; without a guarantee, also where the attack succeeded."""
    verdict = lines[0].verdict
    count = sum(gave_away(line) for line in lines)
    if count:
        return render("pages.attacks.succeeded", verdict=verdict, count=count, sites=len(lines))
    return verdict


def _figure_line(line: AuditFigure, several: bool) -> dict[str, str]:
    """Return one figure of an attack, for a table of several; `several` runs are named."""
    cells = {"Run": line.run} if several else {}
    return cells | {
        "Attack": line.attack,
        "Site": line.site or "all",
        "Figure": figure_name(line.metric),
        "Reached (95 %)": reached(line),
        "Promised, at most": limit_in_words(line),
        "Its verdict": line.verdict,
    }


def mechanisms_section(privacy: Private, sites: Sequence[SiteEntry], *, only: str | None = None) -> Section:
    """Return which mechanisms are in force, and which are not; `only` is the one site whose people read it."""
    return Section(title="Mechanisms in force", tables=(Table(lines=mechanism_lines(privacy, sites, only=only)),))


def left_section(crossed: Sequence[CrossedEntry], repeats: int = 1, more: str = "") -> Section:
    """Return the bytes that each site sent, by kind of message; `more` is a sentence on a round."""
    title = render("pages.sent.title")
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        return Section(title=title, lead=(render("pages.sent.none"),))
    totals: Counter[str] = Counter()
    for entry in out:
        totals[entry.site] += entry.bytes
    most = sorted(totals, key=lambda site: (-totals[site], site))[:SITES_DRAWN]

    lines = left_lines(crossed)
    shown = []
    for line in lines:
        sizes = {key.removesuffix(", bytes"): size_in_words(size) for key, size in line.items() if key != "Site"}
        shown.append({"Site": str(line["Site"])} | sizes)
    says = "; ".join(f"{site} {size_in_words(totals[site])}" for site in most)
    lead = []
    if len(most) < len(totals):
        lead.append(render("pages.sent.most", shown=len(most), sites=len(totals)))
    content = render("pages.sent.rounds" if "train" in kinds_of(out) else "pages.sent.bytes")
    if repeats > 1:
        content = render("pages.sent.repeats", repeats=repeats)
    note = (content, render("pages.sent.access"), why_so_many(out), more)
    drawing = Drawing(
        title=render("pages.sent.chart"),
        draw=lambda: left_chart(out, most),
        key="bytes",
        says=says,
        lines=lines,
    )
    return Section(
        title=title,
        lead=tuple(lead),
        charts=(drawing,),
        tables=(Table(lines=shown, is_drawn=True),),
        note=tuple(filter(None, note)),
    )
