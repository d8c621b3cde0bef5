"""Batches of several sites in one tensor.

All rows lie in one tensor; a plan says which of them each site takes in each step.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flfed.rows.features.encode import Encoded
from flfed.rows.training.functional import target_dtype
from flfed.study.plan import Plan

CACHE_BYTES = 256 * 2**20
BLOCK_BYTES = 4 * 2**20
"""Of the inputs gathered at a time: several steps, few enough to stay in the processor's cache."""
WINDOW_BYTES = 8 * 2**20
"""Of the row numbers written down at a time."""


class BufferPool:
    """Memory that is reused by stacks.

    One stack after the other writes to it: fresh memory costs more than small products.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    def of(self, use: tuple[object, ...], dtype: torch.dtype, *shape: int, ones: bool = False) -> Tensor:
        """Return a tensor of a shape.

        It has its earlier content; at first it has anything, or ones.
        """
        size = math.prod(shape)
        key = (*use, dtype)
        if key not in self._buffers or self._buffers[key].numel() < size:
            made = torch.ones if ones else torch.empty
            self._buffers[key] = made(size, dtype=dtype)
        return self._buffers[key][:size].view(shape)


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of several sites in one tensor.

    One site follows the other, and a last row of zeros stands for no row.

    Attributes
    ----------
    x : tensor [rows + 1, inputs + 1]
        In the plan's precision. The last input is 1 in every true row and meets the intercepts.
    y : tensor [rows + 1]
        Class codes (int64) of a multi-class task, else in the plan's precision.
    weight : tensor [rows + 1]
    """

    x: Tensor
    y: Tensor
    weight: Tensor

    @property
    def width(self) -> int:
        """Inputs of a row, with the one that meets the intercepts."""
        return self.x.shape[1]

    def write_inputs(self, places: np.ndarray, out: np.ndarray) -> None:
        """Write the inputs of the rows at some places to `out` [places, inputs + 1]."""
        # Numpy takes rows in two thirds of torch's time; "clip" as else it would write to memory of its own first.
        np.take(self.x.numpy(), places, axis=0, out=out, mode="clip")

    def nbytes(self) -> int:
        """Return the memory it takes."""
        return sum(part.numel() * part.element_size() for part in (self.x, self.y, self.weight))


@dataclass(frozen=True, eq=False)
class Unpacked:
    """Rows of one large site, whose inputs stay where they are.

    A fit of few steps takes few of them, and a copy of all would cost more than the fit.

    Attributes
    ----------
    inputs : float64 array [rows, inputs]
    y, weight : tensor [rows]
        As of `Packed`.
    """

    inputs: np.ndarray
    y: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Encoded, task: str, dtype: torch.dtype) -> Unpacked:
        """Return a site's rows."""
        y = torch.tensor(rows.y, dtype=target_dtype(task, dtype))
        return cls(rows.x, y, torch.tensor(rows.weight, dtype=dtype))

    @property
    def width(self) -> int:
        """Inputs of a row, with the one that meets the intercepts."""
        return int(self.inputs.shape[1]) + 1

    def write_inputs(self, places: np.ndarray, out: np.ndarray) -> None:
        """Write the inputs of the rows at some places to `out` [places, inputs + 1]."""
        out[:, :-1] = self.inputs[places]
        out[:, -1] = 1


def pack(rows: Sequence[Encoded], task: str, dtype: torch.dtype) -> Packed:
    """Pack the rows of sites into one tensor.

    They are converted to `dtype`.
    """
    total = sum(len(site.y) for site in rows)
    inputs = rows[0].x.shape[1]
    x = torch.empty((total + 1, inputs + 1), dtype=dtype)
    y = torch.zeros(total + 1, dtype=target_dtype(task, dtype))
    weight = torch.zeros(total + 1, dtype=dtype)
    np.concatenate([site.x for site in rows], out=x.numpy()[:total, :inputs])
    np.concatenate([site.y for site in rows], out=y.numpy()[:total])
    np.concatenate([site.weight for site in rows], out=weight.numpy()[:total])
    # The last input meets the intercepts: 1 in true rows, 0 in the row that stands for none.
    x[:total, inputs] = 1
    x[total] = 0
    return Packed(x, y, weight)


