"""Index of docs/case-studies, sorted by gain, made from the studies' pages: `python -m docs.make.case_index [--check]`.

Every figure, interval and verdict is read off the page of the study, which is made from the record of a run. With
--check nothing is written: each file that is not what the pages give is named, and the command ends with 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd

from docs.make.reference import table
from flfed.records.charts.by_site import ENDS, plot_reach
from flfed.records.charts.chart import Chart, figure_axis, layer, nominal, picture, plot, quantitative, ticks_of
from flfed.records.charts.colours import NEUTRAL, VERDICT_COLOURS
from flfed.records.reports.narrative import ForestLine
from flfed.records.statistics.verdict import (
    DO_NOT_USE,
    INCONCLUSIVE,
    LEAST_SITES,
    MINUS,
    NO_CLEAR_GAIN,
    PAYS,
    VERDICTS,
    better_of,
    describe_verdict,
    metric_name,
    sentence_case,
    size_and_span,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "case-studies"
INDEX, PICTURES = "index.md", "forest"
WIDTH, ROW_HEIGHT, DOT, DIAMOND = 190, 10, 26, 70
"""Size of a thumbnail in pixels, and of its marks in square pixels."""
METRICS = ("roc_auc_score", "mean_absolute_error", "root_mean_squared_error")
"""Metrics of the listed studies."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Listed:
    """A study of the index, in words that people of its field use.

    Attributes
    ----------
    field, name : str
    who : str
        The sites.
    do : str
        What they do, as a verb with its object.
    how : str
        Kind of the shared model, where the field has a study of another kind.
    """

    field: str
    name: str
    who: str
    do: str
    how: str = ""


TREES = ", with boosted trees"
DEFAULTS = "rank loans by their risk of default"
CARDS = "rank card clients by their risk of default"
COLUMNS = ", each with other columns of the same people"
DELIVERIES = "foresee late deliveries of HIV medicines"
LIFE = "estimate how long an engine lasts"
ADJUSTED = "measure whether aspirin helps after a stroke, adjusted for age, blood pressure and sex"
BY_ROWS = "gain-by-rows"
"""Folder of the pictures of gains by a site's number of rows, which `docs.make.case_studies` draws."""
FOR_WHOM = (
    "**It pays for small sites.** Of 464 hospitals of a stroke trial, those with fewer than 200 patients rank theirs "
    "clearly better with the shared model; the fewer patients, the more. A site with thousands of rows and a good "
    "model of its own gains little, and one that differs from the others may lose.",
    f"[![Gain by rows of a hospital]({BY_ROWS}/stroke-outcome-by-hospital.svg)](stroke-outcome-by-hospital.md)",
    "A point is a hospital. In the shaded region no hospital's own test rows could show a gain; all hospitals of a "
    "size together do. `flfed study power STUDY` shows the least gain that your rows can show.",
)
STROKE = "predict death or dependence after a stroke"
SURVIVAL = "compare survival with and without hormonal therapy"
LISTED = (
    Listed("Diagnosis", "heart-disease", "hospitals", "recognise coronary artery disease"),
    Listed("Prognosis", "stroke-outcome", "countries", STROKE),
    Listed("Prognosis", "stroke-outcome-by-hospital", "hospitals", STROKE),
    Listed("Telemedicine", "telemonitoring", "homes", "follow the symptoms of Parkinson's disease"),
    Listed("A drug's effect", "stroke-aspirin", "countries", "measure whether aspirin helps after a stroke"),
    Listed("A drug's effect", "stroke-logistic", "countries", ADJUSTED),
    Listed("Survival", "breast-cancer-survival", "research sites", SURVIVAL),
    Listed("Side effects of drugs", "drug-reviews", "groups of drug reviews", "recognise severe side effects"),
    Listed("Disease monitoring", "influenza", "states", "forecast next week's admissions with influenza"),
    Listed("Credit", "taiwan-credit", "banks", CARDS),
    Listed("Credit", "taiwan-credit-trees", "banks", CARDS, TREES),
    Listed("Credit", "taiwan-credit-parties", "A bank and a payment service", CARDS, COLUMNS),
    Listed("Credit", "loan-default", "lenders", DEFAULTS),
    Listed("Credit", "sba-loans", "lenders to small businesses", DEFAULTS),
    Listed("Fraud", "card-fraud", "banks", "find fraud in card payments"),
    Listed("Portfolio", "portfolio", "custodians", "compute the covariances of twenty stocks"),
    Listed("Manufacturing", "engine-life", "operators", LIFE),
    Listed("Energy", "zone-power", "zones of a city", "forecast how much power they draw"),
)
"""The studies of each field of the article."""
SIMULATED = "**Simulated.** A program made these rows: no person, machine or payment in them exists."
MADE = "This page is made by `make case-studies` from the record of a run; each number is the record's."

