"""CSV, Parquet and SQL of the same rows are the same site; what cannot be read is said without a cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from flfed import run
from flfed.errors import UsageError
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Frame, Parquet, Source, Sql, find_file
from flfed.rows.proposals.own_tables import source_of

CANARY = "Canary-Jane-Roe-8842"
QUERY = "SELECT * FROM patients"


def as_csv(table: pd.DataFrame, folder: Path, name: str) -> Source:
    table.to_csv(folder / f"{name}.csv", index=False)
    return Csv(f"{name}.csv")


def as_semicolon_csv(table: pd.DataFrame, folder: Path, name: str) -> Source:
    """Write what a German spreadsheet would: a byte order mark, semicolons, decimal commas."""
    table.to_csv(folder / f"{name}.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig", na_rep="?")
    return Csv(f"{name}.csv", separator=";", missing=("?",))


def as_parquet(table: pd.DataFrame, folder: Path, name: str) -> Source:
    table.astype({"colour": "category", "flag": "Int64"}).to_parquet(folder / f"{name}.parquet")
    return Parquet(f"{name}.parquet")


def as_sql(table: pd.DataFrame, folder: Path, name: str, patch: pytest.MonkeyPatch) -> Source:
    url = f"sqlite:///{folder / name}.db"
    engine = sqlalchemy.create_engine(url)
    table.sample(frac=1.0, random_state=1).to_sql("patients", engine, index=False)
    engine.dispose()
    variable = f"URL_OF_{name.upper().replace('-', '_')}"
    patch.setenv(variable, url)
    return Sql(QUERY, url_variable=variable)


def stored(sites: list[Site], kind: str, folder: Path, patch: pytest.MonkeyPatch) -> list[Site]:
    """Return the same sites with their tables written out as `kind`."""
    place = folder / kind
    place.mkdir()
    writers = {"csv": as_csv, "semicolons": as_semicolon_csv, "parquet": as_parquet}
    found = []
    for site in sites:
        table = site.source.read(())
        source = as_sql(table, place, site.name, patch) if kind == "sql" else writers[kind](table, place, site.name)
        commas = {name: Field(name, decimal=",") for name in ("x1", "x2")}
        found.append(replace(site, source=source, folder=place, mapping=commas if kind == "semicolons" else {}))
    return found


@pytest.fixture
def four_kinds(small_sites, tmp_path, monkeypatch) -> dict[str, list[Site]]:
    """The same two sites in memory, as CSV, as a spreadsheet's CSV, as Parquet and in SQLite."""
    sites = small_sites(2, rows=70)
    kinds = ("csv", "semicolons", "parquet", "sql")
    return {"frame": sites, **{kind: stored(sites, kind, tmp_path, monkeypatch) for kind in kinds}}


def test_csv_parquet_and_sql_of_the_same_rows_give_identical_tables_and_splits(four_kinds):
    expected = [site.read() for site in four_kinds.pop("frame")]
    assert sum(len(table.training) for table in expected) > 80
    for sites in four_kinds.values():
        for site, same in zip(sites, expected, strict=True):
            found = site.read()
            pd.testing.assert_frame_equal(found.training, same.training, check_exact=True)
            pd.testing.assert_frame_equal(found.holdout("compare"), same.holdout("compare"), check_exact=True)


def test_csv_parquet_and_sql_and_any_order_of_sites_give_the_same_arrays(four_kinds, small_study):
    study = small_study.replace("rounds = 5", "rounds = 2")
    both = [four_kinds["frame"], four_kinds["frame"][::-1]]
    for one, other in (("csv", "semicolons"), ("sql", "parquet")):  # each kind at one of two sites
        both.append([four_kinds[one][0], four_kinds[other][1]])
    hashes = [run_hash(study, sites) for sites in both]
    assert len(hashes[0]) == 64
    assert hashes == [hashes[0]] * 4
    # The figure does depend on the rows.
    first = four_kinds["frame"][0]
    fewer = replace(first, source=Frame(first.source.read(())[:-1]))
    assert run_hash(study, [fewer, four_kinds["frame"][1]]) != hashes[0]


def run_hash(study: str, sites: list[Site]) -> str:
    from flfed import Study

    return str(run(Study.parse(study), sites=sites).report["arrays-sha256"])


def test_the_rows_of_a_source_may_come_in_any_order(small_sites):
    site = small_sites(1)[0]
    shuffled = Frame(site.source.read(()).sample(frac=1.0, random_state=3))
    pd.testing.assert_frame_equal(replace(site, source=shuffled).read().training, site.read().training)


def test_a_csv_without_a_header_takes_its_names_from_the_site(tmp_path):
    (tmp_path / "a.csv").write_text("1,?,x\n2,,y\n")
    found = Csv("a.csv", columns=("a", "b", "c")).read((tmp_path,))
    assert found.to_dict("list") == {"a": ["1", "2"], "b": ["?", ""], "c": ["x", "y"]}


