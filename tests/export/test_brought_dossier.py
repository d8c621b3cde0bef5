"""The dossier of a validation: sheets for a model that somebody brought along, with that model's figures."""

import json
from pathlib import Path
from typing import Any

from flfed.export.brought.validation_study import make_validation
from flfed.export.run_folder import export
from flfed.federation.server.run import Result, run
from flfed.records.dossier.dossier import write_dossier
from flfed.study.study import Study

COEFFICIENTS = "name,value,unit\nintercept,-4.1,\nage,0.0513,years\nsex=male,1.217,\noldpeak,0.6171,mm\n"
SHEETS = {"tripod-ai": 48, "probast-ai": 18, "ss1-23": 13, "satre": 30, "impact-assessment": 15}
"""Items of each sheet: without the four of TRIPOD+AI, the 16 of PROBAST+AI and the one of SS1/23 on development."""


def validated(model: Path, folder: Path) -> tuple[Result, dict[tuple[str, str], Any]]:
    """Return a validation of a model with the answers of its dossier by sheet and number."""
    study = make_validation(model, "heart-disease", folder / "brought", name="check")
    result = run(Study.parse(study.text))
    dossier = write_dossier(folder / "dossier", result.run)
    assert [line.split(":")[0] for line in dossier.left_out[1:]] == ["EU AI Act, Annex IV"]
    sheets = json.loads((folder / "dossier" / "answers.json").read_text())
    assert {name: len(sheet["items"]) for name, sheet in sheets.items()} == SHEETS
    return result, {(name, item["number"]): item for name, sheet in sheets.items() for item in sheet["items"]}


def facts(answers: dict[tuple[str, str], Any], sheet: str, number: str, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = answers[sheet, number]["findings"][place]["facts"]
    return found


def test_published_coefficients_are_answered_by_the_validations_own_figures(heart, tmp_path):
    file = tmp_path / "published.csv"
    file.write_text(COEFFICIENTS)
    result, answers = validated(file, tmp_path)
    report = result.report
    figure = report["global"]["roc_auc_score"]
    for number in ("12d", "12g", "23a", "23b"):
        assert answers["tripod-ai", number]["status"] == "record", number
    assert answers["probast-ai", "E4.1"]["status"] == answers["probast-ai", "E4.7"]["status"] == "record"
    assert facts(answers, "tripod-ai", "12g") == {"hash": report["validation"]["model-sha256"]}
    rows = sum(site["rows"] for site in report["validation"]["sites"].values())
    assert facts(answers, "tripod-ai", "12a") == {"rows": rows, "sites": 4}
    assert facts(answers, "tripod-ai", "23a")["figure"].startswith(f"{figure['value']:.3f} ({figure['low']:.3f} to")
    share = report["validation"]["mean"]["roc_auc_score"]["i2"]
    assert facts(answers, "tripod-ai", "12d", 1)["share"] == round(100 * share)
    page = (tmp_path / "dossier" / "tripod-ai.html").read_text()
    assert "of the shared model" not in page and "no model was trained" not in page
    # Nobody has written a purpose yet, which no item may rest on.
    assert answers["tripod-ai", "4"]["status"] == "people"


def test_a_model_that_was_trained_on_the_scored_rows_answers_no_question_on_performance(heart, tmp_path):
    export(run(Study(dataset="heart-disease", rounds=5)).run, tmp_path / "model")
    result, answers = validated(tmp_path / "model", tmp_path)
    trained = result.report["trained-test-rows"]["rows"]
    assert trained > 600
    for key in (("tripod-ai", "23a"), ("probast-ai", "E4.1"), ("probast-ai", "E4.7"), ("ss1-23", "3 performance")):
        assert answers[key]["status"] == "unmet", key
    assert answers["tripod-ai", "12g"]["status"] == "record"
