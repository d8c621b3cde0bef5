"""Document of a run: one HTML file without scripts that loads nothing.

Its content comes from the store through `reports` and `statistics`, as that of the pages and of `flfed run show`: no
figure and no verdict is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flfed.errors import UsageError
from flfed.paths import replace_whole
from flfed.records.charts.chart import axis_title
from flfed.records.document import evidence, sections
from flfed.records.document.content import (
    Content,
    by_group,
    by_round,
    calibrated,
    curves,
    decision_curves,
    flagged,
    flagged_at_rates,
)
from flfed.records.document.sections import Markup, bullets, element, joined, paragraphs, plain, section, table
from flfed.records.objects import figure_of
from flfed.records.reports import narrative, site_answer
from flfed.records.reports.calibration import calibration_of_sites
from flfed.records.reports.faults import STATUS_WORDS, missing_in_words, unfinished_in_words
from flfed.records.reports.report import arms_shown, metrics_of
from flfed.records.section import Section, divide
from flfed.records.sections import answer as answers
from flfed.records.sections.gains import are_known, at_the_ends, by_size, gains, references, score_in_use
from flfed.records.sections.statistic import estimates, survival
from flfed.records.sections.unseen_sites import unseen_sites, validated_sites
from flfed.records.statistics import importances, noised_scores
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.statistics.verdict import sentence_case, with_interval
from flfed.records.store.reader import RunReader
from flfed.records.text import moment, seconds_in_words
from flfed.words import render

MARK = "<!DOCTYPE html>\n<!-- Report of a run by flfed -->\n"
"""Beginning of each document: only a file that begins so is replaced."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Policy by which a browser loads only the document's own style."""
MOST_DRAWN = 20
"""Sites of the forest plot, a page of A4; of more, those at its ends."""
MANY_SITES = 12
"""With more sites, single sites have only the primary metric."""
STYLE = Path(__file__).parent / "style.css"


def answer(content: Content) -> Markup:
    """Return the question and its answer, the verdict first."""
    report = content.shown.report
    first, *others = _verdict(content)
    words = [line for line in _words(content) if line not in {first, *others}]
    tables = Markup()
    if statistics := content.shown.run.statistics:
        # The figure stands first, with the sites missing from it; notes on the tables follow them.
        listed = map(sections.tables_of, statistic_tables(statistics))
        curves = sections.part(survival(statistics))
        effects = sections.part(estimates(statistics))
        tables = joined([*curves, *listed, *effects])
        words = [*others, *words]
        others = missing_in_words(report)
    verdict = [element("strong", first), *others]
    box = element("div", *(element("p", line) for line in verdict), class_="verdict")
    warnings = bullets([line for line in _warnings(content) if line not in others], class_="warnings")
    parts = [box, tables, warnings]
    if purpose := content.shown.purpose:
        parts.insert(0, element("p", purpose, class_="purpose"))
    return section("Question and answer", *parts, bullets(words))


def _verdict(content: Content) -> list[str]:
    """Return the headline, and the sentences right below it."""
    report = content.shown.report
    run = content.shown.run
    if run.is_statistic:
        return statistic_in_words(run.statistics, run.repeats)
    return _nothing(content) if content.shown.metric is None else narrative.verdict_in_words(report)


def _nothing(content: Content) -> list[str]:
    """Return why nothing was compared."""
    if content.shown.run.status == "completed" and not content.shown.trains:
        return [render("pages.uncompared.statistic")]
    warnings = answers.warnings(content.shown)
    first, *others = [line for line in narrative.comparison_rows(content.shown.report)[2] if line not in warnings]
    why = content.shown.run.reason.rstrip(".")
    # A long reason in the headline would hide it.
    return [first.replace(f" ({why})", ""), f"{sentence_case(why)}.", *others] if why else [first, *others]


def _warnings(content: Content) -> list[str]:
    """Return warnings about the figures."""
    return [*unfinished_in_words(content.shown.report), *answers.warnings(content.shown)]


def _words(content: Content) -> list[str]:
    """Return the run in words, without the lines above it; a statistic stands in words there, and has no rounds."""
    return [] if content.shown.run.is_statistic else answers.words(content.shown)


