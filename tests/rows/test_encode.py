"""The one encoder of all sites equals scikit-learn's fit on all rows in one place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flfed.rows.features.encode import AT_ONCE, Encoded, coded, decode_target, encode, input_names
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.summaries.summary import ColumnLayout, Layout, fit_encoder, merge


@pytest.fixture
def places(small_sites, small_study) -> list[SiteSession]:
    """Three sites with unlike ranges; `x2` is empty at the first."""

    def change(number: int, table: pd.DataFrame) -> pd.DataFrame:
        table = table.assign(x1=table["x1"] / (number + 1))
        return table.assign(x2=np.nan) if number == 0 else table

    study = Study.parse(small_study).replace({"encode.missing-indicator": True})
    return [SiteSession(site, study) for site in small_sites(3, change=change)]


def test_numbers_are_imputed_and_scaled_as_scikit_learn_does_on_the_pooled_rows(places):
    pooled = pd.concat([place.table.training for place in places])
    layout = places[0].layout
    encoder = fit_encoder(layout, merge([place.summary() for place in places]))
    names = input_names(layout)
    columns = [names.index("x1"), names.index("x2")]
    # StandardScaler passes over missing cells; the mean of scaled cells is 0.
    theirs = make_pipeline(StandardScaler(), SimpleImputer()).fit(pooled[["x1", "x2"]].to_numpy())
    scaler = theirs[0]
    np.testing.assert_allclose(encoder.center[:2], scaler.mean_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(encoder.scale[:2], scaler.scale_, rtol=0, atol=1e-9)
    for place in places:
        ours = place.training(encoder).x[:, columns]
        np.testing.assert_allclose(ours, theirs.transform(place.table.training[["x1", "x2"]].to_numpy()), atol=1e-9)
    imputed = SimpleImputer().fit_transform(pooled[["x2"]].to_numpy())
    np.testing.assert_allclose(encoder.center[1], imputed.mean(), atol=1e-9)
    assert (places[0].training(encoder).x[:, names.index("x2")] == 0).all()


@pytest.mark.parametrize("indicator", [True, False])
def test_a_rows_inputs_do_not_depend_on_how_many_rows_are_encoded_at_a_time(small_sites, small_study, indicator):
    study = Study.parse(small_study).replace({"encode.missing-indicator": indicator})
    (place,) = [SiteSession(site, study) for site in small_sites(1)]
    encoder = fit_encoder(place.layout, place.summary())
    rows = coded(place.table.training, place.layout)
    many = rows.take(np.arange(2 * AT_ONCE + 5) % rows.rows)
    x = encode(many, place.layout, encoder).x
    pieces = [encode(many.take(slice(start, start + 999)), place.layout, encoder).x for start in range(0, len(x), 999)]
    assert x.tobytes() == np.vstack(pieces).tobytes()
    assert encode(many.take(slice(0)), place.layout, encoder).x.shape == (0, x.shape[1])


def test_indicators_are_scaled_as_scikit_learn_scales_dummies(places):
    pooled = pd.concat([place.table.training for place in places])
    encoder = fit_encoder(places[0].layout, merge([place.summary() for place in places]))
    x, names = encode(pooled, places[0].layout, encoder).x, input_names(places[0].layout)
    dummies = pd.DataFrame({
        "flag": pooled["flag"], "colour=green": pooled["colour"] == "green",
        "colour=blue": pooled["colour"] == "blue", "x2 missing": pooled["x2"].isna(),
    }).astype(float)  # fmt: skip
    theirs = StandardScaler().fit_transform(dummies.to_numpy())
    np.testing.assert_allclose(x[:, [names.index(name) for name in dummies.columns]], theirs, atol=1e-9)


def test_inputs_have_names_in_the_order_of_the_columns(places):
    assert input_names(places[0].layout) == (
        *("x1", "x1 missing", "x2", "x2 missing", "flag", "flag missing"),
        *("colour=green", "colour=blue", "colour missing"),
    )
    assert places[0].training(fit_encoder(places[0].layout, places[0].summary())).x.shape[1] == 9


AMOUNT = ColumnLayout(
    name="x", kind="number", cells=("low", "high", "missing"), edges=(0.0, 5.0, 10.0), transform="log1p"
)
COLOUR = ColumnLayout(name="c", kind="category", cells=("red", "green", "missing"))
SKEWED = Layout(features=(AMOUNT, COLOUR), target=ColumnLayout(
    name="y", kind="number", cells=("low", "high", "missing"), edges=(0.0, 5.0, 10.0), transform="log1p"
), task="regression")  # fmt: skip


def test_amounts_are_scaled_after_their_logarithm_and_targets_come_back_in_their_unit():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.exponential(500, 60), "c": "red", "y": rng.exponential(50, 60)})
    encoder = fit_encoder(SKEWED, summarise(table, SKEWED))
    found = encode(table, SKEWED, encoder)
    np.testing.assert_allclose(found.x[:, 0], StandardScaler().fit_transform(np.log1p(table[["x"]]))[:, 0], atol=1e-9)
    np.testing.assert_allclose([found.y.mean(), found.y.std()], [0, 1], atol=1e-9)
    np.testing.assert_allclose(decode_target(found.y, SKEWED, encoder), table["y"], rtol=1e-9)


def test_constant_empty_and_rare_columns_stay_finite():
    table = pd.DataFrame({"x": np.full(200, np.e - 1), "c": ["green"] + ["red"] * 199, "y": np.linspace(1, 9, 200)})
    encoder = fit_encoder(SKEWED, summarise(table, SKEWED))
    x = encode(table, SKEWED, encoder).x
    assert encoder.scale[0] == 1.0 and np.abs(x[:, 0]).max() < 1e-9
    # One row in 200: sd 0.0705, but no input is divided by less than 0.1.
    assert x[0, 1] == pytest.approx((1 - 0.005) / 0.1)
    empty = table.assign(x=np.nan, c=None)
    encoder = fit_encoder(SKEWED, summarise(empty, SKEWED))
    assert (encoder.center[0], encoder.scale[0]) == (5.0, 5.0)  # the middle of the range
    assert np.isfinite(encode(table, SKEWED, encoder).x).all()
    assert (encode(empty, SKEWED, encoder).x == 0).all()


def test_balanced_weights_are_scikit_learns(places):
    from sklearn.utils.class_weight import compute_class_weight

    pooled = pd.concat([place.table.training for place in places])
    encoder = fit_encoder(places[0].layout, merge([place.summary() for place in places]))
    theirs = compute_class_weight("balanced", classes=np.array(["no", "yes"]), y=pooled["y"])
    np.testing.assert_allclose(encoder.class_weight, theirs, rtol=1e-12)
    rows = encode(pooled, places[0].layout, encoder, weighted=True)
    assert np.abs(theirs - 1).max() > 0.05
    np.testing.assert_allclose(rows.weight, theirs[(pooled["y"] == "yes").to_numpy().astype(int)], rtol=1e-12)
    assert rows.weight.sum() == pytest.approx(len(pooled), rel=1e-12)
    assert (encode(pooled, places[0].layout, encoder).weight == 1).all()


def test_an_own_encoder_keeps_the_others_target_scale_and_class_weights(places):
    everyone = fit_encoder(places[0].layout, merge([place.summary() for place in places]))
    own = places[2].own_encoder(everyone)
    alone = places[2].own_encoder()
    np.testing.assert_array_equal(own.center[:-1], alone.center[:-1])
    assert abs(own.center[0] - everyone.center[0]) > 1
    np.testing.assert_array_equal(own.class_weight, everyone.class_weight)


def test_rows_can_be_taken_by_mask_and_by_number():
    rows = Encoded(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]), np.ones(3))
    np.testing.assert_array_equal(rows.take(np.array([True, False, True])).x, rows.take(np.array([0, 2])).x)
    assert len(rows.take(np.array([1]))) == 1


def test_rows_taken_keep_their_patients():
    rows = Encoded(np.zeros((3, 1)), np.zeros(3), np.ones(3), np.array([4, 4, 7]))
    assert rows.take(np.array([2, 0])).group.tolist() == [7, 4]
    assert Encoded(np.zeros((3, 1)), np.zeros(3), np.ones(3)).take(np.array([2, 0])).group is None


def test_encoded_rows_know_their_patients_where_one_has_several(small_sites, small_study, tmp_path):
    study = Study.parse(small_study)
    without = SiteSession(small_sites(1)[0], study)
    assert without.encode_training(without.own_encoder()).group is None  # the schema names no group
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    alone = SiteSession(small_sites(1)[0], study)
    assert alone.encode_training(alone.own_encoder()).group is None
    several = SiteSession(
        small_sites(1, change=lambda _, t: t.assign(person=[f"P{row % 20}" for row in range(len(t))]))[0], study
    )
    table = several.table.training
    codes = several.encode(table, several.own_encoder()).group
    assert len(set(zip(codes, table["person"], strict=True))) == len(set(codes)) == table["person"].nunique() < 21


@pytest.mark.parametrize("rows", [1, 5, 4096, 9000])
def test_rows_that_are_taken_apart_in_place_are_those_of_two_masks(rows: int):
    rng = np.random.default_rng(rows)
    whole = Encoded(
        rng.normal(size=(rows, 3)), rng.integers(0, 2, rows), np.ones(rows), rng.integers(0, 9, rows), None, 1
    )  # fmt: skip
    apart = rng.random(rows) < 0.2
    expected = (whole.take(~apart), whole.take(apart))
    for ours, theirs in zip(whole.split(apart), expected, strict=True):
        for name in ("x", "y", "weight", "group"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
        assert ours.x.flags.c_contiguous
