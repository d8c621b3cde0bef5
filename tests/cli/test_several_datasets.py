"""One institution that serves several datasets: how it is found, listed, checked and asked."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from flfed import Mapped, Study, run
from flfed.errors import UsageError
from flfed.federation.engines.engine import find_sites
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv

PACKAGE = """
from flfed import Csv, Mapped, Policy, Site

site = Site(
    name="ward", dataset="small", source=Csv("table.csv"), policy=Policy(disclosure="open"),
    also={"smaller": Mapped({"size": "x1"})},
)
"""
SMALLER = """
format = 1
name = "smaller"
task = "binary"
target = "y"

[columns.size]
kind = "number"
range = [0, 100]

[columns.flag]
kind = "flag"

[columns.y]
kind = "target"
values = ["no", "yes"]
"""


@pytest.fixture
def ward(small_sites, tmp_path: Path) -> Site:
    """A site package that serves "small" and "smaller" from one table, which calls a size x1."""
    root = tmp_path / "root"
    (root / "datasets" / "smaller").mkdir()
    (root / "datasets" / "smaller" / "schema.toml").write_text(SMALLER)
    source = (root / "datasets" / "small" / "source.toml").read_text()
    (root / "datasets" / "smaller" / "source.toml").write_text(source)
    (root / "sites" / "ward").mkdir(parents=True)
    (root / "sites" / "ward" / "__init__.py").write_text(PACKAGE)
    small_sites(1, rows=80)[0].source.read(()).to_csv(root / "sites" / "ward" / "table.csv", index=False)
    return listing.load("ward")


def test_a_site_is_found_by_each_dataset_and_served_by_that_ones_mapping(ward):
    assert (ward.dataset, ward.datasets) == ("small", ("small", "smaller"))
    assert [site.dataset for site in listing.of_dataset("small")] == ["small"]
    [other] = listing.of_dataset("smaller")
    assert (other.dataset, other.name, other.policy, other.holdout) == ("smaller", "ward", ward.policy, ward.holdout)
    one, two = ward.read(), other.read()
    assert sorted(two.training) == ["flag", "size", "y"]
    both = [[*table.training[column], *table.holdout("test")[column]] for table, column in ((one, "x1"), (two, "size"))]
    assert sorted(both[0]) == sorted(both[1]) and len(both[0]) == 80


def test_list_and_check_know_each_dataset(ward, flfed):
    found = {line["site"]: line for line in json.loads(flfed("site", "list", "--json")[1])["sites"]}
    assert (found["ward"]["dataset"], found["ward"]["also"]) == ("small", ["smaller"])
    assert (found["cleveland"]["dataset"], found["cleveland"]["also"]) == ("heart-disease", ["heart-flamby"])
    assert found["minnesota-clinic"]["also"] == []
    code, out, _ = flfed("site", "check", "ward", "--dataset", "smaller", "--json")
    checked = json.loads(out)
    assert (code, checked["passed"], checked["rows"]) == (0, True, 80)
    assert [line["column"] for line in checked["columns"]][:3] == ["size", "flag", "y"]
    plain = json.loads(flfed("site", "check", "ward", "--json")[1])
    assert [line["column"] for line in plain["columns"]][1:3] == ["x1", "x2"]
    code, out, err = flfed("site", "check", "ward", "--dataset", "wine")
    assert code == 2
    assert re.sub(r"\s+", " ", err).strip().endswith("site 'ward' has dataset 'small' and 'smaller', not 'wine'")


def test_a_study_asks_a_site_under_the_dataset_it_names(ward, small_study):
    study = Study.parse(small_study).replace({"dataset.name": "smaller", "rounds": 1})
    partner = replace(ward, name="yard")
    assert [site.dataset for site in find_sites(study, [ward, partner])] == ["smaller", "smaller"]
    found = run(study, sites=[ward, partner]).report
    assert (found["faults"], sorted(found["sites"])) == ([], ["ward", "yard"])
    assert found["sites"]["ward"]["rows"] == 80
    with pytest.raises(UsageError, match="has dataset 'small' and 'smaller', the study needs 'wine'"):
        find_sites(study.replace({"dataset.name": "wine", "dataset.sites": None}), [ward])


@pytest.mark.parametrize(("also", "says"), [
    ({"smaller": {"size": "x1"}}, "also['smaller'] must be a Mapped"),
    ({"small": Mapped()}, "also names 'small', which is already its dataset"),
    ({"smaller": Mapped({"size": 5})}, "mapping['size'] must be a column's name, a Field or None"),
    ({"smaller": Mapped(source=Csv("t.csv", missing="NA"))}, "must be a tuple of codes"),
    ({"smaller": Mapped(holdout=0.3)}, "must be a Holdout or HoldoutByTime"),
])  # fmt: skip
def test_a_further_dataset_written_wrongly_is_told_so_before_anything_is_read(also, says):
    with pytest.raises(UsageError) as refused:
        Site("ward", "small", Csv("table.csv"), mapping={"x1": Field("x1")}, also=also)
    assert says in str(refused.value)
