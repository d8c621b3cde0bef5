"""Models of many rows are fitted in turn, and the rows are held once: the same figures as side by side."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from flfed import Study
from flfed.rows import encoded_table
from flfed.rows.comparison.arms import arm_scores
from flfed.rows.comparison.pooled import reference
from flfed.rows.data import site as data_site
from flfed.rows.data.site import CachedSite
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.training import requests
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.requests import ModelRequest, TuneRequest, run_client_by
from flfed.summaries.summary import fit_encoder, merge

ROWS = 300


def side_by_side(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (requests, encoded_table):
        monkeypatch.setattr(module, "SIDE_BY_SIDE", most)


@pytest.fixture
def many(monkeypatch):
    """A table of 300 rows is one of many, and is encoded in several blocks."""
    side_by_side(100, monkeypatch)
    monkeypatch.setattr(data_site, "BLOCK", 64)


def sessions_of(small_sites: Any, small_study: str) -> list[SiteSession]:
    study = Study.parse(small_study).replace({"plan.validation": 0.2, "compare.site-model": "same"})
    return [SiteSession(CachedSite.of(site), study, 1) for site in small_sites(2, rows=ROWS)]


def encoded_in_memory(least: int) -> list[Encoded]:
    """List what holds as many encoded rows, also requests that nobody asks any more."""
    return [one for one in gc.get_objects() if type(one) is Encoded and len(one.x) >= least]


def compared(sessions: list[SiteSession]) -> tuple[dict[str, np.ndarray], Any, list[int]]:
    """Return the arms' predictions at the first site, the pooled reference, and the arrays held at each fit."""
    held = []
    first = sessions[0]
    least = first.table.training_rows - first.validation_rows
    # Tests before this one may have left some. They are kept until the end, so none goes while ours are counted.
    others = encoded_in_memory(least)
    known = {id(one) for one in others}

    def answer(asked: Any) -> Any:
        if any(isinstance(request, TuneRequest | ModelRequest) for request in asked):
            ours = [one for one in encoded_in_memory(least) if id(one) not in known]
            held.append(len({one.x.__array_interface__["data"][0] for one in ours}))
        return compute_stacked(asked)

    encoder = fit_encoder(first.layout, merge([session.exact_summary for session in sessions]))
    model = {"weight": np.full((first.training(encoder).x.shape[1], 1), 0.3), "bias": np.array([0.2])}
    scores = run_client_by(arm_scores(first, first.table.holdout("test"), model, encoder), answer)
    return scores, run_client_by(reference(sessions, model, encoder), answer), held


def test_the_figures_are_those_of_rows_that_are_few(small_sites, small_study, many, monkeypatch):
    in_turn, pooled, _ = compared(sessions_of(small_sites, small_study))
    side_by_side(10_000, monkeypatch)
    together, reference_before, _ = compared(sessions_of(small_sites, small_study))
    assert in_turn.keys() == together.keys() and len(in_turn) == 3
    for arm, score in together.items():
        np.testing.assert_allclose(in_turn[arm], score, rtol=0, atol=1e-12, err_msg=arm)
    for part in ("union", "personalised", "pooled", "own_everywhere"):
        ours, expected = getattr(pooled, part), getattr(reference_before, part)
        assert len(ours) > 3 and {m: e.value for m, e in ours.items()} == pytest.approx(
            {m: e.value for m, e in expected.items()}, abs=1e-12, nan_ok=True
        )


def test_inputs_of_one_model_are_in_memory_while_it_is_fitted(small_sites, small_study, many, monkeypatch):
    assert set(compared(sessions_of(small_sites, small_study))[2]) == {1}
    side_by_side(10_000, monkeypatch)
    # Side by side those of the shared model wait beside them.
    assert max(compared(sessions_of(small_sites, small_study))[2]) > 1


def test_many_training_rows_are_encoded_in_blocks_of_which_none_stays(small_sites, small_study, many):
    study = Study.parse(small_study)
    site = small_sites(1, rows=ROWS)[0]
    plain, cached = SiteSession(site, study, 1), SiteSession(CachedSite.of(site), study, 1)
    encoder = plain.own_encoder()
    assert "training" in vars(plain.table)
    cached.coded(cached.table.training)
    rows, expected = cached.encode_training(encoder), plain.encode(plain.table.training, encoder)
    np.testing.assert_array_equal(rows.x, expected.x)
    np.testing.assert_array_equal(rows.y, expected.y)
    np.testing.assert_array_equal(rows.weight, expected.weight)
    assert "training" not in vars(cached.table) and not cached._coded
    assert cached.table.training.equals(plain.table.training)


def test_rows_of_groups_are_encoded_at_once_so_that_a_group_stays_one(small_sites, small_study, tmp_path, many):
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    site = small_sites(1, rows=ROWS, change=lambda _, t: t.assign(person=[f"P{n % 99}" for n in range(len(t))]))[0]
    plain, cached = (SiteSession(each, Study.parse(small_study), 1) for each in (site, CachedSite.of(site)))
    assert cached.table.training_rows > 100
    rows, expected = (session.encode_training(plain.own_encoder()) for session in (cached, plain))
    assert expected.group is not None
    np.testing.assert_array_equal(rows.group, expected.group)
