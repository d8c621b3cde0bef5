"""Trees that somebody brings along as XGBoost's JSON: XGBoost's margins, our own folder's predictions, refusals."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.special import logit

from flfed import Study, run
from flfed.errors import UsageError
from flfed.export.brought import trees as brought_trees
from flfed.export.brought import xgboost_document
from flfed.export.brought.validation_study import bring_model
from flfed.export.model_folder import SharedModel
from flfed.export.predict import predict_site
from flfed.export.predictions import explain_predictions
from flfed.export.run_folder import export
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import coded, encode

SITES = ("cleveland", "hungary", "switzerland", "long-beach")
GAPS = 0.3


def drawn(schema: Schema, rows: int = 600, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return drawn rows of a schema's features, with gaps, and an outcome that goes with them."""
    rng = np.random.default_rng(seed)
    score = np.zeros(rows)
    columns = {}
    for name in schema.features():
        column = schema.columns[name]
        if column.kind == "number":
            # Of few whole numbers, so that many rows are at a threshold.
            low, high = column.range
            cells = np.rint(rng.uniform(low, high, rows)).astype(object)
        else:
            values = column.values or (0, 1)
            cells = np.array(values, dtype=object)[rng.integers(len(values), size=rows)]
        score += rng.normal(size=len(set(cells)))[pd.factorize(cells)[0]]
        cells[rng.random(rows) < GAPS] = None
        columns[name] = cells
    table = pd.DataFrame(columns)
    for name in table:
        if not schema.columns[name].values:
            table[name] = table[name].astype(float)
    return table, score + rng.logistic(size=rows)


def places(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return a table with a category as the place of its value."""
    columns = {}
    for name in table:
        values = schema.columns[name].values
        columns[name] = table[name].map({value: place for place, value in enumerate(values)}) if values else table[name]
    return pd.DataFrame(columns).astype(float)


def indicators(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return a table with a column for each value of a category, all missing where the cell is."""
    columns = {}
    for name in table:
        for value in schema.columns[name].values:
            columns[f"{name}={value}"] = (table[name] == value).where(table[name].notna()).astype(float)
        if not schema.columns[name].values:
            columns[name] = table[name].astype(float)
    return pd.DataFrame(columns)


ENCODINGS = {"places": places, "indicators": indicators}


def trained(inputs: pd.DataFrame, outcome: np.ndarray, path: Path, **settings: Any) -> xgboost.Booster:
    """Return trees that XGBoost trained, and write them to a file."""
    matrix = xgboost.DMatrix(inputs, outcome)
    rounds = settings.pop("rounds", 20)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1, **settings}, matrix, rounds)
    booster.save_model(path)
    return booster


def brought(path: Path, schema: Schema, folder: Path) -> SharedModel:
    return SharedModel.read(bring_model(path, schema, folder))


def margins_of(model: SharedModel, table: pd.DataFrame) -> np.ndarray:
    """Return a model's scores of mapped rows, in a regression the outcome."""
    target = model.schema.target
    filled = table.assign(**{target: 0.0 if model.schema.task == "regression" else model.schema.classes[0]})
    found = model.predictions(encode(coded(filled, model.layout), model.layout, model.encoder).x)
    return found if model.schema.task == "regression" else logit(found)


@pytest.fixture
def schema() -> Schema:
    return datasets.load("heart-disease").schema


