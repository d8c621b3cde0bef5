"""The function of a site's package that makes its table: when it runs, what it gets, and what is told of it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from flfed.errors import TableError, UsageError
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Frame, Parquet, Sql
from flfed.rows.data.table_check import check_site
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.rows.snapshots.snapshot import freeze, load

CELL = "Jane Roe 1964"
SEEN: list[pd.DataFrame] = []


def noted(table: pd.DataFrame) -> pd.DataFrame:
    SEEN.append(table)
    return table


def large(table: pd.DataFrame) -> pd.DataFrame:
    return table[pd.to_numeric(table["x1"]) >= 50]


def doubled(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(x1=pd.to_numeric(table["x1"]) / 2)


def spoilt(table: pd.DataFrame) -> pd.DataFrame:
    table["x1"] = 0.0
    return table


def fails(table: pd.DataFrame) -> pd.DataFrame:
    return pd.to_numeric(table["person"]).to_frame()


def fails_with_a_cell(table: pd.DataFrame) -> pd.DataFrame:
    raise UsageError(table["person"].iloc[0])


def no_table(table: pd.DataFrame) -> pd.DataFrame:
    return len(table)  # type: ignore[return-value]  # - what is refused


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(x2=np.random.default_rng().random(len(table)))


def everywhere(table: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Csv | Parquet | Sql]:
    """Return a source of each kind with the same table, which has a "?" in x1."""
    text = table.astype({"x1": object})
    text.loc[0, "x1"] = " ? "
    text.to_csv(folder / "rows.csv", index=False)
    text.assign(x1=text["x1"].astype(str)).to_parquet(folder / "rows.parquet")
    url = f"sqlite:///{folder}/rows.sqlite"
    engine = sqlalchemy.create_engine(url)
    text.assign(x1=text["x1"].astype(str)).to_sql("rows", engine, index=False)
    engine.dispose()
    monkeypatch.setenv("WARD", url)
    more = {"missing": ("?",), "prepare": noted}
    return {
        "csv": Csv(str(folder / "rows.csv"), **more), "parquet": Parquet(str(folder / "rows.parquet"), **more),
        "sql": Sql("SELECT * FROM rows", url_variable="WARD", **more),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "sql"])
def test_it_gets_texts_without_blanks_and_none_for_codes_of_missing(small_sites, tmp_path, monkeypatch, kind):
    site = small_sites(1)[0]
    table = site.source.table.assign(colour=" " + site.source.table["colour"] + " ")
    source = everywhere(table, tmp_path, monkeypatch)[kind]
    SEEN.clear()
    mapped, findings, _ = replace(site, source=source).inspect()
    (seen,) = SEEN
    assert findings == [] and list(seen.columns) == list(table.columns)
    assert seen["x1"].iloc[0] is None and seen["x1"].notna().sum() == len(table) - 1
    assert seen["colour"].tolist() == site.source.table["colour"].tolist()
    assert np.isnan(mapped["x1"].iloc[0])


def test_it_runs_before_the_mapping_and_leaves_the_source_s_table_as_it_is(small_sites):
    site = small_sites(1)[0]
    before = site.source.table.copy()
    for prepare, expected in ((doubled, before["x1"] / 2), (large, before["x1"][before["x1"] >= 50])):
        table = replace(site, source=Frame(site.source.table, prepare=prepare)).inspect()[0]
        np.testing.assert_allclose(table["x1"], expected, rtol=1e-15)
    replace(site, source=Frame(site.source.table, prepare=spoilt)).inspect()
    pd.testing.assert_frame_equal(site.source.table, before)


def test_people_who_opted_out_are_gone_before_it_runs(small_sites, tmp_path):
    site = small_sites(1)[0]
    (tmp_path / "out.csv").write_text("person\nP0-0003\n")
    (tmp_path / "out.csv").chmod(0o600)
    excluded = Excluded.read(tmp_path / "out.csv")
    SEEN.clear()
    of_rows = replace(site, source=Frame(site.source.table, prepare=noted))
    with pytest.raises(UsageError, match="prepare=noted and people who are listed, .* dataset 'small' names a group"):
        freeze(of_rows, tmp_path / "frozen", excluded)
    with pytest.raises(UsageError, match="names a group"):
        excluded.only(of_rows)
    assert SEEN == []


def grouped(folder: Path) -> None:
    """Let the dataset's schema name persons as its group."""
    schema = folder / "datasets" / "small" / "schema.toml"
    text = schema.read_text(encoding="utf-8")
    schema.write_text(text.replace('target = "y"\n', 'target = "y"\ngroup = "person"\n', 1), encoding="utf-8")


def test_with_a_group_the_rows_of_people_who_opted_out_never_reach_it(small_sites, tmp_path):
    site = small_sites(1)[0]
    from flfed.rows.data import datasets

    folder = datasets.load("small").folder.parents[1]
    grouped(folder)
    (tmp_path / "out.csv").write_text("person\nP0-0003\n")
    (tmp_path / "out.csv").chmod(0o600)
    SEEN.clear()
    freeze(
        replace(site, source=Frame(site.source.table, prepare=noted)), tmp_path / "frozen",
        Excluded.read(tmp_path / "out.csv"),
    )  # fmt: skip
    (seen,) = SEEN
    assert len(seen) == len(site.source.table) - 1 and "P0-0003" not in set(seen["person"])


def exits_with_a_cell(table: pd.DataFrame) -> pd.DataFrame:
    sys.exit(table["person"].iloc[0])


def warns_of_a_cell(table: pd.DataFrame) -> pd.DataFrame:
    warnings.warn(
        table["person"].iloc[0], FutureWarning, stacklevel=1
    )  # as pandas quotes a text that does not fit a column
    return table


