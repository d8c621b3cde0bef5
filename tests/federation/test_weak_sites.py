"""Sites that train a part of the hidden units: the average, the record, and what it costs on real studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed import Study, registry
from flfed.errors import UsageError
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.updates.arrays import Arrays
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.fields import MalformedMessage, ndarrays
from flfed.updates.messages.train import TRAIN, TrainReply
from flfed.updates.strategies.fedavg import FedAvg, mean_update

HALF, WHOLE = 0.5, 1.0
MLP = {"model.name": "mlp", "model.hidden": [16]}
OPEN = Policy(disclosure="open", resplit=True)


class AmongThoseWhoHadIt(FedAvg):
    """Planted: each entry's mean over those alone that trained it, as HeteroFL averages. Source: Diao et al. 2021."""

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        found = {}
        for name, value in incoming.items():
            had = sum(weights[site] * (delta[name] != 0) for site, delta in deltas.items())
            total = sum(weights[site] * delta[name].astype(np.float64) for site, delta in deltas.items())
            found[name] = (value + total / np.where(had == 0, 1.0, had)).astype(value.dtype)
        return found


def with_widths(sites: Sequence[Site], widths: Sequence[float]) -> list[Site]:
    """Return the sites with these widths in their policies."""
    return [
        replace(site, policy=site.policy.model_copy(update={"width": width}))
        for site, width in zip(sites, widths, strict=True)
    ]


def network(small_study: str, **more: Any) -> Study:
    """Return the study on "small" with a network of 16 hidden units and two rounds."""
    return Study.parse(small_study).replace({**MLP, "strategy.rounds": 2, **more})


def outside(value: np.ndarray, name: str) -> np.ndarray:
    """Return the entries of an array that a site with half of 16 units does not train."""
    where = {"weight-0": np.s_[:, 8:], "bias-0": np.s_[8:], "weight-1": np.s_[8:], "bias-1": np.s_[:0]}
    return value[where[name]]


def notes_of(run_id: str) -> list[str]:
    """Return the notes of a run, or of all runs of a series."""
    with RunReader.open() as reader:
        runs = [entry.run for entry in reader.runs_of(run_id)] or [run_id]
        return [event.reason for event in reader.events(runs) if event.kind == "note"]


def deltas_of(done: Any) -> list[dict[str, TrainReply]]:
    """Return the replies of each round by site."""
    rounds: list[dict[str, TrainReply]] = []
    for heard in done.sent(TRAIN, "to-server"):
        if not rounds or heard.site in rounds[-1]:
            rounds.append({})
        rounds[-1][heard.site] = TrainReply.from_record(heard.message.content)
    return rounds


def test_the_next_model_is_the_plain_mean_with_no_change_for_what_a_site_does_not_train(
    small_sites, small_study: str, conduct
):
    sites = with_widths(small_sites(3, rows=80, policy=OPEN), [HALF, WHOLE, HALF])
    done = conduct(sites, network(small_study).text)
    first, second = deltas_of(done)[:2]
    for replies in (first, second):
        for site, reply in replies.items():
            for name, value in reply.delta.items():
                assert value.any()
                if site != "site-02":
                    assert not outside(value, name).any()
    incoming = [ndarrays(heard.message.content, "arrays") for heard in done.sent(TRAIN, "to-site")[:4:3]]
    rows = {site: reply.num_examples for site, reply in first.items()}
    by_hand = {
        name: before + sum(rows[site] / sum(rows.values()) * first[site].delta[name] for site in sorted(first))
        for name, before in incoming[0].items()
    }
    assert all(np.allclose(incoming[1][name], value, rtol=0, atol=1e-12) for name, value in by_hand.items())
    # The units of the one site that has them move by its share of the rows; averaged over it alone they go all the way.
    moved = outside(incoming[1]["weight-0"] - incoming[0]["weight-0"], "weight-0")
    own = outside(first["site-02"].delta["weight-0"], "weight-0")
    assert np.allclose(moved, own * rows["site-02"] / sum(rows.values()), rtol=0, atol=1e-12)
    wrong = AmongThoseWhoHadIt().combine(incoming[0], {s: r.delta for s, r in first.items()}, rows)
    assert np.allclose(outside(wrong["weight-0"] - incoming[0]["weight-0"], "weight-0"), own, rtol=0, atol=1e-12)
    assert mean_update({s: r.delta for s, r in first.items()}, rows).keys() == by_hand.keys()
    # What nobody but that site trains adds nothing at the start.
    assert not outside(incoming[0]["weight-1"], "weight-1").any() and incoming[0]["weight-1"].any()


