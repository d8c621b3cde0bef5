"""`flfed study resume` and a quorum that is missed, as a person or a program calls them."""

import json

import pytest

from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints import checkpoint as checkpoints

# The bound is so tight that in round 30 an honest update is over it: a real quorum, really missed.
TIGHT = ("quorum=1.0", "strategy.flag-norm=1.0", "strategy.refuse-norm=1.4", "compare.draws=200")


@pytest.mark.slow
@pytest.mark.studies
def test_a_missed_quorum_is_exit_3_with_the_reason_and_the_last_good_model_kept(flfed):
    code, out, _ = flfed("study", "run", "wine", "--json", *(w for key in TIGHT for w in ("--set", key)))
    found = json.loads(out)
    assert (code, found["status"], found["rounds"]) == (3, "stopped", 29)
    assert found["reason"].startswith("round 30 had 2 good updates of 3 asked, 3 are needed (wine-3: norm of the")
    kept, last = checkpoints.final(found["run"]), checkpoints.newest(found["run"], 29)
    assert last is not None and (kept.round, last.round) == (29, 29)
    assert arrays_sha256(kept.arrays) == arrays_sha256(last.arrays) == found["arrays-sha256"]
    # Nothing has changed, so it stops again: at the same round, with the same model.
    code, out, _ = flfed("study", "resume", found["run"], "--json")
    again = json.loads(out)
    assert (code, again["status"], again["rounds"], again["run"]) == (3, "stopped", 29, found["run"])
    assert again["arrays-sha256"] == found["arrays-sha256"]


@pytest.mark.parametrize("run", ["latest", "20200101-000000-abcd"])
def test_what_cannot_be_resumed_is_said_in_one_sentence(flfed, run: str):
    code, out, err = flfed("study", "resume", run)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "is not in the store" in err