class PackCache:
    """Cache of packed rows across rounds.

    Rows are kept while their sites' rows live and there is memory left.

    Parameters
    ----------
    limit : int, >= 0
        Bytes.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._entries: dict[tuple[object, ...], tuple[list[weakref.ref[Encoded]], Packed]] = {}

    def packed(self, rows: Sequence[Encoded], task: str, dtype: torch.dtype) -> Packed:
        """Return the packed rows of sites.

        They are those made before of these very objects, or new ones.
        """
        key = (task == "multi-class", dtype, *map(id, rows))
        refs, packed_rows = self._entries.get(key, ([], None))
        # A number may have passed to another object after the first one's end.
        if packed_rows is not None and all(ref() is site for ref, site in zip(refs, rows)):
            return packed_rows
        packed_rows = pack(rows, task, dtype)
        self._keep(key, rows, packed_rows)
        return packed_rows

    def nbytes(self) -> int:
        """Return the memory of the kept arrays."""
        return sum(packed.nbytes() for _, packed in self._entries.values())

    def _keep(self, key: tuple[object, ...], rows: Sequence[Encoded], packed: Packed) -> None:
        if packed.nbytes() > self._limit:
            return
        # Entries whose sites' rows are gone make place first.
        if self.nbytes() + packed.nbytes() > self._limit:
            for old, (refs, _) in [*self._entries.items()]:
                if any(ref() is None for ref in refs):
                    del self._entries[old]
        if self.nbytes() + packed.nbytes() <= self._limit:
            self._entries[key] = ([weakref.ref(site) for site in rows], packed)


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of steps in which the same sites train.

    Attributes
    ----------
    steps : int
    index : int64 array [steps, sites, rows], or [1, sites, rows] where every step takes the same
        Rows of `Packed`; `none` where a site has fewer than others.
    used : int64 array [steps or 1, sites]
        True rows of each site.
    none : int
        Number of the row of zeros.
    """

    steps: int
    index: np.ndarray
    used: np.ndarray
    none: int


@dataclass(frozen=True, eq=False)
class Batches:
    """The rows that a block's steps take, gathered.

    Attributes
    ----------
    x : tensor [steps, sites, rows, inputs + 1]
    y : tensor [steps, sites, rows]
    share : tensor [steps, sites, rows]
        What a row counts in its batch's loss: its weight over the batch's true rows, 0 for no row.
    absent : list of int64 tensor or None
        For each step the places [of sites × rows] that hold no row; None where there is none.
    """

    x: Tensor
    y: Tensor
    share: Tensor
    absent: list[Tensor] | None