@pytest.mark.parametrize(("content", "options"), [
    (f"a,b\n1,{CANARY}\n1,2,{CANARY}\n", {}), (f"a,b\n1,2,{CANARY}\n3,4,{CANARY}\n", {}),
    (f'a,b\n1,"{CANARY}\n', {}), ("", {}), (f"a,b\n{CANARY},\xe9\n".encode("latin-1"), {}),
    (f"a,b\n{CANARY},2\n", {"encoding": "utf-9"}),
])  # fmt: skip
def test_a_file_that_is_no_csv_is_refused_without_a_cell(tmp_path, content, options):
    # The second has a cell too many in every line: pandas drops it with a mere warning.
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        Csv("bad.csv", **options).read((tmp_path,))
    assert "bad.csv: cannot be read as CSV with separator ','" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_that_is_no_parquet_is_refused_without_a_cell(tmp_path):
    (tmp_path / "bad.parquet").write_text(CANARY * 100)
    with pytest.raises(UsageError, match="cannot be read as Parquet") as caught:
        Parquet("bad.parquet").read((tmp_path,))
    assert CANARY not in str(caught.value)


def test_the_first_folder_that_has_the_file_wins_and_an_absent_one_is_said(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two" / "t.csv").write_text("a\n2\n")
    folders = (tmp_path / "one", tmp_path / "two")
    assert find_file("t.csv", folders) == tmp_path / "two" / "t.csv"
    (tmp_path / "one" / "t.csv").write_text("a\n1\n")
    assert find_file("t.csv", folders) == tmp_path / "one" / "t.csv"
    assert find_file(str(tmp_path / "two" / "t.csv"), folders) == tmp_path / "two" / "t.csv"
    with pytest.raises(UsageError, match="flfed data get"):
        find_file("u.csv", folders)


def test_a_database_is_found_by_the_environment_or_by_a_file_of_it(tmp_path, monkeypatch):
    source = as_sql(pd.DataFrame({"a": [1, 2], "b": [0.5, None]}), tmp_path, "clinic", monkeypatch)
    assert sorted(source.read(())["a"].tolist()) == [1, 2]
    secret = tmp_path / "secret"
    secret.write_text(f"sqlite:///{tmp_path}/clinic.db\n")
    monkeypatch.delenv("URL_OF_CLINIC")
    monkeypatch.setenv("URL_OF_CLINIC_FILE", str(secret))
    assert np.nansum(source.read(())["b"]) == 0.5
    secret.write_text(f"sqlite:///{tmp_path}/moved.db\n")
    for ask in (source.reach, lambda: source.read(())):
        with pytest.raises(UsageError, match="the SQLite file of the URL in URL_OF_CLINIC does not exist"):
            ask()
    assert not (tmp_path / "moved.db").exists()
    monkeypatch.setenv("URL_OF_CLINIC_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="URL_OF_CLINIC_FILE names a file that cannot be read"):
        source.read(())
    monkeypatch.delenv("URL_OF_CLINIC_FILE")
    with pytest.raises(UsageError, match="set URL_OF_CLINIC "):
        source.read(())


@pytest.mark.parametrize(("url", "query", "why"), [
    (f"sqlite://user:{CANARY}@", "SELECT 1", "the site's database query failed|does not hold a database URL"),
    (f"not a url {CANARY}", "SELECT 1", "SITE_URL does not hold a database URL"),
    ("sqlite://", f"SELECT * FROM t WHERE name = '{CANARY}'", r"query failed \(OperationalError\)"),
])  # fmt: skip
def test_a_database_error_shows_neither_password_nor_query(monkeypatch, url, query, why):
    monkeypatch.setenv("SITE_URL", url)
    with pytest.raises(UsageError, match=why) as caught:
        Sql(query, url_variable="SITE_URL").read(())
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("query", [
    "DELETE FROM t", "-- old rows\n/* all */ DROP TABLE t", "UPDATE t SET age = 0", "CREATE TABLE other (age)", "",
    "INSERT INTO t VALUES (1)", "DELETE FROM t RETURNING age", "PRAGMA user_version = 5", "VACUUM INTO 'copy.db'",
    "ATTACH 'copy.db' AS copy", "WITH old AS (SELECT 1) DELETE FROM t",
    "WITH old AS (SELECT 1) DELETE FROM t RETURNING age",
])  # fmt: skip
def test_a_query_changes_no_database_and_one_without_a_table_is_refused(tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    engine = sqlalchemy.create_engine("sqlite:///ward.db")
    pd.DataFrame({"age": [54, 61]}).to_sql("t", engine, index=False)
    engine.dispose()
    before = Path("ward.db").read_bytes()
    monkeypatch.setenv("FLFED_SITE_URL", "sqlite:///ward.db")
    words = "query failed" if query.startswith("WITH") else "the site's database query gives no table: write one SELECT"
    with pytest.raises(UsageError, match=words):
        Sql(query).read(())
    assert Path("ward.db").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["ward.db"]
    # What gives a table is read, whatever stands before it.
    cte = "/* of; the */ -- ward\n with x as (select age from t) select * from x"
    for read in ("SELECT age FROM t", cte, "values (54), (61)"):
        assert Sql(read).read(()).iloc[:, 0].to_list() == [54, 61]


def test_a_column_that_stands_twice_in_a_csv_is_reported_and_not_renamed(small_sites, tmp_path):
    site = small_sites(1)[0]
    table = site.source.read(()).assign(x3=3, x4=4)
    csv = replace(site, source=Csv(str(tmp_path / "t.csv")))

    def said(*names: str) -> list[tuple[str, str]]:
        lines = table.to_csv(index=False).splitlines()
        lines[0] = ",".join([*lines[0].split(",")[:-2], *names])
        (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8-sig")
        return [(found.column, found.rule) for found in csv.inspect()[1]]

    assert said("x3", "x4") == []
    assert said("x1", "x4") == [("x1", "stands in the table more than once")]
    assert said("x1", "x1") == [("x1", "stands in the table more than once")]
    # Not asked for by the schema: nobody's business. And "x1.1" may be a name of its own.
    assert said("other", "other") == said("", "") == said("x1.1", "x2.1") == []
    assert said("x1.1", "x1") == [("x1", "stands in the table more than once")]
    with pytest.raises(UsageError, match="a name stands twice in columns"):
        Csv("t.csv", columns=("a", "b", "a"))


def test_a_separator_is_one_sign_or_blanks(tmp_path):
    with pytest.raises(UsageError, match="must be one sign"):
        Csv("t.txt", separator=";;")
    (tmp_path / "t.txt").write_text("a  b\tc\n1 2   3\n4 5 6\n")
    blanks = Csv("t.txt", separator=r"\s+")
    assert blanks.read((tmp_path,)).to_dict("list") == {"a": ["1", "4"], "b": ["2", "5"], "c": ["3", "6"]}
    (tmp_path / "t.txt").write_text("a b c\n1 2 3\n4 5\n")
    with pytest.raises(UsageError, match="last line is cut|fewer cells"):
        blanks.read((tmp_path,))


def test_a_text_with_line_breaks_is_no_damage_and_lines_that_a_stray_quote_joins_are(tmp_path):
    def read(text: str, **how: object) -> pd.DataFrame:
        (tmp_path / "t.csv").write_bytes(text.encode(str(how.get("encoding", "utf-8"))))
        return Csv("t.csv", **how).read((tmp_path,))

    rows = [f"P-{at},{at},0" for at in range(9)]
    for place in range(3):
        cells = ["P-9", "9", "1"]
        texts = ["felt well, no pain,\nsent home", "well,\nno pain,\nso", "well\nno, pain, so"]
        for text in texts:
            cells[place] = f'"{text}"'
            found = read("\n".join(["id,a,b", *rows, ",".join(cells)]) + "\n")
            assert (len(found), found.iloc[9, place]) == (10, text)
        joined = [line.split(",") for line in rows]
        joined[3][place] = f'"{joined[3][place]}'
        joined[5][place] = f'{joined[5][place]}"'
        with pytest.raises(UsageError, match="a quote is opened and never closed, and joins lines"):
            read("\n".join(["id,a,b", *map(",".join, joined)]) + "\n")


def test_quoted_cells_between_blanks_are_read_as_pandas_reads_them(tmp_path):
    text = 'id age  town\n1\t30 "New York"\n 2 40 "the ""old"" town" \n3 50 x"y\n'
    (tmp_path / "t.csv").write_text(text)
    found = Csv("t.csv", separator=r"\s+").read((tmp_path,))
    assert found["town"].tolist() == ["New York", 'the "old" town', 'x"y']
    assert found["age"].tolist() == ["30", "40", "50"]
    (tmp_path / "t.csv").write_text(text + "4 60 New York\n")
    with pytest.raises(UsageError, match="lines have more cells than the first"):
        Csv("t.csv", separator=r"\s+").read((tmp_path,))


def test_the_end_of_a_file_is_told_in_every_width_and_a_cell_that_is_too_long_for_what_it_is(tmp_path):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-be"):
        mark = "\ufeff" if encoding != "utf-8" else ""
        for end, unended in (("\n", False), ("", True)):
            (tmp_path / "t.csv").write_bytes(f"{mark}a,b\n1,2\n3,4{end}".encode(encoding))
            name = "utf-8" if encoding == "utf-8" else encoding[:6]
            assert Csv("t.csv", encoding=name).read((tmp_path,)).attrs["unended"] is unended
    (tmp_path / "t.csv").write_bytes(b"a,b\r\n1,2\r\n\x1a")
    assert Csv("t.csv").read((tmp_path,))["b"].tolist() == ["2"]
    (tmp_path / "t.csv").write_text("a,b\n1," + "x" * 140_000 + "\n")
    with pytest.raises(UsageError, match="a cell has more than 131,072 signs: leave its column out"):
        Csv("t.csv").read((tmp_path,))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_above_the_names_are_skipped_in_batches_at_each_end_of_line(tmp_path, end):
    (tmp_path / "t.csv").write_bytes(end.join(["Export", "a,b", *["1,2"] * 60]).encode())
    source = Csv("t.csv", skip=1)
    assert [*pd.concat(source.batches((tmp_path,), 20))] == ["a", "b"]
    assert sum(map(len, source.batches((tmp_path,), 20))) == len(source.read((tmp_path,))) == 60


@pytest.mark.parametrize(("text", "names", "separator", "last"), [
    # Aligned by blanks, with a tab before a quoted name, as the UCI's auto-mpg.data.
    ('18.0   8   307.0  1\t"chevrolet malibu"\n9.5   8   30.0   1\t"ford"\n', "a,b,c,d,e", r"\s+", "ford"),
    (" 1.5  18.00   2,3 x\n 12.5   0.00   7,1 y\n", "a,b,c,d", r"\s+", "y"),
    ("1\t2\t3\n4\t\t5\t6\n", "a,b,c", r"\s+", "6"),
    ('age  "the town"\n50  "New York"\n61  Bonn\n', "", r"\s+", "Bonn"), ("a b\r\n1 2\r\n", "", r"\s+", "2"),
    # A sign goes before blanks within cells, but for the number of names.
    ("Date Time\tage\n2024-01-01 00:00\t5\n2024-01-01 01:00\t6\n", "", "\t", "6"),
    ("a, b\n1, 2\n3,  4\n", "", ",", "4"),
    ("John Smith\t34\nJane Roe\t43\n", "name,age", "\t", "43"),
    ("John Smith\t34\nJane Roe\t43\n", "a,b,age", r"\s+", "43"),
])  # fmt: skip
def test_blanks_are_told_from_other_separators(tmp_path: Path, text: str, names: str, separator: str, last: str):
    (tmp_path / "t.data").write_text(text, newline="")
    source = source_of(tmp_path / "t.data", names=names)
    assert isinstance(source, Csv) and source.separator == separator
    found = source.read(())
    assert found.iloc[-1, -1].strip() == last and len(found) == text.count("\n") - (not names)


@pytest.mark.parametrize(("text", "names", "said"), [
    ("some notes\nand more\nof one ward in the town\n", "", "no comma, semicolon, tab, | or blank splits every"),
    ('"age" "x"\n"1" 50 3\n"2" 61 4\n', "", "its first column has no name, as R writes row names"),
    ("1  2  3\n4  5  6\n", "a,b", "its lines have 3 cells, but there are 2 names"), ("\n\n", "", "it has no line"),
    ("x" * 200_000 + ",1\n", "", "a cell has more than 131,072 signs"),
    ("a,b\n1,\x81\n".encode("latin-1"), "", "neither in UTF-8 nor in cp1252"),
])  # fmt: skip
def test_a_file_whose_cells_cannot_be_told_apart_is_refused_in_words(tmp_path: Path, text, names: str, said: str):
    (tmp_path / "t.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=said.replace("|", r"\|")):
        source_of(tmp_path / "t.txt", names=names)


def test_a_gap_between_blanks_and_a_comma_that_is_none_are_told(tmp_path: Path):
    (tmp_path / "t.txt").write_text("a b c\n" + "1 2 3\n" * 30 + "1   3\n")
    with pytest.raises(UsageError, match="Between blanks an empty cell cannot be recognised"):
        source_of(tmp_path / "t.txt").read(())
    (tmp_path / "t.txt").write_text("a b c\n1 2 3\n")
    with pytest.raises(UsageError, match="its cells are separated by .*: set separator="):
        Csv("t.txt").read((tmp_path,))


@pytest.mark.parametrize(("name", "cells"), [("german_credit/german.data", 21), ("nasa_cmapss/train_FD001.txt", 26)])
def test_real_files_of_blanks_are_read_as_their_lines_split(test_data: Path, name: str, cells: int):
    found = source_of(test_data / name, names=",".join(f"x{at}" for at in range(cells))).read(())
    assert found.to_numpy().tolist() == [line.split() for line in (test_data / name).read_text().splitlines()]
