"""Sections on privacy: mechanisms in force, what was charged and spent, and what attacks reached and sites sent."""

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
STEPS_REQUESTED = (
    "ε of this run counts the steps that were asked of the site, an upper bound: where rounds were done again it is "
    "more than was planned."
)
ANSWERED = "ε of this run is that of one answer, all numbers of it together. "
TWO_ACCOUNTS = (
    "ε of this run is the larger of two accounts: that of rows trained on counts the steps that were asked of the "
    "site, an upper bound, and the counts before them; that of rows held out the counts of scores."
)
NO_LEDGER = (
    "The record has no budget and no ledger of these sites: research sites that a study cuts out of a table have none, "
    "the promise of whole sites is in none, and a site in sums only does not tell."
)
LEDGERS = (
    "The sum over all studies is in the site's own ledger, and the site's to tell: `flfed site budget SITE`. Here the "
    "most that this run adds to it is added to what the site said was spent before."
)
OVERDRAFT = (
    "A site under disclosure institution answers nothing that would overdraw its budget; an open one writes it down "
    "and answers."
)
WHO_MAY_SEE = (
    'Who may see what of it stands in docs/security.md ("Who may see what"); the site\'s own ledger has every message.'
)


IN_FILE = ("run", "attack", "site", "metric", "value", "low", "high", "promise", "verdict", "rows", "at")
"""Columns of the file of all figures, as `AuditFigure` has them."""
MAIN_FIGURES = (
    "Each attack's main figure, with 95 % CIs. An upright line is what was promised at most; without it nothing is "
    "promised."
)


@dataclass(frozen=True)
class Promise:
    """What a run promises.

    Attributes
    ----------
    code : str
        How measurements stand to it, in a word or three.
    lines : list of str
        The promise, sentence by sentence.
    limits : list of str
        What it leaves out.
    """

    code: str
    lines: list[str]
    limits: list[str]


def promised(privacy: Private, audit: Audit, run: RunEntry, *, only: str | None = None) -> Promise:
    """Return what a run promises, against what attacks reached; `only` is the one site whose people read it."""
    code, sentence = standing(privacy, audit, attackable=has_model(run), only=only)
    lines = promise_in_words(privacy)
    if privacy["mechanism"] not in (None, "none") or audit:
        lines.append(sentence)
    trained = privacy.get(TRAINED, True)
    return Promise(code, lines, unpromised_in_words(len(privacy["uncharged"]), audit, only=only, trained=trained))


def spent_section(privacy: Private) -> Section:
    """Return each site's consumed ε against its budget."""
    title = "What was spent, against each site's budget"
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        return Section(title=title, lead=(why_nothing_spent(privacy),))
    lines = [spent_line(site, line, privacy) for site, line in spent.items()]
    # Without a budget or a ledger a chart would compare ε with nothing.
    if all(line["budget"] is None and line["spent-before"] is None for line in spent.values()):
        return Section(title=title, lead=(*spending_in_words(privacy), NO_LEDGER), tables=(Table(lines=lines),))
    # Sites with the least left are the ones that need a look.
    most = sorted(spent, key=lambda site: (-share_of_budget(spent[site]), site))[:SITES_DRAWN]

    note = [STEPS_REQUESTED, LEDGERS]
    if privacy.get(ONE_ANSWER):
        note[0] = ANSWERED + render("privacy.spent.again")
    if COVERS in privacy:
        note = [TWO_ACCOUNTS, LEDGERS, render("privacy.spent.sides")]
    note.append(OVERDRAFT)
    drawing = Drawing(
        title=f"ε at δ = {power_of_ten(privacy['delta'])}: less is more private",
        draw=lambda: spent_chart({site: spent[site] for site in most}),
        key="epsilon-spent",
        says="; ".join(spending_in_words(privacy)),
        lines=lines,
    )
    return Section(
        title=title,
        lead=(*_overdrawn(spent), *_drawn_of(len(most), len(spent), "have least left, or no budget")),
        charts=(drawing,),
        tables=(Table(lines=lines, is_drawn=True),),
        note=tuple(note),
    )


def _overdrawn(spent: Mapping[str, Private]) -> list[str]:
    """Return which sites spent more than their budget."""
    left = {site: left_of_budget(line) or 0.0 for site, line in spent.items()}
    over = [f"{site} by about {epsilon_in_words(-most)}" for site, most in left.items() if most < 0]
    return [f"Overdrawn: {listed(over)}."] if over else []


def _drawn_of(drawn: int, sites: int, which: str) -> list[str]:
    return [f"The chart shows the {drawn} sites that {which}, of {sites}."] if drawn < sites else []


def charged_section(privacy: Private) -> Section | None:
    """Return what was charged for what, where all that leaves a site is; None of another run."""
    lines = charged_lines(privacy)
    if not lines:
        return None
    table = Table(lines=lines, spare=("Noise multiplier",))
    return Section(title="What was charged for what", tables=(table,), note=(render("privacy.spent.shares"),))


