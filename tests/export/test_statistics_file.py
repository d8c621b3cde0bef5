"""`statistics.csv` of an exported run: each figure of the record stands in it once, with its interval."""

import csv
from pathlib import Path
from typing import Any

import pytest

from flfed import Study, run
from flfed.export.run_folder import FILE, Figure, export, figures_of
from flfed.records.objects import read
from flfed.records.statistics.analysis import Analysis, differences
from tests.federation.test_statistics import COVARIANCE, ODDS
from tests.records.analyses import SHAPES, STUDY


def lines_of(path: Path) -> list[dict[str, str]]:
    with (path / FILE).open(newline="") as stream:
        return list(csv.DictReader(stream))


def intervals(one: Any) -> list[dict[str, float] | None]:
    """Every figure with an interval below an object of the record."""
    if not isinstance(one, dict):
        return []
    return [one] if "low" in one else [of for part in one.values() for of in intervals(part)]


@pytest.mark.parametrize("name", SHAPES)
def test_every_figure_of_an_analysis_has_a_line(name: str):
    found = SHAPES[name]
    lines = list(figures_of(found))
    keys = [(one.site, one.group, one.column, one.figure) for one in lines]
    assert len(set(keys)) == len(keys)
    told = [(one.value, one.low, one.high) for one in lines if one.low is not None]
    assert sorted(told) == sorted((of["value"], of["low"], of["high"]) for of in intervals(found) if of)
    unit = f"{found['counts-each']}s"
    assert lines[0] == Figure("", "", "", unit, *(found["rows"][end] for end in ("value", "low", "high")))
    if "groups" in found:
        apart = [one for one in lines if not one.site and one.figure.startswith("difference of ")]
        groups = read(Analysis, found).groups
        assert groups is not None
        recorded = [None if one is None else one.value for *_, one in differences(groups)]
        assert [one.value for one in apart] == recorded
    crossed = [one for one in lines if not one.site and " by " in one.column and one.figure.startswith("count of ")]
    assert [one.value for one in crossed] == [n for of in found["cross"] for row in of["counts"] for n in row]


def test_an_exported_analysis_has_its_figures_as_a_table_and_says_so(small_sites, tmp_path):
    done = run(Study.parse(STUDY), sites=small_sites(3, rows=200)).report
    exported = export(done["run"], tmp_path / "out")
    assert FILE in exported.files and FILE in (tmp_path / "out" / "README.txt").read_text()
    lines, found = lines_of(tmp_path / "out"), done["statistics"]
    assert {line["run"] for line in lines} == {done["run"]}
    assert {line["site"] for line in lines} == {"", *found["by-site"]}
    (mean,) = [
        line for line in lines
        if (line["site"], line["group"], line["column"], line["figure"]) == ("site-02", "red", "x1", "mean")
    ]  # fmt: skip
    of = found["by-site"]["site-02"]["groups"]["of"]["red"]["columns"]["x1"]["mean"]
    assert [float(mean[end]) for end in ("value", "low", "high")] == [of[end] for end in ("value", "low", "high")]


def test_an_exported_statistic_has_its_figures_too(small_sites, tmp_path):
    sites = small_sites(2)
    done = run(Study.parse(ODDS), sites=sites).report
    export(done["run"], tmp_path / "odds")
    found, lines = done["statistics"], lines_of(tmp_path / "odds")
    of_all = {(line["group"], line["figure"]): line for line in lines if not line["site"]}
    ratio = of_all["", "odds-ratio"]
    assert [float(ratio[end]) for end in ("value", "low", "high")] == [
        found["odds-ratio"][k] for k in ("value", "low", "high")
    ]
    for group in found["groups"]:
        assert float(of_all[group["group"], "events"]["value"]) == group["events"]
    done = run(Study.parse(COVARIANCE), sites=sites).report
    export(done["run"], tmp_path / "covariance")
    found = done["statistics"]
    of_all = {
        (one["column"], one["figure"]): one["value"] for one in lines_of(tmp_path / "covariance") if not one["site"]
    }
    assert float(of_all["x2", "covariance with x1"]) == found["covariance"][1][0]
    assert float(of_all["x1", "mean"]) == found["mean"][0] and float(of_all["x1", "sd"]) == found["sd"]["x1"]["value"]


def test_a_stock_has_a_line_for_each_of_whose_errors_set_it():
    judged = {"sites": 2, "service": {"value": 0.94}, "miss": {"value": 0.02}}
    found = {
        "name": "safety-stock", "sites": 2, "forecast": "mean", "until": "2020-06-30", "service": 0.95, "rows": 40,
        "error": {"value": None}, "stocks": {"all-sites": judged, "own": judged}, "by-site": {},
    }  # fmt: skip
    lines = {one.figure: one.value for one in figures_of(found)}
    assert lines == {
        "service": 0.95, "rows": 40, "error": None, "stocks all-sites service": 0.94, "stocks all-sites miss": 0.02,
        "stocks own service": 0.94, "stocks own miss": 0.02,
    }  # fmt: skip
