"""Studies whose ε covers all that leaves: noised counts for the encoder, updates, noised scores, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from flfed import Study
from flfed.cli import output
from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.federation.client.account import spent_at
from flfed.federation.client.client import Draws, _opened
from flfed.federation.client.protection import RunCharge, privacy_refusal, run_charges
from flfed.federation.client.released.noised_answer import FAR, noise_of, trained_units
from flfed.federation.recording.privacy_recorder import promised
from flfed.federation.server.run import resume, run
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Line
from flfed.records.store.reader import RunReader
from flfed.refusals import NotTakingPart, Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByOrder
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_analysis import person_weights, training_counts
from flfed.rows.training.private_noise import SeededNoise, UnitCounts, count_units
from flfed.study.plan import PrivateSteps
from flfed.study.tables import OrderedHoldout
from flfed.summaries.noised_scores import COUNTS
from tests.federation.test_resume import Killed, killer, newest

STUDY = """
format = 1
name = "small-covered"
purpose = "Predict y, all of it under one budget"
legal-basis = "made for tests"
seed = 3

[dataset]
name = "small"

[model]
name = "logistic"

[plan]
optimiser = "sgd"
lr = 0.5
steps = 4

[strategy]
name = "fedavg"
rounds = 3

[privacy]
name = "record-dp"
epsilon = 3.0
delta = 1e-5
sampling = 0.2
covers = "study"
"""
Small = Callable[..., list[Site]]


def lines(site: str) -> list[Line]:
    return [line for line in ledger_of(SiteFolder(site)).lines() if line.kind == "spent"]


def spent(site: Site) -> float:
    return spent_at(SiteFolder(site.name)).epsilon(1e-5)


@pytest.fixture
def sites(small_sites: Small) -> list[Site]:
    """Three institutions that have a budget for one such run, and not for two."""
    return [replace(site, policy=Policy(epsilon=3.2)) for site in small_sites(3, rows=2000)]


@pytest.fixture
def done(sites: list[Site]) -> Any:
    return run(Study.parse(STUDY), sites=sites)


def test_all_that_leaves_is_one_charge(done: Any, sites: list[Site]):
    for site in sites:
        (line,) = lines(site.name)
        assert line.facts["releases"] == [vars(release) for release in run_charges(Study.parse(STUDY)).values()]
        assert len(line.facts["releases"]) == 3
        assert line.facts["epsilon"] == spent(site) and 2.96 <= spent(site) <= 3.0


def test_the_record_has_noised_figures_with_intervals_and_no_exact_number_of_rows(done: Any, sites: list[Site]):
    found = done.report
    assert found["status"] == "completed"
    auc = found["global"]["roc_auc_score"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert auc["low"] - 0.05 < exact_auc(found["run"], sites) < auc["high"] + 0.05
    for site in sites:
        table = site.read()
        assert abs(found["sites"][site.name]["rows"] - len(table.training)) < 200
        assert found["sites"][site.name]["difference"] in (None, {}) or not found["sites"][site.name]["local-only"]
    # The noise may round to 0 at one of them, one time in fifteen.
    assert any(found["sites"][site.name]["rows"] != len(site.read().training) for site in sites)
    assert found["privacy"]["epsilon"] <= 3.0


def exact_auc(name: str, sites: list[Site]) -> float:
    """The AUC of a run's model over the exact holdouts."""
    from flfed.updates.checkpoints import checkpoint as checkpoints

    with RunReader.open() as reader:
        (entry,) = reader.runs_of(name)
    result = checkpoints.final(entry.run)
    scores, classes = [], []
    for site in sites:
        session = SiteSession(site, Study.parse(STUDY))
        rows = session.encode(session.table.holdout("test"), result.encoder)
        (weight, bias) = (result.arrays[name] for name in session.model.layers[0])
        scores.append((rows.x @ weight + bias).ravel())
        classes.append(rows.y)
    return float(roc_auc_score(np.concatenate(classes), np.concatenate(scores)))


def test_a_second_run_of_the_text_is_refused_by_a_budget_of_one(done: Any, sites: list[Site]):
    before = [len(lines(site.name)) for site in sites]
    with pytest.raises(FlfedError, match="privacy budget: epsilon (2.99.*|3) of 3.2 is spent"):
        run(Study.parse(STUDY), sites=sites)
    assert [len(lines(site.name)) for site in sites] == before


