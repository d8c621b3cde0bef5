"""Tables under ε 1: how far noise moves shares and means, and how often intervals hold the truth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.rows.data.schema import Schema
from flfed.rows.statistics.noised_analysis import ANSWER, NoisedAnalysis
from flfed.rows.training.private_noise import SeededNoise, SystemNoise
from flfed.study.analysis import Analysis
from flfed.study.tables import Partition
from flfed.summaries.analysis import own_edges
from flfed.updates.accounting import noise_for

BARS = {1000: (0.03, 0.3), 3000: (0.015, 0.12), 7500: (0.008, 0.05)}
"""Largest error of shares, and of means in standard deviations, by rows: root of the mean square."""


@pytest.fixture
def credit(taiwan: datasets.Dataset) -> tuple[pd.DataFrame, Schema]:
    sites = cut(taiwan, Partition(by="iid", sites=2, seed=1))
    parts = [part for site in sites for of in [site.read()] for part in (of.training, of.holdout("test"))]
    return pd.concat(parts, ignore_index=True), taiwan.schema


def drawn(table: pd.DataFrame, schema: Schema, rows: int, analysis: NoisedAnalysis, draws: int) -> Iterator[Any]:
    """Yield the figures of samples of rows, noised, and those of the same rows with next to no noise."""
    rng, query = np.random.default_rng(rows), analysis.query(schema)
    bare = NoisedAnalysis(of=analysis.of, noise=1e-9)
    for _ in range(draws):
        exact = analysis.sums(table.iloc[rng.integers(0, len(table), rows)], schema)[ANSWER]
        of_rows, noised = {ANSWER: exact}, {ANSWER: query.answer(exact, SystemNoise())}
        yield analysis.figures([noised], schema, noised), bare.figures([of_rows], schema, of_rows)


def shares(found: Any) -> dict[str, Any]:
    return {
        f"{name} {label}": one
        for name, of in found["columns"].items()
        for label, one in {**of.get("shares", {}), "missing": of["missing"]}.items()
    }


def means(found: Any) -> dict[str, Any]:
    return {name: of["mean"] for name, of in found["columns"].items() if "mean" in of}


@pytest.mark.studies
@pytest.mark.parametrize("draws", [25, pytest.param(400, marks=pytest.mark.proof)])
@pytest.mark.parametrize("rows", list(BARS))
def test_a_table_of_24_columns_is_as_near_as_it_says(credit: tuple[pd.DataFrame, Schema], rows: int, draws: int):
    table, schema = credit
    delta = 1e-4 if rows == 1000 else 1e-5
    analysis = NoisedAnalysis(of=Analysis(bins=16), noise=noise_for(1.0, delta, 1.0, 1))
    assert len(analysis.layout(schema).columns) == 24
    whole = analysis.sums(table, schema)
    truth = NoisedAnalysis(of=analysis.of, noise=1e-9).figures([whole], schema, whole)
    of_shares, of_means, held = [], [], {"share": [], "mean": [], "sd": []}
    for found, bare in drawn(table, schema, rows, analysis, draws):
        for name, one in shares(bare).items():
            noised = shares(found)[name]
            of_shares.append(noised["value"] - one["value"])
            # What is cut at 0 lies no farther from a rare share: only common ones tell the coverage.
            if shares(truth)[name]["value"] > 0.1 and not name.endswith("missing"):
                held["share"].append(noised["low"] <= shares(truth)[name]["value"] <= noised["high"])
        for name, one in means(bare).items():
            noised, spread = means(found)[name], bare["columns"][name]["sd"]["value"]
            of_means.append((noised["value"] - one["value"]) / spread)
            held["mean"].append(noised["low"] <= means(truth)[name]["value"] <= noised["high"])
            if (sd := found["columns"][name]["sd"]) is not None:
                held["sd"].append(sd["low"] <= truth["columns"][name]["sd"]["value"] <= sd["high"])
    most_share, most_mean = BARS[rows]
    assert np.sqrt(np.mean(np.square(of_shares))) <= most_share
    assert np.sqrt(np.mean(np.square(of_means))) <= most_mean
    least, most = (0.93, 0.975) if draws > 100 else (0.91, 0.99)
    for what, held_in in held.items():
        assert least <= np.mean(held_in) <= most, what


@pytest.mark.studies
def test_ranges_of_a_hundred_million_lose_the_mean(credit: tuple[pd.DataFrame, Schema]):
    table, schema = credit
    bills = tuple(name for name in schema.columns if name.startswith("BILL_AMT"))
    wide = {name: schema.columns[name].range or (0.0, 1.0) for name in bills}
    assert max(high - low for low, high in wide.values()) == 2e8
    off = []
    for within in ({}, wide):
        analysis = NoisedAnalysis(of=Analysis(columns=bills, bounds=within), noise=noise_for(1.0, 1e-4, 1.0, 1))
        errors = [
            (found["columns"][name]["mean"]["value"] - bare["columns"][name]["mean"]["value"]) / table[name].std()
            for found, bare in drawn(table, schema, 1000, analysis, 10)
            for name in bills
            if found["columns"][name]["mean"]
        ]
        off.append(float(np.sqrt(np.mean(np.square(errors)))))
    assert off[0] < BARS[1000][1] < 1 < off[1]


SKEWED = Schema.model_validate({
    "name": "skewed", "task": "binary", "target": "y",
    "columns": {
        "income": {"kind": "number", "range": [0, 10_000_000], "transform": "log1p"},
        "income-by-range": {"kind": "number", "range": [0, 10_000_000], "transform": "log1p"},
        "visits": {"kind": "number", "range": [0, 20]}, "evenly": {"kind": "number", "range": [0, 1]},
        "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip
ASKED = Analysis(columns=tuple(SKEWED.columns)[:4], bounds={"income": (0.0, 250_000.0)})
WIDEST = {1000: (0.17, 0.15, 0.22), 3000: (0.1, 0.1, 0.15), 7500: (0.08, 0.1, 0.15)}
"""Of the mean interval, by rows: of income, visits and even values, as a share of the width of their range."""


def skewed(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Rows of a lognormal income, of numbers of visits with many ties, and of even values."""
    income, visits = rng.lognormal(11.1, 0.6, rows).round(-2), np.minimum(rng.geometric(0.25, rows) - 1.0, 20.0)
    y = np.where(rng.random(rows) < 0.3, "yes", "no")
    columns = {"income": income, "income-by-range": income, "visits": visits, "evenly": rng.random(rows), "y": y}
    return pd.DataFrame(columns)


