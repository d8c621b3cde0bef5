"""Datasets without files, for studies whose tables a test has in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from flfed.rows.data import datasets
from flfed.rows.data.datasets import Dataset


@contextmanager
def in_memory(dataset: Dataset) -> Iterator[None]:
    """Load a dataset by its name while the block runs."""
    load = datasets.load
    datasets.load = lambda name: dataset if name == dataset.name else load(name)  # type: ignore[assignment]
    try:
        yield
    finally:
        datasets.load = load
