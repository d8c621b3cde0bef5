"""Outputs and figures of many sites at once: those of a plain product for each site, whatever stands beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from flfed.registry import load
from flfed.rows.evaluation.delong import delong
from flfed.rows.evaluation.scoring import histogram
from flfed.rows.features.encode import Encoded
from flfed.rows.models.mlp import Mlp
from flfed.rows.training import inference as module
from flfed.rows.training.fit import score
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.inference import measure_stacked, score_stacked
from flfed.rows.training.requests import MeasureRequest, ScoreRequest

WIDTHS = {"binary": 1, "multi-class": 3, "regression": 1}
SIZES = (37, 0, 1, 2500, 5, 600, 37, 2048)


class Bent:
    """A model that names no layers: outputs are sines."""

    def outputs(self, arrays, x):
        return torch.sin(x @ arrays["weight"])


def measure(asked: MeasureRequest):
    """Return the figures of one request alone."""
    return measure_stacked([asked])[0]


def models(task: str):
    linear = load("model", "linear" if task == "regression" else "logistic")(start="uniform")
    return [linear, Mlp(hidden=(9,)), Mlp(hidden=(16, 5))]


def started(model, task: str, seed: int, inputs: int = 6):
    rng = np.random.default_rng(seed)
    if isinstance(model, Bent):
        return {"weight": rng.normal(size=(inputs, WIDTHS[task]))}
    return model.first_arrays(inputs, WIDTHS[task], rng)


def table(task: str, rows: int, seed: int, inputs: int = 6) -> Encoded:
    rng = np.random.default_rng([seed, rows])
    x = rng.normal(size=(rows, inputs))
    y = x[:, 0] + rng.normal(size=rows)
    classes = {"binary": [0.3], "multi-class": [-0.5, 0.5]}
    return Encoded(x, y if task == "regression" else np.digitize(y, classes[task]).astype(np.int64), np.ones(rows))


def plain(model, arrays, x, dtype=torch.float64) -> np.ndarray:
    """Return the model's outputs on all rows by its own code."""
    tensors = {name: torch.tensor(value, dtype=dtype) for name, value in arrays.items()}
    return model.outputs(tensors, torch.tensor(x, dtype=dtype)).to(torch.float64).numpy()


def request(task, model, arrays, rows, precision="float64") -> MeasureRequest:
    area = task == "binary" and 0 < rows.y.sum() < len(rows)
    return MeasureRequest(model=model, task=task, arrays=arrays, rows=rows, precision=precision, area=area)


def check(asked: MeasureRequest, found, atol: float) -> None:
    """Compare what was measured with the definition of each figure."""
    dtype = getattr(torch, asked.precision)
    np.testing.assert_allclose(found.outputs, plain(asked.model, asked.arrays, asked.rows.x, dtype), atol=atol, rtol=0)
    y, outputs = asked.rows.y, found.outputs
    assert outputs.dtype == np.float64
    loss = loss_of_rows(asked.task, outputs, y) if len(y) else np.nan
    area, variance = np.nan, np.nan
    if asked.area:
        auc, covariance = delong(y, outputs.T)
        area, variance = auc[0], covariance[0, 0]
    expected = [loss, area, variance]
    np.testing.assert_allclose([found.loss, found.area, found.variance], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("task", WIDTHS)
def test_one_model_at_all_sites_gives_each_its_own_outputs_and_figures(task: str):
    for model in [*models(task), Bent()]:
        arrays = started(model, task, 1)
        asked = [request(task, model, dict(arrays), table(task, rows, n)) for n, rows in enumerate(SIZES)]
        assert len(module._units([(r.model, r.arrays, r.rows.x, r.precision) for r in asked])) == 1
        for one, found in zip(asked, measure_stacked(asked), strict=True):
            check(one, found, 1e-12)


@pytest.mark.parametrize("task", WIDTHS)
def test_models_of_their_own_are_stacked_and_each_site_gets_its_own_outputs(task: str):
    asked = [
        request(task, model, started(model, task, 10 * n + k), table(task, rows, n))
        for n, rows in enumerate(SIZES)
        for k, model in enumerate([*models(task), Bent()])
    ]
    for one, found in zip(asked, measure_stacked(asked), strict=True):
        check(one, found, 1e-12)
    scored = score_stacked([ScoreRequest(model=r.model, arrays=r.arrays, x=r.rows.x) for r in asked])
    for one, found in zip(asked, scored, strict=True):
        np.testing.assert_allclose(found, plain(one.model, one.arrays, one.rows.x), atol=1e-12, rtol=0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), min_size=1, max_size=12))
def test_what_a_site_is_told_does_not_depend_on_the_sites_beside_it(drawn):
    model = Mlp(hidden=(5, 3))
    shared = started(model, "binary", 0)
    asked = [
        request("binary", model, started(model, "binary", n) if own else shared, table("binary", rows, n))
        for n, (rows, own) in enumerate(drawn)
    ]
    for one, found in zip(asked, measure_stacked(asked), strict=True):
        alone = measure(one)
        np.testing.assert_allclose(found.outputs, alone.outputs, atol=1e-13, rtol=0)
        figures = [[m.loss, m.area, m.variance] for m in (found, alone)]
        np.testing.assert_allclose(*figures, atol=1e-13, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [(), (17,), (10, 3), (64, 32)])
