"""What joining is held against: the best that a site finds alone, named in the record, its words and its pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import LocalProtection
from flfed.records.reports.narrative import comparison_rows
from flfed.records.reports.report import report
from flfed.records.reports.site_answer import rests_on
from flfed.records.reports.site_verdict import own_in_words, site_verdict
from flfed.records.statistics.own_models import own_models_in_words
from flfed.records.store.reader import RunReader
from flfed.rows.baselines import first_arrays
from flfed.rows.data.policy import Policy
from flfed.rows.session import SiteSession
from flfed.summaries.summary import fit_encoder
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest

AUC = "roc_auc_score"
MLP = ('name = "logistic"', 'name = "mlp"\nhidden = [4]')


def crossed(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose outcome goes with the product of x1 and x2 at all sites but the third."""
    if number == 2:
        return table.head(120)
    return table.assign(y=np.where((table["x1"] - 50) * table["x2"].fillna(1) > 0, "yes", "no"))


@pytest.fixture
def small_study(small_study: str) -> str:
    """A study that holds the shared model against the best that each site finds alone."""
    return small_study.replace('site-model = "same"', 'site-model = "best"')


@pytest.fixture
def study(small_study: str) -> Study:
    return Study.parse(small_study.replace(*MLP)).replace({"strategy.rounds": 2})


@pytest.fixture
def sites(small_sites):
    return small_sites(3, rows=400, change=crossed)


@pytest.mark.studies
def test_a_model_that_is_not_linear_is_held_against_the_best_that_each_site_finds_alone(study, sites):
    best, same = (run(made, sites=sites).report for made in (study, study.replace({"compare.site-model": "same"})))
    families = {name: of["local-only-family"] for name, of in best["sites"].items()}
    assert families == {"site-01": "boosted-trees", "site-02": "boosted-trees", "site-03": "logistic-regression"}
    assert best["sites"]["site-01"]["local-only-families"] == {"boosted-trees": 1}
    for name, of in best["sites"].items():
        # What federating itself costs stays in sight: the model of the study's kind, just as it was.
        assert of["local-only-same"] == same["sites"][name]["local-only"]
        assert of["difference"][AUC]["value"] == pytest.approx(
            of["global"][AUC]["value"] - of["local-only"][AUC]["value"], abs=1e-12
        )
    assert best["sites"]["site-01"]["local-only"][AUC]["value"] > same["sites"]["site-01"]["local-only"][AUC]["value"]
    assert best["pooled-same"] == same["pooled"] and best["pooled-family"] == "boosted-trees"
    assert best["pooled"][AUC]["value"] > same["pooled"][AUC]["value"] + 0.1
    assert best["global"] == same["global"] and best["personalised"] == same["personalised"]
    of = same["sites"]["site-01"]
    assert (of["local-only-family"], of["local-only-families"], of["local-only-same"]) == ("same", {}, None)
    assert (same["pooled-family"], same["pooled-same"]) == ("same", None)


@pytest.mark.studies
def test_words_and_pages_name_what_the_own_model_is(study, sites):
    found = run(study, sites=sites).report
    own = found["sites"]["site-01"]
    text = "\n".join(["\n".join(map(" ".join, comparison_rows(found)[1])), *comparison_rows(found)[2]])
    assert "all rows in one place (pooled): boosted decision trees" in text
    assert "pooled, of the shared model's kind" in text
    assert "boosted decision trees at 2, logistic regression at 1 of 3 sites" in own_models_in_words(found)
    assert own_models_in_words(found) in text
    assert " alone (boosted decision trees): gain " in site_verdict(own, AUC)[1]
    assert own_in_words(found["sites"]["site-03"]) == "logistic regression"
    same = f"{own['local-only-same'][AUC]['value']:.3f}"
    assert f"reaches {same}." in "\n".join(rests_on(found, "site-01", AUC))
    linear = run(study.replace({"model.name": "logistic", "model.hidden": None}), sites=sites).report
    assert own_in_words(linear["sites"]["site-01"]) == "boosted decision trees"
    # Of the linear family it is just the study's own model, tuned alone.
    third = linear["sites"]["site-03"]
    assert own_in_words(third) == "logistic regression" and third["local-only"] == third["local-only-same"]
    kind = run(study.replace({"compare.site-model": "same"}), sites=sites).report
    assert own_models_in_words(kind) == own_in_words(kind["sites"]["site-01"]) == ""


@pytest.mark.studies
def test_repeats_count_which_model_was_taken(study, sites):
    result = run(study, sites=sites, repeats=2)
    with RunReader.open() as reader:
        whole = report(reader, result.run)
    assert sum(whole["sites"]["site-01"]["local-only-families"].values()) == 2
    assert whole["pooled-families"] == {"boosted-trees": 2}


def test_a_series_names_both_models_where_repeats_take_different_ones():
    site = {"local-only-families": {"boosted-trees": 7, "logistic-regression": 3}}
    assert own_in_words(site) == "boosted decision trees in 7 of 10 repeats, logistic regression in 3"


@pytest.mark.studies
def test_which_model_is_best_is_not_told_of_an_institutions_rows_that_noise_protects(small_sites, small_study, ask):
    private = '[privacy]\nname = "record-dp"\nepsilon = 8.0\ndelta = 1e-3\nsampling = 0.5\n'
    text = small_study.replace(*MLP).replace("epochs = 1", "steps = 4") + private
    (site,) = small_sites(1, rows=300)
    work = SiteSession(site, Study.parse(text))
    encoder = work.in_use(fit_encoder(work.layout, work.exact_summary))
    arrays = first_arrays(work.trainable(), work.training(encoder).x.shape[1])
    told = {}
    for name, policy in {
        "open": Policy(disclosure="open", delta=1e-2),
        "institution": Policy(delta=1e-2),
        "named": Policy(delta=1e-2, outputs=("training-figures",)),
    }.items():
        side = SiteClient(lambda _, __, policy=policy: replace(site, policy=policy), protect=LocalProtection())
        reply = ask(side, site.name, COMPARE, CompareRequest(arrays=arrays, encoder=encoder), text)
        found = CompareReply.from_record(reply.content)
        told[name] = found.own_family
        assert "local-only-same" in {figure.arm for figure in found.arms}
        assert ("own-model" in reply.content) == (found.own_family is not None)
    assert told["institution"] is None
    assert told["open"] is not None and told["named"] == told["open"]


@pytest.mark.studies
@pytest.mark.parametrize("changes", [{}, {"model.name": "logistic", "model.hidden": None}])
def test_joining_is_held_against_the_best_whatever_the_model_and_pooled_sets_the_pooled_one_alone(
    study, sites, changes
):
    planned = study.replace(changes | {"compare.pooled": {"optimiser": "adam", "epochs": 5}, "compare.resamples": 200})
    found = run(planned, sites=sites).report
    assert {site["local-only-family"] for site in found["sites"].values()} == {"boosted-trees", "logistic-regression"}
    assert (found["pooled-family"], found["pooled-same"]) == ("same", None)
    assert found["pooled"] != run(study.replace(changes), sites=sites).report["pooled"]