HEADLINES = {"A clear improvement": PAYS, "Mean gain": NO_CLEAR_GAIN, "A clear loss": DO_NOT_USE}
SIGNED = rf"[+{MINUS}]?[\d.]+"
SPAN = rf"({SIGNED}) to ({SIGNED})"
MEAN = rf"({SIGNED}) (?:on average|in [^(]+) \(95 % CI {SPAN}"
JOINING = re.compile(rf"({'|'.join(HEADLINES)}) from joining.*? {MEAN}(?:; (\d+) of \d+ sites can be judged)?\)[.:]")
GAIN = re.compile(rf"({SIGNED}) \({SPAN}\), (?:shared|adjusted)")
ONE = re.compile(r"^\*\*(.+) at [a-z0-9-]+\.\*\*$", re.MULTILINE)
"""Verdict of a study of parties, of which one has the outcome."""


@dataclass(frozen=True)
class Page:
    """Figures of a study's page.

    Attributes
    ----------
    listed : Listed
    answer : str
        First sentences of the record.
    sites : int
    metric : str
        "" of a statistic: it compares no models.
    lines : tuple of ForestLine
        One a site whose line is on the page, in its order.
    mean : ForestLine or None
        None where fewer than three sites can be judged.
    shortfall : float or None
        Mean over the sites of the mean gain of what a site model lacks: its error, or 1 - AUC.
    tally : dict of str to int
        Sites by verdict.
    simulated : bool
    """

    listed: Listed
    answer: str
    sites: int
    metric: str
    lines: tuple[ForestLine, ...]
    mean: ForestLine | None
    shortfall: float | None
    tally: Mapping[str, int]
    simulated: bool

    @property
    def share(self) -> float | None:
        """The mean gain as a share of the shortfall, which studies with different metrics have in common."""
        if self.mean is None or self.mean.value is None or not self.shortfall:
            return None
        return self.mean.value / self.shortfall


def figure_in(text: str) -> float:
    """Return a number of a page."""
    return float(text.replace(MINUS, "-"))


def read_page(listed: Listed, text: str) -> Page:
    """Return the figures of a study's page.

    Raises
    ------
    ValueError
        If the page's gain, its sites and its verdicts do not agree.
    """
    answer = re.search(r"^\*\*(.+)\*\*$", text.partition("## The answer\n")[2], re.MULTILINE)
    sites = re.search(r"^(\d+) sites?", text, re.MULTILINE) or re.search(r"\b(\d+) sites\b", text)
    if answer is None or sites is None:
        raise ValueError(f"{listed.name}: the page has no answer, or no number of sites")
    # A page may begin with the sites that took no part.
    stated = JOINING.search(text)
    metric = metric_of(text)
    lines = tuple(forest_line(row, metric) for row in site_rows(text))
    mean, judged = mean_line(text, int(sites[1]))
    counts = tally_of(text, metric) if metric else {}
    if metric and sum(counts.values()) != int(sites[1]):
        raise ValueError(f"{listed.name}: the verdicts are of other sites: {counts}")
    return Page(
        listed=listed,
        answer=answer[1] if stated is None else stated[0],
        sites=int(sites[1]),
        metric=metric,
        lines=lines,
        mean=mean,
        shortfall=shortfall_of(text, metric, lines, mean, judged) if mean else None,
        tally=counts,
        simulated=SIMULATED in text,
    )


def metric_of(text: str) -> str:
    """Return the metric by which a page judges, "" of a statistic."""
    for metric in METRICS:
        if f"Judged by {metric_name(metric)}, " in text:
            return metric
    return ""


def site_rows(text: str) -> list[dict[str, str]]:
    """Return the lines of a page's sites as cells by header."""
    lines = text.partition("## Sites and figures\n")[2].partition("\n## ")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    # A line over all sites ends with empty cells: it has no verdict. Tables of many sites have no such column.
    whole = [row for row in cells[2:] if len(row) == len(cells[0])]
    return [dict(zip(cells[0], row, strict=True)) for row in whole if cells[0][-1] == "verdict"]