def test_the_record_names_who_trained_a_part_where_their_policies_let_it(small_sites, small_study: str, conduct):
    sites = with_widths(small_sites(4, rows=80, policy=OPEN), [HALF, 0.25, WHOLE, HALF])
    done = conduct(sites, network(small_study).text)
    told = [note for note in notes_of(done.run) if "trained in part" in note]
    assert told == [
        "trained in part by site-01 (0.5 of each hidden layer), site-02 (0.25 of each hidden layer), site-04 (0.5 of "
        "each hidden layer): such a site "
        "counts as having left its other units unchanged"
    ]
    enrolled = {heard.site: heard.message.content for heard in done.sent(ENROL, "to-server")}
    assert {site: EnrolReply.from_record(content).width for site, content in enrolled.items()} == {
        "site-01": 0.5, "site-02": 0.25, "site-03": 1.0, "site-04": 0.5
    }  # fmt: skip
    assert "width" not in enrolled["site-03"]["config"]  # earlier versions do not know it


@pytest.mark.parametrize("width", [0.0, 1.5, float("nan"), -1.0])
def test_an_enrolment_with_no_share_is_not_read(width: float):
    with pytest.raises(MalformedMessage):
        EnrolReply(site="a", title="A", version="0.3.0", accepted=True, width=width)


def test_a_model_without_hidden_units_is_trained_whole(small_sites, small_study: str):
    study = Study.parse(small_study).replace({"strategy.rounds": 2})
    sites = small_sites(3, rows=80, policy=OPEN)
    plain, weak = (run(study, sites=with_widths(sites, [width] * 3)) for width in (WHOLE, HALF))
    assert plain.report["global"] == weak.report["global"]
    assert not [note for note in notes_of(weak.run) if "trained in part" in note]


@pytest.mark.studies
@pytest.mark.parametrize("engine", ["stacked", "one by one"])
def test_secure_sums_and_noise_of_rows_take_weak_sites_as_others(engine: str, small_sites, small_study: str):
    sites = with_widths(small_sites(3, rows=80, policy=OPEN), [HALF, WHOLE, HALF])
    stacked = engine == "stacked"
    plain = run(network(small_study), sites=sites, stacked=stacked).report
    summed = run(network(small_study, **{"privacy.secure-aggregation": "on"}), sites=sites, stacked=stacked).report
    for metric, figure in plain["global"].items():
        assert summed["global"][metric]["value"] == pytest.approx(figure["value"], abs=1e-4)
    noisy = network(
        small_study, **{"privacy.name": "record-dp", "privacy.epsilon": 8.0, "privacy.delta": 1e-3, "plan.clip": 0.0}
    )
    told = run(noisy.replace({"plan.epochs": 1, "plan.steps": 4}), sites=sites, stacked=stacked).report
    assert told["status"] == "completed" and not told["faults"]


def test_a_partition_gives_its_sites_widths_in_the_order_of_their_names(small_sites):
    small_sites(1)
    study = Study.load("breast-cancer").replace({"dataset.partition": {"by": "iid", "sites": 3, "widths": [1, 0.5, 1]}})
    assert [site.policy.width for site in find_sites(study)] == [1.0, 0.5, 1.0]
    with pytest.raises(UsageError, match="must have one for each site: 4"):
        find_sites(study.replace({"dataset.partition": {"by": "iid", "sites": 4, "widths": [1, 0.5]}}))
    with pytest.raises(UsageError, match=r"must be in \(0, 1\]"):
        study.replace({"dataset.partition": {"by": "iid", "sites": 2, "widths": [0, 1.0]}})


# What it costs on real studies. The half is worth what all of the units are, within a hundredth; so is the network of
# half the units for everybody, which is the arm beside it: there is no gain to claim.


