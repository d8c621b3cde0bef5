"""No figure leaves of a model that is a threshold between all people and one, whether this one is there or not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.comparison import single_rows
from flfed.rows.comparison.single_rows import model_refusal, outputs_refusal, tells_single_rows
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import run_client
from flfed.rows.training.fit import score
from flfed.rows.training.requests import ScoreRequest
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest

INSTITUTION: dict[str, Any] = {"disclosure": "institution", "audits": True}
PEOPLE = 40
WHY = "nearly all scores of this model are one, or sure"


@pytest.fixture
def perceptron(small_study: str) -> str:
    """The small study with a perceptron of three hidden units."""
    return small_study.replace('name = "logistic"', 'name = "mlp"\nhidden = [3]')


def tent(
    x: np.ndarray, row: np.ndarray, *, low: float, high: float, slope: float = 0.0, seed: int = 3
) -> dict[str, np.ndarray]:
    """Return a perceptron whose log-odds are `high` for one exact row and `low` for the others of `x`."""
    way = np.random.default_rng(seed).normal(size=x.shape[1])
    places, place = x @ way, float(row @ way)
    gaps = np.abs(places - place)
    width = float(gaps[gaps > 1e-9].min()) / 2
    hidden = np.stack([way / width] * 3, axis=1)
    bias = np.array([1.0, 0.0, -1.0]) - place / width
    out = np.array([[1.0], [-2.0], [1.0]]) * (high - low)
    # The first unit is a plain one of the row's side beyond the tent: a little of it is a slope.
    out[0, 0] += slope * width
    return {"weight-0": hidden, "bias-0": bias, "weight-1": out, "bias-1": np.array([low])}


def threshold(x: np.ndarray, *, low: float, high: float) -> dict[str, np.ndarray]:
    """Return a perceptron that is a step in the middle of the rows."""
    way = np.random.default_rng(3).normal(size=x.shape[1])
    middle = float(np.median(x @ way)) + 1e-4
    hidden, bias = np.stack([1e6 * way] * 3, axis=1), np.array([0.0, -1.0, 0.0]) - 1e6 * middle
    out = np.array([[1.0], [-1.0], [0.0]]) * (high - low)
    return {"weight-0": hidden, "bias-0": bias, "weight-1": out, "bias-1": np.array([low])}


def all_rows(session: SiteSession) -> tuple[Encoder, Encoded, np.ndarray]:
    """Return an encoder, the encoded training rows and the inputs of all rows."""
    encoder = fit_encoder(session.layout, session.summary(), session.study.encode.scaler)
    parts = session.scored_rows(encoder)
    return encoder, parts[0], np.concatenate([part.x for part in parts])


def refuses(session: SiteSession, encoder: Encoder, arrays: dict[str, np.ndarray]) -> bool:
    return run_client(model_refusal(session, arrays, encoder, lambda: None)) is not None


def without(session: SiteSession, table: pd.DataFrame, place: int) -> SiteSession:
    """Return the site's session without one of its rows."""
    fewer = table.drop(index=table.index[place]).reset_index(drop=True)
    return SiteSession(replace(session.site, source=Frame(fewer)), session.study)


def test_steep_models_and_those_of_one_row_are_refused_whether_the_row_is_there(small_sites, perceptron: str):
    (site,) = small_sites(1, rows=80, policy=Policy(**INSTITUTION))
    session, table = SiteSession(site, Study.parse(perceptron)), site.source.table
    encoder, _, x = all_rows(session)
    found: dict[str, list[bool]] = {"steep": [], "one-row": [], "steep, away": [], "one-row, away": []}
    rng, shapes = np.random.default_rng(1), {"steep": (-40.0, 40.0), "one-row": (-0.3, 0.3)}
    for place in rng.permutation(len(table))[:PEOPLE]:
        away = without(session, table, int(place))
        inputs = np.concatenate([part.x for part in away.scored_rows(encoder)])
        here = next(row for row in x if not (np.abs(inputs - row).max(axis=1) < 1e-9).any())
        for name, (low, high) in shapes.items():
            arrays = tent(x, here, low=low, high=high)
            found[name].append(refuses(session, encoder, arrays))
            found[f"{name}, away"].append(refuses(away, encoder, arrays))
    assert {name: np.mean(told) for name, told in found.items()} == dict.fromkeys(found, 1.0)


