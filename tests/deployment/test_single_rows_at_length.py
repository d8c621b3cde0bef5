"""Hundreds of models that tell of one row are refused, and no model of any round of a shipped study."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import Study, run
from flfed.federation.engines.engine import find_sites
from flfed.federation.server import server
from flfed.rows import site_trees
from flfed.rows.comparison import single_rows
from flfed.rows.comparison.single_rows import SURE, outputs_refusal, tells_single_rows
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.fit import score
from flfed.rows.training.requests import ScoreRequest
from flfed.study.study import names
from flfed.summaries.summary import Encoder, fit_encoder, merge
from tests.conftest import SMALL_STUDY
from tests.deployment.test_single_row_models import all_rows, refuses, tent, without
from tests.golden.test_shipped_studies import LEFT_OUT

pytestmark = pytest.mark.proof

Arrays = dict[str, np.ndarray]
Made = Callable[[np.ndarray, np.ndarray, np.random.Generator], Arrays]
MODELS = 240
"""Of each kind, each tried with its row there and without it."""
SEEDS = 500
INSTITUTION = Policy(disclosure="institution")
SHIPPED = [name for name in names() if name not in LEFT_OUT]
LOADED = [Study.load(name) for name in SHIPPED]
PERCEPTRONS = sorted(
    {(one.dataset.name, str(one.model.settings)): one.name for one in LOADED if one.model.name == "mlp"}.values()
)
PERCEPTRON = SMALL_STUDY.replace('name = "logistic"', 'name = "mlp"\nhidden = [3]')


def direction(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a direction in which the row stands at 0, and the distances of the other rows, the least first."""
    way = rng.normal(size=x.shape[1])
    gaps = np.sort(np.abs((x - row) @ way))
    return way, gaps[gaps > 1e-9]


def steepness(gaps: np.ndarray, rng: np.random.Generator) -> float:
    """Return a factor by which nine in ten rows, or more of them, stand at least 14 from 0."""
    sure = int(np.ceil(rng.uniform(SURE, 1) * len(gaps)))
    return 14.0 / float(gaps[len(gaps) - sure])


