"""The score in use beside the shared model: its figures, its verdict, and what may not leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from flfed import Study, run
from flfed.errors import UsageError
from flfed.records.sections.gains import score_in_use
from flfed.rows.comparison.compare import compare
from flfed.rows.comparison.incumbent import ARM, PAIR, compare_incumbent, rank_risks
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.training.answer import run_client
from flfed.study.tables import Incumbent
from tests.approval_text import details
from tests.rows.test_compare import at_work, judged, model_of

AUC = "roc_auc_score"
FEATURES = ('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "flag"]\n[model]')


def naming(text: str, column: str = "x2", riskier: str = "high") -> str:
    key = f'[compare]\nincumbent = {{ column = "{column}", riskier = "{riskier}" }}\n'
    return text.replace(*FEATURES).replace("[compare]\n", key)


def test_figures_equal_scikit_learns_on_the_rows_that_have_the_score(small_sites, small_study):
    work, found, _ = judged(small_sites(2, rows=300), naming(small_study))
    table = work.table.holdout("test")
    known = table["x2"].notna().to_numpy()
    assert 0 < known.sum() < len(known)
    y = work.target(table)[known]
    score = table["x2"].to_numpy(float)[known]
    assert found.arms[AUC][ARM].value == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    average = found.arms["average_precision_score"][ARM].value
    assert average == pytest.approx(average_precision_score(y, score), abs=1e-12)
    assert f"left out of its comparison: {(~known).sum()}" in found.note
    assert PAIR not in found.differences["log_loss"]


def test_riskier_reversed_gives_one_minus_the_auc(small_sites, small_study):
    _, high, _ = judged(small_sites(2, rows=300), naming(small_study, "x2", "high"))
    _, low, _ = judged(small_sites(2, rows=300), naming(small_study, "x2", "low"))
    assert high.arms[AUC][ARM].value + low.arms[AUC][ARM].value == pytest.approx(1.0, abs=1e-12)


def test_a_score_compared_with_itself_differs_by_0(small_sites, small_study):
    sessions, _ = at_work(small_sites(2, rows=300), naming(small_study))
    work = sessions[0]
    table = work.table.holdout("test")
    score = table["x2"].to_numpy(float)
    figures = compare_incumbent(work, table, work.target(table), score, np.arange(len(table)))
    assert [one.value for one in figures.differences.values()] == [0.0, 0.0]


def test_category_is_ranked_by_its_place_in_the_schema(small_sites, small_study):
    sessions, _ = at_work(small_sites(2, rows=300), naming(small_study, "colour"))
    table = sessions[0].table.holdout("test")
    schema = sessions[0].schema
    risks = rank_risks(table, schema, Incumbent(column="colour"))
    values = list(schema.columns["colour"].values)
    for cell, risk in zip(table["colour"], risks, strict=True):
        assert np.isnan(risk) if cell is None or cell != cell else risk == values.index(cell)


def test_rows_of_few_people_without_a_score_are_not_given_away(small_sites, small_study):
    sites = small_sites(2, rows=400, policy=Policy())
    work = at_work(sites, naming(small_study))[0][0]
    table = work.table.holdout("test").assign(x2=0.0)
    y = work.target(table)
    table.loc[table.index[np.r_[np.flatnonzero(y == 0)[:15], np.flatnonzero(y == 1)[:15]]], "x2"] = np.nan
    score = np.linspace(0.1, 0.9, len(table))
    alone = np.arange(len(table))
    one_person = np.where(table["x2"].isna(), 0, alone + 1)
    methods = []
    for person in (one_person, alone):
        (figure, _) = compare_incumbent(work, table, y, score, person).estimates.values()
        methods.append(figure.method)
    assert methods[0] == "withheld: fewer than 10 rows of a class"
    assert not methods[1].startswith("withheld")


def test_too_few_events_with_a_score_have_no_figure(small_sites, small_study):
    work = at_work(small_sites(2, rows=400), naming(small_study))[0][0]
    table = work.table.holdout("test").assign(x2=0.0)
    y = work.target(table)
    table.loc[table.index[np.flatnonzero(y == 1)[3:]], "x2"] = np.nan
    figures = compare_incumbent(work, table, y, np.linspace(0.1, 0.9, len(table)), np.arange(len(table)))
    assert {one.method for one in figures.estimates.values()} == {
        "fewer than 10 test rows of an outcome have the score in use"
    }


@pytest.mark.parametrize("withheld", [True, False])
def test_few_rows_without_a_score_are_not_given_away(small_sites, small_study, withheld: bool):
    def holes(number: int, table):
        every = 40 if withheld else 3
        return table.assign(x2=table["x2"].fillna(0.0).where(np.arange(len(table)) % every != 0))

    sites = small_sites(2, rows=400, change=holes, policy=Policy())
    sessions, encoder = at_work(sites, naming(small_study))
    work = sessions[0]
    weight = model_of(work, encoder)
    found = run_client(compare(work, weight, encoder))
    assert np.isnan(found.arms[AUC][ARM].value) == withheld
    assert found.arms[AUC][ARM].method.startswith("withheld") == withheld
    assert np.isfinite(found.arms[AUC]["global"].value)


def test_a_planted_better_score_wins_and_a_worse_one_does_not(small_sites, small_study):
    def planted(number: int, table):
        rng = np.random.default_rng(number)
        better = 2.0 * (table["y"] == "yes") + rng.normal(-1, 0.8, len(table))
        return table.assign(x2=better.clip(-5, 5))

    sites = [replace(site, policy=Policy(disclosure="open")) for site in small_sites(4, rows=400, change=planted)]
    verdicts = {}
    for riskier in ("high", "low"):
        report = run(Study.parse(naming(small_study, "x2", riskier)), sites=sites).report
        section = score_in_use(report)
        verdicts[riskier] = {line["Verdict"] for line in section.tables[0].lines}
        assert report["incumbent"][AUC]["sites"] == 4
    assert verdicts == {"high": {"worse than the score in use"}, "low": {"better than the score in use"}}


@pytest.mark.parametrize(("column", "reason"), [
    ("x1", "'x1' is a feature of the study"), ("x9", "incumbent: column 'x9' is not known"),
    ("y", "'y' is of kind 'target'"), ("person", "'person' is of kind 'id'"),
])  # fmt: skip
def test_a_score_that_cannot_be_compared_is_refused(small_sites, small_study, column: str, reason: str):
    with pytest.raises(UsageError, match=reason):
        run(Study.parse(naming(small_study, column)), sites=small_sites(2))


def test_a_score_that_is_missing_everywhere_is_refused(small_sites, small_study):
    def without(number: int, table):
        return table.assign(x2=np.nan)

    with pytest.raises(UsageError, match="no training row has a value of 'x2'"):
        run(Study.parse(naming(small_study)), sites=small_sites(2, change=without))


def test_the_text_to_approve_names_the_column(small_sites, small_study):
    study = Study.parse(naming(small_study))
    words = " ".join(details(study, small_sites(1, policy=Policy())[0], []))
    assert "x2 (the score in use, for comparison only, not for the model: number)" in words
    assert datasets.load("small").schema.columns["x2"].kind == "number"
