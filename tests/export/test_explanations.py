"""Reasons of linear and logistic models: they add up to the score, and each column has one line."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit, softmax

from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.predict import predict_frame, predict_site
from flfed.export.predictions import CENTRE, explain_predictions
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.features.encode import input_names
from flfed.rows.features.summarise import summarise
from flfed.rows.study_model import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Summary, fit_encoder, merge

HOSPITALS = ("cleveland", "hungary", "long-beach", "switzerland")
LENDERS = ("midwest-lender", "northeast-lender", "south-lender", "west-lender")


def drawn_model(study: Study, summaries: list[Summary], seed: int = 2) -> SharedModel:
    """Return a model with drawn weights and the encoder of some sums."""
    schema = datasets.load(study.dataset.name).schema
    layout = study_layout(study, schema)
    outputs = len(schema.classes) if schema.task == "multi-class" else 1
    rng = np.random.default_rng(seed)
    first = study.model.build("model").first_arrays(len(input_names(layout)), outputs, rng)
    arrays = {name: rng.normal(0, 0.3, value.shape) for name, value in first.items()}
    encoder = fit_encoder(layout, merge(summaries), study.encode.scaler)
    return SharedModel(run="r", study=study, schema=schema, arrays=arrays, encoder=encoder, figures={})


def model_at_sites(name: str, at: tuple[str, ...]) -> SharedModel:
    """Return a drawn model of a shipped study, with the encoder of its sites' training rows."""
    study = Study.load(name)
    layout = study_layout(study, datasets.load(study.dataset.name).schema)
    return drawn_model(study, [summarise(sites.load(site).read().training, layout) for site in at])


def check_sums(model: SharedModel, predictions, scores: np.ndarray) -> None:
    """Check that contributions add up to the scores [rows, outputs], and that each column has one for each output."""
    explained = explain_predictions(model, predictions)
    outputs = scores.shape[1]
    each = explained.values.reshape(len(scores), outputs, -1)
    assert np.abs(each.sum(axis=2) - scores).max() < 1e-9
    names = [column.name for column in model.layout.features]
    headers = list(explained.headers)
    if outputs == 1:
        assert headers == [*names, CENTRE]
    assert len(headers) == outputs * (len(names) + 1)


@pytest.mark.parametrize("site", HOSPITALS)
def test_reasons_add_up_to_the_log_odds_on_every_row_of_the_hospitals(heart, site: str) -> None:
    model = model_at_sites("heart-disease", HOSPITALS)
    predictions = predict_site(model, site)
    assert len(predictions.values) > 100
    assert len(input_names(model.layout)) > 2 * len(model.layout.features)
    check_sums(model, predictions, logit(predictions.values))


@pytest.mark.parametrize("site", LENDERS)
def test_reasons_add_up_to_the_log_odds_on_every_row_of_the_lenders(site: str) -> None:
    model = model_at_sites("loan-default", LENDERS)
    predictions = predict_site(model, site)
    assert len(predictions.values) > 1000
    check_sums(model, predictions, logit(predictions.values))
    # The lenders' tables have no empty cell: some are made.
    names = [column.name for column in model.layout.features]
    rng = np.random.default_rng(1)
    with_gaps = predictions.table[names].astype(object)
    with_gaps = with_gaps.mask(rng.random(with_gaps.shape) < 0.15)
    predictions = predict_frame(model, with_gaps)
    assert predictions.table[names].isna().mean().mean() == pytest.approx(0.15, abs=0.02)
    check_sums(model, predictions, logit(predictions.values))


def test_reasons_of_classes_and_of_a_number_add_up_to_the_score() -> None:
    for name in ("wine", "diabetes"):
        dataset = datasets.load(name)
        raw = dataset.whole_table()
        study = Study.load(name).replace({"encode.missing-indicator": True})
        layout = study_layout(study, dataset.schema)
        model = drawn_model(study, [summarise(raw, layout)])
        raw = raw.mask(np.random.default_rng(3).random(raw.shape) < 0.1)
        raw[dataset.schema.target] = None
        predictions = predict_frame(model, raw)
        if name == "diabetes":
            check_sums(model, predictions, predictions.values)
            continue
        scores = predictions.inputs @ model.arrays["weight"] + model.arrays["bias"]
        np.testing.assert_allclose(softmax(scores, axis=1), predictions.values, atol=1e-12)
        check_sums(model, predictions, scores)


def test_a_row_without_a_prediction_has_no_reasons_and_the_centre_is_the_bias(small_sites, small_study) -> None:
    site = small_sites(1)[0]
    training = site.read().training
    study = Study.parse(small_study).replace({"encode.rows": "complete"})
    layout = study_layout(study, datasets.load("small").schema)
    model = drawn_model(study, [summarise(training, layout)])
    raw = training.drop(columns="y").astype(object)
    raw.loc[raw.index[0], "x1"] = None
    explained = explain_predictions(model, predict_frame(model, raw))
    assert np.isnan(explained.values[0]).all()
    complete = raw.notna().all(axis=1).to_numpy()
    assert (explained.values[complete, -1] == model.arrays["bias"][0]).all()


def test_a_network_is_refused_in_a_sentence(small_sites, small_study) -> None:
    training = small_sites(1)[0].read().training
    study = Study.parse(small_study).replace({"model.name": "mlp"})
    layout = study_layout(study, datasets.load("small").schema)
    model = drawn_model(study, [summarise(training, layout)])
    with pytest.raises(UsageError, match="needs boosted trees, or a linear or logistic model; this model is 'mlp'"):
        explain_predictions(model, predict_frame(model, training))
