"""Studies of coefficients over visits: their JSON, table, document, files, approval, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import statsmodels.api as sm
from typer.testing import CliRunner

from flfed import Study, run
from flfed.cli.run_tables import print_report
from flfed.cli.runs import app as runs
from flfed.cli.study import app as studies
from flfed.errors import UsageError
from flfed.experiments.verify import verify
from flfed.export.run_folder import export
from flfed.federation.engines.engine import find_sites
from flfed.records.document.document import document
from flfed.records.reports.report import report
from flfed.records.sections.statistic import estimates
from flfed.records.statistics.recorded_statistic import statistic_tables
from flfed.records.statistics.regression import coefficient_lines
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.statistics.of_study import visits_in_words
from tests.approval_text import details, ten_lines
from tests.fitting import design, distances, glm
from tests.records.one_answer import page
from tests.records.one_answer import words as words_of
from tests.small_runs import tables

Small = Callable[..., list[Site]]
HEAD = """
format = 1
name = "small-estimate"
purpose = "Estimate"
legal-basis = "made for tests"

[dataset]
name = "small"
"""
GLM = f'{HEAD}\n[statistic]\nname = "glm"\nfamily = "binomial"\nof = ["x1", "colour", "flag"]\n'
COX = f'{HEAD}\n[statistic]\nname = "cox"\ntime = "x1"\nof = ["x2", "colour"]\n'
GAUSSIAN = f'{HEAD}\n[statistic]\nname = "glm"\nfamily = "gaussian"\noutcome = "x1"\nof = ["flag"]\n'
SECURE = '\n[privacy]\nsecure-aggregation = "on"\n'


@pytest.mark.parametrize(("text", "effect", "names"), [
    (GLM, "odds ratio of y", ["intercept", "x1", "colour=green", "colour=blue", "flag"]),
    (COX, "hazard ratio of y", ["x2", "colour=green", "colour=blue"]),
    (GAUSSIAN, "difference of x1", ["intercept", "flag"]),
])  # fmt: skip
def test_estimates_are_in_json_table_document_and_file(
    text: str, effect: str, names: list[str], small_sites: Small, capsys, tmp_path: Path
):
    done = run(Study.parse(text + SECURE), sites=small_sites(3, rows=120))
    print_report(done.report)
    for shown in (capsys.readouterr().out, document(done.run)):
        words = " ".join(shown.split())
        assert effect in words and "95 % CI" in words and "after" in words and "visits" in words
        assert "Sums are exact, and no site" in words
    assert "<svg" in document(done.run)
    opened = page("p20_overview", done.run)
    assert effect in words_of(opened) and opened.main.children and opened.get("vega_lite_chart")
    # The title of the chart is the only one.
    assert words_of(opened).count(f"{effect.capitalize()} (95 % CI)") == 1
    assert f"## {effect.partition(' of ')[0].capitalize()}" not in words_of(opened)
    found = json.loads(CliRunner().invoke(runs, ["show", done.run, "--json"]).stdout)["statistics"]
    assert list(found["coefficients"]) == names
    assert all(set(one) == {"value", "standard-error", "low", "high", "p"} for one in found["coefficients"].values())
    assert "by-site" not in found
    export(done.run, tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "report.json").read_text())["statistics"] == found


def test_table_and_chart_have_the_same_digits():
    # An interval to above 1.5 has two decimals, and so has its figure; alone it would have three.
    ends = {"value": -0.2293, "standard-error": 0.45, "low": -1.11, "high": 0.65, "p": 0.61}
    exact = {"value": 0.02, "standard-error": 0.001, "low": 0.018, "high": 0.022, "p": 0.0}
    figures = {"family": "binomial", "outcome": "y", "sites": 2, "visits": 3, "rows": 9, "deviance": 1.0, "aic": 1.0}
    figures["coefficients"] = {"intercept": exact, "wide": ends, "narrow": exact}
    section = estimates(figures)
    assert section is not None
    drawn = section.charts[0].draw().rows
    table = [line["Odds ratio (95 % CI)"] for line in coefficient_lines(figures)]
    assert [text.partition(" ")[0] for text in table] == ["", "0.80", "1.020"] == ["", *drawn["shown"]]


def test_an_odds_ratio_has_as_many_decimals_as_its_interval():
    groups = [{"group": "no", "rows": 79, "events": 33}, {"group": "yes", "rows": 150, "events": 68}]
    figures = {"name": "odds-ratio", "by": "h", "sites": 2, "groups": groups}
    figures["odds-ratio"] = {"value": 0.8652, "low": 0.4981, "high": 1.5029}
    [table] = statistic_tables(figures)
    assert [line["Odds ratio (95 % CI)"] for line in table.lines] == ["0.87 (0.50 to 1.50)"]


def test_an_approval_says_how_many_numbers_leave_and_what_they_reveal(small_sites: Small):
    sites = small_sites(3)
    words = " ".join(details(Study.parse(GLM + SECURE), sites[0], ["site-02", "site-03"]))
    # Five coefficients: a gradient, 15 pairs and a deviance, and two counts.
    assert "Released at most 10 times" in words and "of 23 numbers; 230 in all" in words
    assert "three visits reveal how many rows have each combination of values" in words
    assert "none, and 10 exchanges at most" in words
    lines = " ".join(ten_lines(Study.parse(GLM + SECURE), sites[0], ["site-02", "site-03"]))
    assert "23 numbers at each of up to 10 visits" in lines and "cross-table of all sites" in lines


def test_a_check_says_how_many_visits_and_rows_a_model_takes(small_sites: Small):
    small_sites(3)
    study = Study.parse(GLM + SECURE)
    (line,) = visits_in_words(study, datasets.load(study.dataset.name).schema)
    assert "Visits: at most 10" in line and "5 coefficients need at least 50 rows in all" in line


@pytest.mark.parametrize(("of", "columns"), [
    ('["x1 * flag"]', "x1, flag"), ('["x1", "x1*colour"]', "colour"), ('["x1*flag", "flag", "x1"]', ""),
])  # fmt: skip
def test_a_product_without_its_main_effects_is_warned_of(of: str, columns: str, small_sites: Small):
    sites = small_sites(3, rows=120)
    study = Study.parse(GLM.replace('["x1", "colour", "flag"]', of))
    found = visits_in_words(study, datasets.load("small").schema)[1:]
    assert [line.split("missing: ")[1].split(".")[0] for line in found] == [columns] * bool(columns)
    assert all(line in document(run(study, sites=sites).run) for line in found)


def test_ten_rows_a_coefficient_are_needed_in_secure_sums(small_sites: Small):
    # Bands of 10 to 99 rows have 30 in all.
    with pytest.raises(UsageError, match="5 coefficients need 50 rows at institutions"):
        run(Study.parse(GLM + SECURE), sites=small_sites(3, rows=60))
    assert run(Study.parse(GLM), sites=small_sites(3, rows=60)).report["statistics"]["sites"] == 3


@pytest.mark.parametrize("added", [
    '[privacy]\nsecure-aggregation = "ckks"\n', '[privacy]\nname = "record-dp"\nepsilon = 1.0\n',
    '[privacy]\nname = "record-dp"\nepsilon = 1.0\ncovers = "study"\n',
])  # fmt: skip
def test_noise_and_homomorphic_encryption_are_refused(added: str):
    with pytest.raises(UsageError, match="not available in this version"):
        Study.parse(f"{GLM}\n{added}")


@pytest.mark.parametrize(("old", "new", "words"), [
    ('"flag"]', '"flog"]', "of names 'flog'"), ('"binomial"', '"gamma"', "family"), ('"flag"]', '"y"]', "of names 'y'"),
    ('"binomial"', '"poisson"', "does not fit outcome='y'"),
    ('["x1", "colour", "flag"]', '"x1"', "of='x1' must be a list"),
])  # fmt: skip
def test_a_wrong_column_or_family_ends_with_code_2_and_a_sentence(
    small_sites: Small, tmp_path: Path, old: str, new: str, words: str
):
    small_sites(3)
    path = tmp_path / "study.toml"
    path.write_text(GLM.replace(old, new))
    with pytest.raises(UsageError) as error:
        CliRunner().invoke(studies, ["check", str(path)], catch_exceptions=False)
    assert words in str(error.value) and error.value.exit_code == 2


def constant_flag(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(flag=0)


def same_twice(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(x2=table["x1"] / 10 - 5)


def nobody(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(y="no")


def never_blue(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(y=table["y"].where(table["colour"] != "blue", "no"))


def statistic(settings: str) -> str:
    return f"{HEAD}\n[statistic]\n{settings}\n"


@pytest.mark.parametrize(("text", "change", "words"), [
    (GLM, constant_flag, "'flag' is the same in all rows; leave it out"),
    (GLM.replace("flag", "x2"), same_twice, "'x2' follows from the columns before it; leave it out"),
    (GLM, nobody, "all rows have one value of the outcome 'y'"),
    (COX, nobody, "no row of any site has the event 'y'"),
    (GLM, never_blue, "not converged after 10 visits: the coefficient of 'colour=blue' still moves"),
    (COX.replace('"x1"', '"x2"'), None, "time='x2' has a range below 0"),
    (COX.replace('"x1"', '"when"'), None, "time='when' must be a column"),
    (f'{COX}event = "dead"\n', None, "event='dead' must be a column of the dataset: flag, y"),
    (statistic('name = "survival"\ntime = "x2"\nevent = "y"'), None, "'x2' must begin at 0"),
    (GAUSSIAN.replace("gaussian", "poisson").replace('"x1"', '"x2"'), None, "outcome='x2' has a range below 0"),
])  # fmt: skip
def test_a_run_without_an_answer_ends_with_code_2_and_names_the_column(
    small_sites: Small, text: str, change: Callable[[pd.DataFrame], pd.DataFrame] | None, words: str
):
    changed = None if change is None else lambda number, table: change(table)
    with pytest.raises(UsageError) as error:
        run(Study.parse(text), sites=small_sites(3, rows=120, change=changed))
    assert words in str(error.value) and error.value.exit_code == 2


def fit_of_one_table(study: Study) -> Any:
    """Return statsmodels' fit of a study's complete rows."""
    schema = datasets.load(study.dataset.name).schema
    of = study.statistic.settings["of"]
    rows = tables(find_sites(study)).dropna(subset=of)
    columns = design(rows, of, schema)
    return glm((rows[schema.target] == schema.classes[1]) * 1.0, columns, sm.families.Binomial())


@pytest.mark.slow
@pytest.mark.studies
def test_a_shipped_study_of_odds_ratios_is_statsmodels_of_all_rows():
    study, rows = Study.load("stroke-logistic"), 19285
    verified = verify(study)
    assert verified.holds
    with RunReader.open() as reader:
        found = report(reader, verified.run)["statistics"]
    fit = fit_of_one_table(study)
    assert (found["rows"], fit.nobs) == (rows, rows)
    assert found["deviance"] == pytest.approx(fit.deviance, rel=1e-12)
    far = distances(found, fit)
    assert far["coefficients"] < 1e-8 and far["errors"] < 1e-7
