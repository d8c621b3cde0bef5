"""`flfed data new`, `flfed site new` and `flfed study new`: from files to a verdict without a line of Python."""

import ast
import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv
from flfed.rows.proposals.texts import policy_text, site_text
from flfed.study.study import Study

Command = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clinics(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    age = rng.normal(60, 10, rows).round(1)
    wards = rng.choice(["north", "south", "St. Mary's", "tiny"], rows, p=[0.4, 0.35, 0.2, 0.05])
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(-0.1 * (age - 62))), "yes", "no")
    return pd.DataFrame({"clinic": wards, "age": age, "sex": rng.choice(["F", "M"], rows), "died": died})


def test_two_files_become_a_dataset_two_sites_and_a_study_that_runs(folder: Path, flfed: Command):
    table = clinics()
    table[:200].to_csv("north.csv", index=False, sep=";", decimal=",")
    table[200:].rename(columns={"age": "Age "}).to_parquet("south.parquet")
    code, out, err = flfed(
        "data", "new", "north.csv", "south.parquet", "--target", "died", "--name", "Own Data", "--json"
    )
    assert code == 0, err
    made = json.loads(out)
    assert (
        made["dataset"] == "own-data"
        and made["sites"] == ["north", "south"]
        and made["unconfirmed"] == ["clinic", "age", "sex"]
    )
    schema = datasets.load("own-data").schema
    assert schema.classes == ("no", "yes") and schema.unconfirmed == ("clinic", "age", "sex")
    for site in made["sites"]:
        code, out, err = flfed("site", "check", site)
        assert (
            code == 0
            and "kind, range and values of 3 columns were proposed from rows, and nobody has confirmed them"
            in " ".join(out.split())
        ), err
    code, out, err = flfed("study", "run", "own-data-first.toml", "--set", "rounds=3", "--json")
    assert code == 0 and json.loads(out)["global"]["roc_auc_score"]["value"] > 0.5, err
    # Institutions would add up in secret; one process that has all tables has nothing to hide from itself.
    assert 'secure-aggregation = "auto"' in Path("own-data-first.toml").read_text()
    assert json.loads(out)["privacy"]["secure-sums"] == {"kind": "off", "sites": None}


def test_files_with_other_decimal_marks_are_read_each_by_its_own(folder: Path, flfed: Command):
    # Whole numbers that are written with a mark, "59.0" and "59,0", and others.
    table = clinics()[["age", "sex", "died"]].assign(
        dose=np.linspace(0.5, 2400.5, 400).round(1), weeks=lambda of: of["age"].round()
    )
    table[:200].to_csv("north.csv", index=False, sep=";", decimal=",")
    table[200:].to_csv("south.csv", index=False)
    assert flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", "marks")[0] == 0
    for site, rows in (("north", table[:200]), ("south", table[200:])):
        code, out, err = flfed("site", "check", site)
        assert code == 0 and "FAIL" not in out, (site, out, err)
        found = site_discovery.load(site).read()
        read = pd.concat([found.training, found.holdout("test")])
        for name in ("age", "dose", "weeks"):
            np.testing.assert_allclose(np.sort(read[name]), np.sort(rows[name]), atol=1e-9)


def test_a_column_of_lists_in_a_parquet_file_is_read_as_texts(folder: Path, flfed: Command):
    table = clinics()
    for name, rows in {"north": table[:200], "south": table[200:]}.items():
        rows.assign(doses=[[place % 3, 2] for place in range(200)]).to_parquet(f"{name}.parquet")
    code, out, err = flfed("data", "new", "north.parquet", "south.parquet", "--target", "died", "--json")
    assert code == 0, err
    assert datasets.load(json.loads(out)["dataset"]).schema.columns["doses"].kind == "category"


