"""Document of a run: one HTML file without scripts that loads nothing.

It is made of the store through `reports` and `statistics`, which the pages and `flfed run show` use as well: no figure
and no verdict is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flfed.errors import UsageError
from flfed.paths import replace_whole
from flfed.records.charts.by_round import of_all_sites, of_each_site
from flfed.records.charts.chart import axis_title
from flfed.records.charts.colours import site_looks
from flfed.records.document import evidence, sections
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, bullets, element, joined, paragraphs, plain, section, table
from flfed.records.objects import figure_of, run_of
from flfed.records.reports import site_answer
from flfed.records.reports.faults import STATUS_WORDS, leaks_in_words, missing_in_words, unfinished_in_words
from flfed.records.reports.narrative import (
    comparison_rows,
    doubts,
    forest_lines,
    headline,
    story,
    verdict_in_words,
)
from flfed.records.reports.report import arms_shown, metrics_of, purpose_of
from flfed.records.reports.round_totals import ON_ROWS
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.sections.gains import at_the_ends, gains, references
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    NO_ROUNDS,
    is_covered,
    lost_in_words,
    own_under_noise,
)
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.statistics.verdict import (
    interval,
    metric_name,
    number,
    sentence_case,
)
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import Viewer
from flfed.records.text import moment

MARK = "<!DOCTYPE html>\n<!-- Report of a run by flfed -->\n"
"""Begins each document: only a file that begins so is replaced."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser lets the document load: its own style, and nothing else."""
MOST_DRAWN = 20
"""Sites of the forest plot, a page of A4; of more, those at its ends."""
MANY_SITES = 12
"""Of more sites only the primary metric is shown at each."""
Lines = list[dict[str, object]]
STYLE = Path(__file__).parent / "style.css"
NO_MODEL = "The study trains no model: it counts rows over all sites, and nothing is compared."
OWN = "Figures of {site} only: those over all sites would, with its own taken away, tell of others."
OWN_NOISED = "Figures of {site}, and over all sites those that are made of noised counts of three sites or more."


def answer(content: Content) -> Markup:
    """Return the question and its answer, the verdict first."""
    found = content.found
    first, *others = _verdict(content)
    words = [] if content.metric is None else headline(found, content.metric)
    words = [line for line in _words(content) if line not in {first, *others, *words}]
    tables = Markup()
    statistic = run_of(found).statistics
    if statistic:
        # The figure stands first, with who is missing from it; what is to be known of the tables comes after them.
        tables = joined(sections.tables_of(one) for one in statistic_tables(statistic))
        words = [*others, *words]
        others = missing_in_words(found)
    said = [element("p", element("strong", first))]
    said += [element("p", line) for line in others]
    box = element("div", *said, class_="verdict")
    note = paragraphs([f"**Note:** {content.note}"]) if content.note else ""
    warnings = bullets([line for line in _warnings(content) if line not in others], class_="warnings")
    return section("Question and answer", _purpose(content), box, tables, warnings, note, bullets(words))


def _purpose(content: Content) -> Markup:
    """Return what the study is for, as a sentence."""
    purpose = purpose_of(content.series.study_text)
    if not purpose:
        return Markup()
    end = "" if purpose[-1] in ".?!" else "."
    return element("p", f"{purpose}{end}", class_="purpose")


def _verdict(content: Content) -> list[str]:
    """Return the headline, and what belongs right below it."""
    found = content.found
    run = run_of(found)
    if "statistics" in found:
        return statistic_in_words(run.statistics, run.repeats)
    if content.only is not None:
        return _verdict_of_site(content, content.only)
    if content.metric is None:
        return _nothing(content)
    return verdict_in_words(found)


def _verdict_of_site(content: Content, only: str) -> list[str]:
    """Return the same for the people of one site."""
    found = content.found
    metric = content.metric
    sites = run_of(found).sites
    if metric is not None and only in sites:
        said = site_answer.should_it_join(found, only, metric)
        sentence = site_verdict(sites[only], metric)[1]
        return [*doubts(found, metric), said, sentence, *own_under_noise(found)]
    why = site_answer.why_not_told(found, content.sites, only)
    return [why] if why else _nothing(content)


def _nothing(content: Content) -> list[str]:
    """Return that nothing was compared, and why."""
    found = content.found
    run = run_of(found)
    if run.status == "completed" and not content.runs[0].rounds_planned:
        return [NO_MODEL]
    told = {*missing_in_words(found), *odd_sites_in_words(found)}
    first, *others = [line for line in comparison_rows(found)[2] if line not in told]
    why = run.reason.rstrip(".")
    # A long reason in the headline would hide it.
    return [first.replace(f" ({why})", ""), f"{sentence_case(why)}.", *others] if why else [first, *others]


