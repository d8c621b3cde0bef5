"""Figures that leave: exact from open sites, of three digits where an institution's rows are protected by noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message

from flfed import Study, run
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import LocalProtection, protection_of
from flfed.records.store.reader import RunReader
from flfed.rows.baselines import first_arrays
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps
from flfed.summaries.summary import fit_encoder
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest, Figure
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest

Ask = Callable[..., Message]
PROTECTED = '[privacy]\nname = "record-dp"\nepsilon = 8.0\ndelta = 1e-3\nsampling = 0.5\n'


@pytest.fixture
def answers(small_sites, small_study, ask: Ask) -> Callable[[str, Policy], tuple[TrainReply, CompareReply]]:
    """A function that returns what a site of three hundred rows says in a round, and of the comparison."""
    (site,) = small_sites(1, rows=300)
    own = SiteSession(site, Study.parse(small_study))
    encoder = fit_encoder(own.layout, own.exact_summary)
    arrays = first_arrays(own.trainable(), own.training(encoder).x.shape[1])
    arrays = {name: value + 0.3 for name, value in arrays.items()}

    def go(privacy: str, policy: Policy) -> tuple[TrainReply, CompareReply]:
        study = small_study.replace("epochs = 1", "steps = 4") + privacy
        side = SiteClient(lambda name, _: replace(site, policy=policy), protect=LocalProtection())
        sent = TrainRequest(arrays=arrays, encoder=encoder, round=1, rounds=5)
        trained = ask(side, site.name, TRAIN, sent, study)
        compared = ask(side, site.name, COMPARE, CompareRequest(arrays=arrays, encoder=encoder), study)
        return TrainReply.from_record(trained.content), CompareReply.from_record(compared.content)

    return go


def numbers(trained: TrainReply, compared: CompareReply) -> dict[str, float]:
    """Return all figures of the replies by name, but for those that are not numbers."""
    found = {} if trained.loss is None else {"loss": trained.loss}
    scores = trained.scores
    found |= {f"scores {key}": value for key, value in (scores.metrics if scores else {}).items()}
    found |= {f"scores {key} variance": value for key, value in (scores.variances if scores else {}).items()}
    for figure in (*compared.arms, *compared.differences):
        for part in ("value", "low", "high", "extra"):
            found[f"{figure.metric} {figure.arm} {part}"] = getattr(figure, part)
    return {name: value for name, value in found.items() if math.isfinite(value)}


@pytest.mark.studies
def test_under_record_dp_an_institutions_figures_have_three_digits_and_an_open_sites_are_exact(answers):
    named = ("training-figures",)
    exact, rounded = (
        numbers(*answers(PROTECTED, Policy(disclosure=kind, delta=1e-2, outputs=named)))
        for kind in ("open", "institution")
    )
    assert len(rounded) > 40 and set(rounded) <= set(exact)
    assert {"loss", "scores loss", "scores roc_auc_score variance"} <= set(rounded)
    for name, value in rounded.items():
        assert value == three_digits(exact[name]) == float(f"{exact[name]:.3g}"), name
    assert abs(rounded["loss"] - exact["loss"]) > 1e-7
    assert sum(rounded[name] != exact[name] for name in rounded) > 0.8 * len(rounded)


@pytest.mark.studies
def test_under_record_dp_no_figure_over_rows_that_are_trained_on_leaves_an_institution(answers):
    # A coordinator that chooses the model makes a loss tell of one row, which the noise in the update does not cover.
    every, (trained, compared) = (answers(PROTECTED, Policy(disclosure=d, delta=1e-2)) for d in ("open", "institution"))
    assert trained.loss is None and trained.scores is not None
    assert (trained.scores.rows, trained.scores.metrics, trained.scores.variances) == ("training", {}, {})
    assert trained.scores.num_examples == every[0].scores.num_examples > 200
    assert "loss" not in trained.to_record()["metrics"] and TrainReply.from_record(trained.to_record()).loss is None
    left = numbers(*every).keys() - numbers(trained, compared).keys()
    # Accuracies stay as well where few rows are behind one, with noise or without.
    own = {"loss", "scores loss", "scores roc_auc_score", "scores roc_auc_score variance"}
    assert own <= left and all(name.startswith("accuracy_score") for name in left - own)


def test_where_training_has_no_noise_an_institutions_figures_are_as_exact_as_before(answers):
    exact, same = (numbers(*answers("", Policy(disclosure=kind, delta=1e-2))) for kind in ("open", "institution"))
    assert len(same) > 40 and all(value == exact[name] for name, value in same.items())
    assert sum(value != three_digits(value) for value in same.values()) > 0.8 * len(same)


def test_rounded_intervals_hold_what_they_held_and_no_variance_is_0(answers):
    trained, compared = answers(PROTECTED, Policy(delta=1e-2, outputs=("training-figures",)))
    assert trained.scores is not None and 1e-5 < trained.scores.variances["roc_auc_score"] < 1e-2
    known: list[Figure] = [each for each in (*compared.arms, *compared.differences) if math.isfinite(each.low)]
    assert len(known) > 20 and all(each.low <= each.value <= each.high for each in known)
    assert min(each.extra for each in compared.arms if math.isfinite(each.extra)) > 0
    rng = np.random.default_rng(4)
    values = np.sort(rng.normal(size=300) * 10.0 ** rng.integers(-12, 9, 300))
    found = np.array([three_digits(value) for value in values])
    assert (np.diff(found) >= 0).all() and (np.sign(found) == np.sign(values)).all()
    assert np.abs(found / values - 1).max() <= 0.005
    assert three_digits(-math.inf) == -math.inf and math.isnan(three_digits(math.nan)) and three_digits(0.0) == 0


def test_institutions_under_record_dp_run_to_the_end_and_are_judged(small_sites, small_study):
    text = small_study.replace("epochs = 1", "steps = 4") + PROTECTED
    result = run(Study.parse(text), sites=small_sites(2, rows=300, policy=Policy(delta=1e-2)))
    assert (result.status, result.report["faults"]) == ("completed", [])
    with RunReader.open() as reader:
        by_round = reader.metrics(result.run, 2)
    # Nothing over training rows leaves, by round or at all.
    assert [(row.metric, row.value) for row in by_round if row.metric != "seconds"] == []
    for site in result.report["sites"].values():
        figure = site["global"]["roc_auc_score"]
        assert figure["value"] == three_digits(figure["value"]) and figure["low"] < figure["value"] < figure["high"]
    assert 0.5 < result.report["global"]["roc_auc_score"]["value"] < 1


def test_by_its_own_means_a_site_would_move_the_gradients_of_all_its_rows_with_one(small_sites, small_study):
    # Why record-dp refuses encode.scaler = "per-site": beside one far value all others of x1 become nearly one.
    (site,) = small_sites(1, rows=400)
    session = SiteSession(site, Study.parse(small_study))
    table = session.table.training.assign(x1=lambda rows: 50 + (rows.x1 - 50) * 1e-3)
    table.iloc[0, list(table).index("x1")] = 100.0
    encoder = fit_encoder(session.layout, session.exact_summary)
    place = [column.name for column in session.layout.features].index("x1")

    def rows(of, scaled) -> Encoded:
        """Encode rows, x1 by the mean and deviation of `scaled`."""
        center, scale = encoder.center.copy(), encoder.scale.copy()
        center[0], scale[0] = scaled.x1.mean(), scaled.x1.std()
        return session.encode(of, replace(encoder, center=center, scale=scale))

    def total(encoded: Encoded) -> np.ndarray:
        arrays = {name: np.zeros_like(v) for name, v in first_arrays(session.trainable(), encoded.x.shape[1]).items()}
        arrays["weight"][place] = 50.0
        rng = np.random.default_rng(0)
        steps = PrivateSteps(clip=1.0, noise=0.0, sampling=1.0, unit="row")
        request = FitRequest(
            model=session.model, task="binary", arrays=arrays, rows=encoded, plan=Plan(steps=1), rng=rng,
            lr=float(len(encoded)), delta=True, private=steps, chance=SeededNoise(rng),
        )  # fmt: skip
        return np.concatenate([value.ravel() for value in private_fit(request).arrays.values()])

    without = table.iloc[1:]
    by_site = np.linalg.norm(total(rows(table, table)) - total(rows(without, without)))
    by_all = np.linalg.norm(total(rows(table, table)) - total(rows(without, table)))
    assert by_all <= 1 + 1e-9 and by_site > 20


def test_protection_says_whether_there_is_noise(small_study):
    text = small_study.replace("epochs = 1", "steps = 4")
    assert protection_of(Study.parse(text + PROTECTED)).steps.noise > 0.3 and protection_of(Study.parse(text)) is None