def test_amounts_are_thousands_at_all_sites_and_a_word_between_them_is_counted(folder: Path, flfed: Command):
    table = clinics()[["age", "sex", "died"]]
    table["cost"] = [f"{amount:,}".replace(",", ".") for amount in np.linspace(200, 4999, 400).astype(int)]
    table.loc[7, "cost"] = "see Jane Roe"
    for name, rows in (("north", table[:200]), ("south", table[200:])):
        rows.to_csv(f"{name}.csv", index=False, decimal=",")
    code, out, err = flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", "costs", "--json")
    assert code == 0, err
    line = next(line for line in json.loads(out)["columns"] if line["column"] == "cost")
    assert line["kind"] == "number" and not line["sure"]
    written = "".join(path.read_text() for path in (*Path().rglob("*.py"), *Path().rglob("*.toml")))
    assert "Roe" not in written + out
    # All amounts of the south stand with a mark, which by themselves could be decimals.
    south = site_discovery.load("south").read()
    cost = pd.concat([south.training, south.holdout("test")])["cost"]
    np.testing.assert_allclose(np.sort(cost), np.linspace(200, 4999, 400).astype(int)[200:])
    code, out, err = flfed("site", "check", "north")
    assert code == 2 and "column 'cost' is not a number in fewer than 5 rows" in err and "Roe" not in out + err


def test_a_cell_far_from_all_others_is_counted_at_its_site_and_refused_by_the_check(folder: Path, flfed: Command):
    table = clinics()[["age", "died"]].assign(lab=np.random.default_rng(2).normal(5, 1, 400).round(2))
    table["dose"] = (table["lab"] * np.where(table.index < 200, 1000, 1)).round(2)
    table.loc[7, "lab"] = 4711000
    for name, rows in (("north", table[:200]), ("south", table[200:])):
        rows.to_csv(f"{name}.csv", index=False)
    code, out, err = flfed("data", "new", "north.csv", "south.csv", "--target", "died", "--name", "labs", "--json")
    assert code == 0, err
    cells, unit = json.loads(out)["notes"]
    assert cells.startswith("north: fewer than 5 cells of 'lab' lie far from all others")
    assert unit.startswith(
        "north: the values of 'dose' are about 1,000 times those of the other sites: in another unit"
    )
    assert datasets.load("labs").schema.columns["lab"].range == (2.0, 8.0) and "4711" not in out + err
    code, _, err = flfed("site", "check", "north")
    assert code == 2 and "column 'lab' is outside the schema's range 2 to 8 in fewer than 5 rows" in err
    assert flfed("site", "check", "south")[0] == 0


def test_one_table_is_cut_into_sites_and_the_smallest_are_one(folder: Path, flfed: Command):
    clinics(600).to_csv("all.csv", index=False)
    code, out, err = flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")
    assert code == 0, err
    assert sorted(path.name for path in Path("sites").iterdir()) == ["north", "south", "st_mary_s"]
    assert "rows belong to no site" in out  # of the tiny one
    assert "clinic" not in datasets.load("all").schema.columns
    rows = {}
    for site in ("north", "south", "st-mary-s"):
        code, out, _ = flfed("site", "check", site, "--json")
        rows[site] = json.loads(out)["rows"]
    assert rows == clinics(600)["clinic"].value_counts().rename({"St. Mary's": "st-mary-s"}).drop("tiny").to_dict()


def test_small_sites_together_are_one_and_their_names_are_nowhere(folder: Path, flfed: Command):
    table = clinics(900)
    few = np.arange(900) % 9 == 0
    table.loc[few, "clinic"] = [f"village {number % 4}" for number in range(few.sum())]
    table.to_csv("all.csv", index=False)
    assert flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")[0] == 0
    assert "other" in [path.name for path in Path("sites").iterdir()]
    texts = [path.read_text() for path in Path().rglob("*.py")] + [path.read_text() for path in Path().rglob("*.toml")]
    assert not any("village" in text for text in texts)


def test_nothing_is_replaced_and_a_title_is_no_code(folder: Path, flfed: Command):
    table = clinics()
    table["clinic"] = np.where(table["clinic"] == "north", '"""\nimport os\nos.abort()\n"""', "south")
    table.to_csv("all.csv", index=False)
    assert flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for site in ("import-os-os-abort", "south"):
        assert flfed("site", "check", site)[0] == 0
    code, _, err = flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")
    assert code == 2 and "exists already" in err
    assert {path: path.read_bytes() for path in before} == before