def aucs(name: str, widths: Sequence[float], splits: int, **changes: Any) -> np.ndarray:
    """Return the shared model's AUC over all holdouts in each re-split [splits]."""
    study = Study.load(name).replace({**MLP, "compare.resamples": 200, **changes})
    partition, sites = study.dataset.partition, None
    if partition is None:
        sites = with_widths(find_sites(study), widths)
    else:
        study = study.replace({"dataset.partition": {"by": partition.by, "widths": list(widths)}})
    result = run(study, repeats=splits, sites=sites)
    with RunReader.open() as reader:
        reports = [report(reader, entry.run) for entry in reader.runs_of(result.run)]
    assert [told["status"] for told in reports] == ["completed"] * splits
    return np.array([told["global"]["roc_auc_score"]["value"] for told in reports])


BANKS = [HALF, HALF, WHOLE, HALF]
"""Widths by name: graduate school, high school, other, university. The bank that has all units has 328 rows."""


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("heart")
def test_three_weak_hospitals_of_four_cost_no_hundredth():
    whole = aucs("heart-disease", [WHOLE] * 4, 3)
    weak = aucs("heart-disease", [HALF, HALF, HALF, WHOLE], 3)
    assert abs((weak - whole).mean()) <= 0.01 and (weak != whole).any()


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("taiwan")
def test_three_weak_banks_of_four_cost_no_hundredth_and_a_mean_over_those_who_had_a_unit_does():
    short = {"strategy.rounds": 10}
    whole, weak = aucs("taiwan-credit", [WHOLE] * 4, 1, **short), aucs("taiwan-credit", BANKS, 1, **short)
    assert abs(weak - whole).max() <= 0.01
    with registry.lending("strategy", [AmongThoseWhoHadIt]):
        wrong = aucs("taiwan-credit", BANKS, 1, **short, **{"strategy.name": "among-those-who-had-it"})
    assert (wrong - whole).max() < -0.02  # the half of the units then goes where one small bank's rows lead


@pytest.mark.proof
@pytest.mark.usefixtures("heart", "taiwan")
@pytest.mark.parametrize(
    ("name", "splits"), [("heart-disease", 20), ("preterm-birth", 20), ("taiwan-credit", 3)]
)  # fmt: skip
def test_one_to_four_weak_sites_of_four_cost_no_hundredth_on_three_studies(name: str, splits: int):
    whole = aucs(name, [WHOLE] * 4, splits)
    order = [0, 1, 3, 2]  # the small bank last
    for weak in range(1, 5):
        widths = [HALF if place in order[:weak] else WHOLE for place in range(4)]
        lost = aucs(name, widths, splits) - whole
        print(name, weak, lost.mean().round(4), lost.std(ddof=1).round(4))
        assert lost.mean() > -0.01, (weak, lost)
    narrow = aucs(name, [WHOLE] * 4, splits, **{"model.hidden": [8]}) - whole
    print(name, "narrow", narrow.mean().round(4), narrow.std(ddof=1).round(4))
    assert narrow.mean() > -0.01


CUT = {"by": "iid", "sites": 4, "widths": [HALF, WHOLE, WHOLE, WHOLE]}
"""A partition with a weak site."""


def cut_study(**changes: Any) -> Study:
    return Study.load("breast-cancer").replace({"model.name": "mlp", "dataset.partition": CUT, **changes})


def test_a_partition_gives_its_sites_their_widths():
    assert [site.policy.width for site in find_sites(cut_study())] == [HALF, WHOLE, WHOLE, WHOLE]
    with pytest.raises(UsageError, match=r"widths=\[0.5\] must have one for each site: 4"):
        find_sites(cut_study(**{"dataset.partition": {**CUT, "widths": [HALF]}}))
    with pytest.raises(UsageError, match=r"must be in \(0, 1\]"):
        cut_study(**{"dataset.partition": {**CUT, "widths": [1.5]}})


@pytest.mark.parametrize(("changes", "said"), [
    ({"strategy.name": "scaffold"}, "strategy 'scaffold' needs updates of the whole model: leave one of them out"),
    ({"strategy.name": "median"}, "strategy 'median' needs updates of the whole model: leave one of them out"),
    ({"model.warm-start": "a-run"}, "warm-start under .model. starts with all of them: leave one of them out"),
])  # fmt: skip
def test_a_partition_with_weak_sites_is_refused_where_all_of_the_model_is_needed(changes: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        check(cut_study(**changes))
    check(cut_study(**{**changes, "dataset.partition": {**CUT, "widths": [WHOLE] * 4}}))
    check(cut_study(**{**changes, "model.name": "logistic"}))
