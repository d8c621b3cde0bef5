"""`flfed choose`: its questions at a terminal, answers of a file, and what it writes."""

import json
import tomllib
from pathlib import Path

import pytest

from flfed import Study
from flfed.study.choice import QUESTIONS, Answers
from tests.conftest import small_table
from tests.terminal import in_terminal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_answers(**answers: object) -> str:
    Path("answers.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in answers.items()))
    return "answers.toml"


def test_six_questions_at_a_terminal_write_a_study_that_check_takes(flfed):
    code, lines = in_terminal("choose", "--output", "my.toml", columns=200, typed="5\n800\n\nsums\ncoordinator\n\n")
    assert code == 0, lines
    said = "\n".join(lines)
    words = " ".join(said.split())
    assert [f"{number} of 6. " in said for number in range(1, 7)] == [True] * 6
    assert all(f"  {name} [" in said for name in QUESTIONS)
    assert "A coordinator that lies reads rows out of single updates" in words  # why it is asked
    assert "Written: my.toml" in said
    study = Study.load("my.toml")
    assert (study.secure_aggregation, study.model.name) == ("on", "logistic")
    assert "# flfed choose: sites 5, rows 800, outcome binary, visible sums, trusted coordinator" in study.text
    assert flfed("study", "check", "my.toml")[0] == 0


def test_answers_without_a_study_are_asked_again_and_distrust_proposes_noise():
    # Two sites cannot hide each other; the second time there are three, and Enter keeps all other answers.
    typed = "2\n800\n\nsums\npartners\n\n3\n\n\n\n\n\n"
    code, lines = in_terminal("choose", "--output", "my.toml", columns=200, typed=typed)
    said = " ".join(" ".join(lines).split())
    assert code == 0, lines
    assert "No study hides one of two sites" in said
    assert "noise [updates]" in said and "trusted [partners]" in said
    assert "Dataset: breast-cancer, a public table in place of yours" in said
    study = Study.load("my.toml")
    assert (study.secure_aggregation, study.privacy.name) == ("on", "record-dp")


def test_a_wrong_answer_is_asked_again_and_the_end_of_input_writes_nothing(folder: Path):
    code, lines = in_terminal("choose", "--output", "my.toml", typed="1\ntwo\n3\n500\nyes\nbinary\n\n\n\n")
    said = " ".join(" ".join(lines).split())
    assert code == 0
    assert "1 is not in the range" in said and "'two' is not a valid" in said and "'yes' is not one of" in said
    code, lines = in_terminal("choose", "--output", "other.toml", typed="3\n\x04")
    assert code == 1 and not (folder / "other.toml").exists()


def test_the_outcome_of_a_named_dataset_needs_no_question():
    code, lines = in_terminal("choose", "--dataset", "loan-default", "--output", "my.toml", typed="\n" * 5)
    said = "\n".join(lines)
    assert code == 0 and "5 of 5. " in said and "Which kind of outcome" not in said
    study = Study.load("my.toml")
    assert (study.dataset.name, study.dataset.partition) == ("loan-default", None)
    assert "# All sites of this dataset that are here.\n" in study.text


def test_the_command_that_fetches_a_dataset_is_shown_before_the_check(flfed):
    file = write_answers(outcome="binary")
    code, out, err = flfed("choose", "--dataset", "heart-disease", "--answers", file, "--output", "my.toml")
    assert code == 0 and "First: flfed data get heart-disease" in err and "Next: flfed study check my.toml" in out


def test_a_file_of_answers_gives_the_same_study_as_json_and_as_text(flfed, folder: Path):
    file = write_answers(rows=400, noise="updates")
    code, out, err = flfed("choose", "--answers", file)
    assert (code, err) == (0, "")
    found = json.loads(flfed("choose", "--answers", file, "--json")[1])
    assert set(found) == {"answers", "dataset", "study", "reason", "reasons", "file"}
    assert found["study"] == out and found["reason"] == "" and found["file"] is None
    assert found["answers"] == vars(Answers(rows=400, noise="updates"))
    assert "0.990 at ε = 3" in found["reasons"]["model.name"]
    assert tomllib.loads(out)["privacy"]["epsilon"] == 3.0
    code, out, _ = flfed("choose", "--answers", file, "--output", "sub/my.toml")
    assert code == 0 and Path("sub/my.toml").read_text() == found["study"]
    assert flfed("study", "run", "sub/my.toml", "--set", "resamples=200", "--set", "rounds=2")[0] == 0
    # A study that is there is not written over.
    code, _, err = flfed("choose", "--answers", file, "--output", "sub/my.toml")
    assert code == 2 and "my.toml" in err


def test_answers_without_a_study_are_one_sentence_and_exit_code_1(flfed, folder: Path):
    file = write_answers(sites=2)
    code, out, err = flfed("choose", "--answers", file, "--output", "my.toml")
    assert (code, out) == (1, "")
    assert "No study hides one of two sites from the coordinator: a sum needs three" in err
    code, out, _ = flfed("choose", "--answers", file, "--output", "my.toml", "--json")
    assert code == 1 and json.loads(out)["study"] is None and "two sites" in json.loads(out)["reason"]
    assert not Path("my.toml").exists()


@pytest.mark.parametrize(("answers", "says"), [
    ({"sites": 1}, "sites=1 must be >= 2"),
    ({"rows": 0}, "rows=0 must be >= 1"),
    ({"rows": 1.5}, "rows=1.5 must be a whole number"),
    ({"site": 3}, "key 'site' is not known; did you mean 'sites'?"),
    ({"visible": "all"}, "visible='all' must be one of 'updates', 'sums'"),
    ({"trusted": True}, "trusted=True must be one of"),
])  # fmt: skip
def test_wrong_answers_are_refused_in_a_sentence(flfed, answers: dict, says: str):
    code, out, err = flfed("choose", "--answers", write_answers(**answers))
    assert (code, out) == (2, "") and says in err


def test_what_else_is_wrong_is_refused_in_a_sentence(flfed):
    assert "elsewhere give --answers FILE with sites, rows, outcome" in flfed("choose")[2]
    assert "there is no such file" in flfed("choose", "--answers", "none.toml")[2]
    Path("broken.toml").write_text("sites = ")
    assert "not valid TOML" in flfed("choose", "--answers", "broken.toml")[2]
    assert "did you mean 'wine'?" in flfed("choose", "--dataset", "vine", "--answers", write_answers())[2]
    code, _, err = flfed("choose", "--dataset", "wine", "--answers", write_answers(outcome="regression"))
    assert code == 2 and "the task of dataset 'wine' is 'multi-class'" in err


def test_a_dataset_of_ones_own_is_taken_and_unconfirmed_columns_are_named_where_noise_needs_them(flfed):
    table = small_table(300, seed=1)[["x1", "x2"]].assign(died=["yes", "no"] * 150)
    table[:150].to_csv("north.csv", index=False)
    table[150:].to_csv("south.csv", index=False)
    assert flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", "ward")[0] == 0
    file = write_answers(sites=2, visible="updates")
    found = json.loads(flfed("choose", "--answers", file, "--json")[1])
    assert found["dataset"] == "ward" and "partition" not in found["study"]
    # Five institutions will take part, and two are here.
    found = json.loads(flfed("choose", "--answers", write_answers(sites=5), "--json")[1])
    assert "A dataset with 2 here; the answers are for 5." in found["study"]
    # Its outcome is not that of the answers: a public table takes its place.
    other = json.loads(flfed("choose", "--answers", write_answers(outcome="regression"), "--json")[1])
    assert other["dataset"] == "diabetes" and "A public table in place of yours" in other["study"]
    code, out, _ = flfed("choose", "--answers", write_answers(sites=2, visible="updates", noise="updates"), "--json")
    assert code == 1 and "x1, x2" in json.loads(out)["reason"]
    write_answers(sites=2, visible="updates")
    assert flfed("choose", "--answers", file, "--output", "my.toml")[0] == 0
    assert flfed("study", "run", "my.toml", "--set", "rounds=3", "--set", "resamples=200")[0] == 0
    for name in ("two", "three"):
        assert flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", name, "--replace")[0] == 0
    assert "several datasets of your own have such an outcome" in flfed("choose", "--answers", file)[2]