def hospitals(names: list[str], column: str = "clinic") -> pd.DataFrame:
    """Return 60 rows of each hospital, in turn."""
    table = clinics(60 * len(names))
    return table.assign(clinic=names * 60).rename(columns={"clinic": column})


def test_names_that_are_whole_numbers_in_a_file_are_read_too(folder: Path, flfed: Command):
    # As a data frame of an array is written, and a sheet with years in its first line.
    table = clinics()[["age", "sex", "died"]].set_axis([2023, 2024, 2025], axis=1)
    table[:200].to_parquet("north.parquet")
    table[200:].to_excel("south.xlsx", index=False)
    assert flfed("data", "new", "north.parquet", "south.xlsx", "--target", "2025", "--name", "years")[0] == 0
    assert list(datasets.load("years").schema.columns) == ["2023", "2024", "2025"]
    for site in ("north", "south"):
        code, out, err = flfed("site", "check", site, "--json")
        assert code == 0 and json.loads(out)["rows"] == 200, err


@pytest.mark.parametrize("column", ["class", "None", "ﬁrm", "µ", "no. 7", "O'Hara \"x\\"])
def test_a_column_of_sites_may_have_any_name(folder: Path, flfed: Command, column: str):
    hospitals(["A", "B"], column).to_csv("all.csv", index=False)
    code, _, err = flfed("data", "new", "all.csv", "--target", "died", "--by", column)
    assert code == 0, err
    for site in ("a", "b"):
        code, out, err = flfed("site", "check", site, "--json")
        assert code == 0 and json.loads(out)["rows"] == 60, err


