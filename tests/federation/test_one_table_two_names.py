"""One table under two datasets' names: one account of privacy, and sums that are held against each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.site_state.freeze import freeze_first, refresh
from flfed.federation.client.client import SiteClient
from flfed.federation.client.released.accounts import RowAccounts
from flfed.federation.client.released.sets import RowSets
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data.mapping import Field
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Mapped, Site
from flfed.rows.data.sources import Csv, Frame, Sql
from flfed.rows.snapshots import snapshot
from flfed.updates.accounting import Release
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

UNTOLD = "sums left before over rows of dataset "

CLOSE = "its rows differ by fewer than 10 people from rows whose sums left before: together such sums would give "
UNKNOWN = f"{UNTOLD}'small', of which it cannot tell whether they are of the same people"
ROUND = Release(5.0, 0.1, 4)
SLIM = """
format = 1
name = "slim"
task = "binary"
target = "outcome"
{group}
[columns.who]
kind = "id"
[columns.length]
kind = "number"
range = [0, 200]
[columns.outcome]
kind = "target"
values = ["no", "yes"]
"""
MAPPING = {"who": "person", "length": Field("x1", multiply=2.0), "outcome": "y"}
Compute = Callable[..., str]


@pytest.fixture
def site(small_sites, tmp_path: Path) -> Site:
    """An institution of 200 rows that serves its one table as "small" and as "slim"."""
    (found,) = small_sites(1, rows=200, policy=Policy())
    schema(tmp_path)
    return replace(found, also={"slim": Mapped(MAPPING)})


def schema(tmp_path: Path, *, group: str = "") -> None:
    folder = tmp_path / "root" / "datasets" / "slim"
    folder.mkdir(exist_ok=True)
    (folder / "schema.toml").write_text(SLIM.format(group=f'group = "{group}"' if group else ""))
    source = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
    (folder / "source.toml").write_text(source)


def group_by(tmp_path: Path, names: Iterable[str]) -> None:
    """Let the schemas of these names tell people by their identifiers."""
    for name in names:
        path = tmp_path / "root" / "datasets" / name / "schema.toml"
        group = {"small": "person", "slim": "who"}[name]
        path.write_text(path.read_text().replace("\ntarget =", f'\ngroup = "{group}"\ntarget =', 1))


@pytest.fixture
def slim(small_study: str) -> str:
    """The study of the other name."""
    return small_study.replace('name = "small"', 'name = "slim"')


@pytest.fixture
def answer(ask, small_study: str, slim: str) -> Compute:
    """A function that asks a site for its sums under one of the names; returns what it says against, or nothing."""

    def go(site: Site, name: str, run: str) -> str:
        text = {"small": small_study, "slim": slim}[name]
        reply = ask(SiteClient(lambda *_: site), site.name, SUMMARISE, SummariseRequest(), text, run=run)
        return str(reply.error.reason) if reply.has_error() else ""

    return go


def without(site: Site, many: int) -> Site:
    return replace(site, source=Frame(site.source.table.drop(index=list(range(many)))))


def test_datasets_that_share_rows_with_a_third_are_on_one_account():
    found = RowAccounts()
    for dataset, rows in (("a", {"1"}), ("b", {"2"}), ("c", {"3"}), ("b", {"3", "4"})):
        found.join(dataset, rows)
    assert [sorted(found.datasets(name)) for name in "abcd"] == [["a"], ["b", "c"], ["b", "c"], ["d"]]
    assert found.datasets("d", {"1", "4"}) == {"a", "b", "c", "d"}
    found.join("a", {"2", "9"})
    assert found.datasets("c") == {"a", "b", "c"} and len(found.groups) == 1


def test_sums_under_another_name_of_fewer_people_are_refused_and_of_the_same_ones_are_not(site, answer):
    assert answer(site, "small", "r1") == ""
    for many in (1, 9):
        said = answer(without(site, many), "slim", f"r-{many}")
        assert said.startswith(CLOSE) and may_leave(said, site)
    assert answer(site, "slim", "r2") == ""
    assert answer(without(site, 80), "slim", "r-80") == ""
    released = [line for line in ledger_of(SiteFolder(site.name)).lines() if line.kind == "released"]
    assert [line.facts["dataset"] for line in released] == ["small"] * 2 + ["slim"] * 4
    # And the other way round, of what left under the second name.
    assert answer(without(site, 81), "small", "r3").startswith(CLOSE)


def test_frozen_rows_are_held_to_those_of_the_other_name(site, answer):
    folder = SiteFolder(site.name)
    for name in ("small", "slim"):
        freeze_first(folder, (site if name == "small" else without(site, 1)).serving(name))
    served = {name: snapshot.load(site.serving(name), folder.frozen) for name in ("small", "slim")}
    assert answer(served["small"], "small", "r1") == ""
    assert answer(served["slim"], "slim", "r2").startswith(CLOSE)
    refresh(folder, site.serving("slim")).write()
    assert answer(snapshot.load(site.serving("slim"), folder.frozen), "slim", "r3") == ""
    beside = sorted(path.name for path in (folder.frozen / "slim").iterdir())
    assert len(beside) == 3 and beside[2].startswith("source-")
    # Hashes of rows that are not those that were written are not used.
    (folder.frozen / "slim" / beside[2]).write_bytes(b"x" * 16 * 200)
    with pytest.raises(Exception, match="the hashes of its rows are not those that were written"):
        snapshot.load(site.serving("slim"), folder.frozen)


def test_sets_whose_persons_were_lost_let_no_other_name_pass_until_they_are_asked_for_again(site, answer):
    assert answer(site, "small", "r1") == ""
    kept = RowSets(SiteFolder(site.name), "small")
    for path in kept.folder.glob("*.*"):
        path.unlink()
    assert answer(site, "slim", "r2") == UNKNOWN and may_leave(UNKNOWN, site)
    assert answer(site, "small", "r3") == ""
    assert answer(site, "slim", "r4") == ""


def test_people_are_told_by_their_identifiers_in_another_file(site, answer, tmp_path):
    group_by(tmp_path, ("small", "slim"))
    visits = site.source.table.assign(person=[f"P{at // 4}" for at in range(200)])
    labs = pd.DataFrame({"patient": [f"P{at}" for at in range(50)], "size": range(50), "late": ["no", "yes"] * 25})
    mapping = {"who": "patient", "length": "size", "outcome": "late"}

    def served(rows: int) -> Site:
        return replace(site, source=Frame(visits), also={"slim": Mapped(mapping, source=Frame(labs[rows:]))})

    assert answer(served(0), "small", "r1") == ""
    assert answer(served(1), "slim", "r2").startswith(CLOSE)


def test_runs_under_both_names_over_the_same_people_are_counted_together(site, answer, tmp_path):
    group_by(tmp_path, ("small", "slim"))
    few = replace(site, policy=Policy(queries=2))  # a holdout by people is the same one under both names
    assert [answer(few, name, f"r{at}") for at, name in enumerate(("small", "slim", "slim"))] == ["", "", (
        "its policy lets 2 runs have sums over one set of rows, and 2 had them"
    )]  # fmt: skip


def test_queries_for_other_columns_of_one_table_cannot_be_held_against_each_other(site, answer, tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "table.db") as connection:
        site.source.table.to_sql("visits", connection, index=False)
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{tmp_path / 'table.db'}")

    def served(columns: str, where: str = "") -> Site:
        query = Sql(f"SELECT {columns} FROM visits {where}")
        return replace(site, source=Sql("SELECT * FROM visits"), also={"slim": Mapped(MAPPING, source=query)})

    assert answer(served("*"), "small", "r1") == ""
    one = site.source.table["person"][3]
    assert answer(served("person, x1, y", f"WHERE person <> '{one}'"), "slim", "r2") == UNKNOWN
    assert answer(served("*", f"WHERE person <> '{one}'"), "slim", "r3").startswith(CLOSE)
    assert answer(served("y, colour, flag, x2, x1, person"), "slim", "r4") == ""  # their order is no difference


def test_a_name_that_knows_no_people_bounds_nothing_of_those_of_a_name_that_does(site, answer, tmp_path):
    group_by(tmp_path, ("small",))
    file = tmp_path / "table.csv"
    site.source.table.assign(person=[f"P{at // 4}" for at in range(200)]).to_csv(file, index=False)
    at = replace(site, source=Csv(str(file)))
    # Persons here, rows there: nobody can tell how two such sets differ.
    assert answer(at, "slim", "r1") == ""
    assert answer(at, "small", "r2") == UNKNOWN.replace("'small'", "'slim'")


def numbers(table: pd.DataFrame) -> pd.Series:
    return pd.to_numeric(table["x1"])


def everyone(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(one=numbers(table))


def all_but_one(table: pd.DataFrame) -> pd.DataFrame:
    return table[numbers(table) > numbers(table).min()]


def lower(table: pd.DataFrame) -> pd.DataFrame:
    return table[numbers(table) < numbers(table).median()]


def upper(table: pd.DataFrame) -> pd.DataFrame:
    return table[numbers(table) >= numbers(table).median()]


@pytest.fixture
def selected(site, tmp_path) -> Callable[..., Site]:
    """A function that serves a file as "small", and the file or another one as "slim", by functions of the package."""
    for name in ("rows.csv", "copy.csv"):
        site.source.table.to_csv(tmp_path / name, index=False)
    site.source.table.iloc[:150].to_csv(tmp_path / "extract.csv", index=False)

    def serve(small, slim, file: str = "rows.csv") -> Site:
        second = Mapped(MAPPING, source=Csv(str(tmp_path / file), prepare=slim))
        return replace(site, source=Csv(str(tmp_path / "rows.csv"), prepare=small), also={"slim": second})

    return serve


@pytest.mark.parametrize("file", ["rows.csv", "copy.csv"])
@pytest.mark.parametrize("pair", [(None, all_but_one), (all_but_one, None), (everyone, all_but_one)])
def test_a_selection_of_all_but_one_is_refused_of_a_file_and_of_a_copy(selected, answer, tmp_path, file, pair):
    group_by(tmp_path, ("small", "slim"))
    served = selected(*pair, file)
    assert answer(served, "small", "r1") == ""
    assert answer(served, "slim", "r2").startswith(CLOSE)


@pytest.mark.parametrize("file", ["rows.csv", "copy.csv", "extract.csv"])
def test_selections_of_other_people_and_of_the_same_ones_leave_their_sums(selected, answer, tmp_path, file):
    group_by(tmp_path, ("small", "slim"))
    served = selected(lower, upper, file)
    assert [answer(served, name, f"r-{name}") for name in ("small", "slim")] == ["", ""]
    assert answer(selected(lower, upper, file), "slim", "r3") == ""


@pytest.mark.parametrize("pair", [(None, all_but_one), (all_but_one, None), (lower, upper)])
def test_rows_that_a_function_makes_where_nobody_is_named_cannot_be_held_to_the_file(selected, answer, pair):
    served = selected(*pair)
    assert answer(served, "small", "r1") == ""
    assert answer(served, "slim", "r2") == UNKNOWN


@pytest.mark.parametrize("groups", [("slim",), ("small",), ("small", "slim")])
def test_people_of_one_name_and_rows_of_another_are_held_apart_in_a_copy_too(selected, answer, tmp_path, groups):
    group_by(tmp_path, groups)
    served = selected(None, all_but_one if "slim" in groups else None, "copy.csv")
    assert answer(served, "small", "r1") == ""
    assert answer(served, "slim", "r2").startswith(CLOSE if len(groups) == 2 else UNKNOWN)


def test_a_copy_under_other_names_of_columns_cannot_be_held_to_the_file(site, answer, tmp_path):
    names = tuple(site.source.table.columns)
    site.source.table.to_csv(tmp_path / "rows.csv", index=False, header=False)
    site.source.table.to_csv(tmp_path / "copy.csv", index=False, header=False)
    copy = Csv(str(tmp_path / "copy.csv"), columns=(*names[:-1], "late"))
    second = Mapped({**MAPPING, "outcome": "late"}, source=copy)
    served = replace(site, source=Csv(str(tmp_path / "rows.csv"), columns=names), also={"slim": second})
    assert answer(served, "small", "r1") == ""
    assert answer(served, "slim", "r2") == UNKNOWN
