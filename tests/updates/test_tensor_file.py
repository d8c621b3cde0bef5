"""A file written piece by piece is what the library of the format reads, and what it would have written."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import NAMES, file_content

RNG = np.random.default_rng(0)


def written(tensors, metadata) -> bytes:
    return b"".join(bytes(piece) for piece in file_content(tensors, metadata))


@pytest.mark.parametrize("kind", NAMES)
def test_numbers_of_every_kind_come_back(kind: str):
    value = (RNG.normal(size=(3, 5)) * 50).astype(kind)
    other = value.astype(value.dtype.newbyteorder(">"))
    found = load(written({"a": value, "big": other, "none": value[:0], "one": value[0, 0].reshape(())}, {}))
    for name in ("a", "big"):
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert found["none"].shape == (0, 5) and found["one"] == value[0, 0]


def test_a_list_is_its_arrays_stacked_in_the_file_and_in_the_hash(tmp_path):
    parts = [RNG.normal(size=(2, 3)).T for _ in range(4)]  # not contiguous
    (tmp_path / "f").write_bytes(written({"x": parts, "y": np.arange(3)}, {"said": "ä"}))
    with safe_open(tmp_path / "f", framework="np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("x"), np.stack(parts))
        assert opened.metadata() == {"said": "ä"}
    assert arrays_sha256({"x": parts}) == arrays_sha256({"x": np.stack(parts)})
    assert arrays_sha256({"x": parts}) != arrays_sha256({"x": np.stack(parts[::-1])})


def test_the_numbers_stand_as_the_library_writes_them():
    tensors = {"b": np.arange(6.0).reshape(2, 3), "a": np.arange(4, dtype=np.float32)}
    ours, theirs = written(tensors, {}), save(tensors)
    for name, value in load(theirs).items():
        np.testing.assert_array_equal(load(ours)[name], value)
    assert len(ours) % 8 == len(theirs) % 8 == 0
