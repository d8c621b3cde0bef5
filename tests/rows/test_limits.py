"""A table is read within the limits of its site's package; endless ones are refused in time and in little memory."""

from __future__ import annotations

import gzip
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from flfed import Csv, Excel, Limits, Parquet, Sql, UsageError
from flfed.rows.data.parsing.limits import Reading
from flfed.rows.data.parsing.parquet_and_excel import read_sheet
from flfed.rows.data.parsing.queries import read_query
from tests.rows import endless
from tests.rows.endless import ENDLESS, measured

CANARY = "Canary-Jane-Roe-8842"
TABLE = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, None, 2.5], "name": [CANARY, "b", "c"]})
MEMORY = 1_000_000_000
SECONDS = 10
SITE = """from flfed import Holdout, Site, Sql

site = Site(
    name="endless", dataset="heart-disease", source=Sql({query!r}), holdout=Holdout(0.3, salt="a secret of ours")
)
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own.db"
    path.touch()
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{path}")
    return path


def stored(kind: str, folder: Path) -> Csv | Parquet | Excel | Sql:
    """Return a source of `TABLE`, written as one of the kinds."""
    path = folder / f"t.{kind}"
    if kind == "sql":
        with sqlite3.connect(folder / "own.db") as connection:
            TABLE.to_sql("t", connection, index=False)
        return Sql("SELECT * FROM t")
    if kind == "parquet":
        TABLE.to_parquet(path)
        return Parquet(str(path))
    if kind == "xlsx":
        TABLE.to_excel(path, index=False)
        return Excel(str(path))
    TABLE.to_csv(path, index=False)
    return Csv(str(path))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.zip", "csv.bz2", "csv.xz", "parquet", "xlsx", "sql"])
def test_a_table_as_large_as_its_bounds_is_read_and_a_larger_one_refused_by_bound_and_key(kind, tmp_path, database):
    source = stored(kind, tmp_path)
    # A sheet's line of names is one of its rows.
    rows = 4 if kind == "xlsx" else 3
    bounds = {"rows": rows, "columns": 3, "cells": 3 * rows}
    pd.testing.assert_frame_equal(replace(source, limits=Limits(**bounds)).read(()), source.read(()))
    for key, bound in bounds.items():
        less = replace(source, limits=Limits(**bounds | {key: bound - 1}))
        with pytest.raises(UsageError) as refused:
            less.read(())
        assert f"more than {bound - 1} {key}, its bound" in str(refused.value)
        assert f"limits=Limits({key}=...)" in str(refused.value) and CANARY not in str(refused.value)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "xlsx", "sql"])
def test_bytes_once_unpacked_are_bounded(kind: str, tmp_path: Path, database: Path):
    source = replace(stored(kind, tmp_path), limits=Limits(bytes=30))
    with pytest.raises(UsageError, match=r"more than 30 bytes once unpacked, its bound; .*limits=Limits\(bytes="):
        source.read(())


@pytest.mark.studies
def test_what_is_packed_a_thousand_times_is_refused_unless_the_package_allows_it(tmp_path: Path):
    endless.write_cells(tmp_path / "cells.xlsx")
    with pytest.raises(UsageError, match=r"more than 100 bytes for each packed one, its bound; .*Limits\(ratio="):
        Excel(str(tmp_path / "cells.xlsx")).read(())
    with pytest.raises(UsageError, match="more than 7 columns"):
        # An honest sheet of one value packs as well.
        endless.write_sheet(tmp_path / "alike.xlsx", ["<row>" + "<c><v>1</v></c>" * 8 + "</row>"] * 40_000)
        Excel(str(tmp_path / "alike.xlsx"), limits=Limits(ratio=2_000, columns=7)).read(())


@pytest.mark.parametrize(("write", "name", "key"), [
    (endless.write_list, "list.parquet", "rows"), (endless.write_long_text, "text.parquet", "bytes"),
    (lambda path: endless.write_far_cell(path, "NTP40000"), "far.xlsx", "cells"),
])  # fmt: skip
def test_what_a_small_file_repeats_is_counted_before_it_is_read(write, name, key, tmp_path):
    path = tmp_path / name
    write(path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UsageError, match=rf"limits=Limits\({key}="):
        source_of(path).read(())


@pytest.mark.parametrize("write", [endless.write_fixed_bytes, endless.write_false_size])
def test_values_that_a_parquet_file_has_once_count_for_each_row_whatever_its_last_bytes_say(write, tmp_path):
    path = tmp_path / "t.parquet"
    write(path)
    assert len(pd.read_parquet(path)) == 5_000 and path.stat().st_size < 10_000
    with pytest.raises(UsageError, match=r"more than 1,000,000 bytes once unpacked.*limits=Limits\(bytes="):
        Parquet(str(path), limits=Limits(bytes=1_000_000)).read(())


def test_a_row_of_more_cells_than_a_sheet_has_is_refused_before_it_is_parsed(tmp_path: Path):
    endless.write_long_row(tmp_path / "t.xlsx")
    with pytest.raises(UsageError, match="a row has more than 16,384 cells, as many as a sheet can have"):
        Excel(str(tmp_path / "t.xlsx"), limits=Limits(ratio=1_000)).read(())


def test_the_time_of_a_workbook_counts_while_its_parts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    endless.write_sheet(tmp_path / "t.xlsx", (f'<row r="{n}"><c r="A{n}"><v>{n}</v></c></row>' for n in range(1, 900)))
    reading = Reading("t.xlsx", Limits())
    monkeypatch.setattr(reading, "_end", 0.0)
    with pytest.raises(UsageError, match="takes more than 1,800 seconds"):
        read_sheet(tmp_path / "t.xlsx", "", reading, "it cannot be read")


def source_of(path: Path) -> Excel | Parquet:
    return Excel(str(path)) if path.suffix == ".xlsx" else Parquet(str(path))


def test_empty_cells_and_rows_with_a_format_only_are_no_part_of_a_sheet(tmp_path: Path):
    rows = [
        '<row r="1"><c r="A1" t="str"><v>x</v></c><c r="XFD1"/></row>', '<row r="2"><c r="A2"><v>7</v></c></row>',
        '<row r="50000"><c r="A50000"/></row>',
    ]  # fmt: skip
    endless.write_sheet(tmp_path / "t.xlsx", rows)
    assert Excel(str(tmp_path / "t.xlsx"), limits=Limits(columns=1, rows=2)).read(()).to_dict("list") == {"x": [7]}


@pytest.mark.studies
def test_a_row_that_no_sheet_can_have_is_refused(tmp_path: Path):
    endless.write_sheet(tmp_path / "t.xlsx", ['<row r="1"><c><v>1</v></c></row>', '<row r="9999999999"/>'])
    with pytest.raises(UsageError, match="cannot be read as an Excel file"):
        Excel(str(tmp_path / "t.xlsx")).read(())


@pytest.mark.studies
def test_a_line_that_quotes_join_without_end_is_refused(tmp_path: Path):
    (tmp_path / "t.csv").write_text("x,y\n" + '"a\nb",' * 3_000_000)
    with pytest.raises(UsageError, match="a line has more than 16,777,216 signs"):
        Csv(str(tmp_path / "t.csv")).read(())


def test_a_query_that_returns_nothing_is_stopped_in_time(database: Path):
    source = Sql(ENDLESS.format("count(*)"), limits=Limits(seconds=1))
    with pytest.raises(UsageError, match=r"takes more than 1 seconds, its bound; .*limits=Limits\(seconds="):
        source.read(())


@pytest.mark.parametrize("loose", [0, 700, 1_000_000])
def test_rows_of_a_query_are_those_that_pandas_reads_whether_they_were_packed_or_not(loose: int, database: Path):
    rng = np.random.default_rng(5)
    with sqlite3.connect(database) as connection:
        table = pd.DataFrame({"i": range(2_000), "f": rng.random(2_000), "t": [f"é{at % 7}" for at in range(2_000)]})
        table.assign(big=2**62 + table["i"]).to_sql("t", connection, index=False)
    texts = {
        "late": "CASE WHEN i > 1500 THEN t WHEN i % 3 THEN i ELSE f END", "early": "CASE WHEN i > 600 THEN i END",
        "numbers": "CASE WHEN i % 3 THEN i ELSE f END",
        "half": "CASE i % 4 WHEN 0 THEN t WHEN 1 THEN 1 WHEN 2 THEN f END",
        "empty": "NULL", "bytes": "CASE WHEN i % 2 THEN x'00ff' END", "gaps": "CASE WHEN i % 5 THEN t END",
    }  # fmt: skip
    query = f"SELECT *, {', '.join(f'{text} AS {name}' for name, text in texts.items())} FROM t"
    with sqlalchemy.create_engine(f"sqlite:///{database}").connect() as connection:
        wanted = pd.read_sql_query(sqlalchemy.text(query), connection)
        found = read_query(connection, query, Reading("it", Limits()), loose=loose)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert [list(map(type, found[name])) for name in found] == [list(map(type, wanted[name])) for name in wanted]


@pytest.mark.parametrize("bound", [0, -1, 2.5, None, "many"])
def test_a_bound_is_a_whole_number(bound: object):
    with pytest.raises(UsageError, match="rows=.* must be a whole number"):
        Limits(rows=bound)  # type: ignore[arg-type] - it is what is refused
    with pytest.raises(UsageError, match=r"must be Limits\(\.\.\.\)"):
        Csv("t.csv", limits=bound)  # type: ignore[arg-type] - it is what is refused


PROOF = pytest.mark.proof
FILES = {
    "rows.parquet": (endless.write_many_rows, "10,000,000 rows"),
    "xml.xlsx": (endless.write_much_xml, "100 bytes for each packed one"),
    "far.xlsx": (endless.write_far_cell, "10,000 columns"), "wide.csv": (endless.write_wide, "10,000 columns"),
    "packed.csv.gz": (endless.write_packed_text, "100 bytes for each packed one"),
}  # fmt: skip


@pytest.mark.studies
@pytest.mark.parametrize("name", [*list(FILES)[:-1], pytest.param(list(FILES)[-1], marks=PROOF)])
def test_an_endless_file_is_refused_by_the_command_in_seconds_and_in_little_memory(name: str, tmp_path: Path):
    write, bound = FILES[name]
    write(tmp_path / name)
    done = measured("data", "new", name, "--target", "x", "--by", "y", folder=tmp_path)
    assert done.code == 2 and f"it has more than {bound}, its bound" in " ".join(done.err.split()), done.err
    assert "Traceback" not in done.err
    assert done.seconds < SECONDS and done.memory < MEMORY


@pytest.mark.studies
@pytest.mark.parametrize(("cells", "bound", "seconds"), [
    ("x AS age", "2,000,000 rows", SECONDS),
    pytest.param("hex(zeroblob(500000)) AS age", "500,000,000 bytes", SECONDS, marks=PROOF),
    pytest.param(", ".join(f"x + {at}" for at in range(100)), "32,000,000 cells", SECONDS, marks=PROOF),
])  # fmt: skip
def test_an_endless_query_is_refused_by_the_command_in_seconds_and_in_little_memory(
    cells: str, bound: str, seconds: float, tmp_path: Path, database: Path
):
    (tmp_path / "sites" / "endless").mkdir(parents=True)
    (tmp_path / "sites" / "endless" / "__init__.py").write_text(SITE.format(query=ENDLESS.format(cells)))
    done = measured("site", "check", "endless", folder=tmp_path)
    assert done.code == 2 and f"it has more than {bound}" in " ".join(done.err.split()), done.err
    assert done.seconds < seconds and done.memory < MEMORY


@pytest.mark.proof
def test_a_million_rows_of_thirty_columns_pass_from_every_kind_of_source(tmp_path: Path, database: Path):
    rows = 1_000_000
    rng = np.random.default_rng(0)
    numbers = {f"x{at}": rng.normal(50, 10, rows).round(2) for at in range(20)}
    words = {f"w{at}": rng.choice(["red", "green", "blue"], rows) for at in range(10)}
    table = pd.DataFrame(numbers | words)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    with gzip.open(tmp_path / "t.csv.gz", "wb", compresslevel=1) as stream:
        stream.write((tmp_path / "t.csv").read_bytes())
    with sqlite3.connect(database) as connection:
        table.to_sql("t", connection, index=False)
    for source in (Csv(str(tmp_path / "t.csv")), Csv(str(tmp_path / "t.csv.gz"))):
        assert source.read(()).shape == (rows, 30)
    for read in (Parquet(str(tmp_path / "t.parquet")), Sql("SELECT * FROM t")):
        pd.testing.assert_frame_equal(read.read(()), table, check_exact=True)
