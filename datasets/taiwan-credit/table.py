"""The table of the dataset: the clients, their codes as words."""

from pathlib import Path

import pandas as pd

EDUCATION = {"1": "graduate-school", "2": "university", "3": "high-school"}
MARRIAGE = {"1": "married", "2": "single"}


def read(folder: Path) -> pd.DataFrame:
    """Return the clients; the codes 0, 5 and 6 are in no description of the file."""
    raw = pd.read_csv(folder / "UCI_Credit_Card.csv", dtype=str, keep_default_na=False)
    return raw.assign(
        SEX=raw["SEX"].map({"1": "male", "2": "female"}),
        EDUCATION=raw["EDUCATION"].map(EDUCATION).fillna("other"),
        MARRIAGE=raw["MARRIAGE"].map(MARRIAGE).fillna("other"),
    )