SETTINGS = {
    "default": {"max_depth": 5},
    "pruned": {"max_depth": 6, "gamma": 1.0, "tree_method": "exact"},
    "rare": {"base_score": 0.02, "max_depth": 4},
    "forest": {"num_parallel_tree": 3, "subsample": 0.5, "rounds": 5, "max_depth": 4},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_margins_are_those_of_xgboost_on_rows_with_gaps(encoding, settings, schema, tmp_path: Path):
    table, score = drawn(schema)
    inputs = ENCODINGS[encoding](table, schema)
    booster = trained(inputs, score > 0, tmp_path / "model.json", **SETTINGS[settings])
    model = brought(tmp_path / "model.json", schema, tmp_path / "folder")
    theirs = booster.predict(xgboost.DMatrix(inputs), output_margin=True)
    assert np.abs(margins_of(model, table) - theirs).max() < 1e-5
    assert np.ptp(theirs) > 1


@pytest.fixture
def hospital_rows(heart) -> dict[str, pd.DataFrame]:
    """All mapped rows of each hospital."""
    tables = {}
    for site in SITES:
        table = sites.load(site).read()
        tables[site] = pd.concat([table.training, table.holdout("test")], ignore_index=True)
    return tables


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_margins_on_the_hospitals_rows(encoding, hospital_rows, schema, tmp_path: Path):
    whole = pd.concat(hospital_rows.values(), ignore_index=True)
    features = list(schema.features())
    assert whole[features].isna().to_numpy().mean() > 0.1
    inputs = ENCODINGS[encoding](whole[features], schema)
    outcome = whole[schema.target] == schema.classes[-1]
    booster = trained(inputs, outcome, tmp_path / "model.json", max_depth=5, rounds=50)
    model = brought(tmp_path / "model.json", schema, tmp_path / "folder")
    theirs = booster.predict(xgboost.DMatrix(inputs), output_margin=True)
    assert np.abs(margins_of(model, whole) - theirs).max() < 1e-5
    predicted = predict_site(model, "switzerland")
    explained = explain_predictions(model, predicted)
    assert np.abs(explained.values.sum(axis=1) - logit(predicted.values[:, 0])).max() < 1e-9


@pytest.mark.parametrize("wrong", ["at the threshold", "without a base score"])
def test_a_wrong_reader_gives_other_margins(wrong, hospital_rows, schema, tmp_path: Path, monkeypatch):
    if wrong == "at the threshold":
        monkeypatch.setattr(brought_trees, "below", lambda thresholds: thresholds.astype(np.float32))
    else:
        monkeypatch.setattr(xgboost_document, "_check_outputs", lambda *_: 0.0)
    whole = pd.concat(hospital_rows.values(), ignore_index=True)
    inputs = places(whole[list(schema.features())], schema)
    outcome = whole[schema.target] == schema.classes[-1]
    booster = trained(inputs, outcome, tmp_path / "model.json", max_depth=5, rounds=50)
    model = brought(tmp_path / "model.json", schema, tmp_path / "folder")
    theirs = booster.predict(xgboost.DMatrix(inputs), output_margin=True)
    assert (np.abs(margins_of(model, whole) - theirs) > 1e-3).mean() > 0.5


def test_an_outcome_in_its_unit_is_that_of_xgboost(tmp_path: Path):
    schema = datasets.load("diabetes").schema
    table, score = drawn(schema)
    inputs = places(table, schema)
    settings = {"objective": "reg:squarederror", "max_depth": 4}
    booster = trained(inputs, 150 + 10 * score, tmp_path / "model.json", **settings)
    model = brought(tmp_path / "model.json", schema, tmp_path / "folder")
    theirs = booster.predict(xgboost.DMatrix(inputs))
    # float32 has seven digits of a number about 150.
    assert np.abs(margins_of(model, table) - theirs).max() < 1e-4
    assert np.ptp(theirs) > 30


@pytest.mark.studies
@pytest.mark.parametrize("dataset", ["heart-disease", "diabetes"])
def test_the_json_of_an_exported_forest_predicts_as_its_folder(dataset, heart, home, tmp_path: Path):
    partition = {} if dataset == "heart-disease" else {"partition": {"by": "iid", "sites": 3}}
    study = Study(dataset=dataset, model={"name": "boosted-trees", "depth": 4}, rounds=30, **partition)
    folder = export(run(study).run, tmp_path / "folder").folder
    own = SharedModel.read(folder)
    model = brought(folder / "xgboost.json", own.schema, tmp_path / "brought")
    assert bring_model(folder, own.schema, tmp_path / "unused") == folder
    assert not (tmp_path / "unused").exists()
    if dataset == "diabetes":
        table = datasets.load(dataset).whole_table()
        assert np.abs(margins_of(model, table) / margins_of(own, table) - 1).max() < 1e-9
        return
    for site in SITES:
        ours, theirs = predict_site(own, site), predict_site(model, site)
        assert np.abs(ours.values - theirs.values).max() < 1e-9
        assert np.ptp(ours.values) > 0.3
        for metric, figure in ours.figures.items():
            assert theirs.figures[metric]["value"] == pytest.approx(figure["value"], abs=1e-9)


def small_document(schema: Schema, folder: Path, **settings: Any) -> dict[str, Any]:
    """Return a document that XGBoost wrote, of two trees."""
    table, score = drawn(schema, rows=200)
    trained(places(table, schema), score > 0, folder / "source.json", rounds=2, max_depth=3, **settings)
    return json.loads((folder / "source.json").read_text())


def tree_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["learner"]["gradient_booster"]["model"]["trees"][0]


def change_tree(**arrays: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the first tree: a function of each array, or its new value."""

    def change(document: dict[str, Any]) -> None:
        tree = tree_of(document)
        for name, value in arrays.items():
            tree[name] = value(list(tree[name])) if callable(value) else value

    return change


def change_learner(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["learner"].update(values)


def placed(place: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    """Return a change of one entry of an array."""
    return lambda array: [*array[:place], value, *array[place + 1 :]]


def chain(document: dict[str, Any]) -> None:
    """Make the first tree a chain of eleven splits on the first feature."""
    left, right = [-1] * 23, [-1] * 23
    for at in range(11):
        left[2 * at], right[2 * at] = 2 * at + 1, 2 * at + 2
    whole = {name: [0] * 23 for name in ("split_indices", "default_left", "split_type")}
    numbers = {name: [0.5] * 23 for name in ("split_conditions", "sum_hessian", "loss_changes")}
    tree_of(document).update(left_children=left, right_children=right, **whole, **numbers)


def several_trees(document: dict[str, Any]) -> None:
    model = document["learner"]["gradient_booster"]["model"]
    model["trees"] = [model["trees"][0]] * 1001


def named(place: int, name: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["learner"]["feature_names"][place] = name

    return change


REFUSED = [
    (change_learner(gradient_booster={"name": "dart", "gbtree": {}, "weight_drop": []}), "'dart'; only 'gbtree'"),
    (change_learner(gradient_booster={"name": "gblinear", "model": {"weights": []}}), "'gblinear'; only 'gbtree'"),
    (change_learner(objective={"name": "count:poisson"}), "'count:poisson'.*needs 'binary:logistic'"),
    (change_learner(objective={"name": "reg:squarederror"}), "'reg:squarederror'.*needs 'binary:logistic'"),
    (change_learner(feature_names=[]), "no feature_names"),
    (change_learner(attributes={"best_iteration": "0"}), "best iteration is before its last tree"),
    (change_learner(learner_model_param={"base_score": "1E0"}), "base_score"),
    (change_learner(learner_model_param={"base_score": "nan"}), "base_score"),
    (change_learner(learner_model_param={"base_score": "a"}), "base_score"),
    (change_learner(learner_model_param={"base_score": "[5E-1,5E-1]"}), "several outputs"),
    (change_learner(learner_model_param={"base_score": "5E-1", "num_class": "3"}), "several outputs"),
    (named(0, "weight"), "no column 'weight'"),
    (named(2, "cp=Asymptomatic"), "no column 'cp=Asymptomatic'; did you mean 'cp=asymptomatic'"),
    (named(0, "sex"), "have 'sex' twice"),
    (named(0, "disease"), "'disease'"),
    (several_trees, "1,001 trees; at most 1,000"),
    (chain, "tree 0 is deeper than 10 splits"),
    (change_tree(split_type=placed(0, 1)), "tree 0 has categorical splits"),
    (change_tree(left_children=placed(0, 99)), "child that does not exist"),
    (change_tree(right_children=placed(0, -1)), "child that does not exist"),
    (change_tree(left_children=placed(0, 0)), "two parents or is in a cycle"),
    (change_tree(left_children=placed(1, 0)), "two parents or is in a cycle"),
    (change_tree(left_children=placed(0, 2), right_children=placed(0, 2)), "two parents or is in a cycle"),
    (change_tree(left_children=placed(0, -1), right_children=placed(0, -1)), "leads to some of its nodes"),
    (change_tree(split_indices=placed(0, 13)), "feature without a name"),
    (change_tree(split_indices=placed(0, -1)), "feature without a name"),
    (change_tree(split_conditions=placed(0, float("nan"))), "trees.0.split_conditions.0' is absent or not"),
    (change_tree(split_conditions=placed(-1, float("inf"))), "is absent or not as XGBoost writes it"),
    (change_tree(split_conditions=lambda old: [1e30] * len(old)), "a number of tree 0 is too large"),
    (change_tree(sum_hessian=placed(0, "Jane Roe")), "trees.0.sum_hessian.0' is absent"),
    (change_tree(default_left=lambda old: old[:-1]), "different lengths"),
    (change_tree(tree_param={"size_leaf_vector": "2"}), "leaves of several numbers"),
    (lambda document: document.pop("learner"), "'learner' is absent"),
    (lambda document: tree_of(document).pop("left_children"), "'trees.0.left_children' is absent"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_is_refused_is_refused_in_a_sentence(change, sentence, schema, tmp_path: Path):
    document = small_document(schema, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(document))
    bring_model(tmp_path / "model.json", schema, tmp_path / "sound")
    change(document)
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=sentence) as error:
        bring_model(tmp_path / "model.json", schema, tmp_path / "folder")
    assert "Jane" not in str(error.value) and not (tmp_path / "folder").exists()


def test_categorical_splits_of_xgboosts_own_training_are_refused(schema, tmp_path: Path):
    table, score = drawn(schema)
    frame = table.assign(cp=table["cp"].astype("category"))[["age", "cp"]]
    matrix = xgboost.DMatrix(frame, score > 0, enable_categorical=True)
    xgboost.train({"objective": "binary:logistic", "max_cat_to_onehot": 1}, matrix, 5).save_model(tmp_path / "m.json")
    with pytest.raises(UsageError, match="categorical splits; train with category places"):
        bring_model(tmp_path / "m.json", schema, tmp_path / "folder")


def test_earlier_versions_write_the_base_score_as_one_number_and_flags_as_booleans(schema, tmp_path: Path):
    document = small_document(schema, tmp_path)
    found = {}
    for version in ("3", "1.7"):
        if version == "1.7":
            document["learner"]["learner_model_param"]["base_score"] = "3.5E-1"
            for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
                tree["default_left"] = [bool(one) for one in tree["default_left"]]
        else:
            document["learner"]["learner_model_param"]["base_score"] = "[3.5E-1]"
        (tmp_path / "model.json").write_text(json.dumps(document))
        found[version] = brought(tmp_path / "model.json", schema, tmp_path / version)
    table, _ = drawn(schema)
    assert np.array_equal(margins_of(found["3"], table), margins_of(found["1.7"], table))


def test_a_tree_that_is_too_deep_once_its_indicators_are_places_is_refused(schema, tmp_path: Path):
    table, score = drawn(schema, rows=3000)
    inputs = indicators(table, schema)
    chosen = [name for name in inputs if name.startswith(("cp=", "restecg=", "slope=", "thal="))]
    trained(inputs[chosen], score > 0, tmp_path / "model.json", max_depth=10, min_child_weight=0)
    with pytest.raises(UsageError, match="is deeper than 10 splits once each column=value is a place"):
        bring_model(tmp_path / "model.json", schema, tmp_path / "folder")


def test_a_column_of_too_many_thresholds_is_refused(schema, tmp_path: Path):
    rng = np.random.default_rng(0)
    inputs = pd.DataFrame({"chol": rng.uniform(50, 1000, 5000)})
    settings = {"tree_method": "exact", "max_depth": 10, "min_child_weight": 0}
    trained(inputs, rng.random(5000) < 0.5, tmp_path / "model.json", **settings)
    with pytest.raises(UsageError, match="column 'chol' has .* thresholds; at most 255"):
        bring_model(tmp_path / "model.json", schema, tmp_path / "folder")


def test_a_model_of_some_columns_needs_no_others(schema, tmp_path: Path):
    table, score = drawn(schema)
    trained(places(table[["chol", "cp"]], schema), score > 0, tmp_path / "model.json")
    model = brought(tmp_path / "model.json", schema, tmp_path / "folder")
    assert [column.name for column in model.layout.features] == ["cp", "chol"]


def test_no_trees_are_the_base_score_alone(schema, tmp_path: Path):
    table, score = drawn(schema)
    trained(places(table, schema), score > 0, tmp_path / "model.json", rounds=0, base_score=0.2)
    found = margins_of(brought(tmp_path / "model.json", schema, tmp_path / "folder"), table)
    assert found == pytest.approx(np.full(len(table), logit(0.2)), abs=1e-9)


@pytest.mark.parametrize("name", ["model.txt", "model.pkl", "model.ubj"])
def test_other_files_are_no_models(name, schema, tmp_path: Path):
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(UsageError, match="a model is a folder of flfed run export"):
        bring_model(tmp_path / name, schema, tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b'{"learner": 1}'])
def test_damaged_files_are_refused(content, schema, tmp_path: Path):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(UsageError, match="model.json: "):
        bring_model(tmp_path / "model.json", schema, tmp_path / "folder")


def test_a_folder_of_another_schema_is_refused(schema, tmp_path: Path):
    table, score = drawn(schema)
    trained(places(table, schema), score > 0, tmp_path / "model.json")
    folder = bring_model(tmp_path / "model.json", schema, tmp_path / "folder")
    columns = deepcopy(schema.columns)
    columns["age"] = columns["age"].model_copy(update={"unit": "months"})
    with pytest.raises(UsageError, match="has another schema here"):
        bring_model(folder, schema.model_copy(update={"columns": columns}), tmp_path / "other")
