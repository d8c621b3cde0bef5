"""`flfed data new` over a dataset that is there: holdouts and policies stay, and sites take part again."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets, site_discovery

Command = Callable[..., Any]
NEW = ("data", "new", "own.csv", "--target", "died", "--by", "site")
SITES = ("north", "south", "west")


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The table of three institutions, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(9), 900
    age = rng.normal(60, 10, rows).round()
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(-0.1 * (age - 62))), "yes", "no")
    table = pd.DataFrame({
        "age": age.astype(int), "pressure": rng.normal(130, 15, rows).round(1),
        "seen": pd.date_range("2020-01-01", periods=rows).astype(str),
        "autopsy": np.where((died == "yes") & (rng.random(rows) < 0.5), "1", "0"), "died": died,
        "site": rng.choice(SITES, rows),
    })  # fmt: skip
    table.to_csv("own.csv", index=False)
    return table


QUICK = ("--set", "compare.site-model=same", "--set", "compare.resamples=200")


def words(said: str) -> str:
    return " ".join(said.split())


def salts(folder: str = ".") -> list[Any]:
    return [site_discovery.of_folder(Path(folder) / "sites" / name).holdout for name in SITES]


def run(flfed: Command, folder: str = ".") -> tuple[set[str], str]:
    """Return who took part in a run of the first study, and what is said of the run."""
    code, out, err = flfed("study", "run", f"{folder}/own-first.toml", "--set", "rounds=2", *QUICK, "--json")
    assert code == 0, err
    return set(json.loads(out)["sites"]), flfed("run", "show", "latest")[1]


@pytest.mark.studies
def test_a_dataset_that_is_written_again_keeps_its_holdouts_and_every_site_takes_part(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    before = salts()
    took_part, said = run(flfed)
    assert took_part == set(SITES) and "sites took part" not in said
    Path("sites/south/policy.toml").write_text('format = 1\ndisclosure = "institution"\ncell-minimum = 12\n')
    code, _, err = flfed(*NEW, "--keep", "autopsy")
    assert code == 2 and "or --replace it" in err
    code, out, err = flfed(*NEW, "--keep", "autopsy", "--replace")
    assert code == 0, err
    assert (
        "At 3 sites the holdout keeps its salt, or its date, so that no training row" in words(out)
        and "change sides" not in out
    )
    assert salts() == before and "autopsy" in datasets.load("own").schema.features()
    assert site_discovery.load("south").policy.cell_minimum == 12
    assert run(flfed)[0] == set(SITES)


def test_a_range_that_a_person_wrote_stays_in_a_copy_beside_the_new_schema(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    schema = Path("datasets/own/schema.toml")
    drafted = schema.read_text()
    edited = re.sub(r"range = .*", "range = [18, 110]  # of people", drafted, count=1)
    schema.write_text(edited)
    code, out, err = flfed(*NEW, "--replace", "--json")
    copies = list(Path().rglob("*.before-*"))
    assert code == 0 and list(map(str, copies)) == ["datasets/own/schema.toml.before-1"], err
    assert copies[0].read_text() == edited and schema.read_text() == drafted
    assert str(copies[0].resolve()) in [str(Path(path).resolve()) for path in json.loads(out)["files"]]
    # Nothing changes, so there is no further copy.
    assert "Earlier text" not in flfed(*NEW, "--replace")[1] and len(list(Path().rglob("*.before-*"))) == 1
    schema.write_text(edited)
    assert "Earlier text stays in datasets/own/schema.toml.before-2." in words(flfed(*NEW, "--replace")[1])


@pytest.mark.studies
def test_small_sites_would_refuse_with_another_salt(ward, flfed: Command):
    names = [f"clinic {number}" for number in range(8)]
    ward[:440].assign(site=np.resize(names, 440)).to_csv("own.csv", index=False)
    assert flfed(*NEW)[0] == 0
    took_part, _ = run(flfed)
    assert len(took_part) == 8
    assert flfed(*NEW, "--keep", "autopsy", "--replace")[0] == 0
    again, said = run(flfed)
    assert again == took_part and "sites took part" not in said


def test_into_another_folder_the_holdout_of_the_same_file_is_kept_too(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    code, out, err = flfed(*NEW, "--output", "other", "--name", "other", "--json")
    assert code == 0, err
    assert salts("other") == salts() and json.loads(out)["unchanged-holdouts"] == list(SITES)
    ward.to_csv("more.csv", index=False)
    code, out, _ = flfed("data", "new", "more.csv", *NEW[3:], "--output", "more", "--json")
    assert code == 0 and json.loads(out)["unchanged-holdouts"] == [] and salts("more") != salts()


def test_where_other_columns_are_read_it_is_said_that_rows_change_sides(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    assert run(flfed)[0] == set(SITES)
    code, out, _ = flfed(*NEW, "--drop", "pressure", "--replace")
    assert (
        code == 0
        and "In 3 sites rows change sides nevertheless" in words(out)
        and "so that no training row" not in words(out)
    )
    # By a date each row stays where it is, whatever columns are read.
    time = ("--time", "seen", "--output", "time", "--name", "time")
    assert flfed(*NEW, *time)[0] == 0
    before = salts("time")
    code, out, _ = flfed(*NEW, *time, "--drop", "pressure", "--replace", "--json")
    found = json.loads(out)
    assert code == 0 and salts("time") == before
    assert found["unchanged-holdouts"] == list(SITES) and found["moved-holdouts"] == []


@pytest.mark.studies
def test_of_a_run_from_which_a_site_stays_away_that_is_said_first(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    run(flfed)
    # Of twelve rows fewer than the cell minimum are held out.
    ward.drop(index=ward.index[ward["site"] == "north"][12:]).to_csv("own.csv", index=False)
    _, _, err = flfed("study", "run", "own-first.toml", "--set", "rounds=3", *QUICK)
    out = flfed("run", "show", "latest")[1]
    assert out.splitlines()[1].startswith("2 of 3 sites took part"), out + err
    assert flfed("run", "report", "latest", "--output", "page.html")[0] == 0
    page = Path("page.html").read_text()
    assert "<strong>2 of 3 sites took part" in page


def test_sites_that_are_made_no_longer_are_named(ward, flfed: Command):
    assert flfed(*NEW)[0] == 0
    ward[ward["site"] != "west"].to_csv("own.csv", index=False)
    code, out, _ = flfed(*NEW, "--replace")
    assert code == 0 and "Earlier sites of this dataset without a table now: west." in " ".join(out.split())


def test_only_columns_that_can_be_kept_are_offered(ward, flfed: Command):
    rng = np.random.default_rng(1)
    notes = [" ".join(rng.choice(["fell", "felt", "saw", "went", "slept"], 14)) for _ in range(len(ward))]
    names = rng.choice(
        [f"{first} {last}" for first in ("Ann", "Bob", "Cy") for last in ("Roe", "Lee", "Poe")], len(ward)
    )
    codes = [f"K-{number:05d}" for number in rng.permutation(len(ward))]
    ward.assign(note=notes, doctor=names, code=codes, wardid=rng.integers(1, 40, len(ward)) ** 2).to_csv("own.csv")
    code, out, err = flfed(*NEW)
    assert code == 0, err
    said = " ".join(out.split())
    offered = said.partition("Not among the features: ")[2].partition(".")[0].split(", ")
    assert offered == ["wardid", "autopsy"] and "--keep COLUMN, together with --replace or another --output." in said
    assert "No features, since all values are identifiers, names or texts: " in said
    for name in offered:
        assert flfed(*NEW, "--keep", name, "--output", f"with-{name}")[0] == 0
    for name in ("note", "code"):
        code, _, err = flfed(*NEW, "--keep", name, "--output", f"with-{name}")
        assert code == 2 and "is unusable as a feature" in err
