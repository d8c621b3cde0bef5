"""A site's own linear model has the ridge penalty of an indicator for every value of a category."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flfed.federation.engines.engine import find_sites
from flfed.rows.features.encode import one_hot_basis
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.rows.training.tuned_linear import PENALTIES
from flfed.study.study import Study
from tests.one_hot import all_values

pytestmark = pytest.mark.studies


@pytest.mark.parametrize("name", ["cleveland", "long-beach"])
def test_the_own_model_is_scikit_learns_with_an_indicator_for_every_value(heart, name):
    study = Study.load("heart-disease").replace({"compare.site-model": "same"})
    site = next(site for site in find_sites(study) if site.name == name)
    session = SiteSession(site, study)
    holdout = session.table.holdout("test")
    model = run_client(session.local_model())
    own = model.outputs(session.encode(holdout, model.encoder).x)[:, 0]
    y = session.target(session.table.training)
    every = [all_values(session, table) for table in (session.table.training, holdout)]
    first_left_out = [session.encode(table, model.encoder).x for table in (session.table.training, holdout)]
    nearest = []
    for x, x_test in (every, first_left_out):
        fits = [LogisticRegression(C=1 / (l2 * len(y)), tol=1e-9, max_iter=9999).fit(x, y) for l2 in PENALTIES]
        nearest.append(min(np.abs(fit.decision_function(x_test) - own).max() for fit in fits))
    assert nearest[0] < 1e-4
    assert nearest[1] > 0.1


def test_numbers_alone_are_left_as_they_are(heart):
    study = Study.load("heart-disease").replace({"dataset.features": ["age", "chol"]})
    study = study.replace({"encode.missing-indicator": False})
    session = SiteSession(find_sites(study)[0], study)
    assert one_hot_basis(session.layout, session.own_encoder()) is None