def forest_line(row: Mapping[str, str], metric: str) -> ForestLine:
    """Return a site's line of the forest plot."""
    code = {describe_verdict(code, metric): code for code in VERDICTS}[row["verdict"]]
    (gain,) = [cell for header, cell in row.items() if header.startswith("gain ")]
    found = GAIN.fullmatch(gain)
    ends = map(figure_in, found.groups()) if found else (None, None, None)
    site = row["site"]
    own = None if row["site model"] == "n/a" else figure_in(row["site model"])
    return ForestLine(site, site, *ends, code, own=own)


def mean_line(text: str, sites: int) -> tuple[ForestLine | None, int]:
    """Return the mean gain, None where the record has none, and the number of sites in it."""
    found = JOINING.search(text)
    if found is None:
        return None, 0
    judged = int(found[5] or sites)
    ends = map(figure_in, found.group(2, 3, 4))
    return ForestLine(None, f"Mean of {judged} sites", *ends, HEADLINES[found[1]]), judged


def shortfall_of(text: str, metric: str, lines: Sequence[ForestLine], mean: ForestLine, judged: int) -> float:
    """Return what the site models lack on average, over the sites that the mean gain is of."""
    if lines:
        figures = [line.own for line in lines if line.verdict != INCONCLUSIVE and line.own is not None]
        if len(figures) != judged:
            raise ValueError(f"{len(figures)} sites have a verdict, and the mean gain is of {judged}")
        figure = fmean(figures)
    else:
        # A page of many sites has the shared model's mean; the gain leads to the site models'.
        shared = re.search(r"^\| shared model, mean of the sites \| ([\d.]+) \|", text, re.MULTILINE)
        if shared is None or mean.value is None:
            raise ValueError("the page has no mean of the sites")
        sign = -1 if better_of(metric) == "higher" else 1
        figure = figure_in(shared[1]) + sign * mean.value
    return 1 - figure if better_of(metric) == "higher" else figure


def tally_of(text: str, metric: str) -> dict[str, int]:
    """Return the number of sites by verdict, from the record's sentence."""
    words = {code: describe_verdict(code, metric).removesuffix(" here") for code in VERDICTS}
    # The record begins with sites that gain, or, where most can show nothing, with these.
    first = "|".join(sentence_case(words[code]) for code in (PAYS, NO_CLEAR_GAIN, INCONCLUSIVE))
    line = re.search(rf"\b(?:{first}) at \d+ of \d+ sites.*", text)
    alone = ONE.search(text)
    counts = {code: 1 for code, said in words.items() if alone and alone[1] == sentence_case(said)}
    for code, named in words.items():
        more = re.search(rf"(?i:\b{named}) at (\d+)\b", line[0]) if line else None
        if more is not None:
            counts[code] = int(more[1])
    return counts


def sentence(page: Page) -> str:
    """Return what a study shows, in one sentence for people of its field."""
    who = f"{in_letters(page.sites)} {page.listed.who}"
    do, how = page.listed.do, page.listed.how
    if how == COLUMNS:
        (verdict,) = page.tally
        result = describe_verdict(verdict, page.metric)
        if verdict == PAYS:
            result = "clearly better than the outcome's holder alone"
        return f"{page.listed.who} {do}{how}: {result}."
    if not page.metric:
        return f"Together, {who} {do}, and pool no row."
    if page.mean is None:
        return f"Inconclusive on average when {who} {do} together{how}: {judged_in_words(page)}."
    change = change_in_words(page)
    if page.mean.verdict == PAYS:
        return f"Together, {who} better {do}{how}: {change} on average."
    if page.mean.verdict == DO_NOT_USE:
        return f"Together, {who} {do} worse{how}: {change} on average."
    doubt = ", which chance may explain" if percent_of(page) else ""
    return f"No clear improvement on average when {who} {do} together{how}: {change}{doubt}."


def in_letters(count: int) -> str:
    """Return a count as a word, a large one in digits.

    Examples
    --------
    >>> in_letters(4), in_letters(52)
    ('four', '52')
    """
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def percent_of(page: Page) -> int:
    """Return by how many percent the error changes, 0 where it is less than half of one."""
    return round(100 * abs(page.share or 0.0))


