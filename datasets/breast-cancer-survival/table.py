"""The table of the dataset: the trial's patients, as the package lifelines has them."""

import zipfile
from pathlib import Path

import pandas as pd

NAMES = {
    "menostat": "menopause", "tsize": "tumour_size", "tgrade": "tumour_grade", "pnodes": "nodes",
    "progrec": "progesterone", "estrec": "oestrogen", "cens": "event",
}  # fmt: skip


def read(folder: Path) -> pd.DataFrame:
    """Return the patients, who are dealt to four sites in turn."""
    with zipfile.ZipFile(folder / "lifelines-0.30.3-py3-none-any.whl") as wheel:
        raw = pd.read_csv(wheel.open("lifelines/datasets/gbsg2.csv"), dtype=str, keep_default_na=False)
    table = raw.rename(columns=NAMES)
    event = table["event"].map({"0": "no", "1": "yes"})
    hormones = (raw["horTh"] == "yes").astype(int)
    return table.assign(site=[str(row % 4) for row in range(len(raw))], hormones=hormones, event=event)
