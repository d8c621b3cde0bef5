"""Noise that follows from a seed follows from the study, too: no two studies share it, and all else they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed.federation.client.protection import protection_of
from flfed.federation.client.released.noised_answer import draw_once, noise_of
from flfed.federation.server.run import run
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import run_client
from flfed.rows.training.private_noise import SeededNoise
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder
from flfed.updates.checkpoints import checkpoint
from tests.federation.test_covered_study import STUDY

Small = Callable[..., list[Site]]
OTHER = "Another purpose"


def session_of(site: Site, study: Study) -> SiteSession:
    """Return a session of a research site, whose noise follows from the seed."""
    made = SiteSession(site, study)
    made.protection = protection_of(study)
    return made


def cells(site: Site, study: Study) -> np.ndarray:
    """Return counts of scores of no row, with a study's noise."""
    exact, query = {"scores": np.zeros((2, 16))}, {"scores": noise_of(study, "scores")}
    return draw_once(session_of(site, study), "scores", exact, query)["scores"].reshape(-1)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return abs(float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]))


def test_two_values_of_epsilon_do_not_give_the_exact_counts(small_sites: Small):
    (site,) = small_sites(1, rows=400)
    studies = [Study.parse(STUDY).replace({"privacy.epsilon": value}) for value in (1.0, 3.0)]
    exact = cells(site, Study.parse(STUDY).replace({"privacy.epsilon": 99.0}))
    weak, strong = (noise_of(study, "scores").noise for study in studies)
    noised = [cells(site, study) for study in studies]
    # The two would be exact + weak · z and exact + strong · z of the same z: this combination has no z in it.
    combined = (weak * noised[1] - strong * noised[0]) / (weak - strong)
    deviation = float(np.std(noised[1] - exact))
    assert np.std(combined - exact) > deviation
    # What a common z would leave is the rounding of counts to whole numbers, and the noise of ε = 99.
    assert deviation > 3


def test_answers_of_studies_that_differ_in_purpose_alone_have_nothing_in_common(small_sites: Small):
    (site,) = small_sites(1, rows=400)
    study = Study.parse(STUDY)
    first, again, other = (cells(site, one) for one in (study, study, study.replace({"purpose": OTHER})))
    np.testing.assert_array_equal(first, again)
    exact = cells(site, study.replace({"privacy.epsilon": 99.0}))
    assert correlation(first - exact, other - exact) < 0.25 < correlation(first - exact, again - exact)


def test_updates_share_their_samples_and_none_of_their_noise(small_sites: Small):
    (site,) = small_sites(1, rows=400)
    study = Study.parse(STUDY)

    def update(of: Study, noise: float) -> np.ndarray:
        session = session_of(site, of)
        assert session.protection is not None
        session.protection = replace(session.protection, steps=replace(session.protection.steps, noise=noise))
        start = first_model(of, session.schema)
        found = run_client(session.train(start, schema_encoder(session.layout), round=1, rounds=3)).delta
        return np.concatenate([found[name].reshape(-1) for name in sorted(found)])

    other = study.replace({"purpose": OTHER})
    # Next to no noise: the same rows were drawn for each step, as in every study with this seed.
    np.testing.assert_allclose(update(study, 1e-9), update(other, 1e-9), atol=1e-9)
    apart = update(study, 1.0), update(other, 1.0)
    np.testing.assert_array_equal(apart[0], update(study, 1.0))
    assert np.abs(apart[0] - apart[1]).min() > 1e-4


def test_draws_of_samples_are_the_generators_own_and_those_of_noise_are_of_the_study():
    plain, first, other = (SeededNoise(np.random.default_rng(5), study) for study in ("", "a", "b"))
    expected = np.random.default_rng(5).random(50)
    for source in (plain, first, other):
        np.testing.assert_array_equal(source.uniform(50), expected)
    drawn = [source.normal(2000) for source in (plain, first, other)]
    assert max(correlation(drawn[0], drawn[1]), correlation(drawn[1], drawn[2])) < 0.08
    # A generator that has moved on gives other noise.
    rng = np.random.default_rng(5)
    rng.random(1)
    assert correlation(SeededNoise(rng, "a").normal(2000), drawn[1]) < 0.08


@pytest.mark.parametrize("sums", ["off", "on"])
def test_site_dp_has_noise_of_the_study_with_and_without_secure_sums(small_sites: Small, small_study: str, sums: str):
    sites = small_sites(4, rows=60)
    given: dict[str, Any] = {"name": "site-dp", "noise": 2.0, "clip": 0.3, "delta": 0.02, "secure-aggregation": sums}
    study = Study.parse(small_study).replace({f"privacy.{key}": value for key, value in given.items()})
    study = study.replace({"strategy.rounds": 1})

    def ended(of: Study) -> np.ndarray:
        arrays = checkpoint.final(run(of, sites=sites).run).arrays
        return np.concatenate([arrays[name].reshape(-1) for name in sorted(arrays)])

    first, again, other = (ended(one) for one in (study, study, study.replace({"purpose": OTHER})))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05
