"""The reader of plain tables agrees with the careful one to the last bit, or leaves the table to it."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flfed.errors import FlfedError
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.mapping import map_table, plain_text, read_column
from flfed.rows.data.parsing import parquet_and_excel as parquet_module
from flfed.rows.data.parsing.arrow_reader import read_plain_csv
from flfed.rows.data.parsing.fields import Field, Finding
from flfed.rows.data.parsing.limits import Limits, Reading
from flfed.rows.data.schema import Column
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Parquet
from flfed.rows.data.table_check import check_site
from tests.damage.catalogue import CATALOGUE
from tests.damage.patients import SCHEMA as SCHEMA_OF_PATIENTS
from tests.damage.tables import Case, as_parquet, write_dataset
from tests.test_every_damage import SOUND, SOUND_OF, package

CASES = {f"{title}: {case.about}": case for title, cases in CATALOGUE.items() for case in cases}
CASES = {name: case for name, case in CASES.items() if case.package.startswith(("Csv", "Parquet"))}
TEXTS = {name: case for name, case in CASES.items() if case.file == "rows.csv"}
BLOCKS = (1, 7, 1000)
"""Lines of a block."""
WIDE = (-1e12, 1e12)
KINDS = [
    (Column(kind="number", range=WIDE), {}),
    (Column(kind="number", range=(0, 60)), {}),
    (Column(kind="number", range=(0, 99_999), missing=("9", 42)), {}),
    (Column(kind="number", range=WIDE), {"decimal": ","}),
    (Column(kind="number", range=WIDE), {"thousands": ""}),
    (Column(kind="number", range=WIDE), {"thousands": ","}),
    (Column(kind="number", range=WIDE), {"missing": ("-9", "?", "NA"), "multiply": 38.67, "add": -1.0}),
    (Column(kind="number", range=WIDE), {"censored": "limit"}),
    (Column(kind="id"), {}),
    (Column(kind="id"), {"missing": ("P1", "NA")}),
    (Column(kind="flag"), {}),
    (Column(kind="date"), {}),
    (Column(kind="category", values=("no", "yes")), {}),
    (Column(kind="category", values=("1", "other")), {"other": "other"}),
]
PLAIN = Csv("plain.csv")


def sampled(cases: dict[str, Case]) -> list[Any]:
    """Return the cases, all but each sixth marked as a proof."""
    marks = [() if number % 6 == 0 else pytest.mark.proof for number in range(len(cases))]
    return [pytest.param(case, marks=mark, id=name) for mark, (name, case) in zip(marks, cases.items(), strict=True)]


class Careful(Csv):
    """A CSV file that the careful reader takes, whatever it holds."""

    def read_compact(self, folders):
        return self.read(folders)


class CarefulParquet(Parquet):
    """A Parquet file whose texts are objects."""

    def read_compact(self, folders):
        return self.read(folders)


def careful_of(source: Csv | Parquet) -> Csv | Parquet:
    """Return the same source for the careful reader."""
    settings = {one.name: getattr(source, one.name) for one in fields(source) if one.init}
    return (Careful if isinstance(source, Csv) else CarefulParquet)(**settings)


def with_source(site: Site, source: Any) -> Site:
    settings = {one.name: getattr(site, one.name) for one in fields(Site) if one.init}
    return Site(**{**settings, "source": source})


def outcome(what: Callable[[], Any]) -> Any:
    """Return the result of a call, or the text of its error."""
    try:
        return what()
    except (FlfedError, UnicodeError) as error:
        return str(error)


def same_findings(one: list[Finding], other: list[Finding]) -> bool:
    plain = [[(f.column, f.rule, f.hint, f.rows.tolist()) for f in some] for some in (one, other)]
    return plain[0] == plain[1]


def bits(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table's columns to the last bit, with the type of each cell."""
    columns = {}
    for name, cells in table.items():
        values = cells.to_numpy()
        plain = [(type(cell), cell) for cell in values] if values.dtype == object else values.tobytes()
        columns[str(name)] = (str(values.dtype), plain)
    return columns


