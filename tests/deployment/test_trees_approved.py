"""What is said of boosted trees before a study of them is approved or run."""

import json
from pathlib import Path

import pytest

from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.operator.study_description import reveals
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.updates.messages.summarise import BinsReply
from flfed.updates.messages.train import TrainReply
from flfed.updates.strategies.boosted_trees import BoostedTrees
from tests.approval_text import details
from tests.boosting import trees_study


def test_the_words_before_an_approval_are_of_sums_and_not_of_updates(small_sites, small_study):
    (site,) = small_sites(1, policy=Policy(disclosure="open"))
    study = Study.parse(trees_study(small_study))
    words = details(study, site, ["site-02", "site-03"])
    (rounds,) = [said for said in words if said.startswith("Released in each of")]
    most = StudyMessages(study, datasets.load("small").schema, site).round_bytes()
    assert rounds.startswith("Released in each of 8 rounds, each a tree in at most 3 exchanges (at most ")
    assert f"(at most {most / 1000:.2g} kB)" in rounds and rounds.endswith(reveals(BoostedTrees))
    assert "So the sums reveal the outcome of a row that is alone in a code of a column" in rounds
    assert "its columns' codes" in rounds
    assert sum(said.startswith("Released once, before the rounds, to choose cut points (") for said in words) == 1
    whole = "\n".join(words)
    assert reveals(BinsReply) in whole and "Rounds: 8 in a run of at most 24 exchanges. A run sends" in whole
    assert "holds this site's own sums of each tree" in whole and "updates" not in rounds
    assert reveals(TrainReply) not in whole and "holds this site's own updates" not in whole
    plain = "\n".join(details(Study.parse(small_study), site, ["site-02", "site-03"]))
    assert reveals(TrainReply) in plain and "exchanges" not in plain and reveals(BinsReply) not in plain


@pytest.mark.parametrize(("depth", "exchanges"), [(4, 400), (6, 600)])
def test_a_check_says_how_many_exchanges_a_run_takes(depth, exchanges, flfed, tmp_path, wine_study):
    (tmp_path / "trees.toml").write_text(wine_study)
    changes = ["--set", "strategy.rounds=100", "--set", f"model.depth={depth}"]
    code, out, _ = flfed("study", "check", tmp_path / "trees.toml", *changes)
    assert code == 0 and f"at most {exchanges} exchanges in sequence: 100 rounds of {depth} levels" in out
    assert json.loads(flfed("study", "check", tmp_path / "trees.toml", *changes, "--json")[1])["exchanges"] == exchanges
    assert "exchanges" not in json.loads(flfed("study", "check", "wine", "--json")[1])


@pytest.fixture
def wine_study() -> str:
    """A study of trees on three sites of one public table."""
    model, partition = {"name": "boosted-trees"}, {"by": "iid", "sites": 3}
    return Study(dataset="wine", rounds=5, model=model, partition=partition).text


def test_the_check_of_a_new_study_of_trees_counts_exchanges(
    flfed, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ("study", "new", "--dataset", "preterm-birth", "--model", "boosted-trees", "--not-private", "--name", "t")
    code, out, err = flfed(*words, "--output", str(tmp_path))
    assert code == 0, err
    (written,) = tmp_path.glob("**/t.toml")
    study = Study.load(written)
    rounds, levels = study.rounds, study.model.build("model").depth
    code, out, _ = flfed("study", "check", written)
    said = f"at most {rounds * levels} exchanges in sequence: {rounds} rounds of {levels} levels."
    assert code == 0 and said in " ".join(out.split())
    assert json.loads(flfed("study", "check", written, "--json")[1])["exchanges"] == rounds * levels