def test_many_hospitals_and_small_ones_are_cut_too(folder: Path, flfed: Command):
    # Their names together are longer than an expression may be; the rest has neither of them, nor a gap.
    large = [f"University Hospital No {number:02d}" for number in range(50)]
    tiny = clinics(80).assign(clinic=[f"Tiny {number % 8}" for number in range(80)])
    tiny.loc[:2, "clinic"] = ""
    table = pd.concat([hospitals(large), tiny]).assign(elsewhere_1=1)
    table.to_csv("many.csv", index=False)
    code, out, err = flfed("data", "new", "many.csv", "--target", "died", "--by", "clinic", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert len(made["sites"]) == 51 and made["left-out-rows"] == "fewer than 5"
    for site, rows in (("other", 77), ("university-hospital-no-07", 60)):
        code, out, err = flfed("site", "check", site, "--json")
        assert code == 0 and json.loads(out)["rows"] == rows, err
    assert "Tiny" not in Path("sites/other/__init__.py").read_text()


def test_rows_are_held_out_by_the_dates_that_were_named_and_by_no_others(folder: Path, flfed: Command):
    days = pd.date_range("2023-01-01", periods=120).astype(str)
    table = hospitals(["A", "B"]).assign(Admitted=days)
    table.insert(0, "born", days.str.replace("2023", "1950"))
    table.to_csv("all.csv", index=False)
    code, _, err = flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic", "--time", "admitted")
    assert code == 0, err
    assert 'HoldoutByTime("Admitted", train_until="2023-03-' in Path("sites/a/__init__.py").read_text()


def test_a_count_of_few_rows_is_no_number_for_programs_either(folder: Path, flfed: Command):
    table = hospitals(["A", "B"])
    table.loc[:2, "clinic"] = ""
    table.to_csv("all.csv", index=False)
    code, out, _ = flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic", "--json")
    assert code == 0 and json.loads(out)["left-out-rows"] == "fewer than 5"
    table.loc[:6, "clinic"] = ""
    table.to_csv("more.csv", index=False)
    code, out, _ = flfed("data", "new", "more.csv", "--target", "died", "--by", "clinic", "--output", "more", "--json")
    assert code == 0 and json.loads(out)["left-out-rows"] == "7"


@pytest.mark.parametrize(("header", "said"), [
    ("clinic,age,sex,died,Age ", "'age' and 'Age ', which differ in case"), ("age,age,sex,died,x", "several columns"),
    ("clinic,age,sex,died,x\x01y", "the name of column 5 has a line break or another control character"),
])  # fmt: skip
def test_columns_that_could_be_taken_for_one_another_are_refused(folder: Path, flfed: Command, header: str, said: str):
    table = clinics().assign(x=1)
    for name in ("north", "south"):
        Path(f"{name}.csv").write_text("\n".join([header, *table.to_csv(index=False).splitlines()[1:]]))
    code, _, err = flfed("data", "new", "north.csv", "south.csv", "--target", "died")
    assert code == 2 and "table 'north'" in err and said in err and "\x01" not in err
    assert not Path("datasets").exists()


def test_a_name_and_a_value_on_two_lines_are_on_one_or_in_none(folder: Path, flfed: Command):
    table = clinics(600)
    table["sex"] = table["sex"].replace("M", "M\nmale") + np.where(np.arange(600) % 3 == 0, "?", "")
    table.rename(columns={"age": "Age\n(years)"}).to_csv("all.csv", index=False)
    assert flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")[0] == 0
    schema = datasets.load("all").schema
    assert list(schema.columns) == ["Age (years)", "sex", "died"]
    assert set(schema.columns["sex"].values) == {"F", "F?", "other"} and "sex" in schema.unconfirmed
    code, out, err = flfed("site", "check", "north", "--json")
    assert code == 0 and json.loads(out)["passed"], err
    table.assign(died=table["died"] + "\n").replace("yes\n", "y\nes").to_csv("two.csv", index=False)
    code, _, err = flfed("data", "new", "two.csv", "--target", "died", "--by", "clinic")
    assert code == 2 and "a class of column 'died' has a line break" in err


def test_a_word_of_others_in_a_comment_is_no_code(folder: Path, flfed: Command):
    # As a schema was before values with line breaks were refused, and for whatever is written beside a mapping later.
    words = "each is one of: no, yes\nimport os; os.abort()\r\u2028raise SystemExit"
    site = Site("west", "ward", Csv("west.csv"), {"died": None}, Holdout(0.2, salt="s"))
    text = site_text(site, {"died": words})
    assert [type(part).__name__ for part in ast.parse(text).body] == ["Expr", "ImportFrom", "Assign"]
    assert '"died": None,  # each is one of: no, yes import os; os.abort() raise SystemExit' in text
    policy = policy_text(replace(site, title="St. Mary's\ndisclosure = 'open'\x07\x85resplit = true"))
    assert tomllib.loads(policy) == {"format": 1, "disclosure": "institution"}


def test_a_folder_that_is_a_file_is_told(folder: Path, flfed: Command):
    clinics().to_csv("all.csv", index=False)
    Path("taken").write_text("mine")
    code, _, err = flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic", "--output", "taken")
    assert code == 2 and "taken: nothing can be written there (Not a directory): give another folder" in err
    assert flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic")[0] == 0
    code, _, err = flfed("site", "new", "west", "--from", "all.csv", "--dataset", "all", "--output", "taken/further")
    assert code == 2 and "nothing can be written there" in err and Path("taken").read_text() == "mine"


@pytest.mark.parametrize(("words", "said"), [
    (["--target", "died", "--by", "clinic", "--group", "Clinic"], "column 'clinic' is named twice"),
    (["--target", "died", "--by", "sex", "--group", "died"], "column 'died' is named twice"),
    (["--target", "dies"], "no column 'dies'"), (["--target", "died", "--by", "ward"], "no column 'ward'"),
    (["--target", "died"], "at least two sites"), (["--target", "died", "--task", "ordinal"], "is not one of"),
    (["--target", "clinic", "--by", "sex", "--task", "binary"], "which is multi-class"),
])  # fmt: skip
def test_a_wrong_wish_is_refused_and_nothing_is_written(folder: Path, flfed: Command, words: list[str], said: str):
    clinics().to_csv("all.csv", index=False)
    code, _, err = flfed("data", "new", "all.csv", *words)
    assert code == 2 and said in err
    assert [path.name for path in folder.iterdir()] == ["all.csv"]


def test_files_without_names_and_files_that_are_none_are_told(folder: Path, flfed: Command):
    clinics().assign(clinic=1, sex=0, died=1).to_csv("bare.csv", index=False, header=False)
    code, _, err = flfed("data", "new", "bare.csv", "--target", "died")
    assert code == 2 and "line 1 looks like a row" in err and "--names" in err
    Path("picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    assert flfed("data", "new", "picture.csv", "--target", "died")[0] == 2
    assert "there is no such file" in flfed("data", "new", "absent.csv", "--target", "died")[2]


def test_a_site_joins_a_dataset_with_a_proposed_mapping(folder: Path, flfed: Command):
    rng = np.random.default_rng(2)
    pd.DataFrame({
        "AGE": rng.integers(30, 80, 90), "Gender": rng.choice(["F", "M"], 90), "chol": rng.integers(150, 320, 90),
        "disease": rng.choice(["absent", "present"], 90), "notes": [f"seen by {number}" for number in range(90)],
    }).to_csv("own.csv", index=False)  # fmt: skip
    code, out, err = flfed("site", "new", "my-clinic", "--from", "own.csv", "--dataset", "heart-disease")
    assert code == 0 and "seen by" not in out and "Not used: notes." in out, err
    wide = pd.read_csv("own.csv").assign(**{f"lab_{number}": number for number in range(30)})
    wide.to_csv("wide.csv", index=False)
    out = flfed("site", "new", "wide-clinic", "--from", "wide.csv", "--dataset", "heart-disease")[1]
    assert "lab_18 and 11 more." in out and "lab_19" not in out
    code, out, err = flfed("site", "check", "my-clinic")
    assert code == 2 and "only 3 of 13 features are mapped: map those that the site has, or set partial=True" in err
    assert out.splitlines()[-1] == "my-clinic does not fit yet; 3 of 13 features are mapped."
    package = Path("sites/my_clinic/__init__.py")
    package.write_text(package.read_text().replace("    mapping=", "    partial=True,\n    mapping="))
    code, out, err = flfed("site", "check", "my-clinic")
    assert code == 0 and "my-clinic fits" in out and out.endswith("3 of 13 features are mapped.\n"), err
    assert 'disclosure = "institution"' in Path("sites/my_clinic/policy.toml").read_text()
    assert flfed("site", "new", "my-clinic", "--from", "own.csv", "--dataset", "heart-disease")[0] == 2
    assert "either --from FILE or --query" in flfed("site", "new", "x", "--dataset", "heart-disease")[2]


def test_a_target_of_another_name_is_proposed_to_be_looked_at_or_asked_for(folder: Path, flfed: Command):
    clinics().to_csv("all.csv", index=False)
    assert flfed("data", "new", "all.csv", "--target", "died", "--by", "clinic", "--name", "ward")[0] == 0
    clinics().drop(columns="clinic").rename(columns={"died": "verstorben"}).to_csv("west.csv", index=False)
    code, out, err = flfed("site", "new", "west", "--from", "west.csv", "--dataset", "ward")
    assert code == 0 and "Check that verstorben is died, the target." in out, err
    assert flfed("site", "check", "west")[0] == 0
    clinics().drop(columns=["clinic", "died"]).to_csv("east.csv", index=False)
    code, out, err = flfed("site", "new", "east", "--from", "east.csv", "--dataset", "ward")
    assert code == 0 and "Enter there the column of died, the target:" in out, err
    assert '"died": None,  # name the column here' in Path("sites/east/__init__.py").read_text()
    code, _, err = flfed("site", "check", "east")
    assert code == 2 and "column 'died' is not in the table" in err


def test_a_column_that_one_table_lacks_is_missing_there_and_other_classes_are_refused(folder: Path, flfed: Command):
    table = clinics().assign(seen=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(400), "D"))
    table["smoker"] = np.arange(400) % 3 == 0
    table[:200].to_parquet("north.parquet")
    table[200:].drop(columns=["seen", "smoker"]).to_csv("south.csv", index=False)
    assert flfed("data", "new", "north.parquet", "south.csv", "--target", "died", "--name", "ward")[0] == 0
    columns = datasets.load("ward").schema.columns
    assert (columns["smoker"].kind, columns["seen"].kind, columns["age"].kind) == ("flag", "date", "number")
    code, out, err = flfed("site", "check", "south")
    assert code == 0 and out.count("missing in every row") == 2, err
    table[200:].replace({"died": {"yes": "1", "no": "0"}}).to_csv("coded.csv", index=False)
    code, _, err = flfed("data", "new", "north.parquet", "coded.csv", "--target", "died", "--name", "other")
    assert code == 2 and "of table 'north' has no value in common with the other tables" in err
    # Amounts need not have a value in common.
    code, _, err = flfed(
        "data", "new", "north.parquet", "coded.csv", "--target", "age", "--name", "amounts", "--output", "more"
    )
    assert code == 0, err


def test_a_new_study_is_one_that_can_be_run(folder: Path, flfed: Command):
    code, out, err = flfed(
        "study", "new", "--dataset", "wine", "--model", "logistic", "--not-private", "--name", "mine"
    )
    assert code == 0, err
    assert "flfed study run mine.toml" in out and "flfed coordinator run mine.toml" in out
    assert tomllib.loads(Path("mine.toml").read_text())["dataset"] == {"name": "wine"}
    three = ("--set", "dataset.partition={by='iid', sites=3}", "--set")
    assert flfed("study", "check", "mine.toml", *three[:2])[0] == 0
    # What excludes sums is said, and can be set without them; a study that is made in Python asks for none.
    code, _, err = flfed("study", "check", "mine.toml", "--set", "codec.name=int8")
    assert code == 2 and "leave one of them out" in err
    without = ("codec.name=int8", "--set", "secure-aggregation=off")
    assert flfed("study", "check", "mine.toml", *three, *without)[0] == 0
    assert Study(dataset="wine", codec={"name": "int8"}).secure_aggregation == "off"
    assert "Missing option '--dataset'" in flfed("study", "new")[2]
    assert flfed("study", "new", "--dataset", "wine")[0] == 0
    made = Study.load("wine-study.toml")
    assert (made.model.name, made.privacy.name) == ("logistic", "none")
    Path("wine-study.toml").unlink()
    assert flfed("study", "new", "--dataset", "wine", "--model", "linear", "--not-private")[0] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["mine.toml"]
    words = ("--dataset", "breast-cancer", "--model", "logistic", "--private", "--name", "private")
    assert flfed("study", "new", *words)[0] == 0
    made = [Study.load(name) for name in ("mine.toml", "private.toml")]
    assert [(one.privacy.name, one.secure_aggregation) for one in made] == [("none", "auto"), ("record-dp", "auto")]


def test_a_first_study_under_one_epsilon_is_written_of_a_model_and_of_counts(folder: Path, flfed: Command):
    assert flfed("study", "new", "--dataset", "breast-cancer", "--covers", "study", "--model", "logistic")[0] == 0
    study = Study.parse(Path("breast-cancer-study.toml").read_text())
    assert study.privacy.settings["covers"] == "study"
    assert flfed("study", "new", "--dataset", "breast-cancer", "--summary")[0] == 0
    table = Study.parse(Path("breast-cancer-table.toml").read_text())
    assert table.analysis is not None and table.analysis.columns is not None
    assert "mean radius" in table.analysis.columns and "what the rows of all sites are like" in table.purpose
    words = ("--dataset", "breast-cancer", "--model", "logistic", "--private", "--covers", "everything")
    assert "must be one of 'updates', 'study'" in flfed("study", "new", *words)[2]


def test_a_study_of_counts_names_the_columns_that_nobody_confirmed(small_sites, tmp_path, flfed: Command):
    small_sites(2)
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    text = schema.read_text()
    words = ("study", "new", "--dataset", "small", "--summary", "--output", tmp_path / "made")
    schema.write_text(text.replace('target = "y"', 'target = "y"\nunconfirmed = ["x1", "colour"]', 1))
    code, out, _ = flfed(*words)
    assert code == 0 and f"2 columns left out, which nobody has confirmed: check them in {schema}, and remove" in out
    table = Study.parse((tmp_path / "made" / "small-table.toml").read_text())
    assert table.analysis is not None and table.analysis.columns == ("x2", "flag", "y")
    # Without a column, nothing is counted, and no study of a model is written in its place.
    schema.write_text(
        text.replace('target = "y"', 'target = "y"\nunconfirmed = ["x1", "x2", "flag", "colour", "y"]', 1)
    )
    code, out, err = flfed(*words, "--name", "another")
    assert (code, out) == (2, "") and "5 columns left out" in err
    schema.write_text(text)
    assert "left out" not in flfed(*words, "--name", "whole")[1]


@pytest.mark.parametrize(("dataset", "options", "settings"), [
    ("heart-flamby", "glm --of age,sex,age*sex", {"family": "binomial", "of": ["age", "sex", "age*sex"]}),
    ("heart-flamby", "glm --of sex --outcome oldpeak", {"family": "gaussian", "of": ["sex"], "outcome": "oldpeak"}),
    ("heart-flamby", "mantel-haenszel --by sex", {"by": "sex"}), ("heart-flamby", "odds-ratio --by fbs", {"by": "fbs"}),
    ("breast-cancer-survival", "cox --time time --of age", {"time": "time", "of": ["age"], "event": "event"}),
    ("breast-cancer-survival", "survival --time time", {"time": "time", "event": "event"}),
])  # fmt: skip
def test_a_new_study_estimates_and_has_what_follows_from_the_schema(
    dataset: str, options: str, settings: dict[str, Any], folder: Path, flfed: Command
):
    code, out, err = flfed("study", "new", "--dataset", dataset, "--estimate", *options.split(), "--name", "mine")
    assert code == 0 and "policy" not in out, err
    text = Path("mine.toml").read_text()
    study = tomllib.loads(text)
    assert study["statistic"] == {"name": options.split()[0], **settings} and "privacy" not in study
    lines = text.partition("[statistic]\n")[2].splitlines()
    assert all("  # " in line for line in lines)
    # One table is cut into sites.
    assert ("partition" in study["dataset"]) == (dataset == "breast-cancer-survival")


def test_a_new_study_of_institutions_estimates_in_secure_sums(folder: Path, flfed: Command):
    table = clinics().assign(ill=np.arange(400) % 3 == 0)
    for place, name in enumerate(("north", "south", "west")):
        table[place * 130 : place * 130 + 130].to_csv(f"{name}.csv", index=False)
    files = ("north.csv", "south.csv", "west.csv")
    assert flfed("data", "new", *files, "--target", "died", "--name", "ward")[0] == 0
    code, out, err = flfed("study", "new", "--dataset", "ward", "--estimate", "glm", "--of", "age,sex")
    assert code == 0 and 'outputs = ["single-cells-in-sums"]' in out, err
    assert tomllib.loads(Path("ward-glm.toml").read_text())["privacy"] == {"secure-aggregation": "on"}
    for name in ("north", "south", "west"):
        with Path("sites", name, "policy.toml").open("a") as policy:
            policy.write('outputs = ["single-cells-in-sums"]\n')
    assert flfed("study", "check", "ward-glm.toml")[0] == 0
    code, out, err = flfed("study", "run", "ward-glm.toml", "--json")
    assert code == 0 and set(json.loads(out)["statistics"]["coefficients"]) == {"intercept", "age", "sex=M"}, err


@pytest.mark.parametrize(("options", "says"), [
    ("--of age", "--of is for a statistic: add --estimate"), ("--estimate gml --of age", "did you mean 'glm'?"),
    ("--estimate glm", "needs --of (columns, separated by commas); columns of heart-flamby: age, sex,"),
    ("--estimate glm --of age,sexx", "of names 'sexx'"), ("--estimate glm --of age --outcome oldpek", "'oldpeak'?"),
    ("--estimate glm --of age --model mlp", "leave out --model"), ("--estimate cox --of sex --time day", "time='day'"),
    ("--estimate cox --of age", "needs --time (time until the event: a number from 0 on); columns of heart-flamby: "),
    ("--estimate odds-ratio", "needs --by (two groups: a flag, or a category of two values); columns of heart-flamby:"),
    ("--estimate odds-ratio --by sex --of age", "takes no --of, but --by"),
    ("--dataset wine --estimate survival --time alcohol", "does not fit wine, which has no column for --event"),
])  # fmt: skip
def test_a_statistic_without_what_it_needs_is_refused_in_a_sentence(
    options: str, says: str, folder: Path, flfed: Command
):
    code, _, err = flfed("study", "new", "--dataset", "heart-flamby", *options.split())
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert not list(folder.iterdir())