def change_in_words(page: Page) -> str:
    """Return the change of the error: of AUC, of the pairs of rows that the model puts in the wrong order."""
    percent = percent_of(page)
    falls = (page.share or 0.0) > 0
    if page.metric == "roc_auc_score":
        amount = "fewer" if falls else "more"
        return f"{percent} % {amount} wrongly ordered pairs" if percent else "as many wrongly ordered pairs, within 1 %"
    size = "smaller" if falls else "larger"
    return f"the error is {percent} % {size}" if percent else "the error is the same, within 1 %"


def judged_in_words(page: Page) -> str:
    """Return how many sites can be judged."""
    judged = page.sites - page.tally.get(INCONCLUSIVE, 0)
    count = in_letters(judged) if judged else "none"
    return f"{count} of {in_letters(page.sites)} sites can be judged"


def tally_in_words(page: Page) -> str:
    """Return at how many sites joining improves the model, and at how many it must not be used.

    Examples
    --------
    >>> listed = Listed("", "", "", "")
    >>> tally_in_words(Page(listed, "", 3, "roc_auc_score", (), None, None, {PAYS: 2, DO_NOT_USE: 1}, False))
    '2 of 3; do not use it at 1'
    """
    parts = [f"{page.tally.get(PAYS, 0)} of {page.sites}"]
    for code in (DO_NOT_USE, INCONCLUSIVE):
        if code in page.tally:
            parts.append(f"{describe_verdict(code, page.metric).removesuffix(' here')} at {page.tally[code]}")
    return "; ".join(parts)


def thumbnail(page: Page) -> str | None:
    """Return the forest plot of a page as SVG: a line a site, the mean as a diamond; None without a gain."""
    lines = [line for line in (*page.lines, page.mean) if line is not None and line.value is not None]
    if not lines:
        return None
    reach = plot_reach(lines)
    rows = pd.DataFrame([{"place": place, **_row(line)} for place, line in enumerate(lines)])
    ends = rows[list(ENDS)].clip(-reach, reach).stack()
    ticks = ticks_of([0.0, *ends], page.metric, difference=True)
    axis = figure_axis("", ticks, grid=False)
    axis["axis"] |= {"title": None, "values": sorted({ticks[0], 0.0, ticks[-1]})}
    axis["scale"]["clamp"] = True
    x = quantitative("value", **axis)
    colours = {"domain": list(VERDICT_COLOURS), "range": list(VERDICT_COLOURS.values())}
    encoding = {
        "y": nominal("place", axis=None),
        "color": nominal("verdict", legend=None, scale=colours),
    }
    zero = {"x": quantitative("at"), "y": {"value": 0}, "y2": {"value": "height"}, "color": {"value": NEUTRAL}}
    layers = [
        layer("rule", zero, strokeDash=[3, 2]) | {"data": {"values": [{"at": 0}]}},
        layer("rule", {"x": x | {"field": "low"}, "x2": {"field": "high"}}, strokeWidth=2),
        layer("point", {"x": x}, "!datum.mean", filled=True, opacity=1, size=DOT),
        layer("point", {"x": x}, "datum.mean", filled=True, opacity=1, size=DIAMOND, shape="diamond"),
    ]
    drawn = picture(Chart(rows, plot(ROW_HEIGHT * len(lines), encoding=encoding, layer=layers)), WIDTH)
    # A page shows it as a file, and not as a part of its own text.
    return svg_file(drawn)


def svg_file(drawn: str) -> str:
    """Return a picture as the text of a file; on white, since its words are dark in a dark theme, too."""
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background: #fff" ', 1) + "\n"


def _row(line: ForestLine) -> dict[str, object]:
    """Return a line of a thumbnail."""
    figures = dict(zip(ENDS, (line.value, line.low, line.high), strict=True))
    return figures | {"verdict": line.verdict, "mean": line.site is None}


TITLE = (
    "One study or more for each field in which federated learning is promised to help, on public rows. Where joining "
    "brings nothing, the sentence says so. The studies are sorted by the average gain from joining."
)
HEADERS = ["study", "gain at each site, and the mean", "in one sentence", "gain (95 % CI)", "joining improves at"]
PARTIES = ["study", "picture", "in one sentence", "gain (95 % CI)"]
OTHERS = ["study", "gain at each site", "in one sentence", "why it has no average gain"]
READ = [
    "## How to read it",
    "- **The order** is by the average gain as a share of what the site models lack: of their error, or of 1 − AUC. "
    "This share is the same for any metric. An order by gain is no order by certainty.",
    "- **A wrongly ordered pair** is one row with the outcome and one without, of which the model ranks the wrong one "
    "higher. Their share is 1 − AUC.",
    "- **In a picture** each line is a site with the interval of its verdict, and the diamond is the mean. Right of 0 "
    "joining is better. Green: joining improves the model. Orange: do not use it there. Grey: no clear improvement.",
    "- **The gain** is the shared model before adjustment against the model that each site has alone. It is the mean "
    "over the sites that can be judged.",
    "- **Sites** are parts of one public file in most studies, and no institutions that met. Each page has its limits "
    "under What it does not show.",
    "- **No site is a winner** unless its interval lies above the least gain that the study names. Each page has the "
    "sites one by one, and the command that makes its figures again.",
]


