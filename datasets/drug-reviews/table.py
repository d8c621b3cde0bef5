"""The table of the dataset: the reviews, with the seven most frequent conditions and all others as one."""

from pathlib import Path

import pandas as pd

CONDITIONS = ("depression", "acne", "anxiety", "insomnia", "birth control", "high blood pressure", "allergies")
SEVERE = ("Severe Side Effects", "Extremely Severe Side Effects")


def read(folder: Path) -> pd.DataFrame:
    """Return the reviews."""
    raw = pd.read_csv(folder / "drugLibTrain_raw.tsv", sep="\t", dtype=str, keep_default_na=False)
    condition = raw["condition"].str.strip()
    return raw.assign(
        review=raw["Unnamed: 0"].astype(int),
        condition=condition.where(condition.isin(["", *CONDITIONS]), "other"),
        severe=raw["sideEffects"].isin(SEVERE).map({True: "yes", False: "no"}),
    )
