"""Studies whose sites compare the shared model with their own, trained under the same ε: what is charged and told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from flfed import Study, run
from flfed.errors import UsageError
from flfed.federation.client.released.noised_answer import FOLDER, AnswerFile
from flfed.paths import SiteFolder
from flfed.records.statistics.noised_scores import NOT_COMPARED
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_counts import training_cells
from flfed.rows.study_model import first_model
from flfed.updates.accounting import Release, epsilon
from flfed.updates.arrays import Arrays, entries_of, shapes_of, unflattened
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.federation.test_covered_study import STUDY, Small, account, lines

COMPARED = STUDY.replace('covers = "study"', 'covers = "study"\ncomparison = "site-model"').replace(
    "epsilon = 3.0", "epsilon = 8.0"
)


@pytest.fixture
def sites(small_sites: Small) -> list[Site]:
    """Three institutions with a budget for one such run and a half."""
    return [replace(site, policy=Policy(epsilon=12.0)) for site in small_sites(3, rows=2000)]


@pytest.fixture
def done(sites: list[Site]) -> Any:
    return run(Study.parse(COMPARED), sites=sites)


def kept_own(session: SiteSession) -> Arrays:
    """The own model that a site keeps."""
    (path,) = (SiteFolder(session.site.name).gate / FOLDER).glob("*own-model*")
    shapes = shapes_of(first_model(session.study, session.schema))
    found = AnswerFile(path, training_cells(session, by_person=True)).read(entries_of(shapes))
    assert found is not None
    return unflattened(found, shapes)


def test_the_own_model_and_the_pairs_are_charged_to_their_sides_within_the_promise(done: Any, sites: list[Site]):
    for site in sites:
        charged = [(line.facts.get("side"), line.facts["steps"]) for line in lines(site.name)]
        # Two answers, three rounds of four steps, counts of scores twice, the own model's twelve steps, and the pairs.
        assert sorted(charged) == sorted(
            [("training", 1)] * 2 + [("training", 4)] * 3 + [("holdout", 1)] * 3 + [("training", 12)]
        )
        sides = {
            side: [
                Release(line.facts["noise"], line.facts["sampling"], line.facts["steps"])
                for line in lines(site.name)
                if line.facts["side"] == side
            ]
            for side in ("training", "holdout")
        }
        spent = {side: epsilon(releases, 1e-5) for side, releases in sides.items()}
        assert 7.9 <= spent["training"] <= 8.0 and 7.5 <= spent["holdout"] <= 8.0
        assert account(site).spent() == pytest.approx(max(spent.values()))


def test_what_is_told_is_the_difference_of_both_models_on_rows_nobody_trained_on(done: Any, sites: list[Site]):
    model = checkpoints.final(done.report["run"])
    for site in sites:
        session, scores = SiteSession(site, Study.parse(COMPARED)), []
        rows = session.encode(session.table.holdout("test"), model.encoder)
        for arrays in (model.arrays, kept_own(session)):
            weight, bias = (arrays[name] for name in session.model.layers[0])
            scores.append(roc_auc_score(rows.y, (rows.x @ weight + bias).ravel()))
        told = done.report["sites"][site.name]["difference"]["roc_auc_score"]
        assert told["low"] < told["value"] < told["high"]
        # Noise alone lies between them: the interval has the chance of another draw of people, too.
        assert abs(told["value"] - (scores[0] - scores[1])) < told["high"] - told["low"]
        others = done.report["sites"][site.name]["difference"]["log_loss"]
        assert others["value"] is None and "by their AUC alone" in others["reason"]
        assert NOT_COMPARED not in done.report["sites"][site.name]
    assert done.report["privacy"]["comparison"] == "site-model"
    assert done.report["mean-gain"]["roc_auc_score"]["sites"] == 3


def test_the_own_model_is_trained_under_noise_and_kept(done: Any, sites: list[Site], small_sites: Small):
    study = Study.parse(COMPARED)
    first = kept_own(SiteSession(sites[0], study))
    open_sites = [replace(site, policy=Policy(epsilon=30.0)) for site in sites]
    run(study, sites=open_sites)
    again = kept_own(SiteSession(sites[0], study))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    # The second run pays its rounds and its counts of scores and pairs, not the own model, and not the encoder.
    assert [line.facts["steps"] for line in lines("site-01")].count(12) == 1
    assert len(lines("site-01")) == 9 + 6


def test_a_table_of_few_rows_tells_nothing_of_joining(small_sites: Small):
    study = Study.parse(COMPARED.replace("epsilon = 8.0", "epsilon = 1.0"))
    found = run(study, sites=[replace(site, policy=Policy()) for site in small_sites(3, rows=400)]).report
    for site in found["sites"].values():
        assert site["verdict"] == "cannot be told"
        gain = site["difference"].get("roc_auc_score")
        assert gain is None or gain["value"] is None and "under this budget" in gain["reason"]


def test_a_comparison_is_of_a_study_that_is_charged_as_a_whole(small_sites: Small):
    with pytest.raises(UsageError, match="needs covers = 'study'"):
        run(Study.parse(STUDY.replace('covers = "study"', 'comparison = "site-model"')), sites=small_sites(2))
