"""Runs whose sites add the noise of site-dp themselves: as good as a trusted server's, alike on all engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flfed.federation.server.run import run
from flfed.records.reports.privacy import promise_in_words
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint
from flfed.updates.mechanism import SiteNoise
from flfed.updates.privacy.site_dp import SiteDp
from flfed.updates.strategies.fedavg import FedAvg

SEEDS = 10
TAIWAN = """
format = 1
name = "taiwan-sums"
purpose = "Test"
legal-basis = "none needed"
seed = 11
[dataset]
name = "taiwan-credit"
partition = {{ by = "iid", sites = {sites} }}
[model]
name = "logistic"
[plan]
lr = 0.1
batch = 256
[privacy]
name = "site-dp"
noise = 1.0
clip = 0.2
delta = 0.001
[strategy]
name = "fedavg"
rounds = 10
[compare]
resamples = 200
"""


def auc(study: Study) -> float:
    """Return the shared model's AUC over all holdouts, the mean of ten seeds."""
    result = run(study, repeats=SEEDS)
    with RunReader.open() as reader:
        reports = [report(reader, entry.run) for entry in reader.runs_of(result.run)]
    assert [(told["status"], told["faults"]) for told in reports] == [("completed", [])] * SEEDS
    return float(np.mean([told["global"]["roc_auc_score"]["value"] for told in reports]))


@pytest.mark.proof
@pytest.mark.usefixtures("taiwan")
@pytest.mark.parametrize("sites", [10, 30, 100])
def test_noise_of_the_sites_costs_no_more_auc_than_that_of_a_trusted_server(sites, monkeypatch):
    study = Study.parse(TAIWAN.format(sites=sites))
    trusted = auc(study)
    assert trusted > 0.7
    together = auc(study.replace({"secure-aggregation": "on"}))
    print(f"{sites} sites: trusted {trusted:.4f}, together {together:.4f}")
    assert abs(together - trusted) < 0.01
    if sites == 100:
        return
    # Where each site adds what would be enough for it alone, the same check fails.
    alone = lambda made, rounds, sites: SiteNoise(noise=made._noise(rounds), clip=made.clip, sites=1)  # noqa: E731
    monkeypatch.setattr(SiteDp, "site_noise", alone)
    local = auc(study.replace({"secure-aggregation": "on"}))
    print(f"{sites} sites: each for itself {local:.4f}")
    assert trusted - local > 0.01


@pytest.fixture
def study(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., tuple[Study, list[Site]]]:
    """A function that returns a study of sites that noise their sums, and four of its sites."""

    def make(**changes: Any) -> tuple[Study, list[Site]]:
        sites = small_sites(4, rows=60)
        given = {"name": "site-dp", "noise": 2.0, "clip": 0.3, "delta": 0.02, "secure-aggregation": "on", **changes}
        asked = {f"privacy.{key}": value for key, value in given.items()}
        return Study.parse(small_study).replace({**asked, "strategy.rounds": 3}), sites

    return make


def arrays_of(study: Study, sites: list[Site], **given: Any) -> dict[str, np.ndarray]:
    return checkpoint.final(run(study, sites=sites, **given).run).arrays


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_rehearsals_agree_bit_for_bit_stacked_and_one_by_one_and_other_seeds_have_other_noise(study):
    asked, sites = study()
    stacked = arrays_of(asked, sites)
    assert same(stacked, arrays_of(asked, sites, stacked=False))
    assert not same(stacked, arrays_of(asked.replace({"seed": 8}), sites))


def test_every_site_counts_the_same_whatever_weight_the_strategy_gives_it(study, monkeypatch):
    asked, sites = study()
    found = arrays_of(asked, sites)
    monkeypatch.setattr(FedAvg, "relative_weight", lambda *given: 0.25)
    assert same(found, arrays_of(asked, sites))


@pytest.mark.proof
def test_a_rehearsal_on_ray_has_the_bits_of_one_in_this_process(study):
    asked, sites = study()
    assert same(arrays_of(asked, sites), arrays_of(asked, sites, engine="ray"))


def test_the_record_says_who_added_what_and_that_the_server_need_not_be_trusted(study):
    asked, sites = study()
    result = run(asked, sites=sites)
    with RunReader.open() as reader:
        told = report(reader, result.run)
        notes = [event.reason for event in reader.events([result.run]) if event.kind == "note"]
    private = told["privacy"]
    # Each of four sites adds 2 · 0.3 / √4.
    assert any("adds noise of deviation 0.3" in note and "the noise of all 4 sites" in note for note in notes)
    assert private["trusts-server"] is False and private["epsilon"] is not None
    said = " ".join([*promise_in_words(private), *private["warnings"], *private["uncharged"]])
    assert "as the server does" in said and "need not be trusted" in said
    assert "but not the server" not in said and "trusted with it" not in said
    assert {line["steps"] for line in private["sites"].values()} == {3}
