"""Arrays of every kind, and lists of them, come back from a file as the library of the format reads it."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import file_content

RNG = np.random.default_rng(0)


KINDS = ("<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_come_back(kind: str):
    value = (RNG.normal(size=(3, 5)) * 50).astype(kind)
    other = value.astype(value.dtype.newbyteorder(">"))
    found = load(file_content({"a": value, "big": other, "none": value[:0], "one": value[0, 0].reshape(())}, {}))
    for name in ("a", "big"):
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert found["none"].shape == (0, 5) and found["one"].shape == () and found["one"] == value[0, 0]


def test_a_list_is_its_arrays_stacked_in_the_file_and_in_the_hash(tmp_path):
    parts = [RNG.normal(size=(2, 3)).T for _ in range(4)]  # not contiguous
    (tmp_path / "f").write_bytes(file_content({"x": parts, "y": np.arange(3)}, {"said": "ä"}))
    with safe_open(tmp_path / "f", framework="np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("x"), np.stack(parts))
        assert opened.metadata() == {"said": "ä"}
    assert arrays_sha256({"x": parts}) == arrays_sha256({"x": np.stack(parts)})
    assert arrays_sha256({"x": parts}) != arrays_sha256({"x": np.stack(parts[::-1])})
