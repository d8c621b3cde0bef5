"""One answer a cell: the same through every door, and told by every command that reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from flfed import Csv, Excel, Frame, Holdout, Parquet, Site, Sql, federate
from flfed.rows.data.mapping import ROUNDED
from flfed.rows.data.parsing.cells import LOST_SIGNS, MANGLED, NO_DATE, NO_IDENTIFIER
from flfed.rows.data.sources import Source
from flfed.rows.data.table_check import check_site
from tests.damage.tables import write_dataset
from tests.postgres import Server, running_server

KINDS = {"person": 'kind = "id"', "seen": 'kind = "date"', "age": 'kind = "number"\nrange = [0, 120]', "smokes": 'kind = "flag"',
    "code": 'kind = "category"\nvalues = ["900000000000207008", "900000000000207009", "0123", "1.5"]', "outcome": 'kind = "target"\nvalues = ["0", "1"]',
}  # fmt: skip
SCHEMA = 'format = 1\nname = "cells"\ntask = "binary"\ntarget = "outcome"\n'
SCHEMA += "".join(f"[columns.{name}]\n{kind}\n" for name, kind in KINDS.items())
CODES = (900000000000207008, 900000000000207009)  # as SNOMED CT has them: floating point would make them one
ROWS = 60
NOT_NUMBER, OUTSIDE = "is not a number", "is outside the schema's range 0 to 120"
NO_FLAG, UNKNOWN = "is not a flag (0 or 1, yes or no)", "has a value that the schema does not allow"
TEXTS: dict[str, dict[str, Any]] = {
    "age": {"55": 55, " 55 ": 55, "55.0": 55, "5.5e1": 55, '="55"': 55, "+55": 55, "": None, "inf": None, "-Infinity": None,
        "999": OUTSIDE, "-1": OUTSIDE, "> 89": "has limits such as '<' or '>' (set censored)", "55,5": NOT_NUMBER, "½": NOT_NUMBER,
        "LXV": NOT_NUMBER, "∞": NOT_NUMBER, "#N/A": NOT_NUMBER, "NULL": NOT_NUMBER, "NaN": NOT_NUMBER, "٥٥": NOT_NUMBER, "TRUE": NOT_NUMBER},
    "person": {"0123": "0123", '="0124"': "0124", "7.0": "7", "900000000000207008": "900000000000207008", "9007199254740993": "9007199254740993",
        "": None, "1.0E+09": MANGLED, "03-Jan": MANGLED, "#REF!": MANGLED, "NULL": NO_IDENTIFIER, "inf": NO_IDENTIFIER, "r\ufffde": LOST_SIGNS},
    "smokes": {"1": 1, "0.0": 0, "TRUE": 1, "No": 0, '="1"': 1, "": None, "ja": NO_FLAG, "2": NO_FLAG},
    "code": {str(CODES[0]): str(CODES[0]), "0123": "0123", '="0123"': "0123", "123": UNKNOWN, "1.50": UNKNOWN, "inf": UNKNOWN, "": None},
    "seen": {"2024-05-31": "2024-05-31", "2024-05-31 00:00:00": "2024-05-31", "2024-05-31T00:00:00+02:00": "2024-05-31", "": None, "2024-02-30": NO_DATE, "31.05.2024": NO_DATE},
}  # fmt: skip
"""Cells as texts, by column, each with what is read: a value, None where it is missing, or the rule that it breaks."""
QUOTED = '7 rows have a text as ="0123", as a spreadsheet keeps one: 0123 is read'
INFINITE = "6 rows have an infinite number, which counts as 'not known'"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from running_server()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_dataset(tmp_path, "cells", SCHEMA)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    monkeypatch.setenv("FLFED_SITE_URL", "")  # a door of a database writes it
    return tmp_path


def sound(**changed: list[Any]) -> dict[str, list[Any]]:
    """Return a sound table of texts, whose first cells of some columns are changed."""
    rows = range(ROWS)
    table = {
        "person": [f"P{row}" for row in rows], "seen": [f"2024-05-{1 + row % 28:02}" for row in rows], "age": [str(20 + row) for row in rows],
        "smokes": [str(row % 2) for row in rows], "code": [str(CODES[row % 2]) for row in rows], "outcome": [str(row // 2 % 2) for row in rows],
    }  # fmt: skip
    return {name: [*changed.get(name, []), *cells[len(changed.get(name, [])) :]] for name, cells in table.items()}


def door(kind: str, table: dict[str, list[Any]], folder: Path, server: Server, typed: str = "") -> Source:
    """Return the source of a table that went through a door; the cells of column `typed` have a type of the door's."""
    kind, _, dtype = kind.partition(" ")
    path = folder / f"t.{kind}"
    if kind == "csv":
        pd.DataFrame(table, dtype=object).to_csv(path, index=False)
        return Csv(str(path))
    if kind == "parquet":
        types = {typed: eval(dtype, vars(pa))} if typed else {}
        pq.write_table(pa.table({name: pa.array(cells, types.get(name)) for name, cells in table.items()}), path)
        return Parquet(str(path))
    if kind == "xlsx":
        book = openpyxl.Workbook()
        for row in zip(*([name, *cells] for name, cells in table.items()), strict=True):
            book.active.append(row)
        for cell in (cell for row in book.active for cell in row if cell.data_type == "f"):
            cell.data_type = "s"  # ="0123" is a text here, and no formula
        book.save(path)
        return Excel(str(path))
    if kind == "frame":
        types = {name: dtype if name == typed and dtype else object for name in table}
        return Frame(pd.DataFrame({name: pd.Series(cells, dtype=types[name]) for name, cells in table.items()}))
    os.environ["FLFED_SITE_URL"] = url = server.url() if kind == "postgresql" else f"sqlite:///{path}"
    columns = ", ".join(f"{name} {dtype if name == typed else 'text'}" for name in table)
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS t"))
        connection.execute(sqlalchemy.text(f"CREATE TABLE t ({columns})"))
        insert = sqlalchemy.text(f"INSERT INTO t VALUES (:{', :'.join(table)})")
        connection.execute(insert, pd.DataFrame(table, dtype=object).to_dict("records"))
    return Sql("SELECT * FROM t")