def figures(content: Content) -> Markup:
    """Return the figures of every site with their 95 % CI, and those over all sites; nothing of a validation."""
    report = content.shown.report
    metric = content.shown.metric
    if metric is None or content.shown.run.is_validation:
        return Markup()
    order = _sites(content, metric)
    notes = site_answer.untold_at(report, metric, order)
    if noised_scores.noised_scores(report) is not None:
        notes += noised_scores.lost_in_words(report, metric)
    # The first section has the others.
    basis = answers.basis(content.shown).tables[0].lines
    earlier_lines = {*_verdict(content), *_warnings(content), *_words(content)}
    earlier_lines |= {line["In this run"] for line in basis}
    below = [line for line in narrative.comparison_rows(report)[2] if line not in earlier_lines]
    notes += site_answer.started_at(report, metric, order)
    notes += site_answer.together(report, metric)
    notes += site_answer.left_out(content.shown.sites)
    title = f"{sentence_case(axis_title(metric))}, on test rows that no model was trained on."
    parts = [
        paragraphs([title], class_="lead"),
        _site_table(content, metric, order),
        bullets(dict.fromkeys([*below, *notes]), class_="notes"),
    ]
    over = references(report, metric)
    if over.charts and not content.shown.run.is_of_parties:
        parts += sections.part(over)
    return section("Figures with 95 % CI", *parts)


def _sites(content: Content, metric: str) -> list[str]:
    """Return the sites with figures of their own, the largest gain first."""
    own = set(site_answer.own_figures(content.shown.report))
    return [name for name in site_answer.order_of_sites(content.shown.report, metric) if name in own]


def _site_table(content: Content, metric: str, sites: Sequence[str]) -> Markup:
    arms = arms_shown(content.shown.report, metric)
    return table([site_answer.site_line(content.shown.report, name, metric, arms) for name in sites])


def further(content: Content) -> Markup:
    """Return the other metrics: over all sites, and at each site where these are few."""
    report = content.shown.report
    metric = content.shown.metric
    others = [name for name in metrics_of(report) if name != metric]
    # Figures from counts with noise stand with the counts.
    if metric is None or not others or noised_scores.noised_scores(report) is not None:
        return Markup()
    parts = [table([line for name in others if (line := _metric_line(content, name))])]
    order = _sites(content, metric)
    if len(order) > MANY_SITES:
        hint = f"`flfed run show {content.shown.run.run} --json` has the figures of each of the {len(order)} sites."
        return section("Further figures", *parts, paragraphs([hint]))
    earlier_lines = {*site_answer.untold_at(report, metric, order)}
    for name in others:
        title = element("h3", sentence_case(axis_title(name)))
        why = [line for line in site_answer.untold_at(report, name, order) if line not in earlier_lines]
        notes = bullets(why, class_="notes")
        parts.append(element("div", title, _site_table(content, name, order), notes, class_="whole"))
    return section("Further figures", *parts)


def _metric_line(content: Content, metric: str) -> dict[str, str]:
    run = content.shown.run
    arms = {"Shared model": run.global_, "Mean of the sites": run.sites_mean, "Pooled model": run.pooled}
    cells = {"Over all sites": sentence_case(axis_title(metric))}
    for title, figures in arms.items():
        if (figures or {}).get(metric):
            figure = figure_of(figures, metric)
            cells[title] = figure.reason or with_interval(figure)
    return cells if len(cells) > 1 else {}


def forest(content: Content) -> Section | None:
    """Return the forest plot: a row a site, and last the mean over sites."""
    report = content.shown.report
    metric = content.shown.metric
    if metric is None or not are_known(report, metric):
        return None
    own = _sites(content, metric)
    shown = at_the_ends(report, metric, MOST_DRAWN, of=own)
    return gains(report, metric, shown, len(own))


def by_number_of_rows(content: Content) -> Section | None:
    """Return the gains over all sites of a size class, where the study names classes."""
    if content.shown.metric is None:
        return None
    return by_size(content.shown.report, content.shown.metric)


def limits(content: Content) -> Section:
    """Return the limits of the run's findings."""
    lines = [render("report.site.limits")]
    if content.shown.metric is not None:
        if content.shown.run.noised_scores is None:
            lines.append(render("report.site.together"))
        if figure_of(content.shown.run.mean_gain, content.shown.metric).value is not None:
            assumes, coverage = render("report.mean.assumes"), render("report.mean.coverage")
            lines.append(f"The mean over sites holds for {assumes}. Coverage: {coverage}.")
    if content.counted is not None:
        lines.append(f"Not shown by the curves: {render('report.curves.limits')}")
    if content.audit:
        lines.append("An attack without success proves nothing.")
    return Section(title="What it does not show", says=tuple(lines))


