"""Studies of an analysis: noised counts under one ε, charged before they are drawn and sent again as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.protection import charge_of
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Line
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.statistics.noised_analysis import ANSWER, NoisedAnalysis
from flfed.study.analysis import Analysis
from flfed.updates.accounting import Release, epsilon, noise_for
from tests.small_runs import tables

STUDY = """
format = 1
name = "small-analysis"
purpose = "Describe made rows"
legal-basis = "made for tests"

[dataset]
name = "small"

[statistic]
name = "summary"
columns = ["x1", "x2", "flag", "colour", "y"]
cross = [["flag", "y"]]

[privacy]
name = "record-dp"
epsilon = 1.0
delta = 1e-5
"""
GROUPED = STUDY.replace('"flag", "colour"', '"colour"').replace("cross =", 'groups = "flag"\ncross =')
Small = Callable[..., list[Site]]


def lines(site: str, kind: str = "spent") -> list[Line]:
    return [line for line in ledger_of(SiteFolder(site)).lines() if line.kind == kind]


def analysis_of(text: str, noise: float = 1.0) -> NoisedAnalysis:
    return NoisedAnalysis.of_study(Study.parse(text), noise)


def exact(text: str, table: pd.DataFrame, noise: float = 1.0) -> dict[str, Any]:
    """The figures of a table without noise on its numbers."""
    schema, analysis = datasets.load("small").schema, analysis_of(text, noise)
    sums = analysis.sums(table, schema)
    return analysis.figures([sums], schema, sums)


def test_without_noise_figures_are_those_of_pandas(small_sites: Small):
    table = tables(small_sites(4, rows=200))
    found = exact(GROUPED, table, 1e-9)
    columns = found["columns"]
    assert found["rows"]["value"] == len(table)
    assert columns["x1"]["mean"]["value"] == pytest.approx(table["x1"].mean(), abs=1e-4)
    assert columns["x1"]["sd"]["value"] == pytest.approx(table["x1"].std(ddof=0), rel=1e-4)
    assert columns["x2"]["missing"]["value"] == pytest.approx(table["x2"].isna().mean())
    # A bin is 100 / 16 wide, and values are taken as even within it.
    assert columns["x1"]["quantiles"]["50%"]["value"] == pytest.approx(table["x1"].median(), abs=0.5)
    for label, of in columns["colour"]["shares"].items():
        assert of["value"] == pytest.approx((table["colour"] == label).mean())
    means = table.groupby("flag")["x1"].mean()
    assert found["groups"]["compared"]["x1"]["mean"]["1 - 0"]["value"] == pytest.approx(means[1] - means[0], abs=1e-3)
    assert found["groups"]["of"]["1"]["rows"]["value"] == (table["flag"] == 1).sum()
    counts = pd.crosstab(table["flag"], table["y"])[["no", "yes"]].to_numpy()
    np.testing.assert_allclose(found["cross"][0]["counts"], counts)


def test_chi_square_and_intervals_are_those_of_statsmodels_where_noise_is_none(small_sites: Small):
    from scipy.stats import chi2_contingency
    from statsmodels.stats.weightstats import DescrStatsW

    table = tables(small_sites(4, rows=200))
    found = exact(STUDY, table, 1e-9)
    counts = pd.crosstab(table["flag"], table["y"]).to_numpy()
    expected = chi2_contingency(counts, correction=False)
    assert found["cross"][0]["independence"]["chi2"] == pytest.approx(expected.statistic, rel=1e-6)
    assert found["cross"][0]["independence"]["p"] == pytest.approx(expected.pvalue, rel=1e-5)
    low, high = DescrStatsW(table["x1"]).zconfint_mean()
    of_mean = found["columns"]["x1"]["mean"]
    # Their divisor of the variance is one row less.
    assert (of_mean["low"], of_mean["high"]) == pytest.approx((low, high), abs=0.01)


def test_rows_of_one_person_weigh_one_together(small_sites: Small):
    schema = datasets.load("small").schema.model_copy(update={"group": "person"})
    table = tables(small_sites(1, rows=60))
    many = pd.concat([table, table.iloc[[0] * 9]], ignore_index=True)  # one person of ten rows
    analysis = analysis_of(STUDY)
    one, ten = (analysis.sums(each, schema)[ANSWER] for each in (table, many))
    np.testing.assert_allclose(ten, one, atol=1e-4)
    # Rows without a person may all be one's.
    unknown = table.assign(person=np.nan)
    assert analysis.sums(unknown, schema)[ANSWER][0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("text", [STUDY, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("rows_each", [1, 3], ids=["one-row", "three-rows"])
def test_no_person_moves_an_answer_by_more_than_its_sensitivity(small_sites: Small, text: str, rows_each: int):
    schema: Schema = datasets.load("small").schema
    table = tables(small_sites(1, rows=90))
    if rows_each > 1:
        schema = schema.model_copy(update={"group": "person"})
        table = table.assign(person=[f"P{at // rows_each}" for at in range(len(table))])
    # Values at the ends of their range move the sums most.
    table.loc[:10, "x1"], table.loc[:10, "x2"] = 100.0, -5.0
    analysis = analysis_of(text)
    whole, most = analysis.sums(table, schema)[ANSWER], analysis.layout(schema).sensitivity
    moved = []
    for person in table["person"].unique():
        gone = analysis.sums(table[table["person"] != person], schema)[ANSWER]
        moved.append(float(np.linalg.norm(whole - gone)))
    assert max(moved) <= most
    # Rows of one person in two groups are told apart there, and move each less.
    assert max(moved) > (0.9 if rows_each == 1 else 0.5) * most
    # The wrong one: each number counted as if it were the only one.
    assert max(moved) > 2


def test_a_study_spends_its_epsilon_and_no_more(small_sites: Small):
    small_sites(0)
    charge = charge_of(Study.parse(STUDY))
    assert charge is not None
    assert 0.98 <= epsilon(charge.releases, charge.delta) <= 1.0
    assert charge.releases == (Release(noise_for(1.0, 1e-5, 1.0, 1), 1.0, 1),)
    # Not composed, one ε for each of five analyses is 2.4 of all.
    assert epsilon(list(charge.releases) * 5, charge.delta) == pytest.approx(2.4, abs=0.05)
    assert epsilon(list(charge.releases) * 10, charge.delta) == pytest.approx(3.6, abs=0.1)


def test_each_run_of_an_analysis_is_charged_and_has_noise_of_its_own(small_sites: Small):
    sites = small_sites(3)
    first = run(Study.parse(STUDY), sites=sites).report
    assert [len(lines(site.name)) for site in sites] == [1, 1, 1]
    assert first["privacy"]["epsilon"] <= 1.0
    assert {of["epsilon"] for of in first["privacy"]["sites"].values()} == {first["privacy"]["epsilon"]}
    # The very text once more is another run.
    assert run(Study.parse(STUDY), sites=sites).report["statistics"] != first["statistics"]
    assert [len(lines(site.name)) for site in sites] == [2, 2, 2]


def test_a_budget_that_is_spent_refuses_another_run(small_sites: Small):
    policy = Policy(epsilon=1.2)  # two of ε 1 are 1.44 together
    sites = [replace(site, policy=policy) for site in small_sites(3)]
    assert run(Study.parse(STUDY), sites=sites).report["status"] == "completed"
    for text in (STUDY, STUDY.replace("made rows", "rows")):
        with pytest.raises(FlfedError, match="privacy budget: epsilon 1 of 1.2 is spent"):
            run(Study.parse(text), sites=sites)
    assert [len(lines(site.name)) for site in sites] == [1, 1, 1]


def test_research_sites_follow_from_the_seed_and_have_no_ledger(home):
    text = STUDY.replace('name = "small"', 'name = "breast-cancer"\npartition = { by = "iid", sites = 3 }').replace(
        'columns = ["x1", "x2", "flag", "colour", "y"]\ncross = [["flag", "y"]]', ""
    )
    first, second = (run(Study.parse(text)).report["statistics"] for _ in range(2))
    assert first == second
    other = run(Study.parse(text.replace("format = 1", "format = 1\nseed = 7"))).report["statistics"]
    assert other["rows"] != first["rows"]


@pytest.mark.parametrize(("change", "said"), [
    (("[privacy]", "[plan]\nlr = 0.1\n[privacy]"), r"the study has a table \[plan\]"),
    (('name = "record-dp"', 'name = "site-dp"'), "needs .privacy. name = 'record-dp'"),
    (("delta = 1e-5", "delta = 1e-5\nclip = 0.5"), "clip is for steps of training"),
    (("delta = 1e-5", 'delta = 1e-5\nsecure-aggregation = "ckks"'), "must be 'on' or 'off'"),
    (("columns =", "column ="), "did you mean 'columns'"),
    (
        ("delta = 1e-5", 'delta = 1e-5\ncovers = "study"'),
        "the statistic 'summary' is charged as a whole: leave it out",
    ),
    (("columns =", "bins = 2\ncolumns ="), r"bins=2 must be in \[4, 256\]"),
    (('"x1", "x2"', '"x1", "x1"'), "names a column twice"),
    (("cross =", "quantiles = [0.5, 1.5]\ncross ="), r"different numbers in \(0, 1\)"),
    (('[["flag", "y"]]', '[["flag", "flag"]]'), "different pairs of two columns"),
    (('[["flag", "y"]]', '["flag", "y"]'), "must have lists of two"),
    (("cross =", "bounds = { x1 = [90, 20] }\ncross ="), "must be two numbers, low and high"),
    (("cross =", "bounds = 'a'\ncross ="), r"bounds='a' must be a table, such as"),
    (("cross =", "bounds = { x1 = 'a' }\ncross ="), r"bounds: x1='a' must be two numbers, low and high"),
    (("cross =", "bounds = { x1 = [true, 9] }\ncross ="), r"bounds: x1=\[True, 9\] must be two numbers"),
    (("cross =", "bounds = { x1 = [20, 'b'] }\ncross ="), r"bounds: x1=\[20, 'b'\] must be two numbers"),
    (("cross =", "bounds = { x1 = [nan, 9.0] }\ncross ="), "bounds=nan must be a finite number"),
    (("cross =", "bounds = { colours = [2, 9] }\ncross ="), "bounds: 'colours' is not among columns; did you mean"),
    (("cross =", 'groups = "flag"\ncross ='), "groups='flag' is also in columns; leave it out there"),
])  # fmt: skip
def test_what_an_analysis_cannot_be_is_refused_when_it_is_read(change: tuple[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        Study.parse(STUDY.replace(*change, 1))


@pytest.mark.parametrize(("change", "said"), [
    (('"x1", "x2"', '"x1", "x3"'), "names 'x3', which is not a number, flag, category or target"),
    (('"x1", "x2"', '"x1", "person"'), "names 'person'"),
    (('columns = ["x1", ', 'groups = "x1"\ncolumns = ['), "must be a flag, category or target"),
    (("cross =", "bounds = { x1 = [20, 200] }\ncross ="), "must lie in the schema's range"),
    (("cross =", "bounds = { colour = [20, 200] }\ncross ="), "column 'colour' is not a number"),
    (("cross =", "bounds = { x1 = [0.0, 5e-324] }\ncross ="), "too narrow or too wide"),
])  # fmt: skip
def test_a_column_that_is_none_is_refused_before_anything_runs(small_sites: Small, change: tuple[str, str], said: str):
    with pytest.raises(UsageError) as error:
        run(Study.parse(STUDY.replace(*change, 1)), sites=small_sites(2))
    assert said in str(error.value)


def test_columns_that_nobody_confirmed_are_refused(small_sites: Small):
    sites = small_sites(2)
    folder = datasets.load("small").folder
    text = (folder / "schema.toml").read_text()
    (folder / "schema.toml").write_text(text.replace('target = "y"', 'target = "y"\nunconfirmed = ["x1"]', 1))
    with pytest.raises(UsageError, match="nobody has confirmed the ranges or values of x1"):
        run(Study.parse(STUDY), sites=sites)
    assert run(Study.parse(STUDY.replace('"x1", ', "")), sites=sites).report["status"] == "completed"


def test_columns_default_to_all_that_can_be_counted(small_sites: Small):
    small_sites(1)
    schema = datasets.load("small").schema
    analysis = NoisedAnalysis(of=Analysis(), noise=1.0)
    assert analysis.columns(schema) == ("x1", "x2", "flag", "colour", "y")
    # 1 for the rows, 5 histograms, and two sums of each of two numbers.
    assert analysis.layout(schema).sensitivity == pytest.approx(np.sqrt(1 + 5 + 4))
