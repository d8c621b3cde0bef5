"""Robust strategies: entries in the middle, whoever sends the others."""

import numpy as np
import pytest
import scipy.stats

from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.study.study import Study
from flfed.updates.privacy.site_dp import SiteDp
from flfed.updates.strategies.fedavg import FedAvg
from flfed.updates.strategies.median import Median
from flfed.updates.strategies.trimmed_mean import TrimmedMean


def updates(sites: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return {f"site-{n:02d}": {"weight": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)} for n in range(sites)}


START = {"weight": np.ones((3, 2)), "bias": np.zeros(2)}


@pytest.mark.parametrize("sites", [4, 5, 11])
def test_each_entry_is_the_median_or_the_trimmed_mean_of_the_sites(sites):
    given = updates(sites)
    weights = {site: 10.0**place for place, site in enumerate(given)}
    stacks = {name: np.stack([given[site][name] for site in sorted(given)]) for name in START}
    for strategy, of in (
        (Median(server_lr=0.5), lambda values: np.median(values, axis=0)),
        (TrimmedMean(server_lr=0.5, trim=0.2), lambda values: scipy.stats.trim_mean(values, 0.2, axis=0)),
        (TrimmedMean(server_lr=0.5, trim=0.0), lambda values: values.mean(axis=0)),
    ):
        found = strategy.combine(START, given, weights)
        for name, value in START.items():
            np.testing.assert_allclose(found[name], value + 0.5 * of(stacks[name]), rtol=1e-13)


def test_one_site_of_five_cannot_move_an_entry_beyond_the_others():
    given = updates(5)
    weights = dict.fromkeys(given, 1.0)
    wrong = {**given, "site-02": {name: np.full_like(value, 1e9) for name, value in START.items()}}
    others = {name: np.stack([own[name] for site, own in given.items() if site != "site-02"]) for name in START}
    for strategy in (Median(), TrimmedMean(trim=0.2)):
        found = strategy.combine(START, wrong, weights)
        for name, value in START.items():
            assert ((found[name] - value <= others[name].max(axis=0) + 1e-12) & (found[name] < 1e3)).all()
    assert FedAvg().combine(START, wrong, weights)["bias"].min() > 1e8


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "fednova"])
def test_what_hides_or_merges_single_updates_is_refused_beside_them(name):
    study = Study.load("wine").replace({"strategy.name": name})
    with pytest.raises(UsageError, match=f"{name}: needs the sites' single updates, which the server does not have"):
        check(study.replace({"privacy.secure-aggregation": "on"}))
    with pytest.raises(UsageError, match=f"{name}: needs the sites' single updates, and site-dp gives it"):
        SiteDp().check(study)
