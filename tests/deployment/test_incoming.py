"""What a site was asked: kept whole, privately, within bounds, and found again by its round."""

import os
import resource
import signal
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from flfed.deployment.site_state import request_archive
from flfed.deployment.site_state.request_archive import content_sha256, keep, list_rounds, read_requests
from flfed.updates.checkpoints.site_state import StorageError
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.summarise import SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest

RUN = "20261120-abcd"


@pytest.fixture
def behind(gated):
    return gated()


def request_of(message: Message) -> TrainRequest:
    return TrainRequest.from_record(message.content)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_message_comes_back_to_the_bit_with_what_its_run_brought(behind):
    message = behind.trained(round=3)
    sent = request_of(message)
    sent = replace(sent, settings={"mu": 0.1 + 0.2}, lr_scale=1 / 3, score=False)
    digest = keep(behind.folder, behind.message(TRAIN, sent), behind.context(repeat=2))
    (found,) = read_requests(behind.folder, RUN, 3)
    assert content_sha256(found.request.to_record()) == content_sha256(sent.to_record())
    assert (found.study, found.repeat, len(digest)) == (behind.study.text, 2, 64)
    assert read_requests(behind.folder, RUN, 2) == read_requests(behind.folder, "other", 3) == []
    assert read_requests(behind.folder, "../" + RUN, 3) == list_rounds(behind.folder, "..") == []


def test_the_same_message_is_kept_once_and_another_of_the_same_round_is_not_answered(behind):
    first, second = behind.trained(round=1), replace(request_of(behind.trained(round=1)), lr_scale=0.5)
    digests = [keep(behind.folder, first, behind.context()) for _ in range(2)]
    assert digests[0] == digests[1]
    said = "asked to train from another model in round 1 of this run"
    for other, context in ((behind.message(TRAIN, second), behind.context()), (first, behind.context(repeat=1))):
        with pytest.raises(StorageError, match=said):
            keep(behind.folder, other, context)
    assert [one.request.lr_scale for one in read_requests(behind.folder, RUN, 1)] == [1.0]
    # Another round, or another run, is another question.
    keep(behind.folder, behind.trained(round=2), behind.context())
    keep(behind.folder, behind.message(TRAIN, second), behind.context(run="another"))
    assert len(files(behind.folder.incoming)) == 3


def test_only_train_messages_of_named_runs_are_kept(behind):
    train = behind.trained()
    evaluate = behind.trained(evaluate=True)
    assert evaluate.metadata.message_type == EVALUATE
    kept = [
        keep(behind.folder, evaluate, behind.context()),
        keep(behind.folder, behind.message("query.summarise", SummariseRequest()), behind.context()),
        *(keep(behind.folder, train, behind.context(run=run)) for run in ("", "..", "a/b", "-a", "a" * 101, 7)),
    ]
    assert kept == [""] * 8
    assert not behind.folder.incoming.exists()
    with pytest.raises(MalformedMessage):
        keep(behind.folder, behind.message(TRAIN, SummariseRequest()), behind.context())


def test_files_are_for_their_owner_alone(behind):
    old = os.umask(0)
    try:
        keep(behind.folder, behind.trained(), behind.context())
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in behind.folder.incoming.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (behind.folder.incoming, behind.folder.incoming / RUN)}
    assert (modes, folders) == ({0o600}, {0o700})


def test_a_run_keeps_its_latest_messages_within_its_bytes(behind, monkeypatch):
    keep(behind.folder, behind.trained(round=1), behind.context())
    (first,) = files(behind.folder.incoming)
    monkeypatch.setattr(request_archive, "BYTES_A_RUN", int(3.5 * first.stat().st_size))
    for round in range(2, 8):
        keep(behind.folder, behind.trained(round=round), behind.context())
    assert list_rounds(behind.folder, RUN) == [5, 6, 7]
    # One that is larger than all it may have is kept alone.
    monkeypatch.setattr(request_archive, "BYTES_A_RUN", 1)
    keep(behind.folder, behind.trained(round=8), behind.context())
    assert list_rounds(behind.folder, RUN) == [8]


def test_the_latest_runs_stay(behind, monkeypatch):
    monkeypatch.setattr(request_archive, "RUNS", 3)
    for number in range(6):
        keep(behind.folder, behind.trained(), behind.context(run=f"run-{number}"))
        folder = behind.folder.incoming / f"run-{number}"
        os.utime(folder, (number, number))
        for path in folder.iterdir():
            os.utime(path, (number, number))
    assert sorted(path.name for path in behind.folder.incoming.iterdir()) == ["run-3", "run-4", "run-5"]


def test_a_damaged_message_counts_as_none(behind):
    keep(behind.folder, behind.trained(), behind.context())
    (path,) = files(behind.folder.incoming)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 80).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for found in read_requests(behind.folder, RUN, 1):  # the version is not sealed: it only explains
            assert content_sha256(found.request.to_record()) == content_sha256(behind.trained().content)
            assert found.version != "" and found.study == behind.study.text
    for left in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:left])
        assert read_requests(behind.folder, RUN, 1) == []


def test_a_full_disk_is_said_and_leaves_nothing(behind):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError, match=r"^it cannot keep what it is asked on its own disk \(File too large\)$"):
            keep(behind.folder, behind.trained(), behind.context())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, told)
    assert list((behind.folder.incoming / RUN).iterdir()) == []


def record(**changes: object) -> RecordDict:
    given = {"delta": {"w": np.array([1.0, -2.0]), "b": np.zeros((1, 2))}, "num_examples": 9.0, "loss": 0.1, "steps": 3}
    return TrainReply(**{**given, **changes}).to_record()


def test_the_hash_of_a_reply_is_that_of_its_content_however_it_travels():
    plain = record()
    travelled = recorddict_from_proto(recorddict_to_proto(plain))
    reordered = RecordDict(dict(reversed(list(plain.items()))))
    assert content_sha256(plain) == content_sha256(travelled) == content_sha256(reordered)
    nan = record(loss=float("nan"))
    assert content_sha256(nan) == content_sha256(recorddict_from_proto(recorddict_to_proto(nan)))


def test_whatever_changes_in_a_reply_changes_its_hash():
    near = np.nextafter(1.0, 2.0)
    others = [
        record(delta={"w": np.array([near, -2.0]), "b": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0]), "b": np.zeros((2, 1))}),
        record(delta={"w": np.array([1.0, -2.0]), "c": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0], dtype=np.float32), "b": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0])}), record(num_examples=10.0),
        record(loss=float(np.nextafter(0.1, 1.0))), record(steps=4), record(kind="sums"),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": b"\x00"})}),
        RecordDict({**dict(record().items()), "more": MetricRecord({"a": 1})}),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": 1})}),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": 1.0})}),
        RecordDict({**dict(record().items()), "more": ArrayRecord()}),
    ]  # fmt: skip
    assert len({content_sha256(one) for one in (record(), *others)}) == 15
