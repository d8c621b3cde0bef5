"""The table of the dataset: weeks of each state, with the three before and the one after, as logarithms."""

from pathlib import Path

import numpy as np
import pandas as pd


def read(folder: Path) -> pd.DataFrame:
    """Return a row for each week of a state; a week without its neighbours has none: no lag jumps over a gap."""
    raw = pd.read_csv(folder / "target-hospital-admissions.csv", dtype=str, keep_default_na=False)
    raw = raw[raw["location_name"] != "US"]
    # The CDC's weeks end on a Saturday.
    week = pd.to_datetime(raw["date"], format="%Y-%m-%d").dt.to_period("W-SAT")
    value = pd.to_numeric(raw["value"]).rename("value")
    by_state = value.groupby([raw["location_name"], week.rename("date")]).sum(min_count=1)
    return pd.concat(
        [_weeks(str(name), own.droplevel(0)) for name, own in by_state.groupby(level=0)], ignore_index=True
    )


def _weeks(state: str, value: pd.Series) -> pd.DataFrame:
    whole = value.reindex(pd.period_range(value.index.min(), value.index.max(), freq="W-SAT", name="date"))
    columns = {"now": 0, "before_1": 1, "before_2": 2, "before_3": 3, "next": -1}
    table = pd.DataFrame({name: np.log(whole.shift(ago) + 1) for name, ago in columns.items()}).dropna().reset_index()
    day = table["date"].dt.end_time.dt
    turn = 2 * np.pi * day.day_of_year / 365.25
    return table.assign(
        location_name=state, date=day.strftime("%Y-%m-%d"), year_sine=np.sin(turn), year_cosine=np.cos(turn)
    )