def _warnings(content: Content) -> list[str]:
    """Return what to know before the figures are believed."""
    found = content.found
    lines = [*unfinished_in_words(found, only=content.only), *missing_in_words(found), *odd_sites_in_words(found)]
    return [*lines, *leaks_in_words(content.leaks)]


def _words(content: Content) -> list[str]:
    """Return the run in words, without what stands above."""
    found, only = content.found, content.only
    metric = content.metric
    if only is not None:
        if metric is None or only not in run_of(found).sites:
            return []
        left_to_others = (site_answer.COSTS, site_answer.NO_MORE)
        return [line for line in site_answer.rests_on(found, only, metric) if line not in left_to_others]
    # A statistic is told in words above, and has no rounds to tell of.
    if "statistics" in found:
        return []
    told = {*missing_in_words(found), *odd_sites_in_words(found)}
    return [line for line in story(found, planned=content.runs[0].rounds_planned) if line not in told]


def figures(content: Content) -> Markup:
    """Return the figures of every site with their 95 % CI, and those over all sites."""
    found, metric = content.found, content.metric
    if metric is None:
        return Markup()
    order = _sites(content, metric)
    lines = _site_lines(found, metric, order)
    below = [] if content.only else [line for line in comparison_rows(found)[2] if line not in _told(content)]
    summed = [] if content.only else site_answer.together(found, metric)
    lost = lost_in_words(found, metric) if is_covered(found) else []
    notes = [*site_answer.untold_at(found, metric, order), *lost, *summed, *site_answer.left_out(content.sites)]
    parts = [
        paragraphs([f"{sentence_case(axis_title(metric))}, on test rows that no model was trained on."], class_="lead"),
        table(lines),
        bullets([*below, *(line for line in notes if line not in below)], class_="notes"),
    ]
    over = references(found, metric)
    if over.charts:
        parts += sections.part(over)
    return section("Figures with 95 % CI", *parts)


def _told(content: Content) -> set[str]:
    """Return the sentences that the first section has."""
    return {*_verdict(content), *_warnings(content), *_words(content)}


def _sites(content: Content, metric: str) -> list[str]:
    """Return the sites with figures of their own, the largest gain first."""
    own = set(site_answer.own_figures(content.found, content.sites))
    return [name for name in site_answer.order_of_sites(content.found, metric) if name in own]


def _site_lines(found: Report, metric: str, sites: Sequence[str]) -> Lines:
    arms = arms_shown(found, metric)
    return [dict(site_answer.site_line(found, name, metric, arms)) for name in sites]


def further(content: Content) -> Markup:
    """Return the other metrics: over all sites, and at each site where these are few."""
    found, metric = content.found, content.metric
    others = [name for name in metrics_of(found) if name != metric]
    # From noised counts all figures follow at once: they stand with the counts.
    if metric is None or not others or is_covered(found):
        return Markup()
    over = [line for name in others if (line := _metric_line(found, name))]
    parts = [table(over)]
    order = _sites(content, metric)
    if len(order) <= MANY_SITES:
        for name in others:
            lines = _site_lines(found, name, order)
            parts.append(element("div", element("h3", sentence_case(axis_title(name))), table(lines), class_="whole"))
    else:
        said = f"Those at each of the {len(order)} sites are told by `flfed run show {run_of(found).run} --json`."
        parts.append(paragraphs([said]))
    return section("Further figures", *parts)


def _metric_line(found: Report, metric: str) -> dict[str, object]:
    run = run_of(found)
    arms = {"Shared model": run.global_, "Mean of the sites": run.sites_mean, "All rows together": run.pooled}
    cells: dict[str, object] = {}
    for title, figures in arms.items():
        if not (figures or {}).get(metric):
            continue
        figure = figure_of(figures, metric)
        span = ""
        if figure.low is not None and figure.high is not None:
            span = f" ({interval(figure.low, figure.high)})"
        cells[title] = number(figure.value) + span
    return {"Over all sites": sentence_case(axis_title(metric))} | cells if cells else {}


def forest(content: Content) -> Markup:
    """Return the forest plot: a row a site, and last the mean over sites."""
    found, metric = content.found, content.metric
    if metric is None:
        return Markup()
    own = _sites(content, metric)
    shown = at_the_ends(found, metric, MOST_DRAWN, of=own)
    if all(line.value is None for line in forest_lines(found, metric, shown)):
        return Markup()
    return sections.written(gains(found, metric, shown, len(own)))