def test_each_run_and_repeat_has_counts_with_noise_of_its_own(small_sites: Small):
    sites = [replace(site, policy=Policy(epsilon=8.0)) for site in small_sites(3, rows=300)]
    run(Study.parse(STUDY), sites=sites, repeats=2)
    run(Study.parse(STUDY), sites=sites)
    charged = [line.facts for line in lines("site-01")]
    assert [facts["repeat"] for facts in charged] == [0, 1, 0]


@pytest.mark.parametrize("rows_each", [1, 3])
def test_no_person_moves_the_counts_by_class_by_more_than_is_charged(small_sites: Small, rows_each: int):
    (site,) = small_sites(1, rows=120)
    session = SiteSession(site, Study.parse(STUDY))
    session.schema = session.schema.model_copy(update={"group": "person"})
    table = session.table.training.assign(person=[f"P{at // rows_each}" for at in range(len(session.table.training))])

    def counted(rows: pd.DataFrame) -> np.ndarray:
        session.table = session.table.with_training(rows)
        return training_counts(session, by_person=True)

    whole = counted(table)
    moved = [np.linalg.norm(whole - counted(table[table["person"] != who])) for who in table["person"].unique()[:20]]
    assert 0.7 < max(moved) <= 1 + 1e-9


def test_training_divides_by_what_is_known_under_noise(small_sites: Small):
    # Without noise, and all rows in each step, the update is lr · sum / (q · units): with twice the units half of it.
    (site,) = small_sites(1, rows=200)
    session = SiteSession(site, Study.parse(STUDY))
    from flfed.federation.client.protection import protection_of
    from flfed.rows.study_model import first_model
    from flfed.rows.training.answer import run_client
    from flfed.summaries.summary import schema_encoder

    steps = PrivateSteps(clip=1.0, noise=0.0, sampling=1.0)
    rows, moved = len(session.table.training), []
    protection = protection_of(session.study)
    assert protection is not None
    plan = replace(session.study.plan, steps=1)
    session.study = replace(session.study, plan=plan)
    for known in (None, UnitCounts(units=2.0 * rows, most=3 * rows)):
        session.protection = replace(protection, steps=steps, units=known, chance=SeededNoise)
        trained = run_client(
            session.train(first_model(session.study, session.schema), schema_encoder(session.layout), round=1, rounds=3)
        )
        moved.append(trained)
    for name, delta in moved[0].delta.items():
        np.testing.assert_allclose(moved[1].delta[name], delta / 2, rtol=1e-12)
    assert (moved[0].rows, moved[1].rows) == (rows, 2 * rows)
    assert count_units(session.training(schema_encoder(session.layout)), steps, None).units == rows


def test_the_known_number_of_rows_is_that_of_the_noised_counts(done: Any, sites: list[Site]):
    session = SiteSession(sites[0], Study.parse(STUDY))
    units, rows = trained_units(session), len(session.table.training)
    deviation = noise_of(session.study, COUNTS).deviation
    assert deviation == run_charges(session.study)[COUNTS].noise
    assert abs(units.units - rows) < 6 * deviation
    assert units.most - units.units == pytest.approx(FAR * np.sqrt(2) * deviation, abs=1)


@pytest.mark.parametrize(("change", "said"), [
    (("steps = 4", "steps = 4\nvalidation = 0.2"), "validation, whose losses are exact"),
    (
        ("steps = 4", 'steps = 4\nschedule = "plateau"\nvalidation = 0.2'), "covers = 'study' cannot be combined with",
    ),
    (("[plan]", '[encode]\nscaler = "global"\n[plan]'), "scaler = 'global', which is made of exact sums"),
    (("[plan]", '[encode]\nscaler = "none"\n[plan]'), "scaler = 'none', which is made of exact sums"),
    (("[plan]", '[encode]\nrows = "complete"\n[plan]'), "rows = 'complete'"),
    (("[privacy]", '[compare]\nsubgroups = ["colour"]\n[privacy]'), "subgroups or incumbent"),
    (("sampling = 0.2", 'sampling = 0.2\nsecure-aggregation = "on"'), "secure-aggregation"),
    (('name = "fedavg"', 'name = "fedper"'), "each site has a part of the model of its own"),
    (('covers = "study"', 'covers = "all"'), "covers='all' must be one of 'updates', 'study'"),
])  # fmt: skip
def test_what_no_epsilon_is_charged_for_is_refused_beside_it(small_sites: Small, change: tuple[str, str], said: str):
    with pytest.raises(UsageError) as error:
        run(Study.parse(STUDY.replace(*change, 1)), sites=small_sites(2))
    assert said in str(error.value)


