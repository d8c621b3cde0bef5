"""The split of Fed-Heart-Disease in FLamby.

It is made hospital by hospital; 66 % of the rows train.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flfed.rows.data.schema import Schema
from flfed.words import usage_error

TRAIN = 0.66
"""Share of rows that train; the rest is held out."""
RANDOM_STATE = 43
"""Random state of the published rows; draw r takes it plus r."""


class Flamby43:
    """The split by `train_test_split` with `random_state` 43.

    It is scikit-learn's, over the rows in their file's order.

    Stratified by class where the site has more than one class and each more than two rows. Every
    row is its own: equal rows may fall on both sides, as they do in the publication.

    Source: Ogier du Terrail et al. 2022, "FLamby: Datasets and Benchmarks for Cross-Silo Federated
    Learning in Realistic Healthcare Settings", and its `fed_heart_disease/dataset.py`.
    """

    def split(self, table: pd.DataFrame, schema: Schema, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return two masks [rows]: training, holdout.

        Parameters
        ----------
        table : DataFrame
            One site's mapped rows in the source's order, without those that the study leaves out.
        schema : Schema
        draw : int, >= 0
            0 gives the published rows, others a new draw by the same rule.

        Raises
        ------
        UsageError
            If the table is too small to be split, or its rows have groups.
        """
        from sklearn.model_selection import train_test_split

        # The published rule knows no groups: it would put rows of one patient on both sides.
        if schema.group:
            raise usage_error("study.splits.groups", dataset=schema.name)
        if len(table) < 3:
            raise usage_error("study.splits.rows")
        strata = None
        if schema.task != "regression":
            cells = table[schema.target].to_numpy(dtype=str)
            _, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
            if len(counts) > 1 and counts.min() > 2:
                strata = place
        training, _ = train_test_split(
            np.arange(len(table)),
            train_size=TRAIN,
            test_size=1.0 - TRAIN,
            random_state=RANDOM_STATE + draw,
            stratify=strata,
        )
        # Positions become masks, so that the caller keeps the rows in their own order.
        train = np.zeros(len(table), dtype=bool)
        train[training] = True
        return train, ~train