def by_round(content: Content) -> Markup:
    """Return the figure by round, of all sites together and of each."""
    rounds = content.rounds
    known = []
    if rounds is not None:
        known = [point for point in rounds.points if point.value is not None and point.round]
    if rounds is None or not known:
        alone = is_covered(content.found) and run_of(content.found).status == "completed"
        return section("Course of the training", paragraphs([NO_ROUNDS])) if alone else Markup()
    looks = site_looks(site.site for site in content.sites)
    name = metric_name(rounds.metric)
    last = max(point.round for point in known)
    charts_of = {
        "all sites together": of_all_sites(known, rounds.metric),
        "each site": of_each_site(known, rounds.metric, looks),
    }
    pictures = []
    for whose, drawn in charts_of.items():
        says = f"{name} by round, {whose}, up to round {last}"
        pictures.append(sections.chart(f"{name} by round, {whose}", drawn, says=says))
    rows = f"These curves are {ON_ROWS.get(rounds.arm, rounds.arm)}."
    if len(content.runs) > 1:
        rows += " They are means over the repeats."
    drawn_charts = element("div", *pictures, class_="charts")
    return section("Course of the training", drawn_charts, paragraphs([rows], class_="note"))


SECTIONS = (
    answer,
    forest,
    figures,
    evidence.sites,
    evidence.table_1,
    by_round,
    evidence.curves,
    evidence.calibrated,
    evidence.flagged,
    evidence.exactly_flagged,
    evidence.decision_curves,
    evidence.by_group,
    evidence.split_columns,
    evidence.needed_columns,
    further,
    evidence.privacy,
    evidence.limits,
    evidence.words,
    evidence.hashes,
)
"""Sections in the order in which they are read."""
WITHOUT_MODEL = (answer, evidence.sites, evidence.privacy, evidence.words, evidence.hashes)
"""Those of a study that trains nothing: what it does not show stands with its figures."""


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
    run = run_of(content.found)
    head = joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{plain(POLICY)}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", f"{run.study} ({run.run})"),
            element("style", Markup(STYLE.read_text(encoding="utf-8"))),
        ]
    )
    parts = [section(content) for section in (SECTIONS if content.runs[0].rounds_planned else WITHOUT_MODEL)]
    body = element(
        "body", element("header", *_head(content)), element("main", *parts), element("footer", *_foot(content))
    )
    return f'{MARK}<html lang="en">{element("head", head)}{body}</html>\n'


def _head(content: Content) -> list[Markup]:
    """Return the title, and what run it is."""
    found = content.found
    run = run_of(found)
    first = content.runs[0]
    rounds = f", {run.rounds} of {first.rounds_planned} rounds" if first.rounds_planned else ""
    went = f"{STATUS_WORDS[run.status]}{rounds}{_which_repeats(content)}"
    line = f"Run {run.run}: {went}, started {moment(first.started)} UTC{_took(run.seconds)}."
    parts = [element("h1", run.study), element("p", line, class_="facts-line")]
    if content.only:
        own = OWN_NOISED if "statistics" in found or is_covered(found) else OWN
        parts.append(element("p", own.format(site=content.only), class_="facts-line"))
    return parts


def _took(seconds: float | None) -> str:
    """Return how long a run took, where that is known."""
    if seconds is None:
        return ""
    return f", {seconds:.0f} seconds" if seconds >= 10 else f", {seconds:.1f} seconds"


def _which_repeats(content: Content) -> str:
    """Return which of a run's repeats the document is of, where there are several."""
    of = content.runs[0].repeats
    if of <= 1:
        return ""
    if len(content.runs) == 1:
        return f", repeat {content.runs[0].repeat + 1} of {of}"
    return f", {len(content.runs)} of {of} repeats"


def _foot(content: Content) -> list[Markup]:
    """Return from what the document was made, and when."""
    run = run_of(content.found)
    state = "" if run.status == "completed" else " The run has not been completed: a later report may differ."
    made = f"Made by flfed from the record of run {run.run}."
    return [paragraphs([f"{made} The file loads nothing and can be kept as it is.{state}"])]


def write_document(path: Path, name: str, *, store: str | None = None, site: str = "") -> None:
    """Write a run's document into a file for its owner alone.

    Parameters
    ----------
    path : Path
        A new file, or an earlier document of a run, which is replaced.
    name, store
        As for `document`.
    site : str
        For the people of this site: its figures alone.

    Raises
    ------
    UsageError
        If there is no such run, something else is at `path`, or it cannot be written.
    """
    viewer = Viewer("site", site) if site else Viewer()
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