def differences(site: Site) -> list[str]:
    """Return in which respects the two readers differ on a site's table."""
    found = []
    careful = with_source(site, careful_of(site.source))
    mapped = [outcome(one.inspect) for one in (site, careful)]
    if any(isinstance(one, str) for one in mapped):
        return [] if mapped[0] == mapped[1] else ["refusal"]
    (table, findings, _), (expected, known, _) = mapped
    if bits(table) != bits(expected) or list(table) != list(expected):
        found.append("table")
    if not same_findings(findings, known):
        found.append("findings")
    lines = [outcome(lambda one=one: check_site(one).lines) for one in (site, careful)]
    if lines[0] != lines[1]:
        found.append("lines of the check")
    return found


def differing_columns(compact: pd.DataFrame, objects: pd.DataFrame) -> Iterator[str]:
    """Yield the columns that read differently, as any kind of column."""
    if list(compact.columns) != list(objects.columns) or len(compact) != len(objects):
        yield "names or rows"
        return
    for name in objects:
        for number, (column, settings) in enumerate(KINDS):
            field = Field(str(name), **settings)
            one, own = read_column(compact[name], "c", column, field)
            other, theirs = read_column(objects[name], "c", column, field)
            if bits(pd.DataFrame({"c": one})) != bits(pd.DataFrame({"c": other})) or not same_findings(own, theirs):
                yield f"{name} as kind {number}"


def new_reading() -> Reading:
    """Return a reading whose clock begins now: one for the whole file ends half an hour after its import."""
    return Reading("a table", Limits())


def in_blocks(content: bytes, lines: int, source: Csv = PLAIN) -> pd.DataFrame | None:
    """Read a file in blocks of about so many of its lines."""
    block = lines * max(map(len, content.split(b"\n"))) + 2
    return read_plain_csv(content, source.encoding, source.separator, source.columns, new_reading(), block=block)


