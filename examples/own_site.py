"""Two clinics with files of their own, mapped onto one schema: what each calls its columns is its own affair.

The schema is `datasets/diabetes`, which comes with flfed. Run it: python examples/own_site.py
"""

import tempfile
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_diabetes

from flfed import Csv, Field, Holdout, Policy, Site, Study, run

MMOL = 38.67  # mg/dL in one mmol/L of cholesterol


def write_files(folder: Path) -> None:
    """Write what two clinics could have: other names, other marks, other units."""
    table = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    table["sex"] = table["sex"].astype(int)
    table[::2].to_csv(folder / "lakeside.csv", index=False)
    hill = table[1::2].assign(s1=(table["s1"] / MMOL).round(2), sex=table["sex"].map({1: "a", 2: "b"}))
    names = {"bmi": "BMI", "s1": "CHOL_MMOL", "sex": "SEX", "progression": "SCORE"}
    hill.rename(columns=names).to_csv(folder / "hillside.csv", index=False, sep=";", decimal=",")


def sites(folder: Path) -> list[Site]:
    """Return both clinics. Public data: every figure may be exact."""
    policy = Policy(disclosure="open", resplit=True)
    numbers = [*("age", "bp"), *(f"s{place}" for place in range(2, 7))]
    lakeside = Site(
        name="lakeside", dataset="diabetes", source=Csv(str(folder / "lakeside.csv")), policy=policy,
        holdout=Holdout(salt="lakeside"),
    )  # fmt: skip
    mapping = {name: Field(name, decimal=",") for name in numbers} | {
        "bmi": Field("BMI", decimal=","),
        "s1": Field("CHOL_MMOL", decimal=",", multiply=MMOL),
        "sex": Field("SEX", values={"a": "1", "b": "2"}),
        "progression": Field("SCORE", decimal=","),
    }
    hillside = Site(
        name="hillside", dataset="diabetes", source=Csv(str(folder / "hillside.csv"), separator=";"), mapping=mapping,
        policy=policy, holdout=Holdout(salt="hillside"),
    )  # fmt: skip
    return [lakeside, hillside]


if __name__ == "__main__":
    pd.set_option("display.width", 120)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        study = Study(dataset="diabetes", model="linear", rounds=40, lr=0.05, l2=0.02)
        result = run(study, sites=sites(Path(folder)), repeats=5)
    print(result)
    print(result.gains.round(3).to_string(index=False))