def gathered(packed: Packed | Unpacked, block: Block, room: BufferPool) -> Batches:
    """Gather the rows that a block's steps take.

    The inputs are overwritten when the next ones are gathered.
    """
    flat = block.index.reshape(-1)
    x = room.of(("inputs",), packed.weight.dtype, *block.index.shape, packed.width)
    packed.write_inputs(flat, x.numpy().reshape(-1, packed.width))
    y, weight = (
        part.index_select(0, torch.from_numpy(flat)).view(block.index.shape) for part in (packed.y, packed.weight)
    )
    share = weight / torch.from_numpy(block.used).unsqueeze(-1).to(weight.dtype)
    # Steps that all take the same rows share one copy of them.
    if len(block.index) < block.steps:
        x, y, share = (part.expand(block.steps, *part.shape[1:]) for part in (x, y, share))
    # Without shorter sites no place has to be masked.
    if (block.used == block.index.shape[-1]).all():
        return Batches(x, y, share, None)
    places = [torch.from_numpy(np.flatnonzero(step == block.none)) for step in block.index]
    return Batches(x, y, share, places * (block.steps // len(places)))


class BatchPlan:
    """Plan of each site's rows in each step.

    They are drawn as `fit` draws them.

    Parameters
    ----------
    rows : list of int, >= 1
        Of each site; sites with more steps come first.
    plan : Plan
    rngs : sequence of Generator
        Of each site; one order is drawn from it for each epoch, when its first step is due.
    """

    def __init__(self, rows: Sequence[int], plan: Plan, rngs: Sequence[np.random.Generator]) -> None:
        self._rows = np.array(rows)
        self._starts = np.cumsum(self._rows) - self._rows
        self._size = np.array([plan.batch_size(n) for n in rows])
        self._width = int(self._size.max())
        self._steps = np.array([plan.steps_a_round(n) for n in rows])
        self._epoch = -(-self._rows // self._size)
        self._whole = bool((self._epoch == 1).all())
        self._rngs = rngs
        self._order: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(rows)

    def blocks(self, most: int, window_bytes: int = WINDOW_BYTES) -> Iterator[Block]:
        """Yield the rows of all steps, in order.

        There are at most `most` rows, or one step, at a time.
        """
        # Where every batch is a whole table, one step's rows do for all.
        window = 1
        last = 1
        if not self._whole:
            window = max(1, window_bytes // (8 * len(self._rows) * self._width))
            last = int(self._steps.max())
        for start in range(0, last, window):
            end = min(start + window, last)
            index = self._index(start, end)
            used = self._used(start, end)
            sites = (used > 0).sum(axis=0)
            widths = used.max(axis=0)
            for a, b in _alike(sites, widths, most):
                part = index[: sites[a], a:b, : widths[a]].transpose(1, 0, 2)
                block = Block(b - a, np.ascontiguousarray(part), used[: sites[a], a:b].T.copy(), int(self._rows.sum()))
                if not self._whole:
                    yield block
                    continue
                # One step as often as it is taken.
                left = int(self._steps.max())
                at_a_time = max(1, most // block.index.size)
                while left > 0:
                    yield replace(block, steps=min(left, at_a_time))
                    left -= at_a_time

    def _used(self, start: int, end: int) -> np.ndarray:
        """Return how many rows each site takes.

        It is counted for each step from `start` to `end`, [sites, steps].
        """
        step = np.arange(start, end)
        rows, size, epoch, steps = (part[:, None] for part in (self._rows, self._size, self._epoch, self._steps))
        return np.where(step < steps, np.minimum(size, rows - step % epoch * size), 0)

    def _index(self, start: int, end: int) -> np.ndarray:
        """Return which rows they are, [sites, steps, rows]."""
        starts = self._starts[:, None, None]
        index = np.empty((len(self._rows), end - start, self._width), dtype=np.int64)
        # With the sites' starts added below, a place that is not written becomes the row of zeros.
        index[:] = self._rows.sum() - starts
        parts = (self._rows.tolist(), self._steps.tolist(), self._epoch.tolist(), index.reshape(len(index), -1))
        for site, (rows, steps, epoch, places) in enumerate(zip(*parts)):
            if epoch == 1:
                index[site, : max(0, steps - start), :rows] = np.arange(rows)
            else:
                self._write(site, start, min(end, steps), places)
        index += starts
        return index

    def _write(self, site: int, step: int, end: int, places: np.ndarray) -> None:
        """Write a site's row numbers for some steps.

        They are of the steps from `step` to `end`, and go where they belong in `places`.
        """
        size = self._width
        rows = int(self._rows[site])
        epoch = int(self._epoch[site])
        start = step
        while step < end:
            within = step % epoch
            # An order is drawn only when its epoch begins, so that draws come as in `fit`.
            if within == 0:
                self._order[site] = self._rngs[site].permutation(rows)
            until = min(end, step - within + epoch)
            part = self._order[site][within * size : (until - step + within) * size]
            at = (step - start) * size
            places[at : at + len(part)] = part
            step = until


def _alike(sites: np.ndarray, widths: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Yield runs of like steps.

    They are first and last + 1 of steps with the same sites and rows, of at most `most` rows or one step.
    """
    changes = np.flatnonzero(np.diff(sites) | np.diff(widths)) + 1
    for first, last in zip([0, *changes], [*changes, len(sites)]):
        length = max(1, most // int(sites[first] * widths[first]))
        for start in range(int(first), int(last), length):
            yield start, min(start + length, int(last))
