"""Safetensors files, written piece by piece.

A file may hold the sums of ten thousand sites.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from flfed.summaries.summary import Stacked

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
        parts = value if isinstance(value, list) else [value]
        shape = [len(parts), *parts[0].shape] if isinstance(value, list) else list(value.shape)
        start, end = end, end + sum(part.nbytes for part in parts)
        kind = parts[0].dtype.newbyteorder("<").str
        header[name] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    # The header is filled up, so that the numbers begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for value in tensors.values():
        for part in value if isinstance(value, list) else [value]:
            yield np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).data


def read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a file's arrays and metadata.

    Raises
    ------
    OSError, SafetensorError, ValueError
        If it cannot be read.
    """
    content = path.read_bytes()
    # The file begins with 8 bytes of length, then a JSON header.
    length = int.from_bytes(content[:8], "little")
    arrays: dict[str, np.ndarray] = load(content)
    return arrays, dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
