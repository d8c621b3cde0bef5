"""One table under two datasets' names: one account of privacy."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_run_budget
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.released.accounts import BOTH, RowAccounts, origin_of
from flfed.federation.server.run import run
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.refusals import NO_LEDGER, NotSpent
from flfed.rows.data.mapping import Field
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Mapped, Site
from flfed.rows.data.sources import Csv, Frame, Sql
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon

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


def without(site: Site, many: int) -> Site:
    return replace(site, source=Frame(site.source.table.drop(index=list(range(many)))))


def account(site: Site, name: str, *, epsilon: float = 3.0, known: bool = True) -> PrivacyAccount:
    origin = origin_of(site.serving(name)) if known else None
    folder = SiteFolder(site.name)
    return PrivacyAccount(ledger_of(folder), name, Policy(epsilon=epsilon), prepare=folder.make, origin=origin)


def test_what_is_spent_under_one_name_is_spent_under_the_other(site):
    own = account(site, "small")
    own.reserve(ROUND, run="r1", round=1)
    account(site, "slim").reserve(ROUND, run="r2", round=1)
    both = epsilon([ROUND, ROUND], 1e-5)
    assert [account(site, name).spent() for name in ("small", "slim")] == pytest.approx([both, both])
    assert own.spent() == pytest.approx(both)  # also by who had read the ledger before
    lines = list(ledger_of(SiteFolder(site.name)).lines())
    assert len({line.facts["rows"] for line in lines}) == 1 and len(lines[0].facts["rows"]) == 64
    assert [line.facts["dataset"] for line in lines] == ["small", "slim"]
    with pytest.raises(NotSpent, match="privacy budget"):
        for number in range(100):
            account(site, "slim", epsilon=both * 1.2).reserve(ROUND, run="r2", round=number)
    assert account(site, "small", epsilon=both * 1.2).refusal([(BOTH, ROUND)], "r3").startswith("privacy budget: ")


def test_another_table_has_an_account_of_its_own_until_a_line_does_not_say_of_which_it_is(site):
    other = Mapped(MAPPING, source=Frame(site.source.table.assign(x1=1.0, person="Q" + site.source.table["person"])))
    apart = replace(site, also={"slim": other})
    account(apart, "small").reserve(ROUND, run="r1", round=1)
    assert account(apart, "slim").spent() == 0.0 < account(apart, "small").spent()
    account(apart, "small", known=False).reserve(ROUND, run="r0", round=1)  # as an earlier version wrote it
    assert account(apart, "slim").spent() == pytest.approx(epsilon([ROUND], 1e-5))
    assert account(apart, "small").spent() == pytest.approx(epsilon([ROUND, ROUND], 1e-5))
    # Of rows of which nobody knows where they come from everything counts.
    assert account(apart, "slim", known=False).spent() == pytest.approx(epsilon([ROUND, ROUND], 1e-5))


def test_a_table_that_changed_between_two_names_is_on_one_account_by_where_it_is(site, tmp_path):
    file = tmp_path / "table.csv"
    site.source.table.to_csv(file, index=False)
    at = replace(site, source=Csv(str(file)))
    account(at, "small").reserve(ROUND, run="r1", round=1)
    site.source.table[5:].to_csv(file, index=False)
    assert account(at, "slim").spent() == pytest.approx(epsilon([ROUND], 1e-5))
    # A copy of it elsewhere is of the same content; a changed copy is not known by either.
    for rows, expected in ((0, epsilon([ROUND], 1e-5)), (9, 0.0)):
        copy = tmp_path / f"copy-{rows}.csv"
        site.source.table[rows:].to_csv(copy, index=False)
        assert account(replace(site, source=Csv(str(copy))), "slim").spent() == pytest.approx(expected)


def test_a_key_that_is_gone_lets_nothing_be_spent(site):
    account(site, "small").reserve(ROUND, run="r1", round=1)
    (SiteFolder(site.name).gate / "rows.key").unlink()
    for name in ("small", "slim"):
        with pytest.raises(NotSpent, match=NO_LEDGER):
            account(site, name).reserve(ROUND, run="r1", round=2)


def test_datasets_that_share_rows_with_a_third_are_on_one_account():
    found = RowAccounts()
    for dataset, rows in (("a", {"1"}), ("b", {"2"}), ("c", {"3"}), ("b", {"3", "4"})):
        found.join(dataset, rows)
    assert [sorted(found.datasets(name)) for name in "abcd"] == [["a"], ["b", "c"], ["b", "c"], ["d"]]
    assert found.datasets("d", {"1", "4"}) == {"a", "b", "c", "d"}
    found.join("a", {"2", "9"})
    assert found.datasets("c") == {"a", "b", "c"} and len(found.groups) == 1


def test_people_are_told_by_their_identifiers_in_another_file(site, tmp_path):
    group_by(tmp_path, ("small", "slim"))
    visits = site.source.table.assign(person=[f"P{at // 4}" for at in range(200)])
    labs = pd.DataFrame({"patient": [f"P{at}" for at in range(50)], "size": range(50), "late": ["no", "yes"] * 25})
    mapping = {"who": "patient", "length": "size", "outcome": "late"}

    def served(rows: int) -> Site:
        return replace(site, source=Frame(visits), also={"slim": Mapped(mapping, source=Frame(labs[rows:]))})

    account(served(0), "small").reserve(ROUND, run="r1", round=1)
    assert account(served(0), "slim").spent() == pytest.approx(epsilon([ROUND], 1e-5))


def test_queries_for_other_columns_of_one_table_are_on_one_account(site, tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "table.db") as connection:
        site.source.table.to_sql("visits", connection, index=False)
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{tmp_path / 'table.db'}")

    def served(columns: str, where: str = "") -> Site:
        query = Sql(f"SELECT {columns} FROM visits {where}")
        return replace(site, source=Sql("SELECT * FROM visits"), also={"slim": Mapped(MAPPING, source=query)})

    account(served("*"), "small").reserve(ROUND, run="r1", round=1)
    assert account(served("person, x1, y"), "slim").spent() == pytest.approx(epsilon([ROUND], 1e-5))


def test_a_query_s_table_is_known_behind_brackets_and_names_and_else_every_line_counts(site, tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "table.db") as connection:
        site.source.table.to_sql("visits", connection, index=False)
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{tmp_path / 'table.db'}")

    def served(query: str) -> Site:
        return replace(site, source=Sql("SELECT * FROM visits"), also={"slim": Mapped(MAPPING, source=Sql(query))})

    made = ", ".join(f"('P{at}', {at}, '{'no' if at % 2 else 'yes'}')" for at in range(80))
    plain = "SELECT person, x1, y FROM visits"
    account(served(plain), "small").reserve(ROUND, run="r1", round=1)
    spent = pytest.approx(epsilon([ROUND], 1e-5))
    for query in (
        "WITH visits AS (SELECT * FROM main.visits) SELECT person, x1, y FROM visits",
        "SELECT person, x1, y FROM (visits)",
        f"SELECT column1 AS person, column2 AS x1, column3 AS y FROM (VALUES {made})",
    ):
        assert account(served(query), "slim").spent() == spent
    account(served(query), "slim").reserve(ROUND, run="r2", round=1)
    assert account(served(plain), "small").spent() == pytest.approx(epsilon([ROUND, ROUND], 1e-5))


def test_a_name_that_knows_no_people_bounds_nothing_of_those_of_a_name_that_does(site, tmp_path):
    group_by(tmp_path, ("small",))
    file = tmp_path / "table.csv"
    site.source.table.assign(person=[f"P{at // 4}" for at in range(200)]).to_csv(file, index=False)
    at = replace(site, source=Csv(str(file)))
    account(at, "small").reserve(ROUND, run="r1", round=1)
    assert account(at, "slim").spent() == account(at, "small").spent() == pytest.approx(epsilon([ROUND], 1e-5))
    account(at, "slim").reserve(ROUND, run="r2", round=1)
    assert math.isinf(account(at, "small").spent())
    assert account(at, "slim").spent() == pytest.approx(epsilon([ROUND, ROUND], 1e-5))


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


@pytest.mark.parametrize("groups", [("slim",), ("small", "slim")])
def test_a_selection_has_no_budget_of_its_own(selected, tmp_path, groups):
    group_by(tmp_path, groups)
    # What was counted by rows bounds nothing of people who may have several.
    spent = pytest.approx(math.inf if groups == ("slim",) else epsilon([ROUND], 1e-5))
    account(selected(None, None), "small").reserve(ROUND, run="r1", round=1)
    for slim in (None, everyone, lower, upper):
        for file in ("rows.csv", "copy.csv"):
            assert account(selected(None, slim, file), "slim").spent() == spent
    # A file that was refreshed is the table that it was.
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("P-new,50.5,0.5,1,red,yes\n")
    assert account(selected(None, all_but_one), "slim").spent() == spent


def test_rows_that_a_function_makes_where_nobody_is_named_have_all_that_was_spent(selected):
    account(selected(None, None), "small").reserve(ROUND, run="r1", round=1)
    assert account(selected(None, lower), "slim").spent() >= epsilon([ROUND], 1e-5)


def test_a_run_under_each_name_is_charged_to_one_budget(site, small_study: str, slim: str):
    private = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
    second = another(site)
    sites = [replace(one, policy=Policy(epsilon=2.5)) for one in (site, second)]
    texts = [text.replace("epochs = 1", "steps = 4") + private for text in (small_study, slim)]
    reports = [run(Study.parse(text), sites=sites).report for text in texts]
    assert [one["status"] for one in reports] == ["completed", "stopped"]
    assert reports[1]["reason"].startswith("privacy budget: none left at site-01, site-02")
    found = budget_as_json(sites[0], ledger_of(SiteFolder("site-01")))
    assert [one["dataset"] for one in found["datasets"]] == ["small", "slim"]
    first, other = found["datasets"]
    assert first["account"] == other["account"] == ["slim", "small"]
    assert first["spent"] == pytest.approx(other["spent"]) and 2.0 < first["spent"] <= 2.5
    assert [entry["dataset"] for entry in other["runs"]] == ["small", "slim"]
    one_account = " Its rows are those of 'small', so that both have one account."
    words = describe_account(other, 1e-5, enforced=True)
    assert words.startswith("slim: epsilon ") and words.endswith(one_account)
    said = " ".join(describe_run_budget(sites[0], ledger_of(SiteFolder("site-01")), "slim", ROUND, 5))
    assert said.startswith("Privacy budget: all studies together have spent epsilon ") and said.endswith(one_account)


def another(site: Site) -> Site:
    """Return a second site of the same two names, and other people."""
    table = site.source.table.assign(x1=site.source.table["x1"] * 0.5, person="R" + site.source.table["person"])
    return replace(site, name="site-02", source=Frame(table))