def as_objects(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both datasets of the catalogue."""
    write_dataset(tmp_path)
    write_dataset(tmp_path, "patients", SCHEMA_OF_PATIENTS)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    return tmp_path


def site_of(root: Path, case: Any, *, turned: bool = False) -> tuple[Site, bytes]:
    """Write a case's package, with its lines turned round if need be, and load it with the bytes of its file."""
    file = package(root, "clinic-a", case)
    content = file.read_bytes() if file.is_file() else b""
    if turned and content:
        # Most damage is in the first lines: turned round, it is in the last block.
        names, _, rows = content.partition(b"\n")
        content = b"\n".join([names, *reversed(rows.rstrip(b"\n").split(b"\n"))]) + b"\n"
        file.write_bytes(content)
    return listing.load("clinic-a"), content


@pytest.mark.parametrize("case", sampled(CASES))
def test_both_readers_agree_on_every_damaged_table(root, monkeypatch, case):
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    assert differences(site_of(root, case)[0]) == []


@pytest.mark.parametrize("case", sampled(TEXTS))
def test_both_readers_agree_on_every_damaged_table_that_is_read_in_blocks_of_few_lines(root, case):
    site, content = site_of(root, case, turned=True)
    found = [in_blocks(content, lines, site.source) for lines in BLOCKS]
    if site.source.path != case.file or all(one is None for one in found):
        return
    expected, known, schema = with_source(site, careful_of(site.source)).inspect()
    for one in found:
        if one is not None:
            table, findings = map_table(one, schema, site.mapping, site.source.missing)
            assert bits(table) == bits(expected)
            assert same_findings(findings, known)


def test_the_sound_tables_and_most_damaged_ones_are_plain(root):
    plain = [name for name, case in TEXTS.items() if in_blocks(case.damage(SOUND_OF[case.base]), 1000) is not None]
    assert in_blocks(SOUND.encode(), 1) is not None
    assert 2 * len(plain) > len(TEXTS)


NUMBERS = [
    "", "0", "-0", "-0.0", "0.0", "5", "5.", ".5", "-.5", ".", "-", "007", "00.5", "1.50", "35.000", "-35.125",
    "1.2.3", "1-2", "--1", "5-", "9", "9.0", "9.00", "42", "-9", "-9.0", "999999999999999", "9999999999999999",
    "12345678901234567890", "0.1234567890123456789", "123456789.123456789", "-0.30000000000000004",
    "99999999999999999999999999.5", "0.00000000000000000001",
]  # fmt: skip
ODD = [
    " 5", "5 ", "+5", "1e5", "1E-3", "nan", "NaN", "inf", "-inf", "Infinity", "NA", "?", "null", "None", "TRUE",
    "0x37", "1_000", "<5", "> 5", "5,5", "35,000", "1,234.5", "50 %", "\u0665\u0665", "\u22125", "P1", "MAR-01",
    "1-mar", "1.0E+09", "#N/A", "n/a", "ab\ufffd", "2024-05-05", "2024-05-05T23:00:00Z", "yes", "no", "value",
    "\u00a05", "\ufeff5", "nil", "NaT", "abc-def-12", "a.b", "1.0", "#MERGED!",
]  # fmt: skip


def columns_of(chance: random.Random, columns: int) -> bytes:
    """Return a file whose columns are of few kinds of cells."""
    cells = []
    for _ in range(columns):
        kinds = (
            NUMBERS,
            ["5", "7.25"],
            ["35.000", "36.000"],
            ["P0071", "P0072"],
            [f"{chance.gauss(5, 3)!r}" for _ in range(9)],
        )
        some = chance.choices(chance.choice(kinds), k=chance.choice((1, 3, 8)))
        some += chance.choices([*ODD, *NUMBERS], k=chance.choice((0, 0, 0, 1, 2)))
        cells.append([some[0], *(chance.choice(some).replace(",", ";") for _ in range(24))])
    lines = [",".join(f"c{place}" for place in range(columns)), *map(",".join, zip(*cells, strict=True))]
    return "\n".join(lines).replace("35,000", "35;000").encode() + b"\n"


@pytest.mark.parametrize("seed", range(6))
def test_both_readers_agree_on_columns_of_odd_cells_as_any_kind(seed):
    chance = random.Random(seed)
    plain = 0
    for _ in range(6):
        content = columns_of(chance, 8)
        compact = in_blocks(content, chance.choice(BLOCKS))
        if compact is not None:
            plain += 1
            assert list(differing_columns(compact, as_objects(content))) == []
    assert plain >= 2


@pytest.mark.parametrize("cell", [*NUMBERS, *ODD])
def test_one_odd_cell_in_the_last_block_reads_alike(cell):
    content = "\n".join(["c1;c2", *["7.25;4"] * 12, *["6.5;5"] * 12, f"{cell};8", ""]).encode()
    compact = read_plain_csv(content, "utf-8", ";", None, new_reading(), block=len(cell) + 20)
    assert compact is not None
    objects = pd.read_csv(io.BytesIO(content), sep=";", dtype=str, keep_default_na=False)
    assert list(differing_columns(compact[["c1"]], objects[["c1"]])) == []


QUOTED = [
    'a,b\n"1",2\n"3",4\n',
    '"a","b"\n1,"x, y"\n3,""\n',
    'a,b\n1,"x""y"\n3,4\n',
    'a,b\n1,x"y\n3,4\n',
    'a,b\n1,",y"z\n3,4\n',
    'a,b\n"1"2,3\n3,4\n',
    'a,b\n1,"x\ny"\n3,4\n',
    'a,b\n1,"x\n3,y"\n',
    'a,b\n "1",2\n3,4\n',
    'a,b\n1,"2\n3,4"\n5,6',
    '"a\n",b\n1,2\n3,4\n',
    'a,b\r\n"1","2"\r\n3,4\r\n',
    'a,"b\n1,2\n3,4\n',
    '"a,b\n1,2\n',
    'a,b"\n1,2\n',
    'a,"b"c\n1,2\n',
    '"a",b\n1,2\n3,4\n',
    'a,b\n1,",",\n3,4\n',
    'a,b\n1,"2"',
    'a,b\n\n1,"2"\n',
    'a,b\n",",4\na"b,5\n',
    'a,b\n1,2"\n"3,4\n',
    'a,b\n"",""\n1,2\n',
    "a,b\n'1',2\n3,4\n",
]


@pytest.mark.parametrize("text", QUOTED)
def test_quotes_read_alike_or_are_left_to_the_careful_reader(text, tmp_path):
    path = tmp_path / "rows.csv"
    for content in (text, text.replace("\n", "\r\n").replace("\r\r", "\r"), f"\ufeff{text}", text.replace(",", ";")):
        path.write_text(content, encoding="utf-8", newline="")
        source = Csv(str(path), separator=";" if ";" in content else ",")
        compact, objects = (outcome(lambda read=read: read(())) for read in (source.read_compact, source.read))
        if isinstance(objects, str):
            assert compact == objects
        else:
            assert list(compact) == list(objects) and compact.attrs == objects.attrs
            for name in objects:
                assert plain_text(compact[name]).tolist() == plain_text(objects[name]).tolist()


@pytest.mark.parametrize("name", listing.names())
def test_both_readers_agree_on_the_shipped_sites(name):
    site = listing.load(name)
    for dataset in site.datasets:
        served = site.serving(dataset)
        absent = datasets.load(dataset).absent()
        if isinstance(served.source, (Csv, Parquet)) and not absent:
            assert differences(served) == []


SETTINGS = [
    *({"separator": sign} for sign in (",", ";", "\t", "|", " ", "x", "\0", "é", r"\s+")),
    *({"encoding": name} for name in ("utf-8", "UTF_8", "utf-8-sig", "ascii", "cp1252", "utf-16", "no-such")),
    *({"columns": names} for names in (("a", "b"), ("x", "y"), ("x", "y", "z"), ("x",))),
    *(
        {"limits": limits}
        for limits in (Limits(rows=2), Limits(rows=3), Limits(columns=1), Limits(cells=5), Limits(cells=6))
    ),
]
LINES = [
    "a,b\n1,2\n3,4\n",
    "a,b\r\n1,\xe9\r\n3,4",
    "\ufeffa,b\n1,2\n3,4\n",
    "a b\n1 2\n3 4\n",
    "a,a\n1,2\n3,4\n",
    "\na,b\n1,2\n",
    "a,\n1,2\n",
    "",
]
LINES += [
    "a,b\n\n1,2\n \n3,4\n",
    "a,b\n1,2\x1a",
    "a,b\n1,2\n\x1a",
    " a,b\n 1,2\n",
    "a,b\n1,2\r3,4\n",
    "a,b\n",
    "a,b",
    "a,b\n1,2,\n3,4,\n",
    "a;b\n1,2;3,4\n",
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_both_readers_agree_on_files_of_few_lines_under_each_setting(settings, tmp_path):
    path = tmp_path / "rows.csv"
    for text in LINES:
        for name in ("utf-8", "utf-16", "cp1252"):
            path.write_bytes(text.encode(name, "replace"))
            source = Csv(str(path), **settings)
            compact, objects = (outcome(lambda read=read: read(())) for read in (source.read_compact, source.read))
            if isinstance(objects, str):
                assert compact == objects
                continue
            assert list(compact) == list(objects) and compact.attrs == objects.attrs
            for at in range(objects.shape[1]):
                assert plain_text(compact.iloc[:, at]).tolist() == plain_text(objects.iloc[:, at]).tolist()


def test_both_readers_agree_on_the_heads_of_public_tables(test_data, tmp_path):
    paths = [path for path in test_data.rglob("*.csv") if path.stat().st_size < 30_000_000]
    head = tmp_path / "head.csv"
    plain = 0
    for path in sorted(paths):
        head.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:400]))
        for separator in (",", ";"):
            source = Csv(str(head), separator=separator)
            compact, objects = (outcome(lambda read=read: read(())) for read in (source.read_compact, source.read))
            if isinstance(objects, str):
                assert compact == objects
                continue
            few = list(dict.fromkeys(objects))[:8]
            plain += isinstance(compact.dtypes.iloc[0], pd.ArrowDtype)
            assert list(differing_columns(compact[few], objects[few])) == []
            assert compact.attrs == objects.attrs
    assert plain >= 5


