"""Take the 27 columns that are used from the trial's table, as R's `write.csv` wrote `IST.rda` of the package RESIDE.

Run once, by hand; writes beside itself. The same input gives the same cells:

    python datasets/stroke-trial/extract.py IST.csv
"""

import sys
from pathlib import Path

import pandas as pd

COLUMNS = (
    *("HOSPNUM", "COUNTRY", "RXASP", "RXHEP", "AGE", "SEX", "RSBP", "RDELAY", "RCONSC", "RSLEEP", "RATRIAL", "RCT"),
    *("RVISINF", "RHEP24", "RASP3", "RDEF1", "RDEF2", "RDEF3", "RDEF4", "RDEF5", "RDEF6", "RDEF7", "RDEF8", "STYPE"),
    *("DAYLOCAL", "HOURLOCAL", "OCCODE"),
)

if __name__ == "__main__":
    table = pd.read_csv(sys.argv[1], dtype=str, keep_default_na=False)[list(COLUMNS)]
    cells = table.apply(lambda column: column.str.strip())
    cells.to_csv(Path(__file__).with_name("ist.csv.gz"), index=False, compression={"method": "gzip", "mtime": 0})
