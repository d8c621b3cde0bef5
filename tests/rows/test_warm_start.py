"""Warm starts: a model rewritten for other inputs, what cannot begin from it, and models drawn to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flfed import Study
from flfed.federation.engines.engine import find_sites
from flfed.rows.features.encode import Encoded, encode, input_slices
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import stacked_compute
from flfed.rows.training.fit import fit, score
from flfed.rows.training.functional import batch_loss, layers_of
from flfed.rows.training.requests import FitRequest, ScoreRequest
from flfed.rows.training.tuned_linear import LinearPredictor, fit_beside
from flfed.rows.warm_start import Source, defect, fitting_columns, rewritten
from flfed.summaries.summary import Encoder, fit_encoder, merge

MLP = {"model.name": "mlp", "model.hidden": [7, 3]}


def places_of(study: Study, repeat: int = 0) -> dict[str, SiteSession]:
    return {site.name: SiteSession(site, study, repeat) for site in find_sites(study)}


def encoder_of(*places: SiteSession) -> Encoder:
    return fit_encoder(places[0].layout, merge([place.summary() for place in places]))


def source_of(place: SiteSession, encoder: Encoder, seed: int = 3) -> Source:
    """Return a source of random weights, in float64."""
    rng = np.random.default_rng(seed)
    shapes = {name: value.shape for name, value in first_model(place.study, place.schema).items()}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return Source(run="r", layout=place.layout, encoder=encoder, layers=layers_of(place.model), arrays=arrays)


def outputs(place: SiteSession, arrays: dict[str, np.ndarray], encoder: Encoder, table: Any) -> np.ndarray:
    rows = encode(table, place.layout, encoder)
    return score(ScoreRequest(model=place.model, arrays=arrays, x=rows.x))


def whole_rows(place: SiteSession, *layouts: Any) -> Any:
    """Return a table's rows without a missing cell."""
    names = {column.name for layout in layouts for column in layout.features}
    return place.table.training.dropna(subset=sorted(names))


@pytest.mark.parametrize("changes", [{}, MLP, {"encode.missing-indicator": None}, {"encode.scaler": "schema"}])
@pytest.mark.usefixtures("heart")
def test_rows_without_a_missing_cell_have_the_sources_scores(changes: dict[str, Any]):
    study = Study.load("heart-disease").replace({"plan.precision": "float64", **changes})
    places = places_of(study)
    four, three = places["cleveland"], [place for name, place in places.items() if name != "cleveland"]
    source, encoder = source_of(four, encoder_of(*three)), encoder_of(*places.values())
    # With an indicator on one side only, too.
    other = replace(four.layout, missing_indicator=not four.layout.missing_indicator)
    for layout in (four.layout, other):
        drawn = first_model(study.replace({"encode.missing-indicator": layout.missing_indicator}), four.schema)
        arrays = rewritten(source, drawn, layout, encoder)
        table = whole_rows(four, layout)
        assert len(table) > 100
        x = encode(table, layout, encoder).x
        found = score(ScoreRequest(model=four.model, arrays=arrays, x=x))
        expected = outputs(four, source.arrays, source.encoder, table)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    copied = outputs(four, source.arrays, encoder, table)
    assert np.abs(copied - expected).max() > 0.01  # a plain copy


@pytest.mark.usefixtures("heart")
def test_where_values_stand_in_another_order_a_missing_cell_adds_what_it_added():
    study = Study.load("heart-disease").replace({"plan.precision": "float64"})
    here = places_of(study)["hungary"]
    table = here.table.training
    turned = []
    for column in here.layout.features:
        if column.kind == "category":
            *values, missing = column.cells
            column = replace(column, cells=(*values[::-1], missing))
            assert table[column.name].notna().any()
        turned.append(column)
    layout = replace(here.layout, features=tuple(turned))
    gaps = [column.name for column in turned if column.kind == "category"]
    assert layout.missing_indicator and table[gaps].isna().any(axis=1).sum() > 100
    source = source_of(here, fit_encoder(here.layout, summarise(table, here.layout)))
    encoder = fit_encoder(layout, summarise(table, layout))
    arrays = rewritten(source, first_model(study, here.schema), layout, encoder)
    x = encode(table, layout, encoder).x
    found = score(ScoreRequest(model=here.model, arrays=arrays, x=x))
    expected = outputs(here, source.arrays, source.encoder, table)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("heart")
def test_columns_go_by_name_in_whatever_order_and_the_rest_is_as_drawn():
    study = Study.load("heart-disease").replace({"plan.precision": "float64", **MLP})
    four = places_of(study)["cleveland"]
    encoder = encoder_of(four)
    source = source_of(four, encoder)
    names = [column.name for column in four.layout.features]
    turned = study.replace({"dataset.features": names[::-1]})
    place = places_of(turned)["cleveland"]
    arrays = rewritten(source, first_model(turned, place.schema), place.layout, encoder_of(place))
    table = whole_rows(four, four.layout)
    expected = outputs(four, source.arrays, encoder, table)
    np.testing.assert_allclose(outputs(place, arrays, encoder_of(place), table), expected, rtol=0, atol=1e-10)
    # Of columns that the source lacks the weights are as drawn; its others leave what they add at their centre.
    fewer = study.replace({"dataset.features": names[:5]})
    small = places_of(fewer)["cleveland"]
    few = source_of(small, encoder_of(small))
    assert fitting_columns(few.layout, four.layout) == names[:5]
    drawn = first_model(study, four.schema)
    arrays = rewritten(few, drawn, four.layout, encoder)
    at = sum(1 + (len(c.cells) - 2 if c.kind == "category" else 1) for c in four.layout.features[:5])
    assert (arrays["weight-0"][at:] == drawn["weight-0"][at:]).all()
    assert (arrays["weight-0"][:at] != drawn["weight-0"][:at]).all()


