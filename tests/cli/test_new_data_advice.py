"""What `flfed data new` and `flfed site check` advise where a table is not as it should be, with counts and no cell."""

import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed import Policy, Study, UsageError, federate, run
from flfed.federation.engines.engine import find_sites
from flfed.records.reports.narrative import untold_in_words
from flfed.rows.data import site_discovery
from flfed.rows.data.parsing.fields import looks_like_row
from flfed.rows.data.site import redraws

Command = Callable[..., Any]
ROWS = 300
NEW = ("data", "new", "own.csv", "--target", "died", "--by", "site")


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The table of two institutions, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    return pd.DataFrame({
        "who": rng.choice(["walker", "resident"], ROWS), "age": rng.integers(20, 90, ROWS),
        "pressure": rng.normal(130, 15, ROWS).round(1), "sex": rng.choice(["Male", "Female"], ROWS),
        "died": rng.choice(["yes", "no"], ROWS), "site": np.resize(["north", "south"], ROWS),
    })  # fmt: skip


def words(*parts: str) -> str:
    return " ".join(" ".join(parts).split())


@pytest.mark.parametrize(("column", "cells", "said"), [
    ("id", np.arange(ROWS), "has 300 values of one row each, and a site needs 50"),
    ("id", np.arange(ROWS) // 30, "has 10 values of 30 rows at most, and a site needs 50"),
    ("id", np.full(ROWS, 7), "has one value only, and a study needs two sites"),
    ("id", np.r_[np.zeros(280), np.arange(1, 21)], "only one of the 21 values of column 'id' has the 50 rows"),
])  # fmt: skip
def test_a_column_that_makes_no_two_sites_is_told_with_its_values(ward, flfed: Command, column, cells, said):
    ward.assign(**{column: cells.astype(int)}).to_csv("own.csv", index=False)
    code, _, err = flfed("data", "new", "own.csv", "--target", "died", "--by", column)
    assert code == 2 and said in err and "name a column with one value for each institution" in err


def sheets(table: pd.DataFrame, above: int = 0, cover: Sequence[str] = ("made in May",)) -> None:
    """Write a workbook whose first sheet is a cover, and its table below some lines."""
    with pd.ExcelWriter("own.xlsx") as book:
        if not above:
            pd.DataFrame({"Clinic export": list(cover)}).to_excel(book, sheet_name="cover", index=False)
        table.to_excel(book, sheet_name="rows", index=False, startrow=above)
        if above:
            book.sheets["rows"].cell(1, 1, "Clinic export")


def test_a_workbook_with_a_cover_is_read_once_its_sheet_is_named(ward, flfed: Command):
    sheets(ward)
    new = ("data", "new", "own.xlsx", "--target", "died", "--by", "site")
    code, _, err = flfed(*new)
    assert code == 2 and "the first sheet was read, of 'cover', 'rows': name the right one with --sheet" in err
    assert flfed(*new, "--sheet", "rows")[0] == 0
    assert 'sheet="rows"' in Path("sites/north/__init__.py").read_text()
    assert flfed("site", "check", "north")[0] == 0
    more = ("site", "new", "east", "--from", "own.xlsx", "--dataset", "own", "--sheet", "rows")
    assert flfed(*more)[0] == 0 and 'sheet="rows"' in Path("sites/east/__init__.py").read_text()
    first = "the first sheet was read, of 'cover', 'rows': name the right one with --sheet"
    code, _, err = flfed("site", "new", "west", *more[3:-2])
    assert code == 2 and first in err and not Path("sites/west/__init__.py").exists()
    sheets(ward, cover=[])
    for command in (new, ("site", "new", "west", *more[3:-2])):
        code, _, err = flfed(*command)
        assert code == 2 and f"it has no rows: {first}" in err
    sheets(ward, above=3)
    for command in ((*new, "--replace"), ("site", "new", "west", *more[3:-2])):
        code, out, err = flfed(*command)
        assert code == 0 and "skips 3 lines above the names of columns (--skip N sets how many)" in words(out), err
    assert "skip=3" in Path("sites/north/__init__.py").read_text() and flfed("site", "check", "north")[0] == 0
    package = Path("sites/west/__init__.py")
    package.write_text(package.read_text().replace(", skip=3", ""))
    assert (
        "the names are 3 lines further down: remove the lines above them, or set skip=3"
        in flfed("site", "check", "west")[2]
    )


def written(lines: list[str]) -> None:
    Path("own.csv").write_text("\n".join(lines) + "\n")


FOREIGN = {
    "comment": (lambda lines: [*lines[:150], "# checked, by, the, ward, again,", *lines[150:]], "row 150 is a comment"),
    "header": (lambda lines: [*lines[:150], lines[0], *lines[150:]], "row 150 repeats the names of the columns"),
    "sum": (lambda lines: [*lines, "Total,16000,39000,,,"], "row 301, at the end, holds sums or counts: remove it"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_row_that_is_none_is_named_by_its_number(ward, flfed: Command, what):
    change, said = FOREIGN[what]
    lines = ward.to_csv(index=False).splitlines()
    written(lines)
    assert flfed(*NEW)[0] == 0
    code, out, err = flfed("site", "check", "north")
    assert code == 0 and "remove it" not in out
    # A file of one site: rows are numbered as in the file.
    package = Path("sites/north/__init__.py")
    package.write_text(package.read_text().replace(", prepare=rows_of_site", ""))
    written(change(lines))
    code, out, err = flfed("site", "check", "north")
    assert code == 2 and said in words(out, err), out + err
    assert err.partition("dataset 'own': ")[2].startswith(said) and "39000" not in out + err
    code, out, err = flfed(*NEW, "--output", "again", "--name", "again")
    assert code == 0 and f"own: {said}" in words(out), out + err


def test_sound_tables_have_no_row_that_is_none(ward, flfed: Command):
    who = np.where(np.arange(ROWS) % 5 == 0, "#walker", ward["who"])
    ward = ward.assign(who=who, kind=np.resize(["total", "T3"], ROWS))
    ward.to_csv("own.csv", index=False)
    code, out, err = flfed(*NEW)
    assert code == 0 and "remove it" not in out, err


def test_values_in_two_cases_are_counted_with_the_remedy(ward, flfed: Command):
    sex = ward["sex"].mask(np.arange(ROWS) < 80, ward["sex"].str.lower()).mask(np.arange(ROWS) > 280, "MALE")
    ward.assign(sex=sex).to_csv("own.csv", index=False)
    code, out, err = flfed(*NEW)
    assert code == 0 and "99 rows have a value that differs from a more frequent one only in case" in words(out), err
    code, out, _ = flfed("site", "check", "north")
    assert code == 0 and "rows have a value that differs from another only in case or blanks" in words(out)
    # A site that writes a value in another case than the schema.
    ward.to_csv("own.csv", index=False)
    assert flfed(*NEW, "--replace")[0] == 0
    ward.assign(sex=ward["sex"].str.upper()).to_csv("own.csv", index=False)
    code, out, err = flfed("site", "check", "north")
    assert code == 2 and "150 rows have one of its values in another case" in words(out) and "Field('sex'" in words(out)


def test_one_class_is_no_pass(ward, flfed: Command):
    died = ward["died"].mask((ward["site"] == "north"), "no")
    ward.assign(died=died).to_csv("own.csv", index=False)
    assert flfed(*NEW)[0] == 0
    code, out, _ = flfed("site", "check", "north", "--json")
    assert code == 0
    line = next(line for line in json.loads(out)["columns"] if "one class only" in line["detail"])
    assert line["column"] == "died" and line["note"] and "mapped to this one?" in line["detail"]


def test_codes_are_named_with_their_counts(ward, flfed: Command):
    age = ward["age"].mask(np.arange(ROWS) % 20 == 3, -1).mask(np.arange(ROWS) % 20 == 7, 999)
    died = ward["died"].map({"yes": "1", "no": "0"}).mask(np.arange(ROWS) % 20 == 9, "9")
    ward.assign(age=age, died=died).to_csv("own.csv", index=False)
    code, out, err = flfed(*NEW)
    said = words(out)
    assert code == 0 and "999 (15 rows) counts as 'not known': it is far from all others" in said, err
    assert "-1 (15 rows) counts as 'not known': it is the only value below 0" in said
    assert "codes for 'not known': '9' (15 rows)" in said


def test_sites_are_no_words_for_not_known(ward, flfed: Command):
    ward.assign(site=np.resize(["north", "south", "?"], ROWS)).to_csv("own.csv", index=False)
    code, out, err = flfed(*NEW)
    assert code == 0 and "100 rows belong to no site" in words(out), err
    assert sorted(path.name for path in Path("sites").iterdir()) == ["north", "south"]
    few = np.where(
        np.arange(ROWS) % 4 == 3, np.resize([f"v{n}" for n in range(25)], ROWS), np.resize(["a", "?", "b", ""], ROWS)
    )
    ward.assign(site=few).to_csv("own.csv", index=False)
    assert flfed(*NEW, "--output", "more")[0] == 0
    assert "'?'" in Path("more/sites/other/__init__.py").read_text()


def bare(people: Sequence[str], *others: Sequence[str] | None, rows: int = 120) -> list[str]:
    """Return lines without names; None stands for a number and "" for a date."""
    rng = np.random.default_rng(5)
    made = {
        None: rng.integers(20, 90, rows),
        "": [f"19{year}-0{year % 9 + 1}-17" for year in rng.integers(30, 99, rows)],
    }
    columns = [rng.choice(of, rows) if of else made[of] for of in (people, *others, ["yes", "no"])]
    columns[0][0] = people[0]
    return [",".join(map(str, row)) for row in zip(*columns, strict=True)]


PEOPLE = ["Mustermann", "Hofstetter", "Zbinden", "Okonkwo"]
BARE = {
    "words": (PEOPLE, ["male", "female"], ["sepsis", "stroke"], ["ward-a", "icu"]),
    "a number": (PEOPLE, ["male", "female"], None, ["ward-a", "icu"]),
    "a date": (PEOPLE, "", ["sepsis", "stroke"]),
    "codes": ([f"P-{place:04}" for place in range(7, 900, 8)], ["I21.4", "J18.9", "A41.9"], ["K", "M"]),
}


@pytest.mark.parametrize("columns", BARE.values(), ids=BARE)
def test_the_first_patient_of_a_file_without_names_is_no_heading(tmp_path, monkeypatch, flfed: Command, columns):
    monkeypatch.chdir(tmp_path)
    lines = bare(*columns)
    cells = lines[0].split(",")
    long = [cell for cell in cells if len(cell) > 3]
    for name in ("north", "south"):
        Path(f"{name}.csv").write_text("\n".join([*lines, lines[3]]) + "\n")
    new = ("data", "new", "north.csv", "south.csv", "--name", "bare")
    code, out, err = flfed(*new, "--target", cells[-1])
    assert code == 2 and "line 1 looks like a row" in err and "--names" in err, out
    assert not any(cell in out + err for cell in long) and not list(tmp_path.rglob("*.toml"))
    names = ["name", *"abcd"[: len(cells) - 2], "died"]
    code, out, err = flfed(*new, "--target", "died", "--names", ",".join(names))
    assert code == 0, err
    # A column that says "name" has none of its texts in the schema.
    assert PEOPLE[0] not in "".join(path.read_text() for path in tmp_path.rglob("*.toml"))
    # The same lines below their names are a table as any.
    Path("north.csv").write_text("\n".join([",".join(names), *lines]))
    assert not looks_like_row(pd.read_csv("north.csv"))


@pytest.mark.parametrize("door", ["new", "map", "check", "excel", "federate"])
def test_no_door_shows_a_first_row_that_was_read_as_names(ward, flfed: Command, door):
    ward.to_csv("own.csv", index=False)
    assert flfed(*NEW)[0] == 0 and flfed("site", "new", "west", "--from", "own.csv", "--dataset", "own")[0] == 0
    lines = bare(*BARE["a number"])
    Path("own.csv").write_text("\n".join(lines))
    table = pd.read_csv("own.csv")
    table.to_excel("own.xlsx", index=False)
    commands = {
        "new": ("site", "new", "east", "--from", "own.csv", "--dataset", "own"), "map": ("site", "map", "west"),
        "check": ("site", "check", "west"), "excel": ("data", "new", "own.xlsx", "--target", "yes", "--by", "male"),
    }  # fmt: skip
    if door == "federate":
        with pytest.raises(UsageError) as error:
            federate({"north": table, "south": table}, lines[0].split(",")[-1])
        said = str(error.value)
    else:
        code, out, err = flfed(*commands[door])
        said = words(out, err)
        assert code == 2
    assert "line 1 looks like a row" in said and PEOPLE[0] not in said, said


def test_a_heading_like_a_cell_is_shown_by_its_place(ward, flfed: Command):
    # One heading that is also a cell makes no row, and is perhaps one nevertheless.
    ward.to_csv("own.csv", index=False)
    assert flfed(*NEW)[0] == 0
    ward.assign(shift=np.resize(["shift", "Roe"], ROWS)).rename(columns={"who": "resident"}).to_csv(
        "own.csv", index=False
    )
    code, out, err = flfed("site", "new", "west", "--from", "own.csv", "--dataset", "own")
    assert code == 0 and "Not used: column 1, site, column 7." in words(out), out + err


@pytest.mark.parametrize(("names", "cells"), [
    (["id", "2019", "2020", "2021", "2022", "died"], [["a1", 7, 8, 7, 9, "no"], ["a2", 1, 4, 6, 2, "yes"]]),
    (["age", "sex", "died"], [[61, "m", "no"], [48, "f", "yes"], ["age", "sex", "died"]]),
    (["fraud", "amount"], [["fraud", 61.5], ["fine", 7.25]]), ([0, 1, 2], [[1, 5, 7], [2, 4, 0]]),
    (["age", "copd", "asthma", "HIV"], [[61, "copd", "", None], [48, "", "asthma", "HIV"]]),
    (["died", "400.50", "401.87", "403.24", "404.61"], [["no", 0.12, 0.11, 0.31, 0.2], ["yes", 0.1, 0.4, 0.2, 0.9]]),
])  # fmt: skip
def test_headings_that_are_like_cells_may_be_headings(names, cells):
    assert not looks_like_row(pd.DataFrame(cells * 20, columns=names))


def test_names_that_look_like_cells_are_kept_or_replaced_by_the_remedy_that_is_told(ward, flfed: Command):
    codes = ["250.00", "401.9", "428.0", "585.9", "272.4", "414.01"]
    table = ward.assign(**{code: np.resize([0, 1, 1], ROWS) for code in codes})[[*codes, "died", "site"]]
    table.to_parquet("own.parquet")
    assert flfed("data", "new", "own.parquet", *NEW[3:])[0] == 0
    table.to_csv("own.csv", index=False)
    names = ("--names", ",".join(table), "--replace")
    code, _, err = flfed(*NEW)
    assert code == 2 and "with --names" in err and "If it holds names, add --skip 1 (skip=1)" in err
    assert "its first line holds the names: leave columns out (--names), or skip that line" in flfed(*NEW, *names)[2]
    assert flfed(*NEW, *names, "--skip", "1")[0] == 0


ABOVE = {
    "a title": ["Clinic 7, export"], "padded": ["Export,,,,,", ",,,,,", "from,2024-01-01,,,,"], "Excel": ["sep=,"],
    "comments": ["# made by, a program, on Monday", "# of Roe"],
}  # fmt: skip


@pytest.mark.parametrize("above", ABOVE.values(), ids=ABOVE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_above_the_names_are_skipped_and_named(ward, flfed: Command, above, encoding):
    lines = ward.to_csv(index=False).splitlines()
    Path("own.csv").write_text("\n".join([*above, *lines]) + "\n", encoding=encoding)
    code, out, err = flfed(*NEW)
    skipped = f"skips {len(above)} line{'s' if above[1:] else ''} above the names of columns"
    assert code == 0 and skipped in words(out) and not any(line and line in out for line in above), out + err
    assert flfed("site", "check", "north")[0] == 0
    package = Path("sites/north/__init__.py")
    package.write_text(package.read_text().replace(", prepare=rows_of_site", ""))
    assert flfed("site", "check", "north")[0] == 0  # by the fast reader
    site = site_discovery.load("north")
    assert len(site.source.read(())) == ROWS == sum(map(len, site.source.batches((), 70)))
    german = ward.drop(columns="who").to_csv(index=False, sep=";", decimal=",").splitlines()
    Path("own.csv").write_text("\n".join([*above, *german]), encoding=encoding)
    assert flfed(*NEW, "--output", "german")[0] == 0
    assert f'separator=";", skip={len(above)}' in re.sub(
        ' encoding="[^"]*",', "", Path("german/sites/north/__init__.py").read_text()
    )
    # A fault below them is named by its line in the file, and --skip decides.
    Path("own.csv").write_text("\n".join([*above, *lines, "Total,7"]) + "\n", encoding=encoding)
    assert f"line {len(above) + ROWS + 2}, behind the last row" in flfed("site", "check", "north")[2]
    Path("own.csv").write_text("\n".join([*above, *lines]) + "\n", encoding=encoding)
    assert flfed(*NEW, "--skip", "0", "--output", "more")[0] == 2
    assert flfed(*NEW, "--skip", len(above), "--output", "more")[0] == 0


@pytest.mark.parametrize(("names", "row"), [
    ("#,age,site,died,remark", "{0},{1},{2},{3},"), ("age,site,died" + "," * 8, "{1},{2},{3}" + ",1.5" * 8),
])  # fmt: skip
def test_names_with_a_hash_or_with_gaps_are_read(ward, flfed: Command, names, row):
    Path("own.csv").write_text("\n".join([names, *(row.format(*cells) for cells in
        zip(range(ROWS), ward["age"], ward["site"], ward["died"], strict=True))]))  # fmt: skip
    code, out, err = flfed(*NEW)
    assert code == 0 and "skips" not in out and "age" in out, err


def test_all_faults_of_all_files_are_told_at_once(ward, flfed: Command):
    ward.to_csv("own.csv", index=False)
    Path("a.csv").write_text("\n".join(bare(*BARE["words"])))
    Path("b.csv").write_text("age,died\n54,no\n61\n")
    ward.rename(columns={"died": "Tod"}).to_csv("c.csv", index=False)
    ward.assign(Age=1).rename(columns={"died": "exitus"}).to_csv("d.csv", index=False)
    code, _, err = flfed("data", "new", "own.csv", "a.csv", "b.csv", "none.csv", "--target", "died")
    faults = ("(1) table 'a.csv': line 1 looks", "b.csv: cannot be read as CSV", "(3) none.csv: there is no such file")
    assert code == 2 and all(fault in err for fault in faults) and PEOPLE[0] not in err
    code, _, err = flfed("data", "new", "own.csv", "c.csv", "--target", "died", "--group", "who_", "--time", "when")
    assert code == 2 and "target: no column 'died' at 'c': add it" in err
    code, _, err = flfed("data", "new", "c.csv", "d.csv", "d.csv", "--target", "died")
    assert code == 2 and err.count("table 'd' has the columns 'age' and 'Age'") == 2


PUBLIC = "--public"


@pytest.mark.parametrize(("words", "again", "resplits"), [
    ([], [], False),
    ([PUBLIC], [], True),
    ([PUBLIC, "--time", "day"], [], False),  # the same days are held out in each repeat
    ([], ["--replace", PUBLIC], False),  # policies stay
    ([PUBLIC], ["--replace"], True),
])  # fmt: skip
def test_repeats_are_advised_only_where_they_have_other_test_rows(ward, flfed: Command, words, again, resplits):
    ward.assign(day=pd.date_range("2020-01-01", periods=ROWS).astype(str)).to_csv("own.csv", index=False)
    code, out, err = flfed(*NEW, *words)
    assert code == 0, err
    if again:
        out = flfed(*NEW, *again)[1]
    assert ("flfed study run own-first.toml --repeats 3 &&" in out) == resplits
    sites = find_sites(Study.load("own-first.toml"))
    assert {redraws(Study.load("own-first.toml"), site) for site in sites} == {resplits}
    policies = {Path(f"sites/{site.name}/policy.toml").read_text() for site in sites}
    assert all(("resplit = true" in policy) == resplits for policy in policies)
    is_open = all('\ndisclosure = "open"' in policy for policy in policies)
    assert ("Policies withhold figures of few rows, also from you" in out) == (not is_open)
    power = json.loads(flfed("study", "power", "own-first.toml", "--repeats", "10", "--json")[1])
    assert power["repeats"] == (10 if resplits else 1)


def test_a_run_here_says_that_policies_withhold_figures_and_how_to_see_them(small_sites, small_study, flfed: Command):
    def rare(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(y=np.where(np.arange(len(table)) % 20, "no", "yes")) if number else table

    report = run(Study.parse(small_study), sites=small_sites(3, rows=150, policy=Policy(), change=rare)).report
    out = words(flfed("run", "show", report["run"])[1])
    assert "2 sites withheld figures of few rows by policy, though all tables are on this machine." in out
    assert untold_in_words(report | {"engine": "deployment"}, "roc_auc_score") == []
    open_sites = small_sites(3, rows=150, policy=Policy(disclosure="open"), change=rare)
    report = run(Study.parse(small_study), sites=open_sites).report
    assert "withheld" not in " ".join(untold_in_words(report, "roc_auc_score"))


def test_what_excel_hides_what_is_empty_and_what_ends_with_the_outcome_is_told(ward, flfed: Command):
    table = ward.assign(
        lab=np.where(np.arange(ROWS) % 2, ward["pressure"], np.nan), follow_up_days=np.resize(range(4, 285), ROWS)
    )
    with pd.ExcelWriter("own.xlsx") as book:
        table.to_excel(book, sheet_name="rows", index=False)
        for row in range(51, 251):
            book.sheets["rows"].row_dimensions[row].hidden = True
    code, out, err = flfed("data", "new", "own.xlsx", *NEW[3:])
    said = words(out)
    assert code == 0 and "own: 200 rows of the sheet are hidden in Excel" in said, err
    assert "its values are numbers; 50 % of its cells are empty" in said
    assert "follow_up_days number look its values are numbers; LEFT OUT, possible leak: its name is that of a" in said
    assert flfed("data", "new", "own.xlsx", *NEW[3:], "--keep", "follow_up_days", "--output", "kept")[0] == 0
    assert "200 rows of the sheet are hidden" in words(flfed("site", "check", "north")[1])
    with zipfile.ZipFile("own.zip", "w") as archive:
        archive.write("own.xlsx")
    assert "own.zip: it is a workbook of Excel: unpack it" in flfed("data", "new", "own.zip", *NEW[3:])[2]


def test_numbers_with_signs_are_named_with_file_pattern_and_remedy(ward, flfed: Command):
    cost = [f"€ {amount:.2f}".replace(".", ",") for amount in ward["pressure"]]
    ward.assign(cost=cost, share=[f"{age} %" for age in ward["age"]]).to_csv("own.csv", index=False)
    said = "numbers stand with a sign in the columns 'cost' (€ 9,9), 'share' (9 %): have the export write plain numbers"
    code, out, err = flfed(*NEW)
    assert code == 0 and f"own: {said}" in words(out), err
    said = words(flfed("site", "check", "north")[1])
    assert "with a sign in the columns 'share' (9 %): have the export" in said  # nobody reads the costs
    # Signs are no reason for a refusal.
    ward.assign(cost=cost, share="7 %", age="Roe").to_csv("own.csv", index=False)
    code, out, err = flfed("site", "check", "north")
    assert code == 2 and "column 'age' is not a number" in words(err) and "sign" not in words(out, err)


@pytest.mark.parametrize("forms", [["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"], ["%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d"]])
def test_three_formats_of_dates_in_three_files_are_dates(ward, flfed: Command, forms):
    seen = pd.date_range("2024-01-01", periods=ROWS)
    for place, form in enumerate(forms):
        rows = slice(place * 100, place * 100 + 100)
        ward.assign(seen=seen.strftime(form), site="")[rows].to_csv(f"s{place}.csv", index=False)
    new = ("data", "new", "s0.csv", "s1.csv", "s2.csv", "--target", "died", "--name", "dates")
    code, out, err = flfed(*new, "--json")
    column = next(line for line in json.loads(out)["columns"] if line["column"] == "seen")
    assert code == 0 and (column["kind"], column["sure"]) == ("date", True), err
    assert flfed(*new, "--time", "seen", "--output", "by-time")[0] == 0
    read = [site_discovery.load(f"s{place}").inspect()[0]["seen"] for place in range(3)]
    assert sorted(pd.concat(read)) == list(seen)
    assert 'test_from="2024-07-29"' in Path("by-time/sites/s0/__init__.py").read_text()