def steep_line(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return a logistic regression whose threshold is at one row, with sure scores on either side."""
    way, gaps = direction(x, row, rng)
    factor = steepness(gaps, rng)
    return {"weight": factor * way[:, None], "bias": np.array([-factor * float(row @ way)])}


def steep_step(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return a perceptron whose log-odds go at one row from -height to height, both sure."""
    way, gaps = direction(x, row, rng)
    factor, height = steepness(gaps, rng) / 14, rng.uniform(14, 40)
    place = factor * float(row @ way)
    return {
        "weight-0": np.stack([factor * way] * 3, axis=1), "bias-0": np.array([1.0, -1.0, 0.0]) - place,
        "weight-1": height * np.array([[1.0], [-1.0], [0.0]]), "bias-1": np.array([-height]),
    }  # fmt: skip


def one_row(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return a perceptron with one score for a row and another one for all others, sure or not."""
    low, higher = rng.uniform(-4, 4), rng.choice([0.1, 1.0, 10.0, 80.0])
    return tent(x, row, low=low, high=low + higher, seed=int(rng.integers(2**32)))


def sloped_row(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return the same with a slight slope on one side of the row, over a quarter of the rows or more."""
    low, higher = rng.uniform(-1, 1), rng.choice([0.5, 1.0])
    while True:
        seed = int(rng.integers(2**32))
        sloped = np.mean((x - row) @ np.random.default_rng(seed).normal(size=x.shape[1]) > 0)
        if sloped >= 0.25:
            return tent(x, row, low=low, high=low + higher, slope=0.01, seed=seed)


def soft_step(x: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return a threshold at one row with scores of 0.2 and 0.8, and a quarter of the rows or more on each."""
    while True:
        arrays = steep_step(x, row, rng)
        height = -arrays["bias-1"][0]
        soft = arrays | {name: np.log(4) / height * arrays[name] for name in ("weight-1", "bias-1")}
        outputs = score(ScoreRequest(model=Study.parse(PERCEPTRON).model.build("model"), arrays=soft, x=x))
        if min(np.mean(outputs >= 1.38), np.mean(outputs <= -1.38)) >= 0.25:
            return soft


@dataclass(frozen=True, eq=False)
class WantedRow:
    """A row of a site, and the site without it.

    Attributes
    ----------
    row : array [inputs]
    tested : bool
        Whether it is a test row of the site.
    away : SiteSession
    """

    row: np.ndarray
    tested: bool
    away: SiteSession


def wanted_rows(session: SiteSession, encoder: Encoder) -> list[WantedRow]:
    """Return the rows of a site, each with the site without it."""
    parts, found, table = session.scored_rows(encoder), [], session.site.source.table
    for place in range(len(table)):
        away = without(session, table, place)
        others = np.concatenate([part.x for part in away.scored_rows(encoder)])
        lost = [[row for row in part.x if not (np.abs(others - row).max(axis=1) < 1e-9).any()] for part in parts]
        ((tested, row),) = [(part is lost[-1], row) for part in lost for row in part]
        found.append(WantedRow(row, tested, away))
    return found


def shares_refused(site: Site, text: str, make: Made) -> dict[str, float]:
    """Return which share of models is refused, by the wanted row: a test row, a training row, and each of them away."""
    session, rng, found = SiteSession(site, Study.parse(text)), np.random.default_rng(50), {}
    encoder, _, x = all_rows(session)
    rows = wanted_rows(session, encoder)
    for kind, tested in (("test row", True), ("training row", False)):
        of_kind = [one for one in rows if one.tested is tested]
        drawn = [of_kind[place] for place in rng.integers(len(of_kind), size=MODELS)]
        models = [make(x, one.row, rng) for one in drawn]
        found[kind] = [refuses(session, encoder, arrays) for arrays in models]
        found[f"{kind}, away"] = [refuses(one.away, encoder, arrays) for one, arrays in zip(drawn, models, strict=True)]
    return {kind: float(np.mean(told)) for kind, told in found.items()}


@pytest.mark.parametrize("make", [steep_line, steep_step, one_row])
def test_steep_models_and_those_of_one_row_are_refused_whether_it_is_a_test_row(small_sites, small_study, make):
    (site,) = small_sites(1, rows=80, policy=INSTITUTION)
    shares = shares_refused(site, small_study if make is steep_line else PERCEPTRON, make)
    assert len(shares) == 4 and min(shares.values()) >= 0.99, shares


@pytest.mark.parametrize("make", [soft_step, sloped_row])
def test_softer_thresholds_and_a_row_beside_a_slope_pass_as_documented(small_sites, make: Made):
    (site,) = small_sites(1, rows=80, policy=INSTITUTION)
    shares = shares_refused(site, PERCEPTRON, make)
    assert len(shares) == 4 and max(shares.values()) == 0, shares


def brought(name: str, test_data: Path) -> Study:
    """Return a shipped study, its dataset in this test's home."""
    study = Study.load(name)
    dataset = datasets.load(study.dataset.name)
    if dataset.absent():
        datasets.get(dataset, from_folder=test_data, progress=lambda line: None)
    return study


@pytest.mark.parametrize("name", SHIPPED)
def test_no_model_of_any_round_of_a_shipped_study_is_refused(test_data, name, monkeypatch):
    told = list[bool]()

    def tells(score: np.ndarray, person: np.ndarray, task: Any, least: int) -> bool:
        told.append(tells_single_rows(score, person, task, least))
        return told[-1]

    # Its sites are open: they are looked at as an institution would.
    for module in (single_rows, site_trees):
        monkeypatch.setattr(module, "holds_models", lambda session: True)
    monkeypatch.setattr(single_rows, "tells_single_rows", tells)
    monkeypatch.setattr(
        server.FederatedRun, "compare", lambda *_: None
    )  # the last model and the best have been looked at
    study = brought(name, test_data)
    result = run(study)
    assert result.status == "completed"
    # Each round's model but a first one without any score, and the last one, at each site.
    assert len(told) >= len(find_sites(study)) * result.report["rounds"]
    assert not any(told)


@pytest.mark.parametrize("name", PERCEPTRONS)
def test_no_first_model_that_a_seed_draws_is_refused(test_data: Path, name: str):
    study = brought(name, test_data)
    sessions = [SiteSession(site, study) for site in find_sites(study)]
    encoder = fit_encoder(sessions[0].layout, merge([one.summary() for one in sessions]), study.encode.scaler)
    inputs = [np.concatenate([part.x for part in one.scored_rows(encoder)]) for one in sessions]
    # Of one hidden unit up to 38 of 500 are, of two 2: so what the study's seed draws is exempt.
    refused = 0
    for seed in range(SEEDS):
        arrays = first_model(study, sessions[0].schema, seed)
        for session, x in zip(sessions, inputs, strict=True):
            outputs = score(ScoreRequest(model=session.model, arrays=arrays, x=x))
            refused += outputs_refusal(session, [outputs]) is not None
    assert refused == 0