def test_what_the_docs_say_passes(small_sites, perceptron: str):
    (site,) = small_sites(1, rows=80, policy=Policy(**INSTITUTION))
    session = SiteSession(site, Study.parse(perceptron))
    encoder, _, x = all_rows(session)
    assert not refuses(session, encoder, threshold(x, low=-1.3, high=1.3))
    assert not refuses(session, encoder, tent(x, x[5], low=-0.3, high=0.3, slope=0.01))
    assert refuses(session, encoder, threshold(x, low=-40.0, high=40.0))
    assert not refuses(session, encoder, first_model(session.study, session.schema))
    zeros = {name: np.zeros_like(value) for name, value in first_model(session.study, session.schema).items()}
    assert not refuses(session, encoder, zeros)
    assert not refuses(
        SiteSession(replace(site, policy=Policy(disclosure="open")), session.study), encoder,
        tent(x, x[5], low=-9, high=9),
    )  # fmt: skip


def test_what_a_run_begins_with_is_not_refused(small_sites, perceptron: str):
    (site,) = small_sites(1, rows=80, policy=Policy(**INSTITUTION))
    session = SiteSession(site, Study.parse(perceptron))
    encoder, _, x = all_rows(session)
    steep = threshold(x, low=-40.0, high=40.0)
    assert run_client(model_refusal(session, steep, encoder, lambda: dict(steep))) is None
    other = {name: value + 1e-9 for name, value in steep.items()}
    assert run_client(model_refusal(session, steep, encoder, lambda: other)) is not None


def test_what_the_studys_seed_draws_is_not_refused_and_what_another_draws_is(small_sites, perceptron: str):
    (site,) = small_sites(1, rows=80, policy=Policy(**INSTITUTION, cell_minimum=30))
    study = Study.parse(perceptron.replace("hidden = [3]", "hidden = [1]"))
    session = SiteSession(site, study)
    encoder, _, x = all_rows(session)
    drawn = [first_model(study, session.schema, repeat) for repeat in range(100)]
    told = [
        outputs_refusal(session, [score(ScoreRequest(model=session.model, arrays=arrays, x=x))]) is not None
        for arrays in drawn
    ]
    repeat, other = [place for place, refused in enumerate(told) if refused][:2]  # a unit that is 0 for many
    repeated = SiteSession(site, study, repeat)
    assert not refuses(repeated, encoder, drawn[repeat])
    assert refuses(repeated, encoder, drawn[other])


def test_people_are_counted_and_not_their_rows():
    # One person has most of the rows, each with a score of its own; the other thirty have one score.
    score = np.concatenate([np.linspace(0.2, 0.8, 70), np.full(30, 0.4)])
    person = np.concatenate([np.zeros(70, int), np.arange(1, 31)])
    assert tells_single_rows(score, person, "binary", 10)
    assert not tells_single_rows(score, np.arange(100), "binary", 10)


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_a_tree_of_two_leaves_passes_and_one_that_parts_few_people_does_not(task: str):
    few, many = (np.where(np.arange(100) < number, 0.3, 0.6) for number in (9, 10))
    wide = (lambda score: np.stack([score, 1 - score], axis=1)) if task == "multi-class" else (lambda score: score)
    person = np.arange(100)
    assert [tells_single_rows(wide(score), person, task, 10) for score in (few, many)] == [True, False]
    sure = np.where(np.arange(100) < 90, 1e-9, 0.4)
    assert tells_single_rows(wide(sure), person, task, 10) is (task != "regression")


