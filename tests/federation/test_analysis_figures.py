"""A table of 24 columns under ε 1: how far noise moves shares and means, and how often intervals hold the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.rows.data.schema import Schema
from flfed.rows.statistics.private.analysis import ANSWER, NoisedAnalysis
from flfed.rows.training.private.noise import SystemNoise
from flfed.study.analysis import Analysis
from flfed.study.partition import Partition
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


@pytest.mark.slow
@pytest.mark.studies
@pytest.mark.parametrize("draws", [25, pytest.param(400, marks=pytest.mark.proof)])
@pytest.mark.parametrize("rows", list(BARS))
def test_a_table_of_24_columns_is_as_near_as_it_says(credit: tuple[pd.DataFrame, Schema], rows: int, draws: int):
    table, schema = credit
    delta = 1e-4 if rows == 1000 else 1e-5
    analysis = NoisedAnalysis(of=Analysis(bins=16), noise=noise_for(1.0, delta, 1.0, 1))
    layout = analysis.layout(schema)
    assert len(layout.columns) == 24
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


@pytest.mark.slow
@pytest.mark.studies
def test_ranges_of_a_hundred_million_lose_the_mean(credit: tuple[pd.DataFrame, Schema]):
    table, schema = credit
    bills = tuple(name for name in schema.columns if name.startswith("BILL_AMT"))
    wide = {name: schema.columns[name].range or (0.0, 1.0) for name in bills}
    assert max(high - low for low, high in wide.values()) == 2e8
    off = []
    for within in ({}, wide):
        analysis = NoisedAnalysis(of=Analysis(columns=bills, within=within), noise=noise_for(1.0, 1e-4, 1.0, 1))
        errors = [
            (found["columns"][name]["mean"]["value"] - bare["columns"][name]["mean"]["value"]) / table[name].std()
            for found, bare in drawn(table, schema, 1000, analysis, 10)
            for name in bills
            if found["columns"][name]["mean"]
        ]
        off.append(float(np.sqrt(np.mean(np.square(errors)))))
    assert off[0] < BARS[1000][1] < 1 < off[1]
