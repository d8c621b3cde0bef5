"""The table of the dataset: the recordings, with the day of each."""

from pathlib import Path

import pandas as pd


def read(folder: Path) -> pd.DataFrame:
    """Return the recordings."""
    raw = pd.read_csv(folder / "parkinsons_updrs.data", dtype=str, keep_default_na=False)
    time = raw["test_time"].astype(float)
    return raw.assign(day=time - time % 1, sex=raw["sex"].map({"0": "male", "1": "female"}))