def row_of(page: Page) -> list[str]:
    """Return a study's row of its table."""
    name = page.listed.name
    link = f"[{name}]({name}.md) · {page.listed.field}"
    if page.simulated:
        link += " · simulated"
    shown = f"![Forest plot of {name}]({PICTURES}/{name}.svg)" if thumbnail(page) else ""
    cells = [link, shown, sentence(page)]
    if page.listed.how == COLUMNS:
        (line,) = page.lines
        size, span = size_and_span(line.gain)
        return [*cells, f"{metric_name(page.metric)} {size} ({span})"]
    if page.mean is None:
        return [*cells, reason_of(page)]
    found = JOINING.search(page.answer)
    if found is None:
        raise ValueError(f"{name}: the answer has no gain")
    gain = f"{metric_name(page.metric)} {found[2]} ({found[3]} to {found[4]})"
    return [*cells, gain, tally_in_words(page)]


def reason_of(page: Page) -> str:
    """Return why a study has no mean gain."""
    if not page.metric:
        return f"Nothing is trained or compared. {page.answer}"
    return f"A mean needs {LEAST_SITES} sites that can be judged. Joining improves at {tally_in_words(page)}."


def index(pages: Sequence[Page]) -> str:
    """Return the index: by gain, then comparisons without a mean gain, then statistics."""
    with_gain = [page for page in pages if page.share is not None]
    with_gain.sort(key=lambda page: -(page.share or 0.0))
    parties = [page for page in pages if page.listed.how == COLUMNS]
    parties.sort(key=lambda page: -(page.lines[0].value or 0.0))
    others = [page for page in pages if page.share is None and page not in parties]
    # Python keeps the order of pages that are alike: that of the fields.
    others.sort(key=lambda page: (not page.metric, not any(line.value is not None for line in page.lines)))
    parts = ["# Case studies", *FOR_WHOM, TITLE, "## By gain", table(HEADERS, map(row_of, with_gain))]
    parts += ["## Different columns of the same people", table(PARTIES, map(row_of, parties))] if parties else []
    parts += ["## Without an average gain", table(OTHERS, map(row_of, others))]
    return "\n\n".join([*parts, READ[0], "\n".join(READ[1:]), MADE]) + "\n"


def read_pages(folder: Path = FOLDER) -> list[Page]:
    """Return the pages of all listed studies that have been written."""
    texts = {listed: folder / f"{listed.name}.md" for listed in LISTED}
    return [read_page(listed, path.read_text(encoding="utf-8")) for listed, path in texts.items() if path.exists()]


def files_of(pages: Sequence[Page]) -> dict[str, str]:
    """Return the text of the index and of each picture, by path in the folder."""
    files = {INDEX: index(pages)}
    for page in pages:
        drawn = thumbnail(page)
        if drawn is not None:
            files[f"{PICTURES}/{page.listed.name}.svg"] = drawn
    return files


def differing(folder: Path = FOLDER) -> list[str]:
    """Return the files of the index that are not what the pages give, also those that no page gives."""
    files = files_of(read_pages(folder))
    there = {path.relative_to(folder).as_posix() for path in (folder / PICTURES).glob("*")} | {INDEX}
    wrong = there - files.keys()
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.add(name)
    return sorted(wrong)


def write(folder: Path = FOLDER) -> None:
    """Write the index and its pictures."""
    (folder / PICTURES).mkdir(exist_ok=True)
    for name, text in files_of(read_pages(folder)).items():
        (folder / name).write_text(text, encoding="utf-8")


def main(options: Sequence[str]) -> int:
    """Write the index, or with --check name the files that differ."""
    if "--check" not in options:
        write()
        return 0
    wrong = differing()
    for name in wrong:
        print(f"docs/case-studies/{name} is not what the pages give: python -m docs.make.case_index")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
