"""Recorded analyses of every shape for tests, made of noised answers by the formulas of a run."""

import copy
import re
from typing import Any

import numpy as np

from flfed.records.reports.report import report
from flfed.records.section import Table
from flfed.records.statistics.recorded_statistic import statistic_tables
from flfed.records.statistics.verdict import MINUS
from flfed.records.store.entries import SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.summaries.analysis import AnalysisLayout
from flfed.summaries.summary import ColumnLayout

STUDY = """
format = 1
name = "small-analysis"
purpose = "Describe made rows"
legal-basis = "made for tests"
seed = 3
[dataset]
name = "small"
[statistic]
name = "summary"
columns = ["x1", "x2", "flag", "y"]
groups = "colour"
quantiles = [0.1, 0.5]
cross = [["colour", "y"]]
[privacy]
name = "record-dp"
epsilon = 8.0
delta = 1e-3
"""
CUT = """
format = 1
name = "wine-analysis"
purpose = "Describe made sites"
legal-basis = "public data that ships with scikit-learn"
[dataset]
name = "wine"
partition = { by = "iid", sites = 2, seed = 1 }
[statistic]
name = "summary"
columns = ["alcohol"]
[privacy]
name = "record-dp"
epsilon = 8.0
delta = 1e-3
"""
DEVIATION = 5.0
Found = dict[str, Any]

AGE = ColumnLayout(
    name="age", kind="number", cells=("a", "b", "c", "d", "missing"), edges=(0.0, 25.0, 50.0, 75.0, 100.0), unit="years"
)
COST = ColumnLayout(
    name="cost", kind="number", cells=("a", "b", "missing"),
    edges=(0.0, float(np.log1p(99.0)), float(np.log1p(9999.0))), transform="log1p",
)  # fmt: skip
SEX = ColumnLayout(name="sex", kind="category", cells=("female", "male", "missing"))
MANY = ColumnLayout(name="ward", kind="category", cells=(*(f"w{number:02d}" for number in range(50)), "missing"))


def recorded(layout: AnalysisLayout, *, rows: float = 4000.0, by_site: bool = True, unit: str = "row") -> Found:
    """The object "statistics" of noised answers that were drawn with a fixed seed, about evenly over all cells."""
    rng, parts = np.random.default_rng(7), []
    for name, shape in layout.shapes().items():
        size = int(np.prod(shape))
        # A clipped sum lies about its range's middle, its square at a third of the rows.
        mean = {"total": 0.05, "square": 0.33}.get(name.split(" ")[0], 1.0)
        each = rows / (layout.groups if name.split(" ")[0] in ("rows", "total", "square") else size)
        parts.append(mean * each + rng.normal(0, DEVIATION, size).round())
    found = layout.figures(np.concatenate(parts), DEVIATION)
    each_site = {f"site-{number}": {"counts-each": unit, **found} for number in (1, 2)} if by_site else {}
    return copy.deepcopy({"name": "analysis", "sites": 2, "counts-each": unit, **found, "by-site": each_site})


def layout_of(*columns: ColumnLayout, **more: Any) -> AnalysisLayout:
    return AnalysisLayout(columns=columns, **({"group": None, "cross": (), "quantiles": (0.25, 0.5)} | more))


SHAPES = {
    "all": recorded(layout_of(AGE, COST, MANY, group=SEX, cross=((SEX, MANY),))),
    "one number": recorded(layout_of(AGE, quantiles=()), by_site=False),
    "one category": recorded(layout_of(SEX), by_site=False),
    "fifty groups": recorded(layout_of(AGE, SEX, group=MANY), rows=90_000.0),
    "fifty by fifty": recorded(layout_of(cross=((MANY, MANY),)), by_site=False),
    "groups alone": recorded(layout_of(group=SEX)), "persons": recorded(layout_of(AGE, SEX), unit="person"),
    "persons by group": recorded(layout_of(AGE, SEX, group=SEX, cross=((SEX, SEX),)), unit="person"),
    "lost": recorded(layout_of(AGE, COST, SEX, group=MANY, cross=((SEX, MANY), (SEX, SEX))), rows=40.0),
    "nobody": recorded(layout_of(AGE, SEX), rows=0.0, by_site=False),
}  # fmt: skip


def told(found: Found) -> list[Table]:
    return [table for table in statistic_tables(found) if not table.of_each_site]


def table_of(found: Found, title: str) -> list[dict[str, str]]:
    return next((table.lines for table in told(found) if table.title.startswith(title)), [])


def figures_in(cell: str) -> list[tuple[float, int]]:
    """Each number of a cell, with how many decimals it is written."""
    texts = re.findall(rf"[{MINUS}+]?(?:\d[\d,]*)?\.?\d+", cell)
    plain = [text.replace(",", "").replace(MINUS, "-") for text in texts]
    return [(float(text), len(text.partition(".")[2])) for text in plain]


def is_shown(cell: str, one: Found | None, scale: float = 1.0) -> bool:
    """Whether a cell has a figure with both ends as the record has them, to its last digit."""
    if one is None:
        return cell == "n/a"
    ends = [scale * one[end] for end in ("value", "low", "high")]
    shown = figures_in(cell)
    return len(shown) == 3 and all(
        abs(value - end) <= 0.5000001 * 10**-decimals for (value, decimals), end in zip(shown, ends, strict=True)
    )


PRIVACY = {
    "mechanism": "record-dp", "unit": "person", "epsilon": 7.9824, "delta": 1e-4, "noise": 0.545, "sampling": 1.0,
    "clip": 1.0, "steps": 1, "excludes-encoder": False, "trusts-server": None, "warnings": [],
    "uncharged": ["How long."],
}  # fmt: skip
SPENT = {"steps": 1, "epsilon": 7.9824, "delta": 1e-4, "budget": 10.0, "spent-before": 1.19}


def in_store(
    store: RunStore,
    url: str,
    found: Found | None,
    *,
    text: str = STUDY,
    engine: str = "inprocess",
    sums: Found | None = None,
    refused: str = "",
) -> Found:
    """The report of a run without rounds, written as the recorder does; a third site `refused` where one is named."""
    series = store.begin_series(study="small-analysis", study_sha256="ab" * 32, study_text=text)
    facts = {"engine": engine, "path": "stacked", "primary": "roc_auc_score", "task": "binary"}
    made = store.begin_run(series, seed=3, rounds_planned=0, **facts)
    for site in ("site-1", "site-2"):
        made.sites([SiteRow(site, title=site, rows=None, holdout_rows=None, resplit=False)])
    if refused:
        made.sites([SiteRow(refused, status="refused", reason="its policy does not allow the data set small")])
    made.summary("privacy", {**PRIVACY, "sites": {"site-1": SPENT, "site-2": SPENT}})
    if sums is not None:
        made.summary("secure-sums", sums)
    if found is not None:
        made.summary("statistics", found)
    made.finish(status="completed" if found else "failed", seconds=0.4, reason="" if found else "no site answered")
    with RunReader.open(url) as reader:
        return report(reader, series)