def test_equal_rows_tie_wherever_in_a_table_they_stand(precision: str, hidden: tuple[int, ...]):
    # Without rows and widths filled up to a multiple, the last rows of 203 differed from the first in the last place.
    model = Mlp(hidden=hidden) if hidden else load("model", "logistic")(start="uniform")
    row = np.random.default_rng(3).normal(size=(1, 13))
    for seed in range(8):
        arrays, own = (started(model, "binary", n, inputs=13) for n in (seed, seed + 50))
        sizes = (203, 5, 999, 31)
        asked = [
            request("binary", model, arrays, Encoded(np.repeat(row, n, 0), np.arange(n) % 2, np.ones(n)), precision)
            for n in sizes
        ]
        asked.append(request("binary", model, own, asked[0].rows, precision))
        for found in [*measure_stacked(asked), *map(measure, asked)]:
            assert np.ptp(found.outputs) == 0
            assert (found.area, found.variance) == (0.5, 0)


def test_outputs_are_computed_in_the_plans_precision():
    model, rows = Mlp(hidden=(9,)), table("binary", 300, 1)
    arrays = started(model, "binary", 1)
    single, double = (
        measure(request("binary", model, arrays, rows, precision)) for precision in ("float32", "float64")
    )
    check(request("binary", model, arrays, rows, "float32"), single, 2e-6)
    np.testing.assert_array_equal(single.outputs, single.outputs.astype(np.float32))
    assert 0 < np.abs(single.outputs - double.outputs).max() < 1e-5
    both = measure_stacked([request("binary", model, arrays, rows, p) for p in ("float32", "float64")])
    np.testing.assert_array_equal(both[0].outputs, single.outputs)
    np.testing.assert_array_equal(both[1].outputs, double.outputs)


def test_each_request_gets_the_figures_that_it_asks_for_and_no_others():
    model = Mlp(hidden=(9,))
    arrays = started(model, "binary", 1)
    tables = [table("binary", rows, n) for n, rows in enumerate((30, 0, 40, 30, 3000))]
    wants = [(area, histogram) for area, histogram in zip([1, 0, 0, 1, 1], [0, 1, 1, 1, 0], strict=True)]
    asked = [
        replace(request("binary", model, arrays, rows), area=bool(area), histogram=bool(histogram))
        for rows, (area, histogram) in zip(tables, wants, strict=True)
    ]
    for one, found in zip(asked, measure_stacked(asked), strict=True):
        check(one, found, 1e-12)
        assert (found.histogram is not None) is one.histogram
        if found.histogram is not None:
            odds = found.outputs[:, 0]
            np.testing.assert_array_equal(found.histogram, histogram(one.rows.y, 1 / (1 + np.exp(-odds))))


def test_the_figures_are_those_of_scikit_learn():
    model, rows = load("model", "logistic")(start="uniform"), table("binary", 400, 2)
    found = measure(request("binary", model, started(model, "binary", 2), rows))
    odds = found.outputs[:, 0]
    assert found.loss == pytest.approx(log_loss(rows.y, 1 / (1 + np.exp(-odds))), abs=1e-12)
    assert found.area == pytest.approx(roc_auc_score(rows.y, odds), abs=1e-12)


def test_a_site_whose_outputs_are_not_numbers_spoils_no_other():
    model = Mlp(hidden=(9,))
    shared, own = started(model, "binary", 1), started(model, "binary", 2)
    tables = [table("binary", rows, 1) for rows in (40, 30, 50, 20, 25)]
    tables[1].x[3, 2] = np.nan
    broken = {name: value * np.nan for name, value in own.items()}
    asked = [
        request("binary", model, arrays, rows)
        for arrays, rows in zip([shared, shared, shared, own, broken], tables, strict=True)
    ]
    found = measure_stacked(asked)
    assert [np.isnan(m.loss) for m in found] == [np.isnan(m.area) for m in found] == [False, True, False, False, True]
    assert np.isnan(found[1].outputs).sum() == 1
    for place in (0, 2, 3):
        check(asked[place], found[place], 1e-12)


def test_a_site_without_rows_has_no_figures_and_one_of_one_class_no_area():
    model = load("model", "logistic")()
    arrays, none = started(model, "binary", 1), table("binary", 0, 0)
    one_class = Encoded(np.ones((4, 6)), np.zeros(4, dtype=np.int64), np.ones(4))
    found = measure_stacked([request("binary", model, arrays, rows) for rows in (none, one_class)])
    assert found[0].outputs.shape == (0, 1)
    # log-odds 0 at every row
    np.testing.assert_allclose([found[0].loss, found[1].loss, found[1].area], [np.nan, np.log(2), np.nan])
    assert score_stacked([]) == measure_stacked([]) == []


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_arrays_that_no_one_may_write_into_are_read_without_a_warning(task: str):
    model, rows = Mlp(hidden=(3,)), table(task, 20, 1)
    arrays = started(model, task, 1)
    before = score(ScoreRequest(model=model, arrays=arrays, x=rows.x))
    for value in [*arrays.values(), rows.x, rows.y]:
        value.setflags(write=False)
    own = {name: value.copy() for name, value in arrays.items()}
    asked = [ScoreRequest(model=model, arrays=some, x=rows.x) for some in (arrays, own)]
    for found in (*score_stacked(asked), *map(score, asked)):
        np.testing.assert_allclose(found, before, atol=1e-15)
    assert measure(request(task, model, arrays, rows)).loss > 0


@pytest.mark.parametrize("width", [1, 7, 96])
@pytest.mark.parametrize("offset", range(4))
def test_blocks_of_a_large_table_have_the_outputs_of_copied_ones_wherever_they_lie(width, offset):
    rng = np.random.default_rng(width)
    memory = rng.normal(size=9000 * width + offset)
    x = memory[offset:].reshape(9000, width)
    elsewhere = x.copy()
    elsewhere.flags.writeable = False  # is copied block by block
    model = Mlp()
    for arrays in (model.first_arrays(width, 1, rng), model.first_arrays(width, 3, rng)):
        there, copied = (score(ScoreRequest(model=model, arrays=arrays, x=of)) for of in (x, elsewhere))
        assert there.tobytes() == copied.tobytes()
