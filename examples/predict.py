"""From a run to predictions: in Python, as a scikit-learn pipeline and as a folder.

Run it: python examples/predict.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from flfed import load, run
from flfed.rows.data import datasets

FLFED = [sys.executable, "-c", "from flfed.cli import main; main()"]


def main() -> None:
    """Train, and predict the same rows in three ways."""
    patients = datasets.load("breast-cancer").whole_table()
    run("breast-cancer")
    model = load("latest").model
    print(model)
    mine = model.predict_proba(patients)
    print(f"{len(mine)} patients, classes {model.classes_}; the first: {mine[0].round(3)}")
    # A pipeline from the schema's columns: no flfed is needed where it is used.
    pipeline = model.to_sklearn()
    print(f"scikit-learn's pipeline differs by {np.abs(pipeline.predict_proba(patients) - mine).max():.0e} at most")
    # The folder goes to a colleague: `flfed predict` checks every hash in it first.
    with tempfile.TemporaryDirectory() as place:
        table, out = Path(place, "patients.csv"), Path(place, "predictions.csv")
        patients.drop(columns=datasets.load("breast-cancer").schema.target).to_csv(table, index=False)
        for words in (["run", "export", "latest", "--output", f"{place}/model"],
                      ["predict", f"{place}/model", str(table), "--output", str(out)]):  # fmt: skip
            subprocess.run([*FLFED, *words], check=True, stdout=subprocess.DEVNULL)
        told = pd.read_csv(out)
    gap = np.abs(told.iloc[:, -1] - mine[:, 1]).max()
    print(f"the command's column {told.columns[-1]!r} differs by {gap:.0e} at most")


if __name__ == "__main__":
    main()
