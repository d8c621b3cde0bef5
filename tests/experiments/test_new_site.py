"""A site without a model: the shared model trained without it, and other sites' own, against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from flfed.errors import UsageError
from flfed.experiments.new_site import run_new_site
from flfed.federation.engines.engine import find_sites
from flfed.rows.session import SiteSession
from flfed.rows.training.tuning.linear import PENALTIES
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge

REPEATS = 2


def fitted(rows, penalties):
    """Return scikit-learn's logistic regression of encoded rows, tuned over `penalties` of a mean loss."""
    x = np.concatenate([each.x for each in rows])
    y = np.concatenate([each.y for each in rows]).ravel()
    grid = {"C": 1 / (len(x) * np.asarray(penalties))}
    folds = StratifiedKFold(min(5, np.bincount(y.astype(int)).min()), shuffle=True, random_state=0)
    return GridSearchCV(LogisticRegression(max_iter=3000), grid, scoring="neg_log_loss", cv=folds).fit(x, y)


def area(model, session, encoder):
    holdout = session.encode(session.table.holdout("test"), encoder)
    return roc_auc_score(holdout.y.ravel(), model.predict_proba(holdout.x)[:, 1])


@pytest.mark.studies
def test_on_heart_disease_the_figures_are_scikit_learns_and_not_those_with_a_sites_own_rows(heart):
    study = Study.load("heart-disease").replace({"compare.site-model": "same"})
    sites = find_sites(study)
    found = run_new_site(study, repeats=REPEATS)
    figures = []
    for repeat in range(REPEATS):
        sessions = [SiteSession(site, study, repeat) for site in sites]
        own = []
        for session in sessions:
            rows = session.encode(session.table.training, session.own_encoder())
            own.append((fitted([rows], PENALTIES), session.own_encoder()))
        encoders = {}
        for left in (None, *sessions):
            there = [session for session in sessions if session is not left]
            encoder = fit_encoder(sessions[0].layout, merge([session.exact_summary for session in there]))
            rows = [session.encode(session.table.training, encoder) for session in there]
            encoders[left] = (fitted(rows, [study.plan.l2]), encoder)
        for place, session in enumerate(sessions):
            classes = np.bincount(session.target(session.table.holdout("test")).astype(int), minlength=2)
            if not classes.all():
                continue  # no AUC there
            single = [area(model, session, encoder) for model, encoder in own]
            weight = classes.prod() / classes.sum()
            without = area(encoders[session][0], session, encoders[session][1])
            with_rows = area(encoders[None][0], session, encoders[None][1])
            figures.append((weight, without, np.mean(np.delete(single, place)), with_rows, np.mean(single)))
    weights, without, single, with_rows, everywhere = np.array(figures).T
    assert found.mean.without == pytest.approx(np.average(without, weights=weights), abs=0.01)
    assert found.mean.single == pytest.approx(np.average(single, weights=weights), abs=0.01)
    assert found.mean.with_rows == pytest.approx(np.average(with_rows, weights=weights), abs=0.01)
    # With the site's own rows on both sides, another site's model and the shared one would seem better.
    assert np.average(everywhere, weights=weights) > found.mean.single + 0.01
    assert found.mean.with_rows > found.mean.without + 0.01
    assert found.gain.value is None and found.gain.sites == 4


def test_the_command_leaves_groups_of_many_sites_out_together(flfed):
    cut = 'dataset.partition={by="iid",sites=12,seed=1}'
    words = ("study", "run", "breast-cancer", "--new-site", "--set", cut, "--set", "compare.site-model=same")
    code, out, _ = flfed(*words, "--json")
    found = json.loads(out)
    assert code == 0 and found["groups"] == 10 and len(found["sites"]) >= 8
    assert found["gain"]["low"] < found["gain"]["value"] < found["gain"]["high"]
    weights = [site["weight"] for site in found["sites"].values()]
    for key in ("without", "single", "with-rows"):
        mean = np.average([site[key] for site in found["sites"].values()], weights=weights)
        assert found["mean"][key] == pytest.approx(mean)
    assert found["gain"]["value"] == pytest.approx(found["mean"]["without"] - found["mean"]["single"])


def test_too_few_sites_and_other_options_are_refused(flfed, small_sites, small_study):
    study = Study.parse(small_study)
    with pytest.raises(UsageError, match="has 2 sites, and 3 are needed"):
        run_new_site(study, sites=small_sites(2))
    code, _, error = flfed("study", "run", "wine", "--new-site", "--engine", "ray")
    assert code == 2 and "--new-site goes with --repeats only" in error