site_of = partial(Site, name="a", dataset="cells", holdout=Holdout(salt="s"))


def answers(source: Source, column: str, **batch: int) -> list[Any]:
    """Return what is read of each cell of a column: its value, None, or the rule that it breaks."""
    _, table, findings, _ = site_of(source=source).examine(**batch)
    cells = [str(cell.date()) if isinstance(cell, pd.Timestamp) else cell for cell in table[column]]
    read = [None if pd.isna(cell) else cell for cell in cells]
    for finding in findings:
        for row in finding.rows if finding.column == column else ():
            read[row] = finding.rule
    return read


DOORS = ("csv", "parquet", "xlsx", "sqlite", "postgresql", "frame", "frame string")


@pytest.mark.parametrize("kind", DOORS)
def test_a_text_gives_one_answer_through_every_door(kind, root, server):
    source = door(kind, sound(**{name: list(cells) for name, cells in TEXTS.items()}), root, server)
    for name, cells in TEXTS.items():
        assert dict(zip(cells, answers(source, name), strict=False)) == cells
    # The check of a site counts what it reads all the same.
    table = sound(person=[f'="{row:04}"' for row in range(7)], age=["inf"] * 6)
    checked = check_site(site_of(source=door(kind, table, root, server)))
    assert checked.passed and [line.detail for line in checked.lines if line.note] == [QUOTED, INFINITE]


LONG = ("csv", "parquet int64()", "parquet uint64()", "parquet decimal128(18)", "xlsx text", "sqlite INTEGER", "postgresql bigint", "postgresql numeric(18)", "postgresql numeric", "frame Int64", "frame object", "frame int64[pyarrow]", "frame Decimal")  # fmt: skip
CONVERT = {"xlsx text": str, "frame Decimal": Decimal, "parquet decimal128(18)": Decimal}
GAPS = [None if row % 10 == 3 else CODES[row % 2] for row in range(ROWS)]
TYPED = [
    *((name, cells, [cell and str(cell) for cell in cells], LONG) for name in ("code", "person") for cells in ([*CODES], GAPS)),
    ("code", [float(code) for code in CODES], [ROUNDED] * 2, ("xlsx number", "parquet float64()", "sqlite REAL", "postgresql float8", "frame float64", "frame Float64", "frame object")),
    ("age", [np.inf, -np.inf, None, 55.5], [None, None, None, 55.5], ("csv", "parquet float64()", "parquet float32()", "sqlite REAL", "postgresql float8", "postgresql numeric", "frame float64", "frame Float64", "frame float32", "frame object")),
    ("code", [np.inf, 1.5], [UNKNOWN, "1.5"], ("csv", "parquet float64()", "sqlite REAL", "postgresql float8", "frame float64", "frame Float64")),
    ("age", [Decimal("55.50"), Decimal("NaN"), Decimal("7E+1")], [55.5, None, 70], ("postgresql numeric", "frame object")),
    ("code", [Decimal("1.50"), Decimal("1.5"), Decimal("0.15E+1"), None], ["1.5", "1.5", "1.5", None], ("postgresql numeric", "parquet decimal128(9, 2)", "frame object")),
    ("smokes", [True, False, None], [1, 0, None], ("csv", "xlsx flag", "parquet bool_()", "sqlite INTEGER", "postgresql boolean", "frame boolean", "frame object")),
    ("age", [True, False], ["is yes or no where a number is meant"] * 2, ("xlsx flag", "parquet bool_()", "postgresql boolean", "frame bool", "frame object")),
    ("seen", [pd.Timestamp(2024, 5, 31), None], ["2024-05-31", None], ("csv", "xlsx date", "parquet date32()", "parquet timestamp('us')", "postgresql date", "postgresql timestamp", "frame object", "frame datetime64[s]")),
]  # fmt: skip