def attacks_section(privacy: Private, audit: Audit, run: RunEntry, *, only: str | None = None) -> Section:
    """Return each attack's result against the guarantee; where there is none, it says how to have one.

    `only` is the one site whose people read it, and see the figures of no other.
    """
    title = "Attacks on the model, against the promise"
    if not audit:
        return Section(title=title, lead=(_why_no_attack(privacy, run, only),))
    first = headlines(audit)
    several = len({line.run for line in audit}) > 1
    groups = by_figure(first)
    whose = ", site by site" if only is None else " of your site"
    every = [_figure_line(line, several) | {"It means": line.says} for line in ordered(audit)]
    rows = [{key: getattr(line, key) for key in IN_FILE} for line in audit]
    says = dict.fromkeys(f"{lines[0].attack}: {lines[0].says}" for lines in groups if lines[0].says)
    return Section(
        title=title,
        lead=(MAIN_FIGURES,),
        charts=tuple(_attack(name, first, several) for name in dict.fromkeys(line.attack for line in first)),
        tables=(
            Table(lines=[_summary_line(lines, only) for lines in groups]),
            # Every figure stays within reach, but the main ones are what a reader needs first.
            Table(title=f"All {len(audit)} figures{whose}", lines=every, key="attacks", rows=rows, is_folded=True),
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
    """Return why no attack has a figure.

    It says what to do too, but nothing that would be refused.
    """
    why = "" if privacy["epsilon"] is None else "A promise without a measurement is not shown as green. "
    if run.status == "running":
        return f"{why}The run's model can be attacked once it has ended."
    if not has_model(run):
        return f"{why}The run has no final model that could be attacked."
    if privacy.get(COVERS) == "study":
        return f"{why}No attack is tried on this run: what one reaches would leave beside what is charged to its ε."
    if only is not None:
        return f"{why}No attack at your site is in the record. The coordinator can have one tried."
    return f"{why}This run's model was not attacked yet: `flfed audit {run.run}` does it and writes it down."


def _summary_line(lines: Audit, only: str | None) -> dict[str, str]:
    """Return one line for an attack's figure.

    The figure is over its sites, of which the worst stands first.
    """
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
        # Figures without a value are counted too: the range is that of the others.
        line["Lowest to highest"] = f"{span}, of {counted(len(lines), 'figure')}"
    return line | {"Promised, at most": _promised(worst), "Verdict": _verdict(lines)}


def _verdict(lines: Audit) -> str:
    """Return the verdict that figures share.

    Where nothing is guaranteed it also says whether the attack got somewhere.
    """
    verdict = lines[0].verdict
    count = sum(gave_away(line) for line in lines)
    return f"{verdict}, and it got somewhere at {count} of {len(lines)}" if count else verdict


def _figure_line(line: AuditFigure, several: bool) -> dict[str, str]:
    """Return one figure of an attack, for a table of several; `several` runs are named."""
    cells = {"Run": line.run} if several else {}
    return cells | {
        "Attack": line.attack,
        "Site": line.site or "all",
        "Figure": figure_name(line.metric),
        "Reached (95 %)": reached(line),
        "Promised, at most": _promised(line),
        "Its verdict": line.verdict,
    }


def _promised(line: AuditFigure) -> str:
    return "nothing" if line.promise is None else number(line.promise)


def mechanisms_section(privacy: Private, sites: Sequence[SiteEntry], *, only: str | None = None) -> Section:
    """Return which mechanisms are in force, and which are not; `only` is the one site whose people read it."""
    return Section(title="Mechanisms in force", tables=(Table(lines=mechanism_lines(privacy, sites, only=only)),))


def left_section(crossed: Sequence[CrossedEntry], repeats: int = 1, more: str = "") -> Section:
    """Return how many bytes left each site, by kind of message; `more` is said of a round."""
    title = "What left each site"
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        return Section(title=title, lead=("Nothing has left a site yet.",))
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
    content = "Bytes of the messages' content"
    if "train" in kinds_of(out):
        content += ", added up over all rounds"
    # Repeats send everything again, so that the sum is not that of one run.
    if repeats > 1:
        content += f" of all {repeats} repeats together"
    note = tuple(filter(None, (f"{content}. {WHO_MAY_SEE}", why_so_many(out), more)))
    drawing = Drawing(
        title="Bytes that left, by kind of message",
        draw=lambda: left_chart(out, most),
        key="bytes",
        says=says,
        lines=lines,
    )
    return Section(
        title=title,
        lead=tuple(_drawn_of(len(most), len(totals), "sent most")),
        charts=(drawing,),
        tables=(Table(lines=shown, is_drawn=True),),
        note=note,
    )
