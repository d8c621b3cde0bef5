"""What `flfed data new` leaves out, with the reason: leaks, identifiers, people's names; and what a person chooses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from flfed.errors import UsageError
from flfed.rows.data import datasets, site_discovery

Command = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(folder: Path, flfed: Command) -> Callable[..., dict[str, Any]]:
    """Run `data new` on a table, and return what it says as JSON."""

    def run(table: pd.DataFrame, target: str, *words: str, by: str = "site", **written: Any) -> dict[str, Any]:
        for there in ("sites", "datasets", "own-first.toml"):
            shutil.rmtree(there, ignore_errors=True)
            Path(there).unlink(missing_ok=True)
        table.to_csv("own.csv", index=False, **written)
        code, out, err = flfed("data", "new", "own.csv", "--target", target, "--by", by, *words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def sites(rows: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(["north", "south", "west"], rows)


def judged_after_two_years(rows: int = 2000) -> pd.DataFrame:
    """Return a table in the form of COMPAS: names, identifiers, dates, and columns recorded after the outcome."""
    rng = np.random.default_rng(4)
    first = rng.choice(
        ["michael", "maria", "john", "lisa", *(f"x{a}{b}" for a in "abcdefgh" for b in "abcdefgh")], rows
    )
    last = rng.choice([f"{a}{b}son" for a in "bcdfghjk" for b in "aeiou"], rows)
    first = np.char.replace(first.astype(str), "x", "an")
    age, priors = np.clip(rng.gamma(6, 5.7, rows), 18, 96).round().astype(int), rng.negative_binomial(0.6, 0.15, rows)
    recid = rng.random(rows) < 1 / (1 + np.exp(0.5 - 0.12 * priors + 0.04 * (age - 34)))
    later = recid | (rng.random(rows) < 0.05)
    violent = later & (rng.random(rows) < 0.25)
    screened = rng.choice(pd.date_range("2013-01-01", periods=700).astype(str), rows)
    return pd.DataFrame({
        "id": np.arange(1, rows + 1), "name": np.char.add(np.char.add(first, " "), last), "first": first,
        "last": last, "screening_date": screened, "sex": rng.choice(["Male", "Female"], rows), "age": age,
        "age_at_index": age + rng.integers(0, 3, rows),
        "hospitalid": rng.choice(40, rows, p=rng.dirichlet(np.ones(40))) + 7,
        "priors_count": priors, "c_case_number": [f"{n:06d}CF10A" for n in rng.permutation(rows)],
        "is_recid": later.astype(int), "r_charge_degree": np.where(later, rng.choice(["(M1)", "(F3)"], rows), ""),
        "r_days_from_arrest": np.where(later, rng.poisson(9, rows).astype(str), ""),
        "is_violent_recid": violent.astype(int), "vr_charge": np.where(violent, "Battery", ""),
        "officer": rng.choice(["Ann Roe", "Bob Lee", "Cy Poe"], rows), "two_year_recid": recid.astype(int),
        "site": sites(rows, rng),
    })  # fmt: skip


def test_a_table_like_compas_keeps_no_leak_no_name_and_no_identifier(made: Callable, flfed: Command):
    said = made(judged_after_two_years(), "two_year_recid")
    assert said["features"] == ["sex", "age", "age_at_index", "priors_count"]
    leaks = {line["column"] for line in said["columns"] if line["leak"]}
    assert leaks == {"is_recid", "r_charge_degree", "r_days_from_arrest", "is_violent_recid"}
    why = {line["column"]: line["why"] for line in said["columns"]}
    assert all("people's names" in why[name] for name in ("name", "first", "last", "officer"))
    assert "its repeated values" in why["hospitalid"]
    text = Path("datasets/own/schema.toml").read_text()
    assert text.count("\nleak = ") == 4 and "Left out: id:" in text and "michael" not in text and "Roe" not in text
    said_of = {line["column"]: line["leak"] for line in said["columns"]}
    assert said_of["is_violent_recid"] == "it shows which rows have a value of 'vr_charge', which reveals the outcome"
    assert flfed("site", "check", "north")[0] == 0
    code, _, err = flfed("study", "run", "own-first.toml", "--set", "rounds=2", "--set", 'features=["is_recid"]')
    assert code == 2 and "leaks the target" in err


def test_a_table_of_measured_air_has_its_codes_in_the_target_too(made: Callable, flfed: Command):
    rng = np.random.default_rng(5)
    rows, hours = 1500, pd.date_range("2004-03-10 18:00", periods=1500, freq="h")
    carbon = np.clip(rng.gamma(2.2, 1, rows), 0.1, None)
    columns = {"CO(GT)": carbon.round(1), "C6H6(GT)": (carbon * 4.5 + rng.gamma(2, 1, rows)).round(1)}
    columns |= {"T": rng.normal(12, 9, rows).round(1), "AH": rng.uniform(0.2, 2.2, rows).round(4)}
    table = pd.DataFrame({name: np.where(rng.random(rows) < 0.1, -200, cells) for name, cells in columns.items()})
    table = table.assign(Date=hours.strftime("%d/%m/%Y"), Time=hours.strftime("%H.%M.%S"), site=sites(rows, rng))
    said = made(table, "CO(GT)", sep=";", decimal=",")
    schema = datasets.load("own").schema
    assert {name: column.missing for name, column in schema.columns.items() if column.missing} == {
        "CO(GT)": (-200.0,), "C6H6(GT)": (-200.0,), "T": (-200.0,), "AH": (-200.0,)
    }  # fmt: skip
    gaps = int((table["CO(GT)"] == -200).sum())
    assert said["rows-without-outcome"] == str(gaps) and schema.columns["CO(GT)"].range[0] == 0
    read = [site_discovery.load(site).read() for site in said["sites"]]
    assert sum(len(one.training) + one.holdout_rows for one in read) == rows - gaps
    assert f"# {gaps} of 1500 rows have no outcome" in Path("datasets/own/schema.toml").read_text()
    assert said["columns"][0]["sure"] is False and "Time" in said["features"]
    assert all(flfed("site", "check", site)[0] == 0 for site in said["sites"])


def test_loans_keep_no_column_that_is_known_after_the_outcome(folder: Path, flfed: Command, test_data: Path):
    path = test_data / "sba_loans" / "SBAcase.11.13.17.csv"
    code, out, err = flfed("data", "new", str(path), "--target", "Default", "--by", "Bank", "--name", "sba", "--json")
    assert code == 0, err
    said = json.loads(out)
    # The columns that PROVENANCE.md names, and identifiers and names.
    leaks = {"Term", "ChgOffDate", "MIS_Status", "ChgOffPrinGr", "daysterm", "xx", "Selected", "BalanceGross"}
    assert not {*leaks, "LoanNr_ChkDgt", "Name", "Zip"} & set(said["features"])
    assert {"GrAppv", "NoEmp", "RealEstate", "DisbursementDate", "Portion"} < set(said["features"])
    why = {line["column"]: line["leak"] for line in said["columns"] if line["leak"]}
    assert set(why) == {"Term", "ChgOffDate", "MIS_Status", "ChgOffPrinGr", "daysterm", "xx"}
    assert why["xx"] == "together with 'DisbursementDate' it gives 'daysterm', which reveals the outcome"
    assert datasets.load("sba").schema.columns["NAICS"].kind == "category"


def test_breast_cancer_keeps_all_its_columns(made: Callable):
    table = load_breast_cancer(as_frame=True).frame
    said = made(table.assign(site=np.arange(len(table)) % 3), "target")
    assert said["features"] == list(table.columns[:-1])


def ward(rows: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    age = rng.normal(60, 10, rows).round()
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(-0.1 * (age - 62))), "yes", "no")
    return pd.DataFrame({
        "age": age.astype(int).astype(str), "pressure": rng.normal(130, 15, rows).round(1).astype(str),
        "sex": rng.choice(["F", "M"], rows), "seen": pd.date_range("2020-01-01", periods=rows).astype(str),
        "hospitalid": rng.choice(30, rows, p=rng.dirichlet(np.ones(30))) + 100,
        "autopsy": np.where((died == "yes") & (rng.random(rows) < 0.5), "1", "0"), "died": died,
        "site": sites(rows, rng),
    })  # fmt: skip


def test_a_person_keeps_columns_and_drops_others(made: Callable, folder: Path, flfed: Command):
    plain = made(ward(), "died")
    assert plain["features"] == ["age", "pressure", "sex"]
    said = made(ward(), "died", "--keep", "autopsy", "--keep", "HospitalID", "--drop", "sex")
    assert said["features"] == ["age", "pressure", "hospitalid", "autopsy"]
    why = {line["column"]: (line["why"], line["leak"]) for line in said["columns"]}
    assert "kept as requested, although nearly all rows" in why["autopsy"][0] and not why["autopsy"][1]
    assert why["sex"][0] == "is dropped as requested"
    assert {"autopsy", "hospitalid"} <= set(said["unconfirmed"])
    assert flfed("site", "check", "north")[0] == 0
    words = ("data", "new", "own.csv", "--target", "died", "--by", "site", "--name", "other", "--output", "other")
    code, out, err = flfed(*words)
    assert code == 0 and "LEFT OUT, possible leak: nearly all rows with one of its values" in " ".join(out.split())
    assert "Not among the features: hospitalid, autopsy. To include one: --keep COLUMN, together" in out, err


@pytest.mark.parametrize(("words", "said"), [
    (["--keep", "ages"], "keep: the table has no column 'ages'"), (["--drop", "x"], "drop: the table has no"),
    (["--keep", "age", "--drop", "age"], "is named in keep and in drop"),
    (["--drop", "died"], "is target, by, group or time"),
    (["--keep", "seen"], "column 'seen' is unusable as a feature"),
    (["--missing", "ages=9"], "missing: the table has no column 'ages'"),
    (["--missing", " "], "missing: must be a list of texts"),
    (["--missing", "-12345"], "missing: no cell has '-12345'"),
    (["--missing", "age=-12345"], "missing: no cell of column 'age' has '-12345'"),
])  # fmt: skip
def test_a_wrong_choice_is_refused_and_nothing_is_written(folder: Path, flfed: Command, words: list[str], said: str):
    ward().to_csv("own.csv", index=False)
    code, _, err = flfed("data", "new", "own.csv", "--target", "died", "--by", "site", *words)
    assert code == 2 and said in err
    assert [path.name for path in folder.iterdir()] == ["own.csv"]


def test_a_value_is_missing_in_every_column_or_in_one(made: Callable, flfed: Command):
    table = ward()
    table.loc[:79, "age"], table.loc[100:159, "pressure"], table.loc[200:249, "sex"] = "44", "44", "44"
    table.loc[300:329, "died"] = "44"
    said = made(table, "died", "--missing", "44")
    assert said["rows-without-outcome"] == "30" and 'missing=("44",)' in Path("sites/north/__init__.py").read_text()
    gaps = (table[["age", "pressure", "sex"]] == "44").sum().to_dict()

    def absent(sites: list[str]) -> dict[str, int]:
        rows = pd.concat([part for site in sites for part in (site_discovery.load(site).inspect()[0],)])
        return {name: int(rows[name].isna().sum()) for name in gaps}

    assert absent(said["sites"]) == gaps
    said = made(table, "died", "--missing", "died=44", "--missing", "age=44", "--output", "one", "--name", "one")
    assert said["rows-without-outcome"] == "30" and datasets_in("one").columns["sex"].values == ("44", "F", "M")
    text = Path("one/sites/north/__init__.py").read_text()
    assert '"age": Field("age", missing=("44",))' in text and '"died": Field("died", missing=("44",))' in text


def datasets_in(folder: str) -> Any:
    from flfed.rows.data.schema import read_schema

    return read_schema(next(Path(folder).glob("datasets/*/schema.toml")))


def test_rows_of_no_class_are_named_and_left_out_before_leaks_are_judged(made: Callable, flfed: Command):
    table = ward().drop(columns="autopsy")
    header = pd.DataFrame([table.columns], columns=table.columns)
    broken = pd.concat([table[:400], header, table[400:]], ignore_index=True)
    moved = [name for name in table.columns if name != "site"]
    shifted = range(100, 120)
    broken.loc[shifted, moved] = np.roll(broken.loc[shifted, moved].to_numpy(), 1, axis=1)
    said = made(broken, "died")
    assert said["task"] == "binary" and said["rows-of-no-class"] == "21"
    assert not any(line["leak"] for line in said["columns"])
    assert (
        "Is there a header in the middle, or are rows shifted?" in said["columns"][0]["why"]
        and not said["columns"][0]["sure"]
    )
    package = Path("sites/north/__init__.py").read_text()
    assert "table = table[table['died'].isna() | table['died'].isin(['no', 'yes'])]" in package
    assert said["features"] == ["age", "pressure", "sex"]
    found = [site_discovery.load(site).inspect() for site in said["sites"]]
    assert sum(len(table) for table, _, _ in found) == 880 and not any(findings for _, findings, _ in found)
    # A class that enough rows have is one, whatever it is called.
    third = ward()
    third.loc[:59, "died"] = "moved away"
    assert made(third, "died")["task"] == "multi-class"


def test_a_third_class_of_a_few_rows_makes_no_leak_of_every_column():
    from flfed.rows.proposals.tables import propose_schema

    table = ward().drop(columns="autopsy")
    table.loc[:11, ["age", "pressure", "died"]] = ["120", "300.0", "moved"]
    assert dict(propose_schema({"a": table}, "died", name="own").leaks) == {}


def test_flags_that_sites_write_in_their_own_words_are_one_flag(folder: Path, flfed: Command):
    table = ward()[["age", "pressure", "died"]].assign(smoker=np.arange(900) % 3 == 0)
    for name, rows, words in (("north", table[:450], ("oui", "non")), ("south", table[450:], ("1", "0"))):
        rows.assign(smoker=np.where(rows["smoker"], *words)).to_csv(f"{name}.csv", index=False)
    code, out, err = flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", "ward", "--json")
    assert code == 0, err
    line = next(line for line in json.loads(out)["columns"] if line["column"] == "smoker")
    assert line["kind"] == "flag" and not line["sure"] and "in several ways" in line["why"]
    for name in ("north", "south"):
        read = site_discovery.load(name).inspect()
        assert read[1] == [] and int(read[0]["smoker"].sum()) == 150


def test_codes_beside_classes_are_proposed_as_not_known(made: Callable):
    table = ward().replace({"died": {"yes": "1", "no": "0"}})
    table.loc[:24, "died"] = "9"
    said = made(table, "died")
    assert said["task"] == "binary" and said["rows-without-outcome"] == "25" and not said["columns"][0]["sure"]
    # A mood of three classes is one of three, for each of them is frequent; and a person may say so.
    mood = ward().assign(mood=np.resize(["-1", "0", "1"], 900))
    assert made(mood, "mood")["task"] == "multi-class"
    assert made(table, "died", "--task", "multi-class")["rows-without-outcome"] == "0"


def test_a_value_for_all_others_is_refused_where_no_values_are_listed(made: Callable, flfed: Command):
    rng = np.random.default_rng(3)
    people = [f"P{number}" for number in np.repeat(np.arange(60), 15)]
    table = pd.DataFrame({"pid": people, "lab": rng.normal(5, 1, 900).round(2), "died": rng.integers(0, 2, 900)})
    made(table.assign(site=np.tile(["north", "south", "west"], 300)), "died", "--group", "pid")
    package = Path("sites/north/__init__.py")
    text = package.read_text()
    assert json.loads(flfed("site", "check", "north", "--json")[1])["rows"] == 300 and "other=" not in text
    for column, other in (
        ("pid", "other"),
        ("lab", "others"),
    ):  # of two lengths: Python's cache goes by size and second
        package.write_text(
            text.replace(
                "    holdout=", f'    mapping={{"{column}": Field("{column}", other="{other}")}},\n    holdout='
            )
        )
        package.write_text(package.read_text().replace("import Csv", "import Csv, Field"))
        with pytest.raises(UsageError, match=f"column '{column}': .* would stand for every cell"):
            site_discovery.load("north")
        code, _, err = flfed("site", "check", "north")
        assert code == 2 and "has no listed values" in err


def test_one_command_makes_a_dataset_of_parties_with_different_columns(folder: Path, flfed: Command):
    rng = np.random.default_rng(1)
    x, ids = rng.uniform(-1, 1, (400, 12)).round(3), [f"C-{number:05}" for number in rng.permutation(400)]
    late = np.where(x[:, 0] + x[:, 7] + rng.normal(0, 0.3, 400) > 0, "yes", "no")
    bank = pd.DataFrame({"client": ids, "late": late} | {f"account {place}": x[:, place] for place in range(6)})
    service = pd.DataFrame({"Client": ids} | {f"pay {place}": x[:, place + 6] for place in range(6)})
    bank.to_csv("bank.csv", index=False)
    service.sample(frac=0.9, random_state=0).to_csv("service.csv", index=False)
    new = ("data", "new", "bank.csv", "service.csv", "--target", "late", "--parties")
    for words in ([], ["--group", "client", "--by", "client"]):
        assert "parties: each file needs the column of people (--group)" in flfed(*new, *words)[2]
    code, out, err = flfed(*new, "--group", "client")
    assert code == 0 and "12 features (12 number)" in out, err
    assert 'holds="columns"' in Path("sites/service/__init__.py").read_text()
    assert all(flfed("site", "check", site)[0] == 0 for site in ("bank", "service"))
    assert 'outputs = ["row-aligned"]' in Path("sites/bank/policy.toml").read_text()
    code, out, err = flfed("study", "check", "bank-first.toml")
    assert (
        code == 0 and "can be run" in out and "of the 200 MB a day that its policy allows" in " ".join(out.split())
    ), err
    # Without the flag the service's table lacks the target, as before.
    assert "target: no column 'late' at 'service'" in flfed(*new[:-1], "--group", "client")[2]


def test_many_small_hospitals_are_all_kept(folder: Path, flfed: Command):
    rng = np.random.default_rng(2)
    names = [f"h{number:03}" for number in np.repeat(range(186), rng.integers(4, 23, 186))]
    rows = len(names)
    table = {"age": rng.integers(20, 90, rows), "died": rng.choice(["yes", "no"], rows)}
    pd.DataFrame({"hospital": names} | table).to_csv("all.csv", index=False)
    new = ("data", "new", "all.csv", "--target", "died", "--by", "hospital")
    assert "of 22 rows at most, and a site needs 50: name a column" in flfed(*new)[2]
    code, out, err = flfed(*new, "--min-rows", "4", "--json")
    assert code == 0 and len(json.loads(out)["sites"]) == 186 and json.loads(out)["left-out-rows"] == "0", err
    code, out, _ = flfed(*new, "--min-rows", "20", "--output", "some", "--json")
    assert "other" in json.loads(out)["sites"]