def test_categories_of_parquet_read_as_their_texts(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = pd.DataFrame(
        {"c": ["9", "P1", None, "yes", "9.0", "no"], "n": ["35.000", None, *["1.000"] * 4]}, dtype=object
    )
    # A value of no row says nothing about the others: beside 12.5 a thousand would be a decimal.
    kinds = {"c": ["never", "9", "P1", "<5", "yes", "9.0", "no"], "n": ["12.5", "1.000", "35.000"]}
    path.write_bytes(as_parquet(texts.astype({name: pd.CategoricalDtype(values) for name, values in kinds.items()})))
    read = Parquet(str(path)).read_compact(())
    assert all(isinstance(kind, pd.CategoricalDtype) for kind in read.dtypes)
    assert list(differing_columns(read, texts)) == []
    # The same dictionaries where another program wrote texts.
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path, store_schema=False)
    assert list(differing_columns(Parquet(str(path)).read_compact(()), texts)) == []


@pytest.mark.parametrize("rows", [*BLOCKS, None])
@pytest.mark.parametrize("dictionary", [True, ["c"], False])
@pytest.mark.parametrize("again", [True, False], ids=["names twice", "names once"])
def test_repeated_texts_of_parquet_read_as_each_by_itself(rows, dictionary, again, tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    cells = ["9", "P1", None, "35.000", "", "9", " 9 ", "12.5", "-9", "P1", "NA", "2026-01-31"]
    codes = pa.array([1, 2] * 6).dictionary_encode()
    table = pa.table({"n": np.arange(12.0), "c": cells, "d": [*"abcdefabcdef"], "again": cells, "codes": codes})
    if not again:
        table = table.append_column("m", [["1.5", "2.25", None, "1.5", "", "-3"] * 2])
    pq.write_table(
        table.append_column("d" if again else "e", [cells]), path, row_group_size=5, use_dictionary=dictionary
    )
    if rows:
        monkeypatch.setattr(parquet_module, "BATCH", rows)
        monkeypatch.setattr(parquet_module, "TEXTS_BATCH", rows)
    compact, objects = Parquet(str(path)).read_compact(()), Parquet(str(path)).read(())
    assert list(compact) == list(objects) == ["n", "c", "d", "again", "codes", *(["d"] if again else ["m", "e"])]
    for at, some in product(range(6), (slice(None), slice(2, 5))):
        assert plain_text(compact.iloc[some, at]).tolist() == plain_text(objects.iloc[some, at]).tolist()
    few = ["c", "again", *({"m"} & set(compact))]
    assert list(differing_columns(compact[few], objects[few])) == []


def test_an_index_of_texts_is_no_column_in_either_way_of_reading(tmp_path):
    path = tmp_path / "rows.parquet"
    cells = pd.DataFrame({"a": ["x", "y", "x"], "b": ["u", "v", "u"], "c": ["1", "2", "1"]})
    for index in ("a", ["a", "b"]):
        cells.set_index(index).to_parquet(path)
        compact, objects = Parquet(str(path)).read_compact(()), Parquet(str(path)).read(())
        assert list(compact) == list(objects) and list(compact.index) == list(objects.index)


def test_names_that_pandas_noted_and_that_are_damaged_are_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"c": ["a", "b"]}).replace_schema_metadata({"pandas": '{"index_columns": [}'}), path)
    for read in (Parquet(str(path)).read_compact, Parquet(str(path)).read):
        with pytest.raises(FlfedError, match="cannot be read as Parquet"):
            read(())


def test_texts_that_are_no_utf8_are_refused_also_as_codes(tmp_path):
    path = tmp_path / "rows.parquet"
    wrong = pa.array([b"ab\xff", b"c"] * 9).view(pa.string())
    pq.write_table(pa.table({"c": wrong, "n": np.arange(18.0)}), path)
    with pytest.raises(FlfedError, match="cannot be read as Parquet"):
        Parquet(str(path)).read_compact(())