def words(content: Content) -> Section:
    """Return the glossary."""
    terms = narrative.glossary_of(content.shown.report, trains=content.shown.trains)
    return Section(title="Glossary", says=tuple(f"*{term}*: {definition}" for term, definition in terms.items()))


SECTIONS: tuple[Callable[[Content], Section | Markup | None], ...] = (
    answer,
    forest,
    by_number_of_rows,
    lambda content: answers.basis(content.shown),
    lambda content: answers.next_steps(content.shown),
    figures,
    lambda content: unseen_sites(content.shown.report),
    lambda content: validated_sites(content.shown.report),
    evidence.sites,
    evidence.table_1,
    by_round,
    curves,
    calibrated,
    lambda content: calibration_of_sites(content.shown.report),
    lambda content: score_in_use(content.shown.report),
    flagged,
    flagged_at_rates,
    decision_curves,
    by_group,
    lambda content: importances.split_columns(content.shown.report),
    lambda content: importances.needed_columns(content.shown.report),
    further,
    evidence.privacy,
    limits,
    words,
    evidence.hashes,
)
"""Sections in their order."""
WITHOUT_MODEL = (answer, *SECTIONS[3:5], evidence.sites, evidence.privacy, words, evidence.hashes)
"""Sections of a study that trains nothing, whose limits stand with its figures."""


def document(name: str, *, store: str | None = None, anonymous: bool = False) -> str:
    """Return a run, or a series of repeats, as one HTML file.

    Parameters
    ----------
    name : str
        Id of a run or a series, or "latest".
    store : str, optional
        Database URL.
    anonymous : bool
        Whether "site 1", "site 2" and so on stand in place of the sites' names.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    with RunReader.open(store, anonymous=name if anonymous else "") as reader:
        content = Content.read(reader, name)
    run = content.shown.run
    shown = SECTIONS if content.shown.has_model else WITHOUT_MODEL
    parts = [part(content) for part in shown]
    _, absent = divide(part for part in parts if isinstance(part, Section))
    body_parts = [sections.written(part) for part in parts if part not in absent]
    made = [f"flfed made this report from the record of run {run.run}."]
    made.append("The file loads nothing and can be kept as it is.")
    if run.status != "completed":
        made.append("The run is not complete: a later report may differ.")
    footer = element("footer", paragraphs([" ".join(made)]))
    if absent:
        body_parts.append(section(render("pages.absent.title"), bullets(one.reason for one in absent)))
    body = element("body", element("header", *_head(content)), element("main", *body_parts), footer)
    return html_file(MARK, f"{run.study} ({run.run})", body)


def html_file(mark: str, title: str, body: Markup, more_style: str = "") -> str:
    """Return an HTML file that begins with a mark and loads nothing."""
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{plain(POLICY)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(STYLE.read_text(encoding="utf-8") + more_style)),
    )
    return f'{mark}<html lang="en">{head}{body}</html>\n'


def _head(content: Content) -> list[Markup]:
    """Return the title, and the run's status, rounds, repeats and times."""
    run = content.shown.run
    first = content.shown.runs[0]
    facts = [STATUS_WORDS[run.status]]
    if content.shown.trains:
        facts.append(f"{run.rounds} of {content.shown.planned} rounds")
    # It may be one of several repeats.
    if content.shown.is_repeated:
        facts.append(f"{len(content.shown.runs)} of {first.repeats} repeats")
    elif first.repeats > 1:
        facts.append(f"repeat {first.repeat + 1} of {first.repeats}")
    facts += [f"started {moment(first.started)} UTC", seconds_in_words(run.seconds)]
    lines = [f"Run {run.run}: {', '.join(filter(None, facts))}."]
    return [element("h1", run.study), *(element("p", line, class_="facts-line") for line in lines)]


def write_document(path: Path, name: str, *, store: str | None = None, anonymous: bool = False) -> None:
    """Write a run's document into a file for its owner alone.

    Parameters
    ----------
    path : Path
        A new file, or an earlier document of a run, which is replaced.
    name, store, anonymous
        As for `document`.

    Raises
    ------
    UsageError
        If there is no such run, something else is at `path`, or it cannot be written.
    """
    text = document(name, store=store, anonymous=anonymous)
    try:
        if path.is_symlink() or (path.exists() and not _is_document(path)):
            raise UsageError(f"{path}: exists and is no report of a run; it is not replaced")
        replace_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): choose another file") from None


def _is_document(path: Path) -> bool:
    """Return whether a file begins as a document does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(MARK)) == MARK.encode()
