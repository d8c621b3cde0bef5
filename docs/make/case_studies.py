"""Make the pages of docs/case-studies from runs of the shipped studies: `make case-studies`.

`python -m docs.make.case_studies [NAME...]` verifies each study (all of them without names) and writes its page and the
index. The files of datasets are looked for in the folder that FLFED_TEST_DATA names. Every number of a page is the run
record's; every sentence about joining is the record's own. Ends with 1 where an expected figure does not hold.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.make.reference import table
from flfed import Study, run
from flfed.errors import counted
from flfed.experiments.verify import Verified, verify
from flfed.records.objects import read
from flfed.records.reports.narrative import comparison_rows, verdict_in_words
from flfed.records.reports.report import primary_of, report
from flfed.records.statistics.analysis import count_in_words
from flfed.records.statistics.noised_scores import is_covered, is_uncompared
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.statistics.score_curves import ranks_in_words
from flfed.records.statistics.verdict import Figure, interval, metric_name, number
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.words import render

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "case-studies"
FIELDS: Mapping[str, Sequence[str]] = {
    "Diagnosis": ["heart-disease"],
    "Telemedicine": ["telemonitoring"],
    "A drug's effect": ["pancreatitis-trial"],
    "Side effects of drugs": ["drug-reviews"],
    "Disease monitoring": ["influenza", "influenza-alarm"],
    "Credit": ["taiwan-credit", "taiwan-credit-trees", "loan-default", "sba-loans", "sba-loans-trees"],
    "Fraud": ["card-fraud"],
    "Portfolio": ["portfolio", "portfolio-returns"],
    "Supply chain": ["scms-delivery-mlp", "scms-delivery-trees", "scms-demand", "scms-safety-stock"],
    "Manufacturing": ["machine-faults", "machine-faults-trees", "engine-life", "engine-life-trees"],
    "Energy": ["zone-power", "building-heat", "building-heat-trees"],
}
"""Studies of each field of the article, the index's rows in order."""
SIMULATED = "**Simulated.** A program made these rows: no person, machine or payment in them exists."
MOST_SITES, MOST_LINES = 12, 24
"""Of more sites, and more lines, Table 1 stands in the app and the report alone."""
MADE = "This page is made by `make case-studies` from the record of a run; each number is the record's."


@dataclass(frozen=True)
class CaseStudy:
    """One study's run, as its page and the index need it.

    Attributes
    ----------
    study : Study
    verified : Verified
    found : dict
        The report of the run.
    table_one : list of dict
        Lines of its Table 1.
    """

    study: Study
    verified: Verified
    found: dict[str, Any]
    table_one: list[dict[str, str]]

    @property
    def dataset(self) -> datasets.Dataset:
        """The dataset of the study."""
        return datasets.load(self.study.dataset.name)


def run_of(name: str) -> CaseStudy:
    """Verify a study, and return its run."""
    study = Study.load(name)
    dataset = datasets.load(study.dataset.name)
    if dataset.absent():
        datasets.get(dataset, from_folder=data_folder(), progress=lambda line: None)
    verified = verify(study) if study.expected.figures else _only_run(study)
    with RunReader.open() as reader:
        found = report(reader, verified.run)
        first = reader.runs_of(verified.run)[0].run
        rows = (reader.summary(first, "table-1") or {}).get("rows", [])
    return CaseStudy(study, verified, found, rows)


def _only_run(study: Study) -> Verified:
    """Run a study that expects no figure."""
    found = run(study).report
    known = {key: found[key] for key in ("run", "status", "reason", "repeats")}
    return Verified(study=study.name, figures=(), **known)


def data_folder() -> Path:
    """Return the folder with the files of datasets."""
    return Path(os.environ.get("FLFED_TEST_DATA", ROOT.parent / "shared" / "data"))


