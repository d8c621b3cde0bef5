"""The table of the dataset: loans of the ten banks with the most, and all other banks as one."""

from pathlib import Path

import pandas as pd

BANKS = {
    "BANK OF AMERICA NATL ASSOC": "Bank of America", "BBCN BANK": "BBCN Bank",
    "CALIFORNIA BANK & TRUST": "California Bank and Trust", "CAPITAL ONE NATL ASSOC": "Capital One",
    "CDC SMALL BUS. FINAN CORP": "CDC Small Business Finance", "CITIBANK, N.A.": "Citibank",
    "JPMORGAN CHASE BANK NATL ASSOC": "JPMorgan Chase", "MUFG UNION BANK NATL ASSOC": "MUFG Union Bank",
    "U.S. BANK NATIONAL ASSOCIATION": "US Bank", "WELLS FARGO BANK NATL ASSOC": "Wells Fargo",
}  # fmt: skip
"""The ten banks of 68 loans or more."""
INDUSTRIES = {
    "5311": "lessors of real estate", "5312": "real estate agents", "5313": "activities for real estate",
    "5321": "car rental", "5322": "rental of consumer goods", "5323": "general rental",
    "5324": "rental of machines", "5331": "lessors of intangible assets",
}  # fmt: skip
"""Industry groups, by the first four digits of the code."""


def read(folder: Path) -> pd.DataFrame:
    """Return the loans whose bank is known."""
    raw = pd.read_csv(folder / "SBAcase.11.13.17.csv", dtype=str, keep_default_na=False)
    raw = raw[raw["Bank"].str.strip() != ""].reset_index(drop=True)
    return raw.assign(
        Bank=raw["Bank"].str.strip().map(BANKS).fillna("other"),
        NAICS=raw["NAICS"].str[:4].map(INDUSTRIES),
        franchise=(raw["FranchiseCode"].astype(int) > 1).astype(int),
        NewExist=raw["NewExist"].replace({"1": "existing", "2": "new"}),
        UrbanRural=raw["UrbanRural"].replace({"1": "urban", "2": "rural"}),
        Default=raw["Default"].map({"0": "paid", "1": "charged-off"}),
    )
