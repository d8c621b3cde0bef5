"""Odds ratios and survival by site: the figures of statsmodels and lifelines, in the clear and in secure sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import StratifiedTable, Table2x2

from flfed import Study, run
from flfed.errors import UsageError
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.statistics.listed.mantel_haenszel import TERMS, MantelHaenszel, homogeneity_p, terms_of
from flfed.rows.statistics.listed.odds_ratio import OddsRatio
from flfed.rows.statistics.statistic import Sums, added, entries, of_entries
from flfed.updates.messages.kinds import STATISTIC
from flfed.updates.messages.summarise import StatisticReply
from tests.deployment.summing import Consortium, Coordinator
from tests.federation.test_statistics import ODDS, SECRET
from tests.small_runs import tables

STRATIFIED = ODDS.replace("odds-ratio", "mantel-haenszel")
Small = Callable[..., list[Site]]
SCHEMA = datasets.load("stroke-trial").schema


def counts(table: pd.DataFrame, by: str, outcome: str) -> np.ndarray:
    """Return statsmodels' table of 0 and 1: the second group and the outcome first."""
    return pd.crosstab(table[by], table[outcome]).reindex([1, 0]).reindex(columns=[1, 0]).fillna(0).to_numpy(float)


@cache
def rows_by_country() -> dict[str, pd.DataFrame]:
    """The trial's rows by country, cut once."""
    partition = Study.load("stroke-aspirin").dataset.partition
    assert partition is not None
    return {site.name: tables([site]) for site in cut(datasets.load("stroke-trial"), partition)}


@pytest.fixture
def countries() -> dict[str, pd.DataFrame]:
    """The trial's rows by country."""
    return rows_by_country()


def sums_by_country(countries: dict[str, pd.DataFrame], statistic: OddsRatio) -> list[Sums]:
    return [statistic.sums(rows, SCHEMA) for rows in countries.values()]


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(outcome=(rows["dead_or_dependent"] == "yes").astype(int))


def test_aspirin_has_the_odds_ratio_and_the_chi_square_of_one_table(countries: dict[str, pd.DataFrame]):
    statistic = OddsRatio(by="aspirin")
    sums = sums_by_country(countries, statistic)
    assert len(sums) == 36
    found = statistic.figures(sums, SCHEMA, added(sums))
    expected = Table2x2(counts(numbered(pd.concat(countries.values())), "aspirin", "outcome"))
    ratio = found["odds-ratio"]
    low, high = expected.oddsratio_confint()
    assert [ratio[end] for end in ("value", "low", "high")] == pytest.approx([expected.oddsratio, low, high], rel=1e-12)
    assert ratio["value"] == pytest.approx(0.9478271111, abs=1e-9)
    # Of being independent it is the inverse.
    assert 1 / ratio["value"] == pytest.approx(1.0550447316, abs=1e-9)
    nominal = expected.test_nominal_association()
    assert found["pearson"]["chi2"]["value"] == pytest.approx(nominal.statistic, rel=1e-11)
    assert found["pearson"]["p"]["value"] == pytest.approx(nominal.pvalue, rel=1e-9)


def test_by_country_it_is_mantel_and_haenszels(countries: dict[str, pd.DataFrame]):
    statistic = MantelHaenszel(by="aspirin")
    sums = sums_by_country(countries, statistic)
    found = statistic.figures(sums, SCHEMA, added(sums))
    expected = StratifiedTable([counts(numbered(rows), "aspirin", "outcome") for rows in countries.values()])
    ratio = found["odds-ratio"]
    low, high = expected.oddsratio_pooled_confint()
    assert [ratio[end] for end in ("value", "low", "high")] == pytest.approx(
        [expected.oddsratio_pooled, low, high], rel=1e-12
    )
    assert ratio["value"] == pytest.approx(0.9434285434, abs=1e-10)
    assert found["p"]["value"] == pytest.approx(expected.test_null_odds().pvalue, rel=1e-9)
    assert found["homogeneity"]["p"]["value"] == pytest.approx(expected.test_equal_odds().pvalue, rel=1e-9)
    assert (round(found["p"]["value"], 4), round(found["homogeneity"]["p"]["value"], 3)) == (0.0597, 0.186)
    # Of added terms the ratio and its interval are the same; of one table there is no test of one ratio.
    of_sum = statistic.figures([added(sums)], SCHEMA, added(sums))
    assert of_sum["odds-ratio"]["high"] == pytest.approx(high, rel=1e-12) and "homogeneity" not in of_sum


def test_without_the_two_small_countries_the_ratio_is_another(countries: dict[str, pd.DataFrame]):
    statistic = MantelHaenszel(by="aspirin")
    large = {name: rows for name, rows in countries.items() if len(rows) >= 10}
    sums = sums_by_country(large, statistic)
    assert len(sums) == 34
    ratio = statistic.figures(sums, SCHEMA, added(sums))["odds-ratio"]["value"]
    assert ratio == pytest.approx(0.9435397, abs=1e-7) and abs(ratio - 0.9434285434) > 1e-5


def test_a_partition_with_the_usual_least_rows_is_refused():
    study = Study.load("stroke-aspirin").replace({"dataset.partition.min-rows": None})
    with pytest.raises(UsageError, match="leaves a site with fewer than 10 rows"):
        run(study)


