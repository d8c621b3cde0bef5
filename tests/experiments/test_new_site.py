"""A site without a model: the shared model trained without it, and other sites' own, against scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from flfed.errors import UsageError
from flfed.experiments.new_site import run_new_site
from flfed.federation.engines.engine import find_sites
from flfed.rows.data.site import Policy
from flfed.rows.session import SiteSession
from flfed.rows.training.tuned_linear import PENALTIES
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from tests.one_hot import all_values

REPEATS = 2


def fitted(x, y, penalties):
    """Return scikit-learn's logistic regression of rows, tuned over `penalties` of a mean loss."""
    grid = {"C": 1 / (len(x) * np.asarray(penalties))}
    folds = StratifiedKFold(min(5, np.bincount(y.astype(int)).min()), shuffle=True, random_state=0)
    return GridSearchCV(LogisticRegression(max_iter=3000), grid, scoring="neg_log_loss", cv=folds).fit(x, y)


def area(model, session, x):
    return roc_auc_score(session.target(session.table.holdout("test")), model.predict_proba(x)[:, 1])


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
            training = session.table.training
            own.append(fitted(all_values(session, training), session.target(training), PENALTIES))
        encoders = {}
        for left in (None, *sessions):
            there = [session for session in sessions if session is not left]
            encoder = fit_encoder(sessions[0].layout, merge([session.exact_summary for session in there]))
            rows = [session.encode_training(encoder) for session in there]
            x = np.concatenate([each.x for each in rows])
            y = np.concatenate([each.y for each in rows])
            encoders[left] = (fitted(x, y, [study.plan.l2]), encoder)
        for place, session in enumerate(sessions):
            classes = np.bincount(session.target(session.table.holdout("test")).astype(int), minlength=2)
            if not classes.all():
                continue  # no AUC there
            holdout = session.table.holdout("test")
            single = [area(model, session, all_values(other, holdout)) for other, model in zip(sessions, own)]
            weight = classes.prod() / classes.sum()
            shared = [
                (model, session.encode(holdout, encoder).x) for model, encoder in (encoders[session], encoders[None])
            ]
            without, with_rows = (area(model, session, x) for model, x in shared)
            figures.append((weight, without, np.mean(np.delete(single, place)), with_rows, np.mean(single)))
    weights, without, single, with_rows, everywhere = np.array(figures).T
    assert found.mean.without == pytest.approx(np.average(without, weights=weights), abs=0.01)
    assert found.mean.single == pytest.approx(np.average(single, weights=weights), abs=0.01)
    assert found.mean.with_rows == pytest.approx(np.average(with_rows, weights=weights), abs=0.01)
    # With the site's own rows on both sides, another site's model and the shared one would seem better.
    assert found.mean.with_rows > found.mean.without + 0.01
    gain = found.mean.without - found.mean.single
    assert np.average(with_rows - everywhere, weights=weights) > gain + 0.01
    assert found.gain.value is None and found.gain.sites == 4


@pytest.mark.proof
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
    # The run of all sites is the latest one; the others have a note in the list.
    notes = {line["run"]: line["note"] for line in json.loads(flfed("run", "list", "--json")[1])["series"]}
    assert list(notes)[0] == found["run"] and not notes.pop(found["run"])
    assert set(notes.values()) == {
        "--new-site: without breast-cancer-01, breast-cancer-11",
        "--new-site: without breast-cancer-02, breast-cancer-12",
        *(f"--new-site: without breast-cancer-{number:02}" for number in range(3, 11)),
    }


def test_too_few_sites_and_other_options_are_refused(flfed, small_sites, small_study):
    study = Study.parse(small_study)
    with pytest.raises(UsageError, match="has 2 sites, and 3 are needed"):
        run_new_site(study, sites=small_sites(2))
    code, _, error = flfed("study", "run", "wine", "--new-site", "--engine", "ray")
    assert code == 2 and "--new-site goes with --repeats only" in error


def test_institutions_have_no_such_figure(flfed, small_sites, small_study):
    """Two runs that differ by a site give its update away, so no site may be closed, and a deployment has no option."""
    study = Study.parse(small_study)
    open_sites = small_sites(2)
    (closed,) = small_sites(1, policy=Policy())
    with pytest.raises(UsageError, match="give its update away.*not: clinic"):
        run_new_site(study, sites=[*open_sites, replace(closed, name="clinic")])
    for words in (("study", "run", "wine", "--engine", "deployment"), ("coordinator", "run", "wine")):
        code, _, error = flfed(*words, "--new-site")
        assert code == 2 and "--new-site" in error
