"""What every shipped site keeps: it fits its schema, has a policy, and importing it opens nothing."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import flfed
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable
from flfed.study.study import Study
from flfed.testing import check_site

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.parent.name.replace("_", "-") for path in ROOT.glob("sites/*/__init__.py"))
# Rows of the publications: Michalowicz 2006 (without nine lost to follow-up), UCI, Lending Club.
ROWS = {
    "kentucky-clinic": 208, "minnesota-clinic": 247, "mississippi-clinic": 192, "new-york-clinic": 167,
    "south-lender": 3671, "west-lender": 2446, "northeast-lender": 1925, "midwest-lender": 1815, "cleveland": 303,
    "hungary": 294, "switzerland": 123, "long-beach": 200,
    # simulated: payments of the two periods
    "harbour-bank": 12903, "hill-bank": 6065, "lake-bank": 10898, "river-bank": 8113, "valley-bank": 4650,
    # columns of the same people
    "card-bank": 30000, "payment-service": 30000,
}  # fmt: skip


PAIRS = [(name, dataset) for name in NAMES for dataset in listing.load(name).datasets]


@pytest.fixture(params=PAIRS, ids="/".join)
def site(request: pytest.FixtureRequest) -> Site:
    name, dataset = request.param
    found = listing.load(name).serving(dataset)
    if datasets.load(found.dataset).absent():
        request.getfixturevalue("taiwan_parties" if dataset == "taiwan-credit-parties" else "heart")
    return found


READ: dict[tuple[str, str], tuple[pd.DataFrame, list[Finding], Schema, SiteTable]] = {}


@pytest.fixture
def tables(site: Site) -> tuple[pd.DataFrame, list[Finding], Schema, SiteTable]:
    """The site's table, its findings, its schema, and both sides of it: read once, and changed by no test."""
    key = (site.name, site.dataset)
    if key not in READ:
        READ[key] = (*site.inspect(), site.read() if site.has_outcome else site.read_columns())
    return READ[key]


def test_all_sites_are_listed():
    assert sorted(ROWS) == NAMES
    assert set(NAMES) <= set(listing.names())


def test_a_table_fits_its_schema_and_every_row_is_on_one_side(site, tables):
    table, findings, schema, found = tables
    assert [str(finding.error()) for finding in findings] == []
    assert len(table) == ROWS[site.name]
    held = found.holdout("compare")
    assert len(found.training) + len(held) == len(table)
    assert list(found.training.columns) == list(schema.columns)
    if not site.has_outcome:
        assert not len(held)
        return
    if isinstance(site.holdout, HoldoutByTime):
        assert found.training["time"].max() <= held["time"].min() - pd.Timedelta(days=site.holdout.gap_days)
        return
    # A share of 0.3 of n rows has a deviation of sqrt(0.21 / n).
    assert abs(len(held) / len(table) - 0.3) < 4 * (0.21 / len(table)) ** 0.5
    if schema.group:
        assert not set(found.training[schema.group]) & set(held[schema.group])


# The rules read a table nine times, so two sites stand for the others until the slow tests.
QUICK = {"cleveland", "minnesota-clinic"}
SLOW = [pytest.mark.slow, pytest.mark.studies]
ALL = [pytest.param(pair, marks=() if pair[0] in QUICK else SLOW) for pair in PAIRS]


@pytest.mark.parametrize("site", ALL, indirect=True, ids="/".join)
def test_a_site_keeps_the_contract(site):
    check_site(site)


# Switzerland's cholesterol is 0 throughout; in New York no woman's type of diabetes is known.
# Parties with different columns have fewer on purpose.
EMPTY = {("switzerland", "heart-disease"): ["chol"], ("new-york-clinic", "preterm-birth"): ["BL.Diab.Type"]}


def test_every_allowed_feature_has_values_at_every_site_but_two_known_ones(site, tables):
    table, _, schema, _ = tables
    if schema.name == "taiwan-credit-parties":
        others = [name for name in schema.columns if site.mapping.get(name, name) is None]
        assert (
            others == [name for name in schema.columns if table[name].isna().all()]
            and (schema.target in others) != site.has_outcome
        )
        return
    assert [name for name in schema.features() if table[name].isna().all()] == EMPTY.get((site.name, site.dataset), [])
    assert table[schema.target].nunique() == len(schema.classes)


def test_the_policy_beside_a_site_is_read(site):
    assert site.folder is not None and (site.folder / "policy.toml").is_file()
    salted = isinstance(site.holdout, Holdout) and site.has_outcome
    # A holdout by time is the same in every repeat.
    assert (site.policy.disclosure, site.policy.resplit, site.policy.share) == ("open", salted, "named")
    assert site.title and (not salted or site.holdout.salt.startswith(site.name))


def test_a_site_imports_only_public_names(site):
    text = (site.folder / "__init__.py").read_text(encoding="utf-8")
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert len(imports) == 1 and imports[0].startswith("from flfed import ")
    assert set(imports[0].removeprefix("from flfed import ").split(", ")) <= set(flfed.__all__)
    assert text.lstrip().startswith('"""')


def test_salts_differ_so_that_no_site_can_tell_anothers_holdout():
    sites = [site for name in NAMES if (site := listing.load(name)).has_outcome]
    salted = [holdout for site in sites if isinstance(holdout := site.holdout, Holdout)]
    assert len({holdout.salt for holdout in salted}) == len(salted) == 13


WATCH = """
import sys
from flfed.rows.data import site_discovery as listing
opened, connected = [], []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".csv", ".data", ".parquet", ".db")):
        opened.append(arguments[0])
    if event in ("socket.connect", "sqlite3.connect"):
        connected.append(event)
sys.addaudithook(hook)
sites = [listing.load(name) for name in listing.names()]
assert len(sites) >= 12, len(sites)
assert not opened and not connected, (opened, connected)
next(site for site in sites if site.name == "minnesota-clinic").read()
assert any("minnesota.csv" in str(path) for path in opened), opened
"""


def test_importing_all_sites_opens_no_table_and_no_connection():
    done = subprocess.run([sys.executable, "-c", WATCH], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_sites_of_a_study_are_found_by_its_dataset():
    study = Study.load("preterm-birth")
    names = [site.name for site in listing.of_dataset(study.dataset.name)]
    assert names == ["kentucky-clinic", "minnesota-clinic", "mississippi-clinic", "new-york-clinic"]


def test_hidden_missing_values_of_heart_are_missing(heart):
    chol = {name: listing.load(name).inspect()[0]["chol"] for name in ("switzerland", "long-beach", "cleveland")}
    assert chol["switzerland"].isna().all()
    assert (chol["long-beach"].isna().sum(), chol["cleveland"].isna().sum()) == (56, 0)  # 49 zeros and 7 "?"
    assert pd.concat(chol.values()).min() >= 50


def test_zeros_of_heart_are_values_for_who_asks_for_the_published_table(heart):
    tables = {site.name: site.inspect()[0] for site in listing.of_dataset("heart-flamby")}
    assert sorted(tables) == ["cleveland", "hungary", "long-beach", "switzerland"]
    assert {name: int((table["chol"] == 0).sum()) for name, table in tables.items()} == {
        "cleveland": 0, "hungary": 0, "long-beach": 49, "switzerland": 123,
    }  # fmt: skip
    assert [int((table["trestbps"] == 0).sum()) for table in tables.values()] == [0, 0, 1, 0]
