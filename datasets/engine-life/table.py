"""The table of the dataset: cycles of engines, with means of sensors over the last ones and the cycles left."""

from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = ("unit", "cycle", "o1", "o2", "o3", *(f"s{number}" for number in range(1, 22)))
SENSORS = ["s2", "s3", "s4", "s7", "s8", "s9", "s11", "s12", "s13", "s14", "s15", "s17", "s20", "s21"]
"""The others do not change in these files."""
MEANS = (5, 30)
FIRST = 20
"""Cycles at an engine's beginning, whose mean is subtracted from that of the last five: the drift."""
CAP = 125
"""Largest number of cycles left: nothing in a new engine shows how long it will run."""


def read(folder: Path) -> pd.DataFrame:
    """Return every cycle of the training file, whose engines run until they fail, and each test engine's last."""
    training, test = (_numbers(folder / f"{part}_FD001.txt", COLUMNS) for part in ("train", "test"))
    lives = _numbers(folder / "RUL_FD001.txt", ("life",))["life"].to_numpy()
    last = test.groupby("unit")["cycle"].idxmax()
    left = training.groupby("unit")["cycle"].transform("max") - training["cycle"]
    parts = [
        _features(training, "train").assign(life=np.minimum(left, CAP)),
        _features(test, "test").loc[last].assign(life=np.minimum(lives, CAP)),
    ]
    return pd.concat(parts, ignore_index=True)


def _features(cycles: pd.DataFrame, part: str) -> pd.DataFrame:
    by_engine = cycles.groupby("unit")
    number = cycles["unit"].astype(int)
    features = {"cycle": cycles["cycle"], "operator": number % 5, "engine": f"{part}-" + number.astype(str)}
    begun = cycles[cycles["cycle"] <= FIRST].groupby("unit")[SENSORS].mean()
    for count in MEANS:
        mean = by_engine[SENSORS].rolling(count, min_periods=1).mean().reset_index(level=0, drop=True)
        features |= {f"{name}_mean_{count}": mean[name].reindex(cycles.index) for name in SENSORS}
    for name in SENSORS:
        features[f"{name}_drift"] = features[f"{name}_mean_{MEANS[0]}"] - cycles["unit"].map(begun[name])
    return pd.DataFrame(features).assign(part=part)


def _numbers(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a file of numbers between blanks; a line may end in blanks."""
    cells = pd.read_csv(path, sep=r"\s+", header=None, dtype=str, usecols=range(len(columns)), names=list(columns))
    return cells.apply(pd.to_numeric)
