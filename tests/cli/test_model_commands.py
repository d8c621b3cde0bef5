"""`flfed run export`, `flfed run compare` and `flfed predict` as a person or a program calls them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.federation.server.run import run
from flfed.study.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # real studies

HEADER = ["x1", "x2", "flag", "colour"]


@pytest.fixture
def ended(small_sites, small_study) -> str:
    return run(Study.parse(small_study).replace({"rounds": 2}), sites=small_sites(3)).run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows to predict, without an outcome."""
    path = tmp_path / "rows.csv"
    table = pd.DataFrame([[40, 0.5, 1, "red"], [60, None, 0, "blue"], [55, -1, 1, "green"]], columns=HEADER)
    table.to_csv(path, index=False)
    return path


def test_export_then_predict_gives_csv_json_and_a_private_file_alike(flfed, ended, rows, tmp_path):
    code, out, _ = flfed("run", "export", ended, "--output", tmp_path / "m", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"run", "folder", "model", "reason", "files", "signed-by", "signing-key"}
    assert json.loads(out)["model"] == ended and json.loads(out)["signed-by"] is None
    code, text, err = flfed("predict", tmp_path / "m", rows)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert (code, [line["row"] for line in lines]) == (0, ["1", "2", "3"])
    assert err == "Not signed: the hashes in the folder show damage, but not who made it.\n"
    code, out, err = flfed("predict", tmp_path / "m", rows, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["run"], found["of"], found["rows"], found["metrics"], found["metric-rows"]) == (
        ended, "y=yes", 3, None, 0,
    )  # fmt: skip
    assert [p["probability"] for p in found["predictions"]] == [float(line["probability"]) for line in lines]
    assert all(0 < p["probability"] < 1 for p in found["predictions"])
    code, out, _ = flfed("predict", tmp_path / "m", rows, "--output", tmp_path / "p.csv")
    assert code == 0 and "3 predictions of y=yes" in out and "row" not in out
    assert (tmp_path / "p.csv").read_text() == text and (tmp_path / "p.csv").stat().st_mode & 0o777 == 0o600
    assert flfed("predict", tmp_path / "m", rows, "--output", tmp_path / "p.csv")[0] == 2


def test_metrics_go_where_they_spoil_no_output(flfed, ended, rows, tmp_path):
    flfed("run", "export", ended, "--output", tmp_path / "m")
    pd.read_csv(rows).assign(y=["yes", "no", "yes"]).to_csv(rows, index=False)
    _, out, err = flfed("predict", tmp_path / "m", rows)
    assert len(out.splitlines()) == 4 and "  AUC: " in err and "this table only" in err
    found = json.loads(flfed("predict", tmp_path / "m", rows, "--json")[1])
    assert found["metric-rows"] == 3 and set(found["metrics"]["log_loss"]) == {"value", "low", "high", "method"}
    p = np.array([each["probability"] for each in found["predictions"]])
    loss = -np.mean(np.log([p[0], 1 - p[1], p[2]]))
    assert found["metrics"]["log_loss"]["value"] == pytest.approx(loss, abs=1e-12)


def test_compare_prints_the_documented_json_and_a_table(flfed, ended):
    code, out, err = flfed("run", "compare", ended, "latest", "--json")
    found = json.loads(out)
    assert (code, err, found["arrays-max-difference"]) == (0, "", 0.0)
    assert set(found) >= {"a", "b", "primary", "settings", "hashes", "global", "pooled", "sites", "arrays-reason"}
    code, out, _ = flfed("run", "compare", ended, ended)
    assert code == 0 and "differ by at most 0." in out and "arrays equal" in out


def test_wrong_use_of_a_model_is_one_sentence_and_exit_code_2(flfed, ended, rows, tmp_path):
    flfed("run", "export", ended, "--output", tmp_path / "m")
    (tmp_path / "empty").mkdir()
    bad = tmp_path / "bad.csv"
    bad.write_text("x1,x2,flag,colour\nJane Roe,0,1,red\n")
    comma = tmp_path / "comma.csv"
    comma.write_text("x1;x2;flag;colour\n40,5;0;1;red\n")
    altered = tmp_path / "altered"
    flfed("run", "export", ended, "--output", altered)
    (altered / "schema.toml").write_text((altered / "schema.toml").read_text().replace("100", "900"))
    wrong = [
        (("run", "export", "no-such"), "is not in the store"),
        (("run", "export", ended, "--output", tmp_path / "m"), "is not empty"),
        (("run", "compare", ended, "no-such"), "is not in the store"),
        (("predict", tmp_path / "absent", rows), "is not a model folder"),
        (("predict", tmp_path / "empty", rows), "flfed run export RUN"),
        (("predict", tmp_path / "m"), "give either a table or --site NAME"),
        (("predict", tmp_path / "m", rows, "--site", "cleveland"), "give either a table or --site NAME"),
        (("predict", tmp_path / "m", tmp_path / "absent.csv"), "there is no such file"),
        (("predict", tmp_path / "m", bad), "column 'x1' is not a number in fewer than 5 rows"),
        (("predict", tmp_path / "m", comma), "as its package reads values, numbers and dates: --site NAME in place"),
        (("monitor", tmp_path / "m", comma), "as its package reads values, numbers and dates: --site NAME in place"),
        (("predict", tmp_path / "m", "--site", "no-such"), "site 'no-such' is not known"),
        (("predict", altered, rows), "is not the file that was exported"),
    ]
    for words, says in wrong:
        code, out, err = flfed(*words)
        assert (code, out, len(err.splitlines())) == (2, "", 1), (words, err)
        assert says in err and "Jane" not in err


def test_the_commands_have_help_with_an_example(flfed):
    for command in ("predict", "run compare", "run export"):
        code, out, _ = flfed(*command.split(), "--help")
        assert code == 0
        assert f"flfed {command}" in out.partition("Example")[2], command