def page(case: CaseStudy) -> str:
    """Return the page of a study."""
    schema, source = case.dataset.schema, case.dataset.source
    readme = f"../../datasets/{case.dataset.name}/README.md"
    parts = [
        f"# {case.study.name}",
        f"{schema.description}.",
        SIMULATED if source.synthetic else "",
        f"The study: *{case.study.purpose}*. Dataset [{case.dataset.name}]({readme}); after {source.citation}.",
        "## The answer",
        *(f"**{line}**" if place == 0 else line for place, line in enumerate(verdict(case))),
        *(statistic_parts(case) if "statistics" in case.found else comparison_parts(case)),
        "## What it does not show",
        limits(case.dataset),
        "## Again",
        "```\n" + "\n".join(commands(case)) + "\n```",
        expected(case),
        f"{MADE} What the data are, and their traps: [{case.dataset.name}]({readme}). [All fields](index.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(case: CaseStudy) -> list[str]:
    """Return the sentences of the record, the headline first."""
    found = case.found
    whole = "statistics" in found
    said = statistic_in_words(found["statistics"]) if whole else [*verdict_in_words(found), *ranks_in_words(found)]
    return [anonymous(line) for line in said]


def anonymous(text: str) -> str:
    """Return a sentence without the id of a run, which is another each time."""
    return re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}(-r\d+)?", "RUN", text)


def statistic_parts(case: CaseStudy) -> list[str]:
    """Return the tables of a statistic; those of each site stand in the app and the report alone."""
    parts = ["## The figures"]
    for one in statistic_tables(case.found["statistics"]):
        if not one.of_each_site:
            parts += [f"### {one.title}"] if one.title else []
            parts.append(table(list(one.lines[0]), [list(line.values()) for line in one.lines]))
    return parts


def comparison_parts(case: CaseStudy) -> list[str]:
    """Return sites, figures and Table 1 of a comparison."""
    found, metric = case.found, primary_of(case.found)
    headers, rows, below = comparison_rows(found)
    many = len(found["sites"])
    shown = rows if many <= MOST_SITES else rows[many:]
    sizes = [site["rows"] for site in found["sites"].values() if site["rows"] is not None]
    least, most = (min(sizes), max(sizes)) if sizes else (0, 0)
    span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    of = f" that train on about {span} rows each" if is_covered(found) else f" of {span} rows"
    extent = f"{many} sites{of if sizes else ''}."
    more = "" if many <= MOST_SITES else " Each of them: `flfed run show RUN --all`."
    parts = [
        "## Sites and figures",
        f"{extent} Judged by {metric_name(metric or '')}, on rows nobody trained on.{more}",
    ]
    empty = [place for place in range(len(headers)) if not any(row[place] for row in shown)]
    kept = [place for place in range(len(headers)) if place not in empty]
    parts.append(table([headers[place] for place in kept], [[row[place] for place in kept] for row in shown]))
    parts += [line for line in map(anonymous, below) if not (is_covered(found) and line in verdict(case))]
    points = found.get("operating-points", {}).get("all", [])
    parts += [alarm_line(point) for point in points if point["by"] == "false-positive-rate"]
    lines = [row for row in case.table_one if ": " not in row["Characteristic"] or many <= 4][:MOST_LINES]
    if lines and many <= MOST_SITES:
        columns = list(lines[0])
        parts += ["## Table 1", table(columns, [[row.get(name, "") for name in columns] for row in lines])]
    return parts


def alarm_line(point: Mapping[str, Any]) -> str:
    """Return the counts at thresholds that training rows set, in a sentence."""
    caught, missed = point["tp"], point["fn"]
    false, quiet = point["fp"], point["tn"]
    return (
        f"With thresholds that flag at most {100 * point['at']:g} % of each site's training rows without the outcome, "
        f"{caught} of {caught + missed} test rows with it were flagged ({100 * caught / (caught + missed):.0f} %), and "
        f"{false} of {false + quiet:,} without it ({100 * false / (false + quiet):.1f} %)."
    )


def limits(dataset: datasets.Dataset) -> str:
    """Return the limits of conclusions, from the dataset's README."""
    text = (dataset.folder / "README.md").read_text(encoding="utf-8")
    return text.partition("## What may not be concluded\n")[2].partition("\n## ")[0].strip()


def commands(case: CaseStudy) -> Iterable[str]:
    """Return how to run the study again."""
    files = case.dataset.source.files
    if files and not case.dataset.source.embedded:
        folder = "" if all(file.url for file in files) else " --from DIRECTORY"
        yield f"flfed data get {case.dataset.name}{folder}"
    yield f"flfed study verify {case.study.name}"


