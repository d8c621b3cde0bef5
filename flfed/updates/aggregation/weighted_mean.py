"""Sums over a cohort's updates, block by block.

There is one product a block of sites, so that memory does not grow with the cohort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flfed.updates.messages.fields import Arrays

BLOCK = 64
"""Sites whose arrays are laid side by side at a time: few enough to stay in a processor's cache."""


def joint_norms(updates: Sequence[Arrays]) -> np.ndarray:
    """Return the joint L2 norm of each update.

    It is over all arrays of an update together, as float64 [updates].

    Parameters
    ----------
    updates : sequence of dict of name to array
        All with the same names and shapes. A value that is not finite gives a norm that is not,
        and so do values too large to be squared.
    """
    squares = np.zeros(len(updates))
    with np.errstate(over="ignore", invalid="ignore"):
        for name in sorted(updates[0]) if updates else ():
            for place, block in _blocks(updates, name):
                squares[place] += np.square(block, dtype=np.float64).sum(axis=1)
    return np.sqrt(squares)


def weighted_mean(updates: Sequence[Arrays], name: str, shares: np.ndarray) -> np.ndarray:
    """Return `sum(share_k update_k)` of one array.

    It is float64, in the array's shape.

    Parameters
    ----------
    updates : sequence of dict of name to array, at least one
        Summed in this order.
    name : str
    shares : float64 array [updates], of sum 1

    Notes
    -----
    The sum is about the first update: where all agree the mean is theirs to the last bit, so that a
    weight that L1 made 0 everywhere is 0, not 1e-17.
    """
    first = updates[0][name].astype(np.float64)
    total = np.zeros(first.size)
    for place, block in _blocks(updates, name):
        total += shares[place] @ np.subtract(block, first.reshape(-1), dtype=np.float64)
    return first + total.reshape(first.shape)


def _blocks(updates: Sequence[Arrays], name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield one array of all updates in blocks.

    A block is [sites, values] of `BLOCK` sites at a time, and comes with which sites they are.
    """
    for start in range(0, len(updates), BLOCK):
        part = [update[name] for update in updates[start : start + BLOCK]]
        together = np.concatenate(part) if part[0].ndim else np.array(part)
        yield slice(start, start + len(part)), together.reshape(len(part), -1 if part[0].size else 0)