@pytest.mark.usefixtures("heart")
def test_columns_that_the_study_lacks_add_what_they_add_at_their_centre():
    study = Study.load("heart-disease").replace({"plan.precision": "float64", **MLP})
    four = places_of(study)["cleveland"]
    encoder = encoder_of(four)
    source = source_of(four, encoder)
    names = [column.name for column in four.layout.features]
    fewer = study.replace({"dataset.features": names[1:]})  # without age, whose centre is far from 0
    small = places_of(fewer)["cleveland"]
    arrays = rewritten(source, first_model(fewer, small.schema), small.layout, encoder_of(small))
    table = whole_rows(four, four.layout)
    x = encode(table, four.layout, encoder).x
    x[:, input_slices(four.layout)[names[0]]] = 0.0
    expected = score(ScoreRequest(model=four.model, arrays=source.arrays, x=x))
    found = outputs(small, arrays, encoder_of(small), table)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_regression_keeps_its_predictions_in_the_outcomes_unit():
    study = Study.load("diabetes").replace({"plan.precision": "float64", **MLP})
    first, *others = places_of(study).values()
    source, encoder = source_of(first, encoder_of(*others)), encoder_of(first)
    arrays = rewritten(source, first_model(study, first.schema), first.layout, encoder)
    table = first.table.training

    def predicted(found: dict[str, np.ndarray], by: Encoder) -> np.ndarray:
        return outputs(first, found, by, table) * by.scale[-1] + by.center[-1]

    expected = predicted(source.arrays, source.encoder)
    np.testing.assert_allclose(predicted(arrays, encoder), expected, rtol=0, atol=1e-9)
    assert np.abs(predicted(source.arrays, encoder) - expected).max() > 0.1


@pytest.mark.usefixtures("heart")
def test_a_model_of_another_outcome_shape_or_table_is_no_source():
    study = Study.load("heart-disease")
    four = places_of(study)["cleveland"]
    source, drawn = source_of(four, encoder_of(four)), first_model(study, four.schema)
    assert defect(source, four.model, drawn, four.layout) == ""
    network = study.replace(MLP)
    why = defect(source, network.model.build("model"), first_model(network, four.schema), four.layout)
    assert why == "its layers have other widths than the study's model"
    wine = Study.load("wine")
    place = next(iter(places_of(wine).values()))
    why = defect(source, place.model, first_model(wine, place.schema), place.layout)
    assert "it predicts" in why and "or other classes of it" in why
    unlike = replace(four.layout, features=tuple(replace(c, name=f"{c.name}-2") for c in four.layout.features))
    assert defect(source, four.model, drawn, unlike) == "none of its columns is among the study's"


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_a_model_that_is_drawn_to_a_source_is_at_the_minimum_of_its_penalised_loss(task: str):
    rng = np.random.default_rng(5)
    x, outs = rng.normal(size=(60, 4)), 3 if task == "multi-class" else 1
    y = rng.normal(size=60) if task == "regression" else rng.integers(0, max(outs, 2), 60)
    rows = Encoded(x, y, np.ones(60))
    source = LinearPredictor(rng.normal(size=(4, outs)), rng.normal(size=outs))
    found = fit_beside(rows, source(x), task, 0.3 * 60, 0.25)
    w = torch.tensor(source.weight + found.weight, requires_grad=True)
    b = torch.tensor(source.bias + found.bias, requires_grad=True)
    target = torch.tensor(y if task == "regression" else y.astype(np.int64 if outs == 3 else float))
    loss = batch_loss(task, torch.tensor(x) @ w + b, target, None)
    loss = loss + 0.15 * ((w - torch.tensor(source.weight)) ** 2).sum()
    loss = loss + 0.125 / 60 * ((b - torch.tensor(source.bias)) ** 2).sum()
    loss.backward()
    assert max(float(w.grad.abs().max()), float(b.grad.abs().max())) < 1e-12
    assert np.abs(fit_beside(rows, source(x), task, 1e9 * 60, 0.25).weight).max() < 1e-6


@pytest.mark.parametrize("rule", [{"plan.momentum": 0.9}, {"plan.optimiser": "adamw", "plan.weight-decay": 0.1}])
def test_frozen_layers_stay_together_or_alone(rule: dict[str, Any]):
    study = Study.load("wine").replace({**MLP, "plan.l2": 0.01, "plan.l1": 0.001, **rule})
    requests = []
    for place in places_of(study).values():
        rows = place.training(encoder_of(place))
        requests.append(
            FitRequest(
                model=place.model, task=place.task, arrays=first_model(study, place.schema), rows=rows, plan=study.plan,
                lr=0.05, rng=np.random.default_rng(1), frozen=("weight-0", "bias-0"), delta=True,
            )  # fmt: skip
        )  # fmt: skip
    alone = [fit(replace(one, rng=np.random.default_rng(1))).arrays for one in requests]
    together = [one.arrays for one in stacked_compute()(requests)]
    for one, other in zip(alone, together, strict=True):
        assert not one["weight-0"].any() and not one["bias-0"].any() and one["weight-1"].any()
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-6)
