"""docs/boosted-trees.md: its study is accepted, its commands run in order, and XGBoost reads what they leave."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from flfed import Study
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.rows.data import datasets
from tests.test_readme import ROOT, blocks_of, commands_of, ran

PAGE = "docs/boosted-trees.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_the_study_of_the_page_is_accepted_and_every_key_of_it_is_one(heart: datasets.Dataset):
    (text,) = blocks_of(TEXT, "toml")
    assert check(Study.parse(text))["task"] == "binary"
    with pytest.raises(UsageError, match="min-child-weight"):
        check(Study.parse(text.replace("min-child-weight = 1.0", "min-child-weight = -1.0")))


@pytest.mark.studies
@pytest.mark.proof
def test_every_command_of_the_page_runs_and_xgboost_predicts_as_flfed(flfed, heart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("heart-trees.toml").write_text(blocks_of(TEXT, "toml")[0])
    for words in commands_of(PAGE):
        code, out, err = flfed(*words)
        assert (code, bool(out.strip())) == (0, True), (words, err)
    (printed,) = re.findall(r"\[(0\.\d+)\]", ran(blocks_of(TEXT)[0], tmp_path))
    Path("patient.csv").write_text(
        "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal\n"
        "63,male,asymptomatic,145,233,1,left-ventricular-hypertrophy,150,0,2.3,down,0,\n"
    )
    assert flfed("predict", "heart-model", "patient.csv", "--output", "one.csv")[0] == 0
    (own,) = pd.read_csv("one.csv").iloc[:, 1]
    assert own == pytest.approx(float(printed), abs=1e-5)
