"""Arrays by name, as a model or an update has them: shapes, entries in one row, whether they fit, and their files.

A file is one of safetensors, written piece by piece: it may hold the sums of ten thousand sites.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from flfed.refusals import Refusal
from flfed.summaries.summary import Stacked, arrays_sha256

Arrays = dict[str, np.ndarray]
"""Arrays of a model, or of an update, by name.

Examples
--------
>>> import numpy as np
>>> from flfed import Arrays
>>> update: Arrays = {"weight": np.zeros((13, 3)), "intercept": np.zeros(3)}
>>> sum(array.size for array in update.values())
42
"""

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and type of each array, by its name."""


CIPHERTEXT = "ciphertext"
"""Name of the one array of ciphertexts."""


def byte_array(content: bytes) -> np.ndarray:
    """Return bytes as an array, of uint8, which shares their memory."""
    return np.frombuffer(content, np.uint8)


def arrays_defect(arrays: Arrays, expected: Shapes) -> Refusal | None:
    """Return why arrays are not such as expected, else None: other names, shapes, types, or values not finite."""
    if set(arrays) != set(expected):
        return Refusal("array-names-differ")
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if array.shape != shape:
            return Refusal("array-shape-differs", array=name, shape=array.shape, expected=shape)
        if array.dtype != dtype:
            return Refusal("array-dtype-differs", array=name, dtype=array.dtype, expected=dtype)
        if not np.isfinite(array).all():
            return Refusal("array-infinite", array=name)
    return None


def shapes_of(arrays: Arrays) -> Shapes:
    """Return the shape and type of each array."""
    return {name: (value.shape, value.dtype) for name, value in arrays.items()}


def entries_of(model: Shapes) -> int:
    """Return how many entries all arrays have together."""
    return sum(math.prod(shape) for shape, _ in model.values())


def flattened_all(arrays: Sequence[Arrays]) -> np.ndarray:
    """Return the entries of many sites' arrays as a new float64 array [sites, entries].

    Each row is as `flattened` returns it.
    """
    first = arrays[0]
    entries = np.empty((len(arrays), sum(value.size for value in first.values())))
    start = 0
    for name in sorted(first):
        end = start + first[name].size
        np.stack([own[name].ravel() for own in arrays], out=entries[:, start:end], casting="same_kind")
        start = end
    return entries


def flattened(arrays: Arrays) -> np.ndarray:
    """Return all entries as a new float64 array [entries].

    They stand in the order of the arrays' names, each array in C order.
    """
    return np.asarray(flattened_all([arrays])[0])


def unflattened(entries: np.ndarray, model: Shapes) -> Arrays:
    """Return the arrays whose `flattened` entries these are, in the model's types.

    Parameters
    ----------
    entries : float array [entries]
    model : mapping of name to (shape, dtype)
    """
    # One conversion for all arrays of one type, as most models have.
    types = {dtype for _, dtype in model.values()}
    entries = entries.astype(types.pop(), copy=False) if len(types) == 1 else entries
    arrays = {}
    start = 0
    for name in sorted(model):
        shape, dtype = model[name]
        end = start + math.prod(shape)
        arrays[name] = entries[start:end].reshape(shape).astype(dtype, copy=False)
        start = end
    return {name: arrays[name] for name in model}


NAMES = {
    "<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8",
    "<u8": "U64", "<u4": "U32", "<u2": "U16", "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip
"""The format's names of NumPy's types."""


def file_content(tensors: Mapping[str, Stacked], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file.

    The library that reads such files would make three copies first.

    Parameters
    ----------
    tensors : mapping of name to array, or list of equal arrays
        A list stands for its arrays stacked.
    metadata : mapping of str to str

    Source: the format's description, https://huggingface.co/docs/safetensors (8 bytes of length, a
    JSON header with types, shapes and offsets, the numbers).
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, value in tensors.items():
        parts = _parts(value)
        shape = [len(parts), *parts[0].shape] if isinstance(value, list) else list(value.shape)
        start = end
        end += sum(part.nbytes for part in parts)
        kind = parts[0].dtype.newbyteorder("<").str
        header[name] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    # The header is filled up, so that the numbers begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for value in tensors.values():
        for part in _parts(value):
            yield np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).data


def _parts(value: Stacked) -> list[np.ndarray]:
    return value if isinstance(value, list) else [value]


def facts_sha256(tensors: Mapping[str, Stacked], facts: str) -> str:
    """Return the hash of arrays and of what stands beside them."""
    return hashlib.sha256(f"{arrays_sha256(tensors)}/{facts}".encode()).hexdigest()


def with_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under their names with a prefix, by which those of several things stand in one file."""
    return {f"{prefix}{name}": value for name, value in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return those of some arrays that have a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a file's arrays and metadata.

    Raises
    ------
    OSError, SafetensorError, ValueError
        If it cannot be read.
    """
    return read_content(path.read_bytes())


def read_content(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return arrays and metadata of a file's bytes, as `read_file`."""
    # The file begins with 8 bytes of length, then a JSON header.
    length = int.from_bytes(content[:8], "little")
    arrays: dict[str, np.ndarray] = load(content)
    return arrays, dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