def test_a_warning_in_it_is_dropped_since_pandas_quotes_cells(small_sites, recwarn):
    site = small_sites(1)[0]
    table = site.source.table.assign(person=CELL)
    with pytest.warns(FutureWarning, match=CELL):
        warns_of_a_cell(table.copy())
    recwarn.clear()
    replace(site, source=Frame(table, prepare=warns_of_a_cell)).inspect()
    assert not any(CELL in str(one.message) for one in recwarn)


@pytest.mark.parametrize("prepare", [fails, fails_with_a_cell, exits_with_a_cell])
def test_an_error_in_it_is_its_type_file_and_line_and_never_its_text(small_sites, prepare):
    site = small_sites(1)[0]
    table = site.source.table.assign(person=CELL)
    with pytest.raises(UsageError) as refused:
        replace(site, source=Frame(table, prepare=prepare)).inspect()
    kind = {fails: "ValueError", fails_with_a_cell: "UsageError", exits_with_a_cell: "SystemExit"}[prepare]
    line = prepare.__code__.co_firstlineno + 1
    expected = f"prepare={prepare.__name__}: its code failed ({kind} in line {line} of test_prepare.py)"
    assert str(refused.value) == expected
    assert refused.value.__suppress_context__ and "Jane" not in str(refused.value)


def test_what_is_no_function_with_a_name_or_returns_no_table_is_refused(small_sites):
    site = small_sites(1)[0]
    tables = pd.DataFrame({"person": [CELL]})
    for wrong in ("age >= 18", lambda table: table, tables.merge, partial(pd.merge, tables), pd.DataFrame):
        with pytest.raises(UsageError, match="must be a function with a name, of the site's package") as refused:
            Csv("rows.csv", prepare=wrong)
        assert CELL not in str(refused.value)
    with pytest.raises(UsageError, match="prepare=no_table must return a DataFrame, not int"):
        replace(site, source=Frame(site.source.table, prepare=no_table)).inspect()


def test_the_check_runs_it_twice_and_refuses_a_difference(small_sites):
    site = small_sites(1)[0]
    assert check_site(replace(site, source=Frame(site.source.table, prepare=doubled))).passed
    checked = check_site(replace(site, source=Frame(site.source.table, prepare=drawn)))
    assert not checked.passed
    assert "drawn gives another table each time it runs" in [line.detail for line in checked.lines if not line.passed]


PACKAGE = '''
import pandas as pd
from flfed import Csv, Holdout, Site
from .rules import LEAST


def adults(table):
    """Adults only."""
    return table[pd.to_numeric(table["x1"]) >= LEAST]


site = Site(
    name="ward-7", dataset="small", source=Csv("rows.csv", prepare=adults), holdout=Holdout(salt="s"),
)
'''


@pytest.fixture
def ward(small_sites, tmp_path) -> Path:
    """The folder of a site's package, with a function over its rows."""
    table = small_sites(1)[0].source.table
    folder = tmp_path / "packages" / "sites" / "ward_7"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "rules.py").write_text("LEAST = 50\n")
    table.to_csv(folder / "rows.csv", index=False)
    return folder


def test_a_site_crosses_to_another_process_by_folder_and_name(ward, tmp_path):
    site = sites.of_folder(ward)
    packed = pickle.dumps(site)
    assert b"LEAST" not in packed and str(ward).encode() in packed
    (tmp_path / "site.pickle").write_bytes(packed)
    code = (
        "import pickle, sys; site = pickle.load(open(sys.argv[1], 'rb'));"
        "print(site.source.prepare.__qualname__, len(site.inspect()[0]))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "site.pickle")], capture_output=True, text=True)
    assert found.stdout.split() == ["adults", str(len(site.inspect()[0]))], found.stderr
    # In this process it is the same function.
    assert pickle.loads(packed).source.prepare is site.source.prepare


def test_a_snapshot_has_the_function_s_name_and_the_day_of_its_package_s_code(ward, tmp_path):
    import datetime

    site = sites.of_folder(ward)
    days = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]
    first = freeze(site, tmp_path / "frozen", None, at=days[0])
    second = freeze(site, tmp_path / "frozen", None, at=days[1])
    assert (first.prepare, len(first.code_sha256), first.code_at) == ("adults", 64, "2026-01-01T00:00:00+00:00")
    assert (second.code_sha256, second.code_at) == (first.code_sha256, first.code_at)
    # A file that the function reads its rule from is code of the package, too.
    (ward / "rules.py").write_text("LEAST = 40\n")
    third = freeze(site, tmp_path / "frozen", None, at=days[2])
    assert third.code_sha256 != first.code_sha256 and third.code_at == "2026-01-03T00:00:00+00:00"
    facts = json.loads((tmp_path / "frozen" / "small" / "frozen.json").read_text())
    assert (facts["prepare"], facts["code-sha256"]) == ("adults", third.code_sha256)


def test_what_is_served_from_a_snapshot_never_runs_it(small_sites, tmp_path):
    site = small_sites(1)[0]
    SEEN.clear()
    kept = replace(site, source=Frame(site.source.table, prepare=noted))
    freeze(kept, tmp_path, None)
    assert len(SEEN) == 1
    served = load(kept, tmp_path)
    assert served.source.prepare is None and len(served.read().training) > 0
    served.inspect()
    assert len(SEEN) == 1


def test_a_table_that_it_makes_is_checked_as_any_other(small_sites):
    site: Site = small_sites(1)[0]
    with pytest.raises(TableError, match="^column 'x1' "):
        replace(site, source=Frame(site.source.table.assign(x1=site.source.table["x1"] * 1e6), prepare=doubled)).read()
