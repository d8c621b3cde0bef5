"""The reader of NASA's run-to-failure records of engines (C-MAPSS): cycles left, and sensors over past cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.errors import TableError
from flfed.rows.data.parsing.cells import refuse_cells
from flfed.rows.data.parsing.fields import NOT_NUMBER
from flfed.rows.data.sources import Folders, find_file
from flfed.words import render, usage_error

COLUMNS = ("unit", "cycle", "o1", "o2", "o3", *(f"s{number}" for number in range(1, 22)))
"""Columns of the files, which have no header: engine, cycle, three settings, 21 sensors."""


@dataclass(kw_only=True)
class Engines:
    """Table of engines' cycles: every one of the training file, each engine's last of the test file.

    An engine of the training file runs until it fails, so that its last cycle has 0 left. Another file has the cycles
    left of the others.

    Parameters
    ----------
    training, test, lives : str
        The dataset's files; `lives` has a line for each engine of `test`.
    sensors : sequence of str
        Of `s1` to `s21`: each becomes its means over the last cycles, and its drift.
    means : sequence of int, >= 1
        Cycles of each mean, the row's own included; an engine's first ones have fewer.
    first : int, >= 1
        Cycles at an engine's beginning, whose mean is subtracted from that of the last `means[0]`: the drift.
    cap : int, >= 1
        Largest number of cycles left: nothing in a new engine shows how long it will run.
    """

    training: str
    test: str
    lives: str
    sensors: Sequence[str]
    means: Sequence[int] = (5, 30)
    first: int = 20
    cap: int = 125

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if unknown := [name for name in self.sensors if name not in COLUMNS[5:]]:
            raise usage_error("rows.reader.sensor", name=unknown[0])
        if min([*self.means, self.first, self.cap]) < 1 or not self.means:
            raise usage_error("rows.reader.cycles")

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the table; `part` is "train" or "test", `engine` a name, `number` the engine's in its file.

        Raises
        ------
        TableError
            If a cell is no number, or the engines of `lives` are not as many; with column, rule and count.
        """
        training, test = (_numbers(find_file(file, folders), COLUMNS) for file in (self.training, self.test))
        lives = _numbers(find_file(self.lives, folders), ("life",))["life"].to_numpy()
        last = test.groupby("unit")["cycle"].idxmax()
        if len(last) != len(lives):
            raise TableError("life", render("rows.reader.engines"), abs(len(last) - len(lives)))
        left = training.groupby("unit")["cycle"].transform("max") - training["cycle"]
        parts = [
            self._compute_features(training, "train").assign(life=np.minimum(left, self.cap)),
            self._compute_features(test, "test").loc[last].assign(life=np.minimum(lives, self.cap)),
        ]
        return pd.concat(parts, ignore_index=True)

    def _compute_features(self, cycles: pd.DataFrame, part: str) -> pd.DataFrame:
        """Return the features of each engine at each of its cycles."""
        by_engine = cycles.groupby("unit")
        features = cycles[["unit", "cycle"]].rename(columns={"unit": "number"})
        features = features.assign(part=part, engine=part + "-" + features["number"].astype(int).astype(str))
        sensors = list(self.sensors)
        begun = cycles[cycles["cycle"] <= self.first].groupby("unit")[sensors].mean()
        for count in self.means:
            mean = by_engine[sensors].rolling(count, min_periods=1).mean().reset_index(level=0, drop=True)
            for name in self.sensors:
                features[f"{name}_mean_{count}"] = mean[name].reindex(cycles.index)
        for name in self.sensors:
            features[f"{name}_drift"] = features[f"{name}_mean_{self.means[0]}"] - cycles["unit"].map(begun[name])
        return features


def _numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a file of numbers between blanks or tabs; a line may end in blanks."""
    cells = pd.read_csv(path, sep=r"\s+", header=None, dtype=str, usecols=range(len(columns)), names=list(columns))
    numbers: pd.DataFrame = cells.apply(pd.to_numeric, errors="coerce")
    for name in columns:
        refuse_cells(name, NOT_NUMBER, numbers[name].isna())
    return numbers
