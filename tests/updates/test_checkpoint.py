"""A checkpoint comes back as it was, whole or not at all, and a site's kept reply with it."""

import hashlib
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from safetensors.numpy import save

from flfed.errors import FlfedError
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder, Summary, arrays_sha256
from flfed.updates.aggregation.selection import Selection
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.checkpoints.site_state import (
    RUNS,
    NodeState,
    StateFiles,
    StorageError,
    forget_stopped,
    record_bytes,
    record_of_bytes,
    run_state,
)  # fmt: skip
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.secure_sum import KeysReply, SharedKey
from flfed.updates.messages.train import Scores, TrainReply

FIELDS = Summary.__dataclass_fields__


ROSTER = {"b-site": 99, "a-site": 999}


def said(seed: int = 0) -> dict[str, Summary]:
    """Return what the sites say before the first round."""
    rng = np.random.default_rng(seed)
    return {site: Summary(**{name: rng.normal(size=(2, 2)) for name in FIELDS}) for site in ROSTER}


def begun(run: str = "r1", seed: int = 0) -> Checkpoint:
    """Write a run's start file; return what all of its checkpoints have in common."""
    rng = np.random.default_rng(seed + 1)
    names = ("center", "scale", "frequency", "spread", "class_weight")
    encoder = Encoder(**{name: rng.normal(size=3) for name in names})
    return checkpoints.begin(run, encoder, said(seed), ROSTER)


def made(round: int = 3) -> Checkpoint:
    rng = np.random.default_rng(round)
    return replace(
        begun(), round=round,
        arrays={"weight": rng.normal(size=(4, 1)), "bias": np.float32(rng.normal(size=1))},
        state={"best": {"weight": rng.normal(size=(4, 1))}},
        facts={"strategy": {"best_loss": 0.1 + 0.2}, "seconds": 1.5},
    )  # fmt: skip


def bits(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in arrays.items()}


def test_a_checkpoint_comes_back_to_the_bit():
    before = replace(made(), left=("b-site",))
    checkpoints.write("r1", before)
    after = checkpoints.newest("r1", 3)
    assert after is not None and after.round == 3
    assert bits(after.tensors()) == bits(before.tensors())
    assert bits(after.encoder.arrays()) == bits(before.encoder.arrays())
    assert after.arrays["bias"].dtype == np.float32
    assert (after.participants, after.left, after.start) == (ROSTER, ("b-site",), before.start)
    assert after.facts == before.facts and after.facts["strategy"]["best_loss"] == 0.30000000000000004


def test_what_the_sites_said_first_is_read_back_to_the_bit_and_from_no_other_start_file():
    start = begun().start
    found = checkpoints.summaries_of("r1", start)
    assert list(found) == list(ROSTER)
    for site, summary in said().items():
        assert bits(found[site].arrays()) == bits(summary.arrays())
    assert begun(seed=1).start != start
    with pytest.raises(FlfedError, match=r"start.safetensors: is damaged, or of another version of flfed$"):
        checkpoints.summaries_of("r1", start)


def test_a_rounds_file_does_not_grow_with_the_sites():
    few, many = [], ROSTER | {f"site-{number}": 9 for number in range(500)}
    for participants in (ROSTER, many):
        checkpoint = replace(begun(), participants=participants, round=1, arrays={"w": np.zeros(3)})
        few.append(checkpoints.write("r1", checkpoint).stat().st_size)
    assert few[0] == few[1] < 1000


@pytest.mark.parametrize("harm", ["missing", "cut", "another"])
def test_a_start_file_that_is_not_the_one_it_was_is_said_in_one_sentence(harm: str):
    checkpoints.write("r1", made(1))
    start = checkpoints.folder_of("r1") / "start.safetensors"
    if harm == "missing":
        start.unlink()
    elif harm == "cut":
        start.write_bytes(start.read_bytes()[:-9])
    else:
        begun(seed=1)
    said = {"missing": "is missing", "cut": "cannot be read", "another": "is damaged, or of another version of flfed"}
    with pytest.raises(FlfedError) as refused:
        checkpoints.newest("r1", 1)
    rest = "and round-000001.safetensors is of no use without it: run the study anew"
    assert str(refused.value) == f"{start}: {said[harm]}, {rest}"


def test_the_final_model_needs_no_other_file_and_is_read_as_an_earlier_flfed_wrote_it(home: Path):
    before = made(5)
    path = checkpoints.write("r1", before, final=True)
    checkpoints.settle("r1")
    assert [found.name for found in path.parent.iterdir()] == ["final.safetensors"]
    after = checkpoints.final("r1")
    assert bits(after.arrays) == bits(before.arrays) and bits(after.encoder.arrays()) == bits(before.encoder.arrays())
    # As version 0.1 wrote it: all in one file, hashed over arrays and facts.
    tensors = {"arrays/w": np.ones(2), **{f"encoder/{name}": value for name, value in before.encoder.arrays().items()}}
    facts = '{"round": 4}'
    sha256 = hashlib.sha256(f"{arrays_sha256(tensors)}/{facts}".encode()).hexdigest()
    content = save(tensors, metadata={"format": "1", "run": "r1", "facts": facts, "sha256": sha256})
    path.write_bytes(content)
    assert checkpoints.final("r1").round == 4 and checkpoints.final("r1").arrays["w"].sum() == 2
    path.with_name("round-000004.safetensors").write_bytes(content)
    with pytest.raises(FlfedError, match="written by an earlier flfed: go on with that one, or run the study anew"):
        checkpoints.newest("r1", 4)


