"""What `study run` and `run show` say of privacy: of a real run with a mechanism, and of one without."""

import json
from pathlib import Path

import pytest

from flfed.records.statistics.verdict import number

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # a few seconds each: real runs

STUDY = """
format = 1
name = "small-dp"
purpose = "Test"
legal-basis = "public data that ships with scikit-learn"
seed = 1
[dataset]
name = "wine"
partition = { by = "iid", sites = 2, seed = 1 }
[model]
name = "logistic"
[plan]
lr = 0.5
steps = 2
[strategy]
name = "fedavg"
rounds = 2
"""
DP = '[privacy]\nname = "record-dp"\nepsilon = 3\ndelta = 1e-3\nsampling = 0.2\n'


@pytest.fixture
def ran(flfed, tmp_path: Path):
    """A function that runs a study and returns its JSON and what `run show` says, and has as JSON."""

    def run(text: str) -> tuple[dict, str, dict]:
        file = tmp_path / "study.toml"
        file.write_text(text)
        code, out, err = flfed("study", "run", str(file), "--json")
        assert code == 0, err
        _, said, _ = flfed("run", "show", "latest", "--all")
        _, shown, _ = flfed("run", "show", "latest", "--json")
        return json.loads(out), said, json.loads(shown)

    return run


def test_a_run_without_a_mechanism_says_plainly_that_nothing_is_promised(ran):
    found, said, shown = ran(STUDY)
    assert found["privacy"] == shown["privacy"]
    assert (found["privacy"]["mechanism"], found["privacy"]["epsilon"], found["audit"]) == ("none", None, [])
    assert "No privacy mechanism: the run promises nothing." in said
    assert len(found["privacy"]["uncharged"]) >= 5
    listed = said.partition("Not covered, since the study gives no guarantee:")[2]
    assert all(f"  - {sentence}" in listed for sentence in found["privacy"]["uncharged"])


def test_a_check_says_beforehand_what_the_run_will_promise(flfed, ran, tmp_path: Path):
    found, _, _ = ran(STUDY.replace("steps = 2", "steps = 2\nbatch = 16") + DP)
    file = str(tmp_path / "study.toml")
    checked = json.loads(flfed("study", "check", file, "--json")[1])["privacy"]
    same = ("mechanism", "unit", "epsilon", "delta", "noise", "sampling", "clip", "steps", "warnings", "uncharged")
    assert {key: checked[key] for key in same} == {key: found["privacy"][key] for key in same}
    code, said, err = flfed("study", "check", file)
    assert (code, err) == (0, "")
    assert "by record-dp: ε = 3 at δ = 1e-3, over all 4 steps of the run." in said
    assert f"How: noise multiplier {number(checked['noise'], 3)}, sampling 0.200, clip 1, 4 steps." in said
    assert "Note: plan.batch=16 is not used: [privacy] sampling states which rows take part in a step." in said
    assert (
        f"Not covered: {len(checked['uncharged'])} items that the sites release" in said
        and "docs/protection.md" in said
    )
    plain = json.loads(flfed("study", "check", "preterm-birth", "--json")[1])["privacy"]
    assert (plain["mechanism"], plain["epsilon"], plain["notes"]) == ("none", None, [])


def test_a_run_under_record_level_privacy_says_what_it_promises_spent_and_leaves_out(ran):
    found, said, shown = ran(STUDY + DP)
    privacy = found["privacy"]
    assert privacy == shown["privacy"]
    assert 0 < privacy["epsilon"] <= 3
    assert (privacy["mechanism"], privacy["delta"], privacy["steps"], privacy["noise-from"]) == (
        "record-dp", 1e-3, 4, "seed",
    )  # fmt: skip
    assert sorted(privacy["sites"]) == sorted(found["sites"])
    for line in privacy["sites"].values():
        assert (line["steps"], line["epsilon"]) == (4, pytest.approx(privacy["epsilon"], rel=1e-9))
    assert "by record-dp: ε = 3 at δ = 1e-3, over all 4 steps of the run." in said
    assert "Promised, but not measured: attack this run's model with `flfed audit RUN`." in said
    listed = said.partition("Not covered by the guarantee:")[2]
    assert all(f"  - {sentence}" in listed for sentence in privacy["uncharged"])