def figures_of(reply: Any, kind: str) -> list[Any]:
    """Return the figures that are in a reply."""
    if kind == COMPARE:
        found = CompareReply.from_record(reply.content)
        return [*found.arms, *found.differences, *found.points, *found.groups, *found.importance, found.histogram]
    trained = TrainReply.from_record(reply.content)
    return [trained.loss, *(trained.scores.metrics if trained.scores else ()), trained.offset]


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, COMPARE])
def test_no_figure_of_such_a_model_leaves_a_gate_and_it_was_the_runs_model(gated, perceptron, kind, monkeypatch):
    def asked(site: Any, high: float) -> Any:
        session = SiteSession(site.site, site.study)
        sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
        x = np.concatenate([part.x for part in session.scored_rows(sent.encoder)])
        arrays = tent(x, x[5], low=-0.3, high=high)
        if kind == COMPARE:
            return site.message(kind, CompareRequest(arrays=arrays, encoder=sent.encoder))
        if kind == TRAIN:
            sent = TrainRequest.from_record(site.trained().content)
        return site.message(kind, replace(sent, arrays=arrays))

    site = gated(perceptron, policy=Policy(**INSTITUTION))
    reply = site.answer(asked(site, 0.3))
    assert not [one for one in figures_of(reply, kind) if one is not None]
    assert site.lines()[-1].kind == kind.rpartition(".")[2] and site.lines()[-1].facts["asked-sha256"]
    # It was the run's model: another one cannot be tried in its place.
    assert "another model in" in str(site.answer(asked(site, 0.2)).error.reason)
    if kind == COMPARE:
        assert WHY in CompareReply.from_record(reply.content).note
        sent = CompareRequest.from_record(asked(site, 0.3).content)
        attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
        assert WHY in str(site.answer(site.message(AUDIT, attack)).error.reason)
    monkeypatch.setattr(single_rows, "tells_single_rows", lambda *_: False)
    reply = site.answer(asked(site, 0.3), run="another")
    assert [one for one in figures_of(reply, kind) if one is not None]


def test_figures_of_what_the_seed_draws_leave_a_gate(gated, perceptron: str, monkeypatch):
    monkeypatch.setattr(single_rows, "tells_single_rows", lambda *_: True)
    site = gated(perceptron, policy=Policy(**INSTITUTION))
    sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
    session = SiteSession(site.site, site.study)
    drawn = first_model(site.study, session.schema)
    for run, arrays in (("one", drawn), ("another", {name: value + 1e-9 for name, value in drawn.items()})):
        reply = site.answer(site.message(EVALUATE, replace(sent, arrays=arrays)), run=run)
        assert any(figure is not None for figure in figures_of(reply, EVALUATE)) is (arrays is drawn)


@pytest.mark.parametrize("model", ["mlp", "boosted-trees"])
def test_a_run_goes_on_where_a_site_gives_no_figure(gated, conducted_through, perceptron: str, model: str, monkeypatch):
    text = perceptron
    if model == "boosted-trees":
        text = perceptron.replace('name = "mlp"\nhidden = [3]', f'name = "{model}"').replace('"fedavg"', f'"{model}"')
        text = text.replace("lr = 0.1\nepochs = 1\nl2 = 0.01\n", "")
        monkeypatch.setattr("flfed.rows.site_trees.holds_models", lambda session: session.site.name == "site-01")
        monkeypatch.setattr(single_rows, "holds_models", lambda session: session.site.name == "site-01")
    policy = Policy(disclosure="open", resplit=True) if model == "boosted-trees" else Policy(**INSTITUTION)
    monkeypatch.setattr(single_rows, "tells_single_rows", lambda *_: True)
    site = gated(text, policy=policy)
    outcome, _ = conducted_through(site)
    assert outcome.status == "completed", outcome