def exact_quantile(values: pd.Series[float], share: float) -> float:
    """The smallest value that so large a share of rows do not exceed."""
    return float(np.sort(values)[int(np.ceil(share * len(values))) - 1])


SLOW = [pytest.mark.slow, pytest.mark.studies]


@pytest.mark.parametrize(("rows", "draws"), [
    (1000, 200), *(pytest.param(rows, 200, marks=SLOW) for rows in (3000, 7500)),
    *(pytest.param(rows, 2000, marks=[*SLOW, pytest.mark.proof]) for rows in WIDEST),
])  # fmt: skip
def test_intervals_of_quantiles_hold_those_of_the_rows_and_of_those_whom_they_stand_for(rows: int, draws: int):
    analysis = NoisedAnalysis(of=ASKED, noise=noise_for(1.0, 1e-5, 1.0, 1))
    rng, query, noise = np.random.default_rng(rows), analysis.query(SKEWED), SeededNoise(np.random.default_rng(3))
    large, held, widths = skewed(np.random.default_rng(1), 400_000), {}, {}
    of_people = cache(lambda name, share: exact_quantile(large[name], share))
    for _ in range(draws):
        table = skewed(rng, rows)
        answer = {ANSWER: query.answer(analysis.sums(table, SKEWED)[ANSWER], noise)}
        found = analysis.figures([answer], SKEWED, answer)["columns"]
        for name in ASKED.columns or ():
            for of, one in found[name]["quantiles"].items():
                assert one is not None and one["low"] <= one["value"] <= one["high"]
                share = float(of[:-1]) / 100
                truths = {"rows": exact_quantile(table[name], share), "people": of_people(name, share)}
                for whose, truth in truths.items():
                    held.setdefault((name, of, whose), []).append(one["low"] <= truth <= one["high"])
                low, high = found[name]["within"]
                widths.setdefault(name, []).append((one["high"] - one["low"]) / (high - low))
    assert {key: np.mean(of) for key, of in held.items() if np.mean(of) < 0.93} == {}
    for name, most in zip(("income", "visits", "evenly"), WIDEST[rows], strict=True):
        assert np.mean(widths[name]) <= most, name


def test_bins_are_even_in_a_columns_own_unit_where_it_is_known_where_values_lie():
    layout = NoisedAnalysis(of=ASKED, noise=1.0).layout(SKEWED)
    of = {column.name: own_edges(column) for column in layout.columns}
    np.testing.assert_allclose(np.diff(of["income"]), 250_000 / 16)
    # Of the range alone nobody knows where in it values lie: factors of e^(16.1 / 16).
    np.testing.assert_allclose(np.diff(np.log1p(of["income-by-range"])), np.log1p(1e7) / 16)
    typical = {"typical": (0.0, 250_000.0), "typical_source": "a survey"}
    known = SKEWED.columns | {"income": SKEWED.columns["income"].model_copy(update=typical)}
    again = NoisedAnalysis(of=Analysis(columns=("income",)), noise=1.0).layout(
        SKEWED.model_copy(update={"columns": known})
    )
    np.testing.assert_array_equal(own_edges(again.columns[0]), of["income"])
    # Bins of the logarithm would have had nearly all incomes in three of 16.
    income = skewed(np.random.default_rng(2), 4000)["income"]
    by_log = np.histogram(np.log1p(income), np.linspace(0, np.log1p(250_000), 17))[0]
    assert np.sort(by_log)[::-1][:3].sum() > 0.9 * len(income)
    assert np.sort(np.histogram(income, of["income"])[0])[::-1][:3].sum() < 0.6 * len(income)
