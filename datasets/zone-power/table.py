"""The table of the dataset: hours of three zones, each a series, with the same hour a day and a week before."""

from pathlib import Path

import pandas as pd

WEATHER = ["Temperature", "Humidity", "Wind Speed"]


def read(folder: Path) -> pd.DataFrame:
    """Return a row for each hour of a zone whose loads of a day and a week before are known."""
    raw = pd.read_csv(folder / "Tetuan_City_power_consumption.csv", dtype=str, keep_default_na=False)
    # Readings of ten minutes become hours.
    hour = pd.to_datetime(raw["DateTime"], format="%m/%d/%y %H:%M").dt.to_period("h").rename("DateTime")
    numbers = raw.drop(columns="DateTime").apply(pd.to_numeric)
    hours = numbers.groupby(hour).mean()
    hours = hours.reindex(pd.period_range(hours.index.min(), hours.index.max(), freq="h", name="DateTime"))
    return pd.concat([_zone(hours, number) for number in (1, 2, 3)], ignore_index=True)


def _zone(hours: pd.DataFrame, number: int) -> pd.DataFrame:
    power = hours[f"Zone {number} Power Consumption"]
    # Kilowatts become megawatts. They are read from their text, which may give another last digit than the mean itself.
    load = pd.to_numeric(power.astype(str)) / 1000
    before = {"day_before": load.shift(24), "week_before": load.shift(168)}
    table = hours[WEATHER].assign(zone=str(number), power=power, load=load, **before).dropna().reset_index()
    start = table["DateTime"].dt.start_time.dt
    return table.assign(hour=start.hour, weekday=start.weekday, DateTime=start.strftime("%Y-%m-%d"))
