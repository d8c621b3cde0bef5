"""Cross-validation folds as scikit-learn draws them.

Its import, a third of a short run's seconds, is not needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]


def stratified_folds(y: NDArray[np.integer], count: int, seed: int) -> list[tuple[Places, Places]]:
    """Return folds with equal shares of every class.

    Each is (training, test) rows; shares are equal as far as that goes, in `count` folds.

    Parameters
    ----------
    y : int array [rows]
        At least `count` rows of some class.
    count : int, >= 2
    seed : int, >= 0

    Source: `StratifiedKFold(count, shuffle=True, random_state=seed)` of scikit-learn; the same folds.
    """
    _, first, place = np.unique(y, return_index=True, return_inverse=True)
    # Classes in order of appearance, so that their names do not matter.
    code = np.argsort(np.argsort(first))[place]
    ordered, drawn = np.sort(code), np.random.RandomState(seed)
    # Sorted classes are dealt round the folds: so many rows of each class go to each fold.
    each = np.stack([np.bincount(ordered[fold::count], minlength=len(first)) for fold in range(count)])
    fold_of = np.empty(len(code), dtype=np.intp)
    for number in range(len(first)):
        own = np.repeat(np.arange(count), each[:, number])
        drawn.shuffle(own)
        fold_of[code == number] = own
    return _by_fold(fold_of, count)


def plain_folds(rows: int, count: int, seed: int) -> list[tuple[Places, Places]]:
    """Return folds of nearly equal size.

    They are (training, test) rows of `count` folds.

    Source: `KFold(count, shuffle=True, random_state=seed)` of scikit-learn; the same folds.
    """
    order = np.arange(rows)
    np.random.RandomState(seed).shuffle(order)
    fold_of = np.empty(rows, dtype=np.intp)
    fold_of[order] = np.repeat(np.arange(count), [len(part) for part in np.array_split(order, count)])
    return _by_fold(fold_of, count)


def _by_fold(fold_of: Places, count: int) -> list[tuple[Places, Places]]:
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(count)]
