"""The test vectors are what flfed computes, to the last byte of each file."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.common.serde import recorddict_from_proto
from flwr.proto.recorddict_pb2 import RecordDict as OnTheWire

from flfed.updates.messages.enrol import EnrolReply, EnrolRequest
from flfed.updates.messages.train import TrainReply, TrainRequest
from tests.vectors.make import HERE, SUMS, VECTORS, array_of, checksums, compute, content_of, protobuf

CLOSE = 1e-9
"""Numbers that another processor computes may differ by as much."""


def difference(kept: Any, made: Any, place: str = "") -> list[str]:
    """Return where two values differ; numbers with a fraction may differ by rounding."""
    if isinstance(kept, dict) and isinstance(made, dict) and kept.keys() == made.keys():
        return [line for key in kept for line in difference(kept[key], made[key], f"{place}/{key}")]
    if isinstance(kept, list) and isinstance(made, list) and len(kept) == len(made):
        return [
            line for at, (one, other) in enumerate(zip(kept, made)) for line in difference(one, other, f"{place}/{at}")
        ]
    if isinstance(kept, float) and isinstance(made, float):
        return [] if abs(kept - made) <= CLOSE * (1 + abs(kept)) else [f"{place}: {kept} is kept, {made} is made"]
    return [] if (type(kept), kept) == (type(made), made) else [f"{place}: {kept!r} is kept, {made!r} is made"]


def defects(folder: Path) -> list[str]:
    """Return what is wrong with the vectors of a folder."""
    found = [] if (folder / SUMS.name).read_text(encoding="ascii") == checksums(folder) else ["SHA256SUMS differs"]
    for name in VECTORS:
        try:
            kept = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except ValueError:
            found.append(f"{name}: no JSON")
            continue
        # Bytes of a message follow from its sections as they are kept; their own digits are compared there.
        found += [f"{name}{line}" for line in difference(without_bytes(kept), without_bytes(compute(name)))]
        found += [f"{name}: bytes of {where}" for where, one in messages(kept) if one["protobuf"] != bytes_of(one)]
    return found


def messages(kept: Any, place: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return the messages within a vector, with where they stand."""
    if not isinstance(kept, dict):
        return []
    if kept.keys() == {"sections", "protobuf"}:
        return [(place, kept)]
    return [found for key, value in kept.items() for found in messages(value, f"{place}/{key}")]


def bytes_of(kept: dict[str, Any]) -> str:
    return base64.b64encode(protobuf(content_of(kept["sections"]))).decode()


def without_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_bytes(of) for key, of in value.items() if key != "protobuf"}
    return [without_bytes(of) for of in value] if isinstance(value, list) else value


def test_each_vector_is_what_is_computed_now():
    assert defects(HERE) == []
    files = {file.stem for file in HERE.glob("*.json")}
    assert files == VECTORS.keys()


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_that_is_changed_by_one_byte_is_found(name: str, tmp_path: Path):
    folder = tmp_path / "vectors"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / f"{name}.json"
    content = bytearray(file.read_bytes())
    # The last digit of the file: of a number it may be one that a second processor computes otherwise.
    at = max(place for place, byte in enumerate(content) if chr(byte).isdigit())
    content[at] = ord("0") + (content[at] - ord("0") + 1) % 10
    file.write_bytes(content)
    assert "SHA256SUMS differs" in defects(folder)


def test_a_changed_value_is_found_without_its_checksum(tmp_path: Path):
    folder = tmp_path / "vectors"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "masked-sum.json"
    kept = json.loads(file.read_text())
    kept["sites"]["hill"]["masked"][0]["values"][1] += 1
    file.write_text(json.dumps(kept))
    (folder / SUMS.name).write_text(checksums(folder))
    assert [line.split(":")[0] for line in defects(folder)] == ["masked-sum/sites/hill/masked/0/values/1"]


def test_messages_of_the_vectors_are_read_as_what_they_say():
    kept = {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in ("enrolment", "round")}

    def read(kind: Any, name: str, which: str) -> Any:
        raw = base64.b64decode(kept[name][which]["protobuf"])
        return kind.from_record(recorddict_from_proto(OnTheWire.FromString(raw)))

    assert read(EnrolRequest, "enrolment", "request").schema_sha256 == kept["enrolment"]["schema-sha256"]
    assert read(EnrolReply, "enrolment", "reply").accepted and not read(EnrolReply, "enrolment", "refusal").accepted
    request, reply = read(TrainRequest, "round", "request"), read(TrainReply, "round", "reply")
    assert (request.round, request.rounds, reply.steps) == (2, 3, 5)
    for name, value in kept["round"]["delta"].items():
        np.testing.assert_array_equal(reply.delta[name], array_of(value))


def test_the_sum_is_that_of_all_sites():
    kept = json.loads((HERE / "masked-sum.json").read_text(encoding="utf-8"))
    expected = np.sum([array_of(of["weighted-update"]) for of in kept["sites"].values()], axis=0)
    np.testing.assert_allclose(array_of(kept["weighted-update"]), expected, atol=1e-7)
    # Weights of 1, 2 and 3 thirds; losses of 0.5, 0.6 and 0.7 by these.
    assert kept["weight"] == pytest.approx(2.0, abs=1e-9)
    assert kept["mean-losses"] == pytest.approx({"fit": 0.693, "training": 3.8 / 6}, abs=1e-9)
