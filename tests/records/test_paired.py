"""Differences of two runs over the same random splits, against the formula by hand."""

import math
import sqlite3
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

import flfed
from flfed import Study
from flfed.experiments.compare_runs import compare_runs
from flfed.records.reports.recorded_run import Recorded, paired
from flfed.records.statistics.verdict import Difference, gain_in_brackets
from flfed.records.store.reader import RunReader

REPEATS = 3
RUNS = ((2, "fedavg"), (2, "median"), (1, "median"))
T_TWO = 4.302652730  # of Student's t with 2 degrees of freedom: P(|T| <= 4.303) = 0.95
AUC = "roc_auc_score"

pytestmark = [pytest.mark.slow, pytest.mark.studies]


def series(repeats: int = REPEATS, **changes: object) -> str:
    study = Study.load("preterm-birth").replace({"resamples": 200, "rounds": 5, **changes})
    return flfed.run(study, repeats=repeats).run


@pytest.mark.usefixtures("home")
@pytest.mark.proof
def test_differences_are_of_the_same_splits_and_nothing_else():
    plain = series()
    other, few, elsewhere = (
        series(**{"strategy.name": "median"}), series(2, **{"strategy.name": "median"}), series(seed=5),
    )  # fmt: skip
    with RunReader.open() as reader:
        base, median, fewer, seeded = (
            Recorded.read(reader, reader.runs_of(name)) for name in (plain, other, few, elsewhere)
        )
        found = paired(base, median, (None, "global", AUC))
        runs = [(a, b) for (a, _), (b, _) in zip(base.runs, median.runs, strict=True)]
        figures = [
            tuple(next(f.value for f in reader.figures(run.run) if (f.site, f.arm, f.metric) == (None, "global", AUC))
                  for run in pair)
            for pair in runs
        ]  # fmt: skip
        sites = [site for a, _ in runs for site in reader.sites(a.run)]
    values = [b - a for a, b in figures]
    held = sum(site.holdout_rows for site in sites)
    ratio = held / (sum(site.rows for site in sites) - held)
    reach = T_TWO * stdev(values) * math.sqrt(1 / REPEATS + ratio)
    assert found["value"] == pytest.approx(fmean(values), abs=1e-15)
    assert (found["low"], found["high"]) == pytest.approx((fmean(values) - reach, fmean(values) + reach), rel=1e-8)
    assert "same repeats" in paired(base, fewer, (None, "global", AUC))["reason"]
    assert "seeds differ" in paired(base, seeded, (None, "global", AUC))["reason"]
    assert compare_runs(plain, other)["paired"][AUC] == found


@pytest.mark.usefixtures("home")
def test_run_compare_prints_the_interval_of_two_series_or_why_there_is_none(flfed: Any):
    plain, other, few = (series(n, rounds=3, **{"strategy.name": name}) for n, name in RUNS)
    pair = compare_runs(plain, other)["paired"][AUC]
    gain = gain_in_brackets(Difference(pair["value"], pair["low"], pair["high"]))
    lines = flfed("run", "compare", plain, other)[1].splitlines()
    [line] = [line for line in lines if line.startswith("shared model ") and " AUC " in line]
    assert line.rstrip().endswith(f"  {gain}") and "has no interval" not in "\n".join(lines)
    assert "B - A has no interval: both need the same repeats, 2 or more." in flfed("run", "compare", plain, few)[1]


def test_a_series_on_other_rows_of_the_same_number_has_no_paired_difference(home: Path):
    first, other = (series(2, rounds=3, **{"strategy.name": name}) for name in ("fedavg", "median"))
    with RunReader.open() as reader:
        runs = [run.run for run in reader.runs_of(other)]

    def with_sums(path: str, value: str) -> None:
        with sqlite3.connect(home / "runs.db") as store:
            store.execute(
                f"UPDATE summary SET payload = json_set(payload, '$.rounded{path}', json(?))"
                " WHERE name = 'training-sums' AND run_id IN (?, ?)", [value, *runs],
            )  # fmt: skip

    # On another processor one of the two hashes may differ.
    with_sums("[0]", '"0"')
    compared = compare_runs(first, other)
    assert compared["hashes"]["sums"]["equal"] is True and compared["warnings"] == []
    assert compared["hashes"]["sums"]["a"] == compared["hashes"]["sums"]["b"]
    with_sums("", '["0", "1"]')
    compared = compare_runs(first, other)
    assert compared["hashes"]["sums"]["equal"] is False and "training rows differ" in compared["warnings"][0]
    assert "training rows differ" in compare_runs(first, other)["paired"][AUC]["reason"]
