"""Make the pages of docs/case-studies from runs of the shipped studies: `make case-studies`.

`python -m docs.make.case_studies [NAME...]` verifies each study (all of them without names), keeps its results, and
writes its page, if it has one, and the index (`docs.make.case_index`). The files of datasets are looked for in the
folder that FLFED_TEST_DATA names. Every number of a page is the run record's; every sentence about joining is the
record's own. Ends with 1 where an expected figure does not hold.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from docs.make import case_index
from docs.make.case_index import BY_ROWS, FIELDS, FOLDER, MADE, TOLD, result_of
from docs.make.reference import table
from flfed import Study, run
from flfed.experiments.verify import Verified, verify
from flfed.records.charts.by_site import chart_of_gains
from flfed.records.charts.chart import picture
from flfed.records.reports.calibration import calibration_of_sites
from flfed.records.reports.narrative import comparison_rows, verdict_in_words
from flfed.records.reports.report import primary_of, report
from flfed.records.section import Section
from flfed.records.sections.gains import by_size, score_in_use
from flfed.records.statistics.noised_scores import is_covered
from flfed.records.statistics.power import Design, least_gain_lines
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.statistics.verdict import metric_name, number
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.words import counted

ROOT = Path(__file__).resolve().parents[2]
AUC = "roc_auc_score"
CAPTION = "A point is a site. In the shaded region, below the dashed line, no site's own test rows could show a gain."
SIMULATED = "**Simulated.** A program made these rows: no person, machine or payment in them exists."
MOST_SITES, MOST_LINES = 12, 24
"""Of more sites, and more lines, Table 1 stands in the app and the report alone."""


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
    said = statistic_in_words(found["statistics"]) if whole else verdict_in_words(found)
    return [anonymous(line) for line in said]


def result(case: CaseStudy) -> dict[str, Any]:
    """Return what the index shows of a study."""
    compared = "sites" in case.found
    metric = metric_name(primary_of(case.found) or "") if compared else ""
    sites = len(case.found["sites"]) if compared else case.found["statistics"]["sites"]
    return result_of(verdict(case), sites, metric)


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
    extent = f"{counted(many, 'site')}{of if sizes else ''}."
    more = "" if many <= MOST_SITES else " Each of them: `flfed run show RUN --all`."
    parts = [
        "## Sites and figures",
        f"{extent} Judged by {metric_name(metric or '')}, on rows nobody trained on.{more}",
    ]
    empty = [place for place in range(len(headers)) if not any(row[place] for row in shown)]
    kept = [place for place in range(len(headers)) if place not in empty]
    parts.append(table([headers[place] for place in kept], [[row[place] for place in kept] for row in shown]))
    parts += [line for line in map(anonymous, below) if not (is_covered(found) and line in verdict(case))]
    by_rows = by_size(found, metric or "")
    if by_rows is not None:
        parts += section_parts(by_rows, f"![Gain by rows of a site]({BY_ROWS}/{case.study.name}.svg)", CAPTION)
    for section in (score_in_use(found), calibration_of_sites(found)):
        if section is not None:
            parts += section_parts(section)
    points = found.get("operating-points", {}).get("all", [])
    parts += [alarm_line(point) for point in points]
    lines = [row for row in case.table_one if ": " not in row["Characteristic"] or many <= 4][:MOST_LINES]
    if lines and many <= MOST_SITES:
        columns = list(lines[0])
        parts += ["## Table 1", table(columns, [[row.get(name, "") for name in columns] for row in lines])]
    return parts


def section_parts(section: Section, *first: str) -> list[str]:
    """Return a section of the app with its first table; `first` stands below the title."""
    lines = section.tables[0].lines
    figures = table(list(lines[0]), [list(line.values()) for line in lines])
    return [f"## {section.title}", *first, *section.lead, figures, *section.says, *section.note]


def gain_by_rows(case: CaseStudy) -> str | None:
    """Return the picture of the gain by a site's number of rows, None of a study without classes of sites."""
    if by_size(case.found, AUC) is None:
        return None
    points = []
    shares = []
    for site in case.found["sites"].values():
        gain = site["difference"].get(AUC, {}).get("value")
        classes = site["holdout-classes"]
        if gain is not None and site["rows"]:
            points.append({"Rows": site["rows"], "Gain in AUC": gain})
            shares.append(classes["1"] / max(sum(classes.values()), 1))
    design = Design(
        auc=case.found["sites-mean"][AUC]["value"], sites=len(points), repeats=case.found["repeats"]
    )  # fmt: skip
    # A page shows it as a file, on white, since its words are dark in a dark theme, too.
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background: #fff" '
    drawn = picture(chart_of_gains(least_gain_lines(fmean(shares), design), points), 720)
    return drawn.replace("<svg ", head, 1) + "\n"


def alarm_line(point: Mapping[str, Any]) -> str:
    """Return the counts at thresholds that training rows set, in a sentence."""
    caught, missed = point["tp"], point["fn"]
    false, quiet = point["fp"], point["tn"]
    return (
        f"With thresholds that flag at most {100 * point['rate']:g} % of each site's training rows without the "
        "outcome, "
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


def main(names: Sequence[str]) -> int:
    """Write the pages of some studies, and the index."""
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"FLFED_HOME": home, "FLFED_STORE": f"sqlite:///{home}/runs.db"}
        for name in [name for studies in FIELDS.values() for name in studies if not names or name in names]:
            case = run_of(name)
            wrong += not case.verified.holds
            if name in TOLD:
                (FOLDER / f"{name}.md").write_text(page(case), encoding="utf-8")
            drawn = gain_by_rows(case) if name in TOLD else None
            if drawn is not None:
                (FOLDER / BY_ROWS / f"{name}.svg").write_text(drawn, encoding="utf-8")
            case_index.keep(name, result(case))
            print(name, "" if case.verified.holds else case.verified.error(), flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
