"""Trees written for XGBoost give the scores, and the explanations, that ours give (FIGURES.md §C)."""

from pathlib import Path

import numpy as np
import pytest
import treelite
import xgboost

from flfed.export import xgboost_file
from flfed.export.xgboost_file import to_json, xgboost_document
from flfed.rows.features.encode import joined, plain_inputs
from flfed.rows.statistics.boosted_trees import cell_counts
from flfed.trees.cut_points import CODES, NO_CUT, chosen_cuts
from flfed.trees.forest import TreeSettings, contributions, margins
from tests.boosting import Forest, boosting_of, tables_of

pytestmark = [pytest.mark.slow, pytest.mark.studies]

Case = tuple[str, Forest, dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(params=["heart-disease", "loan-default", "taiwan-credit", "wine"])
def case(request, heart, taiwan) -> Case:
    """A task, trees, cut points, the rows' codes and numbers of codes, and the rows as any tool has them."""
    layout, parts = tables_of(request.param)
    rows = boosting_of(layout, parts)
    whole = joined(parts)
    counts = cell_counts(whole.take(rows.training), layout)
    arrays = chosen_cuts(layout, counts, CODES)
    cuts = {c.name: own[own < NO_CUT].astype(np.float32) for c, own in zip(layout.features, arrays["cuts"])}
    inputs = plain_inputs(whole, layout).astype(np.float32)
    forest = rows.grown(TreeSettings(depth=4, learning_rate=0.3), 6 if layout.task == "multi-class" else 20)
    return layout.task, forest, cuts, rows.codes, rows.widths, inputs


def read(document: dict, folder: Path) -> xgboost.Booster:
    path = folder / "xgboost.json"
    path.write_text(to_json(document))
    return xgboost.Booster(model_file=str(path))


def test_xgboost_reads_the_trees_and_gives_every_row_its_score(case: Case, tmp_path: Path):
    task, forest, cuts, codes, widths, inputs = case
    booster = read(xgboost_document(forest, cuts, task), tmp_path)
    ours = margins(forest, codes, widths - 1)
    matrix = xgboost.DMatrix(inputs, feature_names=list(cuts), feature_types=["float"] * len(cuts), nthread=1)
    theirs = booster.predict(matrix, output_margin=True).reshape(ours.shape)
    assert np.abs(ours - theirs).max() < 1e-5
    found = contributions(forest, codes[:, :500], widths - 1)
    explained = booster.predict(matrix.slice(range(min(500, len(inputs)))), pred_contribs=True).reshape(found.shape)
    assert np.abs(found - explained).max() < 1e-5
    assert np.abs(found.sum(axis=2) - ours[:500]).max() < 1e-9
    classifier = xgboost.XGBClassifier()
    classifier.load_model(tmp_path / "xgboost.json")
    p = 1 / (1 + np.exp(-ours)) if task == "binary" else np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    assert np.abs(classifier.predict_proba(inputs)[:, -p.shape[1] :] - p).max() < 1e-5


def test_treelite_reads_them(case: Case, tmp_path: Path):
    task, forest, cuts, codes, widths, inputs = case
    path = tmp_path / "xgboost.json"
    path.write_text(to_json(xgboost_document(forest, cuts, task)))
    found = treelite.gtil.predict(treelite.frontend.load_xgboost_model(path), inputs, nthread=1, pred_margin=True)
    ours = margins(forest, codes, widths - 1)
    assert np.abs(ours - np.asarray(found).reshape(ours.shape)).max() < 1e-5


def test_thresholds_at_the_cut_points_themselves_send_rows_the_wrong_way(case: Case, tmp_path: Path, monkeypatch):
    task, forest, cuts, codes, widths, inputs = case
    monkeypatch.setattr(xgboost_file, "above", lambda cut: cut.astype(np.float32))
    booster = read(xgboost_document(forest, cuts, task), tmp_path)
    ours = margins(forest, codes, widths - 1)
    matrix = xgboost.DMatrix(inputs, feature_names=list(cuts), feature_types=["float"] * len(cuts), nthread=1)
    theirs = booster.predict(matrix, output_margin=True).reshape(ours.shape)
    wrong = int((np.abs(ours - theirs) > 1e-3).any(axis=1).sum())
    # Wine has neither categories nor cut points at a value that rows have.
    assert wrong > 0.1 * len(ours) if task == "binary" else wrong == 0