@pytest.mark.parametrize(("column", "cells", "wanted", "kind"), [(*of, kind) for *of, kinds in TYPED for kind in kinds])
def test_a_cell_of_another_type_gives_one_answer_through_every_door(column, cells, wanted, kind, root, server):
    cells = [None if cell is None else CONVERT.get(kind, type(cell))(cell) for cell in cells * (ROWS // len(cells))]
    source = door(kind.replace("Decimal", "object"), sound(**{column: cells}), root, server, column)
    assert answers(source, column)[: len(wanted)] == wanted
    # Of batches some have gaps and others have none.
    assert answers(replace(source, sample=1 - 1e-12), column, batch=7) == answers(source, column)


TOLD = {
    "half": (["½"] * 12, "", "'½' (12 rows) counts as 'not known': it is no number"),
    "roman": (["LXV"] * 12, "", "'LXV' (12 rows) counts as 'not known': it is no number"),
    "sign": (["∞"] * 12, "", "'∞' (12 rows) counts as 'not known': it is no number"),
    "endless": (["inf"] * 6, "", "6 cells are infinite: they count as 'not known'"),
    "few": (["inf"] * 6, "", "6 cells are infinite: they count as 'not known'"),
    "limit": (["> 89"] * 12, "89", "12 cells are limits such as > 89 or <0.5: they are read as the limit itself"),
    "words": (["tak", "nie"] * 40, "1", "written in several ways: 80 cells are words, which are read as 1 and 0"),
}
"""Cells of one site's column, the cell that is read alike, and what each command says before it reads them."""


def test_every_command_tells_of_the_same_cells_and_reads_them_alike(tmp_path, monkeypatch, flfed):
    rng = np.random.default_rng(5)
    table = pd.DataFrame({name: rng.integers(20, 95, 240).astype(str) for name in TOLD})
    table["few"] = rng.integers(0, 4, 240).astype(str)
    table = table.assign(words=rng.integers(0, 2, 240).astype(str), site=np.repeat(["a", "b", "c"], 80))
    table["y"] = (rng.normal(0, 20, 240) + table["half"].astype(int) > 57).astype(int)
    for name, (cells, _, _) in TOLD.items():
        table.loc[: len(cells) - 1, name] = cells
    table["pid"] = [f'="{row:04}"' for row in range(7)] + [f"{row:04}" for row in range(7, 240)]
    monkeypatch.chdir(tmp_path)
    table.to_csv("own.csv", index=False)
    code, out, err = flfed("data", "new", "own.csv", "--target", "y", "--by", "site", "--json")
    assert code == 0, err
    drafted = {line["column"]: line for line in json.loads(out)["columns"]}
    result = federate(table, "y", by="site", rounds=1, say=(said := list[str]()).append)
    assert len(result.report["sites"]) == 3 and not result.report["faults"]
    for name, (cells, alike, sentence) in TOLD.items():
        assert sentence in drafted[name]["why"] and not drafted[name]["sure"]
        told = f"check {name!r}: taken for {drafted[name]['kind']} ({drafted[name]['why']})"
        assert [line for line in said if repr(name) in line] == [told]
        row = table.iloc[[100]]
        first, second = (result.model.predict_proba(row.assign(**{name: cell})) for cell in (cells[0], alike))
        assert (first == second).all()
    for lines in (json.loads(out)["notes"], said):
        assert sum(line.endswith(f"'pid': {QUOTED}") for line in lines) == 1
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    assert [flfed("site", "check", site)[0] for site in "abc"] == [0, 0, 0]