def expected(case: CaseStudy) -> str:
    """Return the expected figures beside the run's."""
    rows = [
        (
            f"`{figure.expected.path}`",
            number(figure.expected.value if figure.expected.value is not None else figure.expected.least),
            number(figure.ours),
            "holds" if figure.holds else "does not hold",
        )
        for figure in case.verified.figures
    ]
    if not rows:
        return ""
    runs = f"{case.verified.repeats} runs" if case.verified.repeats > 1 else "one run"
    return f"Expected and found, in {runs}:\n\n" + table(["figure", "expected", "found", ""], rows)


def index_row(field: str, case: CaseStudy) -> list[str]:
    """Return a study's row of the index."""
    found = case.found
    if "statistics" in found:
        sites, figure = found["statistics"]["sites"], FIGURES[found["statistics"]["name"]](found["statistics"])
        said, own = verdict(case)[0], ""
    else:
        metric = primary_of(found) or ""
        sites, of = len(found["sites"]), found["global"][metric]
        figure = f"{metric_name(metric)} {number(of['value'])} ({interval(of['low'], of['high'])})"
        everywhere = (found["own-model-everywhere"] or {}).get(metric)
        own = number(everywhere["value"]) if everywhere else ""
        said = verdict(case)[0]
        if is_uncompared(found):
            said = render("report.noised.gain")
    simulated = ", simulated" if case.dataset.source.synthetic else ""
    return [field, f"[{case.study.name}]({case.study.name}.md){simulated}", str(sites), figure, own, said]


def _odds_ratio(found: Mapping[str, Any]) -> str:
    ratio = found["odds-ratio"]
    return f"odds ratio {number(ratio['value'])} ({interval(ratio['low'], ratio['high'])})"


def _rows_figure(found: dict[str, Any]) -> str:
    """Return the number of rows of an analysis with its interval, and how many columns it has."""
    columns = f"{counted(len(found['columns']), 'column')}, with noise"
    return f"{count_in_words(read(Figure, found['rows']))} {found['counts-each']}s, {columns}"


FIGURES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "odds-ratio": _odds_ratio,
    "analysis": _rows_figure,
    "covariance": lambda found: f"covariances of {len(found['columns'])} columns, exact",
    "safety-stock": lambda found: f"mean miss of the service {number(found['stocks']['all-sites']['miss']['value'])}",
}
"""Figure of each statistic in the index, by its name."""

HEADERS = [
    "field",
    "study",
    "sites",
    "figure (95 % CI)",
    "a site's model at all sites",
    "what the record says of joining",
]
TITLE = (
    "One study or more for each field in which federated learning is promised to help, on public rows, each with its "
    "figure, its rival and its limit. Where joining brings nothing, the row says so."
)
READ = (
    "*A site's model at all sites* is the mean of what each site's own model reaches on the test rows of all. Each "
    "page has the sites, the site's own model beside the shared one, and the command that makes the figure anew."
)


def rows_of_index(path: Path) -> dict[str, list[str]]:
    """Return the rows of an index that was written before, by study."""
    if not path.exists():
        return {}
    lines = [line.strip("| ").split(" | ") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return {found[1]: line for line in lines if (found := re.match(r"\[([a-z0-9-]+)\]", line[1]))}


def index(rows: Mapping[str, Sequence[str]]) -> str:
    """Return the index, of the rows by study."""
    ordered = [rows[name] for names in FIELDS.values() for name in names if name in rows]
    return "\n\n".join(["# Case studies", TITLE, table(HEADERS, ordered), READ, MADE]) + "\n"


def main(names: Sequence[str]) -> int:
    """Write the pages of some studies, and the index."""
    FOLDER.mkdir(exist_ok=True)
    rows, wrong = dict(rows_of_index(FOLDER / "index.md")), 0
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"FLFED_HOME": home, "FLFED_STORE": f"sqlite:///{home}/runs.db"}
        for field, studies in FIELDS.items():
            for name in studies:
                if names and name not in names:
                    continue
                case = run_of(name)
                wrong += not case.verified.holds
                (FOLDER / f"{name}.md").write_text(page(case), encoding="utf-8")
                rows[name] = index_row(field, case)
                (FOLDER / "index.md").write_text(index(rows), encoding="utf-8")
                print(f"docs/case-studies/{name}.md", "" if case.verified.holds else case.verified.error(), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
