"""`flfed study resume` and a quorum that is missed, as a person or a program calls them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints import checkpoint as checkpoints

# The bound is so tight that in round 3 an honest update is over it: a real quorum, really missed.
TIGHT = ("quorum=1.0", "strategy.flag-norm=1.0", "strategy.refuse-norm=2.5", "compare.resamples=200")


@pytest.mark.studies
def test_a_missed_quorum_is_exit_3_with_the_reason_and_the_last_good_model_kept(flfed):
    code, out, _ = flfed("study", "run", "wine", "--json", *(w for key in TIGHT for w in ("--set", key)))
    found = json.loads(out)
    assert (code, found["status"], found["rounds"]) == (3, "stopped", 2)
    assert found["reason"].startswith("round 3 had 2 good updates of 3 asked, 3 are needed (wine-2: norm of the")
    kept, last = checkpoints.final(found["run"]), checkpoints.newest(found["run"], 2)
    assert last is not None and (kept.round, last.round) == (2, 2)
    assert arrays_sha256(kept.arrays) == arrays_sha256(last.arrays) == found["arrays-sha256"]
    # Nothing has changed, so it stops again: at the same round, with the same model.
    code, out, _ = flfed("study", "resume", found["run"], "--json")
    again = json.loads(out)
    assert (code, again["status"], again["rounds"], again["run"]) == (3, "stopped", 2, found["run"])
    assert again["arrays-sha256"] == found["arrays-sha256"]


@pytest.mark.parametrize("run", ["latest", "20200101-000000-abcd"])
def test_what_cannot_be_resumed_is_said_in_one_sentence(flfed, run: str):
    code, out, err = flfed("study", "resume", run)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "is not in the store" in err


KILLED = """
import os
from flfed.federation.server.run import run
from flfed.study.study import Study
def observer(stage, round):
    if (stage, round) == ("round", 3):
        os._exit(9)
run(Study.load("breast-cancer").replace({"rounds": 6}), observer=observer)
"""


@pytest.fixture(scope="module")
def killed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run whose process was killed after three of six rounds."""
    home = tmp_path_factory.mktemp("killed")
    variables = os.environ | {"FLFED_HOME": str(home), "FLFED_CHECKPOINT_SECONDS": "0"}
    variables.pop("FLFED_STORE", None)
    assert subprocess.run([sys.executable, "-c", KILLED], env=variables, timeout=120, check=False).returncode == 9
    return home


@pytest.mark.studies
@pytest.mark.parametrize(("lost", "code", "why"), [
    ("start.safetensors", 1, "start.safetensors: is missing, and round-000003.safetensors is of no use without it"),
    ("round-*.safetensors", 2, "has 3 rounds in the store and no checkpoint of them in"),
])  # fmt: skip
def test_a_killed_run_whose_checkpoint_lacks_a_file_is_stopped_with_that_reason(
    home: Path, killed_home: Path, flfed, monkeypatch: pytest.MonkeyPatch, lost: str, code: int, why: str
):
    monkeypatch.delenv("FLFED_STORE", raising=False)
    shutil.copytree(killed_home, home, dirs_exist_ok=True)
    for file in home.glob(f"runs/*/{lost}"):
        file.unlink()
    assert [entry["status"] for entry in json.loads(flfed("run", "list", "--json")[1])["runs"]] == ["interrupted"]
    for _ in range(2):  # told the second time as the first
        done, out, err = flfed("study", "resume", "latest")
        assert (done, out) == (code, "") and why in " ".join(err.split())
        (entry,) = json.loads(flfed("run", "list", "--json")[1])["runs"]
        assert entry["status"] == "stopped"
        found = json.loads(flfed("run", "show", "--json")[1])
        assert found["status"] == "stopped" and why in found["reason"]
    # Put back where it was, the run is gone on with.
    shutil.copytree(killed_home / "runs", home / "runs", dirs_exist_ok=True)
    assert flfed("study", "resume", "latest")[0] == 0
    assert json.loads(flfed("run", "list", "--json")[1])["runs"][0]["status"] == "completed"