def test_two_checkpoints_stay_and_the_newest_that_the_store_has_is_taken():
    for round in range(1, 6):
        checkpoints.write("r1", made(round))
    files = sorted(path.name for path in checkpoints.folder_of("r1").iterdir())
    assert files == ["round-000004.safetensors", "round-000005.safetensors", "start.safetensors"]
    found = [checkpoints.newest("r1", committed) for committed in (9, 5, 4, 3)]
    assert [None if c is None else c.round for c in found] == [5, 5, 4, None]
    checkpoints.write("r1", made(5), final=True)
    checkpoints.settle("r1")
    assert [path.name for path in checkpoints.folder_of("r1").iterdir()] == ["final.safetensors"]
    assert checkpoints.final("r1").round == 5


def test_a_run_that_goes_on_leaves_no_later_checkpoint_to_push_out_what_it_writes():
    for round in (3, 7, 8):
        checkpoints.write("r1", made(round))
    checkpoints.write("r1", made(7), final=True)
    checkpoints.reopen("r1", 3)
    assert [path.name for path in checkpoints.folder_of("r1").iterdir()] == ["start.safetensors"]
    checkpoints.write("r1", made(1))
    assert checkpoints.newest("r1", 1).round == 1


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "facts"])
def test_a_damaged_checkpoint_is_passed_by_for_the_one_before(harm: str):
    for round in (1, 2):
        path = checkpoints.write("r1", made(round))
    content = path.read_bytes()
    spoiled = {"cut": content[:-9], "empty": b"", "flip": content[:-1] + bytes([content[-1] ^ 1])}
    spoiled["facts"] = content.replace(b": 1.5}", b": 1.6}")
    assert spoiled[harm] != content
    path.write_bytes(spoiled[harm])
    found = checkpoints.newest("r1", 2)
    assert found is not None and found.round == 1
    with pytest.raises(FlfedError, match="round-000002"):
        checkpoints.read(path)


def test_a_checkpoint_that_cannot_be_written_says_so_and_harms_none(home):
    checkpoints.write("r1", made(1))
    folder = checkpoints.folder_of("r1")
    (folder / "round-000002.safetensors").mkdir()  # stands in the way, for root too
    with pytest.raises(FlfedError, match="cannot be written .*free some disk space"):
        checkpoints.write("r1", made(2))
    assert checkpoints.newest("r1", 2).round == 1
    with pytest.raises(FlfedError, match="the model of run r1 is not in"):
        checkpoints.final("r1")


def test_a_selection_goes_on_where_it_was():
    plan = Plan(schedule="plateau", plateau_patience=2, validation=0.2)
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, 0.7]
    straight, broken = Selection(plan), Selection(plan)
    for round, loss in enumerate(losses):
        arrays = {"w": np.array([loss])}
        straight.see(round, arrays, loss)
        broken.see(round, arrays, loss)
        state, facts = broken.state()
        broken = Selection(plan)
        broken.restore(state, facts)
        assert broken.state()[1] == straight.state()[1]
    assert (broken.best_round, broken.best_arrays["w"][0], broken.lr_scale) == (5, 0.5, 0.25)
    fresh = Selection(plan)
    fresh.restore(*Selection(plan).state())
    assert math.isinf(fresh.best_loss) and fresh.best_arrays is None


REPLY = TrainReply(
    delta={"w": np.array([0.1, np.nan], dtype=np.float32)}, num_examples=30, loss=1 / 3, steps=4,
    scores=Scores(rows="training", num_examples=30, metrics={"loss": 0.1 + 0.2}, histogram=np.ones((2, 256))),
)  # fmt: skip


def test_the_content_of_a_reply_is_the_same_to_the_byte_once_it_is_read_again():
    record = REPLY.to_record()
    again = record_of_bytes(record_bytes(record))
    assert content_sha256(again) == content_sha256(record)
    read = TrainReply.from_record(again)
    assert read.delta["w"].tobytes() == REPLY.delta["w"].tobytes() and read.delta["w"].dtype == np.float32
    assert (read.loss, read.num_examples, read.steps) == (1 / 3, 30, 4)
    keys = KeysReply(sha256="ab", shared=SharedKey(sealed=b"", keys=(b"\x00\xff", b"k"))).to_record()
    assert content_sha256(record_of_bytes(record_bytes(keys))) == content_sha256(keys)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_nobody_resumed_in_thirty_days_is_forgotten(tmp_path):
    for name, days in (("old", 31), ("new", 29)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sums-secrets.safetensors").write_bytes(b"key")
        os.utime(tmp_path / name, times=(time.time() - days * 86_400,) * 2)
    forget_stopped(tmp_path)
    assert names(tmp_path) == ["new"]


def test_a_server_that_names_ever_other_runs_does_not_fill_a_sites_disk():
    kept = StateFiles("a-site", "r1")
    kept.write("encoder", {"w": np.ones(1)})
    for number in range(RUNS + 5):
        StateFiles("a-site", f"other-{number}").write("encoder", {"w": np.ones(1)})
    assert len(names(kept.folder.parent)) == RUNS and not kept.folder.exists()


def test_a_site_that_cannot_write_says_so_without_a_path(home: Path):
    (home / "sites").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"^it cannot keep its state of the run on its own disk \([A-Za-z ]+\)$"):
        StateFiles("a-site", "r1").write("encoder", {"w": np.ones(1)})


@pytest.mark.parametrize("run", ["../x", "a/b", "", ".", "a b", 3, None])
def test_a_run_whose_name_is_no_plain_word_gets_no_folder_at_a_site(run: Any):
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"run": run})
    assert isinstance(run_state("a-site", context), NodeState)