def test_terms_of_a_table_are_those_of_the_formulas():
    a, b, c, d, n = 2, 4, 1, 3, 10
    p, q, r, s = (a + d) / n, (b + c) / n, a * d / n, b * c / n
    variance = (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * (n - 1))
    expected = [r, s, p * r, p * s + q * r, q * s, a - (a + b) * (a + c) / n, variance]
    np.testing.assert_allclose(terms_of(np.array([[d, c], [b, a]])), expected, rtol=1e-15)
    assert (terms_of(np.array([[1, 0], [0, 0]])) == np.zeros(TERMS)).all()


@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.0 + 1e-9, 7.0])
def test_homogeneity_has_the_counts_that_its_margins_have_under_one_ratio(ratio: float):
    tables_of = [np.array([[30.0, 12.0], [25.0, 20.0]]), np.array([[4.0, 9.0], [11.0, 6.0]])]
    statistic = 0.0
    for (d, c), (b, a) in tables_of:
        roots = np.roots([1 - ratio, ratio * (a + b + a + c) + d - a, -ratio * (a + b) * (a + c)])
        (x,) = [one for one in roots if 0 < one < min(a + b, a + c)]
        assert x * (d - a + x) / ((a + b - x) * (a + c - x)) == pytest.approx(ratio)
        statistic += (a - x) ** 2 * (1 / x + 1 / (a + b - x) + 1 / (a + c - x) + 1 / (d - a + x))
    assert homogeneity_p(tables_of, ratio) == pytest.approx(math.erfc(math.sqrt(statistic / 2)), rel=1e-6)


def test_secure_sums_give_the_same_ratio_and_no_test_of_the_sites_tables(small_sites: Small):
    sites = small_sites(4, rows=200)
    plain = run(Study.parse(STRATIFIED), sites=sites).report["statistics"]
    summed = run(Study.parse(STRATIFIED + SECRET), sites=sites).report["statistics"]
    assert summed["odds-ratio"] == pytest.approx(plain["odds-ratio"], rel=1e-12)
    assert summed["p"]["value"] == pytest.approx(plain["p"]["value"], rel=1e-10)
    assert (summed["groups"], summed["by-site"]) == (plain["groups"], {})
    assert "homogeneity" in plain and "homogeneity" not in summed
    assert any("Breslow and Day" in line for line in statistic_in_words(plain))
    assert not any("Breslow and Day" in line for line in statistic_in_words(summed))
    # A site compares with its own rows alone: pooled rows would give another ratio.
    pooled = run(Study.parse(ODDS), sites=sites).report["statistics"]["odds-ratio"]["value"]
    assert abs(pooled - plain["odds-ratio"]["value"]) > 1e-4


def test_a_ratio_near_1_reads_the_same_in_table_and_sentence_and_shows_its_side():
    groups = [{"group": group, "rows": 500, "events": events} for group, events in (("old", 200), ("new", 230))]
    figures = {"odds-ratio": {"value": 1.28, "low": 1.0003, "high": 1.63}, "p": {"value": 0.04997}}
    odds = {"name": "odds-ratio", "sites": 2, "by": "drug", "groups": groups, **figures, "by-site": {}}
    sentence = statistic_in_words(odds)[0]
    assert "odds ratio 1.2800 (95 % CI 1.0003 to 1.6300; p = 0.04997); more than chance explains" in sentence
    assert statistic_tables(odds)[0].lines[-1]["Odds ratio (95 % CI)"] == "1.2800 (1.0003 to 1.6300)"


@pytest.mark.parametrize("statistic", [MantelHaenszel(by="flag")], ids=["mantel-haenszel"])
def test_terms_lie_within_the_number_of_rows_and_come_back_from_a_sum(small_sites: Small, statistic: OddsRatio):
    table, schema = tables(small_sites(1, rows=100)), datasets.load("small").schema
    sums = statistic.sums(table, schema)
    assert np.abs(entries(statistic, sums, schema)).max() <= len(table)
    for name, found in of_entries(statistic, entries(statistic, sums, schema), schema).items():
        np.testing.assert_allclose(found, sums[name], rtol=1e-14)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_site_with_one_group_or_one_outcome_adds_nothing(small_sites: Small, rows: int):
    schema = datasets.load("small").schema
    statistic = MantelHaenszel(by="flag")
    table = tables(small_sites(1, rows=100))
    alone = statistic.sums(table[table["flag"] == 1] if rows else table[:0], schema)
    both = statistic.sums(table, schema)
    of_two = statistic.figures([both, alone], schema, both)
    of_one = statistic.figures([both], schema, both)
    assert of_two["odds-ratio"] == of_one["odds-ratio"] and "homogeneity" not in of_two
    nothing = statistic.figures([alone], schema, alone)
    assert (
        nothing["odds-ratio"] is None
        and "inconclusive" in statistic_in_words({"name": "mantel-haenszel", "sites": 1, "by-site": {}, **nothing})[0]
    )


def test_gates_of_institutions_let_the_terms_leave_in_a_sum_alone(small_sites: Small):
    sites = small_sites(4, rows=120)
    plain = run(Study.parse(STRATIFIED), sites=sites).report["statistics"]
    policy = Policy(outputs=("single-cells-in-sums",))
    coordinator = Coordinator(
        Consortium([replace(site, policy=policy) for site in sites], Study.parse(STRATIFIED + SECRET))
    )
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None and found["by-site"] == {} and "homogeneity" not in found
    assert found["odds-ratio"] == pytest.approx(plain["odds-ratio"], rel=1e-12)
    replies = [reply for _, sent, reply in coordinator.grid.sent if sent.metadata.message_type == STATISTIC]
    assert len(replies) == 4
    for reply in replies:
        answer = StatisticReply.from_record(reply.content)
        assert not answer.sums and answer.masked is not None and answer.masked.sums.max() > 2**60