def test_outcomes_that_are_numbers_are_refused(home):
    text = STUDY.replace('name = "small"', 'name = "diabetes"').replace('name = "logistic"', 'name = "linear"')
    with pytest.raises(UsageError, match="yes or no"):
        run(Study.parse(text))


def test_what_stays_at_a_site_and_how_many_rows_it_takes_is_told_before_a_run(capsys):
    found = promised(Study.parse(STUDY), 3)
    assert len(found["not-released"]) == 7 and "not-released" not in promised(
        Study.parse(STUDY.replace('covers = "study"', "")), 3
    )
    output.promise(found)
    said = capsys.readouterr().out
    assert (
        "Not released by the sites, since no ε is charged for it: how many rows it has, but for a noised count;" in said
    )
    assert "about 75 or more of its test persons are of the rarer class" in said


def test_an_audit_gets_nothing(done: Any, sites: list[Site]):
    from flfed.experiments.audit import audit

    with pytest.raises(UsageError, match="results of attacks would be released besides"):
        audit(done.report["run"], sites=sites)


def test_a_run_that_was_killed_goes_on_though_its_text_names_no_scaler(sites: list[Site]):
    with pytest.raises(RunStopped):
        run(Study.parse(STUDY), sites=sites, observer=killer("round", 2))
    ended = resume(newest(), sites=sites)
    assert ended.report["status"] == "completed" and ended.report["global"]["roc_auc_score"]["value"] is not None


def test_a_run_that_broke_off_within_a_round_has_no_second_draw_of_it(small_sites: Small, monkeypatch):
    sites = [replace(site, policy=Policy(epsilon=4.0)) for site in small_sites(3, rows=2000)]
    charge = RunCharge.__call__

    def dying(self: RunCharge, round: int) -> None:
        charge(self, round)
        if round == 3:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(RunStopped):
        patched.setattr(RunCharge, "__call__", dying)
        run(Study.parse(STUDY), sites=sites)
    ended = resume(newest(), sites=sites).report
    assert ended["status"] in ("completed", "stopped") and "was drawn before in this run" in str(ended["faults"])
    for site in sites:
        assert len(lines(site.name)) == 1 and spent(site) <= 3.0


def test_a_table_that_breaks_a_rule_tells_no_count(small_sites: Small):
    (site,) = small_sites(1, rows=300)
    broken = replace(site, source=Frame(site.source.table.assign(x1="much")))  # type: ignore[union-attr]
    said = {}
    for text in (STUDY, STUDY.replace('covers = "study"', "")):
        with pytest.raises(NotTakingPart) as error:
            _opened(broken, Study.parse(text), 0, Draws(0, "fit"))
        said[text] = str(error.value)
    assert "300 rows" in said.popitem()[1]
    assert said[STUDY] == "column 'x1' is not a number"


def test_a_holdout_by_which_a_person_moves_others_is_refused(small_sites: Small, monkeypatch):
    site, study = small_sites(1)[0], Study.parse(STUDY)
    rule = {"by": "x1", "train_until": 50.0}
    assert privacy_refusal(study, replace(site, holdout=HoldoutByOrder(OrderedHoldout(**rule)))) is None
    by_share = replace(site, holdout=HoldoutByOrder(OrderedHoldout(by="x1", train_share=0.7)))
    assert privacy_refusal(study, by_share) == Refusal("sides-by-share")
    mixed = replace(site, holdout=HoldoutByOrder(OrderedHoldout(**rule, same_groups=True)))
    dataset = datasets.load("small")
    grouped = replace(dataset, schema=dataset.schema.model_copy(update={"group": "colour"}))
    monkeypatch.setattr(datasets, "load", lambda name: grouped)
    # A person on both sides spends no more than the one ε.
    assert privacy_refusal(study, mixed) is None


def test_rows_of_one_person_weigh_one_in_the_counts_of_scores():
    # As in the counts of the encoder: a person of ten rows moves a count by one at most.
    weights = person_weights(np.zeros(10, dtype=np.int64), 10)
    assert 0.99 < weights.sum() <= 1
    assert datasets is not None
