"""The table of the dataset: deliveries to the eight of 43 countries with the most lines."""

from pathlib import Path

import pandas as pd

COUNTRIES = ("South Africa", "Nigeria", "Côte d'Ivoire", "Uganda", "Vietnam", "Zambia", "Haiti", "Mozambique")
DATES = ("Scheduled Delivery Date", "Delivered to Client Date", "Delivery Recorded Date")


def read(folder: Path) -> pd.DataFrame:
    """Return the deliveries; `late` says whether one came after the scheduled day."""
    raw = pd.read_csv(folder / "SCMS_Delivery_History_Dataset.csv", dtype=str, keep_default_na=False)
    raw = raw[raw["Country"].isin(COUNTRIES)].reset_index(drop=True)
    # All years are of this century, as Python takes two digits below 69.
    dates = {name: pd.to_datetime(raw[name], format="%d-%b-%y") for name in DATES}
    scheduled, delivered, _ = dates.values()
    return raw.assign(
        **dates,
        Country=raw["Country"].replace("Côte d'Ivoire", "Cote d'Ivoire"),  # the names of sites have no accents
        generic=(raw["Brand"] == "Generic").astype(int),
        month=scheduled.dt.month,
        late=(delivered > scheduled).map({True: "late", False: "on-time"}),
    )
