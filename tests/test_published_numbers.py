"""The published table of FLamby's heart study comes out, and what the same rows allow (TARGETS.md §1)."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flfed import Study, run
from flfed.records.store.reader import RunReader
from flfed.updates.strategies.fedadam import FedAdam

pytestmark = [pytest.mark.slow, pytest.mark.studies]

ACCURACY, AUC = "accuracy_score", "roc_auc_score"
SEEDS = range(42, 47)
SITES = {"cleveland": 0, "hungary": 1, "switzerland": 2, "long-beach": 3}


def ran(study: str, repeats: int, **changes: object) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the report of a series, and its figures: one row per repeat, site (None: all), arm and metric."""
    chosen = Study.load(study).replace({"resamples": 200, **changes})
    result = run(chosen, repeats=repeats)
    if result.status != "completed" or result.report["faults"]:
        pytest.fail(f"{study}: {result.status} {result.report['faults']}")
    with RunReader.open(result.store) as reader:
        runs = reader.runs_of(result.run)
        rows = [
            {"seed": entry.seed, "n": row.n, "value": row.value, "metric": row.metric, "site": row.site, "arm": row.arm}
            for entry in runs
            for row in reader.figures(entry.run)
        ]
    return result.report, pd.DataFrame(rows)


def published(folder: Path, method: str) -> pd.DataFrame:
    """Return seed × test as FLamby's result files have them."""
    tables = [pd.read_csv(folder / "flamby_results" / f"heart_seed{seed}.csv") for seed in SEEDS]
    table = pd.concat(tables)
    return table[table["Method"] == method].pivot(index="seed", columns="Test", values="Metric")


@pytest.fixture(scope="module")
def known() -> dict[str, tuple[dict[str, Any], pd.DataFrame]]:
    return {}


@pytest.fixture
def fedavg(heart, known) -> tuple[dict[str, Any], pd.DataFrame]:
    """FLamby's five seeds with FedAvg, run once for both tests that look at them."""
    if not known:
        known["fedavg"] = ran("fed-heart-flamby", 5)
    return known["fedavg"]


def test_fedavg_and_pooled_training_come_out_as_published_seed_by_seed(fedavg, test_data):
    report, figures = fedavg
    cells = figures[figures["metric"] == ACCURACY]
    averaged, pooled = published(test_data, "FedAvg100"), published(test_data, "Pooled Training")
    assert report["global"][ACCURACY]["value"] == pytest.approx(0.7480, abs=0.02)
    assert report["pooled"][ACCURACY]["value"] == pytest.approx(0.7953, abs=0.02)
    # Seed by seed: within two of 254 test rows, where the batches are drawn in another order.
    ours = cells[cells["site"].isna()].pivot(index="seed", columns="arm", values="value")
    assert list(ours.index) == list(SEEDS)
    assert (ours["global"] - averaged["Pooled Test"]).abs().max() <= 2.5 / 254
    assert (ours["pooled"] - pooled["Pooled Test"]).abs().max() <= 2.5 / 254
    # Site by site: at least 17 of the 20 cells to the row, none off by more than two.
    sites = cells[cells["arm"] == "global"].dropna(subset="site")
    off = [(row.value - averaged.loc[row.seed, f"client_test_{SITES[row.site]}"]) * row.n for row in sites.itertuples()]
    assert len(off) == 20 and max(map(abs, off)) <= 2.5
    assert sum(abs(rows) < 0.5 for rows in off) >= 17
    # Under one scaler of its own for each row, the union would be somewhere else.
    wrong, _ = ran("fed-heart-flamby", 1, **{"union-scaler": "same"})
    assert wrong["global"][ACCURACY]["value"] < averaged.loc[42, "Pooled Test"] - 0.03


@pytest.mark.usefixtures("heart")
def test_a_start_from_zeros_is_another_table():
    report, _ = ran("fed-heart-flamby", 1, **{"model.start": "zeros"})
    assert report["global"][ACCURACY]["value"] > 0.78  # published: 0.7520


def test_fedprox_is_as_fedavg(fedavg):
    _, figures = fedavg
    whole = figures[(figures["arm"] == "global") & figures["site"].isna() & (figures["seed"] == SEEDS[0])]
    averaged = whole.set_index("metric")["value"]
    proximal = ran("fed-heart-flamby", 1, **{"strategy.name": "fedprox", "strategy.mu": 0.01})[0]["global"]
    assert proximal[ACCURACY]["value"] == pytest.approx(averaged[ACCURACY], abs=0.005)
    assert proximal["log_loss"]["value"] != averaged["log_loss"]  # and yet it is another strategy


PUBLISHED = {"beta1": 0.9, "tau": 1e-8, "rounds": 15}
RULES = {
    "FedAdam100": ("fedadam", 0.01, {"server-lr": 0.01, "beta2": 0.999}),
    "FedYogi100": ("fedyogi", 0.003162, {"server-lr": 0.01, "beta2": 0.999}),
    "FedAdagrad100": ("fedadagrad", 0.003162, {"server-lr": 0.316}),
}


def by_rule(name: str, lr: float, settings: dict[str, Any]) -> tuple[float, float]:
    """Return accuracy on the pooled test and as the mean of sites, five seeds."""
    changes = {f"strategy.{key}": value for key, value in {"name": name, **settings}.items()}
    report, _ = ran("fed-heart-flamby", 5, **{"plan.lr": lr, **changes})
    return report["global"][ACCURACY]["value"], report["sites-mean"][ACCURACY]["value"]


@pytest.mark.usefixtures("heart")
@pytest.mark.parametrize("method", RULES)
def test_server_rules_come_out_as_published(test_data, method):
    name, lr, settings = RULES[method]
    table = published(test_data, method)
    of_sites = table[[f"client_test_{place}" for place in SITES.values()]].mean(axis=1)
    pooled, sites = by_rule(name, lr, {**PUBLISHED, **settings})
    assert pooled == pytest.approx(table["Pooled Test"].mean(), abs=0.008)
    assert sites == pytest.approx(of_sites.mean(), abs=0.008)


@pytest.mark.usefixtures("heart")
@pytest.mark.proof
def test_other_rules_than_the_published_ones_are_seen(monkeypatch):
    name, lr, settings = RULES["FedAdam100"]
    assert by_rule(name, lr, {**PUBLISHED, **settings, "beta2": 0.99})[0] < 0.77  # found 0.761
    assert by_rule("fedavg", lr, {"rounds": 15})[0] > 0.787  # no rule at the server: 0.789

    def corrected(self, incoming, deltas, weights):
        moved = combine(self, incoming, deltas, weights)
        self.number = getattr(self, "number", 0) + 1
        times = math.sqrt(1 - self.beta2**self.number) / (1 - self.beta1**self.number)
        return {key: incoming[key] + times * (moved[key] - incoming[key]) for key in moved}

    combine = FedAdam.combine
    monkeypatch.setattr(FedAdam, "combine", corrected)
    assert by_rule(name, lr, {**PUBLISHED, **settings})[0] < 0.75  # Adam's correction of the bias: 0.706
