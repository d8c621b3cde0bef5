"""How a site is found, what its package may hold, and how its table is read."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.errors import TableError, UsageError
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.row_keys import order_keys, row_keys
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Csv, Frame

PACKAGE = """
from flfed import Csv, Holdout, Site

site = Site(name={name!r}, dataset="small", source=Csv("table.csv"), holdout=Holdout(salt="s"))
"""


def package(folder: Path, name: str, policy: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE.format(name=name))
    if policy:
        (folder / "policy.toml").write_text(policy)
    return folder


@pytest.mark.parametrize("name", ["", "Clinic", "a_b", "a--b", "-a", "a b", "klinik-ü"])
def test_a_name_that_could_not_be_a_key_everywhere_is_refused(name):
    with pytest.raises(UsageError, match="must be of a-z, 0-9 and single hyphens"):
        Site(name=name, dataset="small", source=Csv("t.csv"))


def test_a_folder_is_a_site_with_the_table_and_the_policy_beside_it(small_sites, tmp_path):
    table = small_sites(1)[0].source.read(())
    folder = package(tmp_path / "root" / "sites" / "my_clinic", "my-clinic", 'disclosure = "open"\nresplit = true')
    table.to_csv(folder / "table.csv", index=False)
    site = listing.load("my-clinic")
    assert "my-clinic" in listing.names()
    assert (site.policy, site.folder) == (Policy(disclosure="open", resplit=True), folder)
    found = site.read()
    assert len(found.training) + len(found.holdout("compare")) == len(table)
    assert [s.name for s in listing.of_dataset("small")] == ["my-clinic"]


def test_a_package_elsewhere_is_found_by_its_import_path(small_sites, tmp_path, monkeypatch):
    table = small_sites(1)[0].source.read(())
    folder = package(tmp_path / "elsewhere" / "our_hospital_package" / "clinic", "north-wing", "cell-minimum = 20")
    (folder.parent / "__init__.py").write_text("")
    table.to_csv(folder / "table.csv", index=False)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    for path in ("our_hospital_package.clinic", "our_hospital_package.clinic:site"):
        site = listing.load(path)
        assert (site.name, site.policy.cell_minimum, site.policy.disclosure) == ("north-wing", 20, "institution")
        assert len(site.read().training) > 10
    with pytest.raises(UsageError, match="no module 'our_hospital_package.nix'"):
        listing.load("our_hospital_package.nix")


def test_a_package_that_is_installed_is_found_by_its_entry_point(small_sites, tmp_path, monkeypatch):
    small_sites(1)
    place = tmp_path / "installed"
    package(place / "flfed_site_of_tests", "entry-clinic", 'disclosure = "open"')
    info = place / "flfed_site_of_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flfed-site-of-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flfed.site]\nentry-clinic = flfed_site_of_tests:site\n")
    monkeypatch.syspath_prepend(str(place))
    assert "entry-clinic" in listing.names()
    site = listing.load("entry-clinic")
    assert (site.name, site.policy.disclosure, site.folder) == ("entry-clinic", "open", place / "flfed_site_of_tests")


def test_a_site_without_a_policy_has_the_strictest(small_sites, tmp_path):
    small_sites(1)
    package(tmp_path / "root" / "sites" / "quiet", "quiet")
    assert listing.load("quiet").policy == Policy(disclosure="institution", cell_minimum=10, resplit=False, outputs=())


@pytest.mark.parametrize(("text", "why"), [
    ('disclosure = "all"', "disclosure"), ("cell-minimum = 1", "cell-minimum"), ("cell_min = 3", "cell_min"),
    ("resplit = true", "two splits reveal small counts"), ('share = "loudly"', "share"),
    ('outputs = ["rows"]', "outputs"), ("disclosure = open", "not valid TOML"),
])  # fmt: skip
def test_a_policy_that_cannot_be_kept_is_refused_with_its_place(small_sites, tmp_path, text, why):
    small_sites(1)
    package(tmp_path / "root" / "sites" / "strict", "strict", text)
    with pytest.raises(UsageError, match=why) as caught:
        listing.load("strict")
    assert "policy.toml" in str(caught.value)


def test_two_splits_of_the_same_rows_would_give_small_counts_away(small_sites):
    # Why `resplit` needs `open`. 52 rows of a kind: 40 train and 12 are held out, both may leave,
    # so everybody knows 52. Another split with 45 and 7 would hide the 7, in vain: 52 - 45.
    site = small_sites(1)[0]
    counts = [[len(part) for part in (found.training, found.holdout("compare"))] for found in map(site.read, range(6))]
    assert {sum(pair) for pair in counts} == {60}
    assert len({tuple(pair) for pair in counts}) > 1


def test_a_package_that_names_itself_otherwise_or_holds_no_site_is_refused(small_sites, tmp_path):
    small_sites(1)
    package(tmp_path / "root" / "sites" / "east_clinic", "west-clinic")
    with pytest.raises(UsageError, match="'east-clinic' names itself 'west-clinic'"):
        listing.load("east-clinic")
    (package(tmp_path / "root" / "sites" / "empty", "empty") / "__init__.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match="must end with `site = Site"):
        listing.load("empty")
    with pytest.raises(UsageError, match="did you mean 'cleveland'"):
        listing.load("clevelnd")


def test_sites_of_a_run_come_in_name_order_and_have_different_names(small_sites):
    sites = small_sites(3)
    assert [site.name for site in listing.chosen(sites[::-1])] == ["site-01", "site-02", "site-03"]
    with pytest.raises(UsageError, match="site .site-01. is there twice"):
        listing.chosen([*sites, sites[0]])


def test_a_table_is_sorted_split_and_whole(small_sites):
    site = small_sites(1, rows=80)[0]
    found = site.read()
    held = found.holdout("compare")
    for part in (found.training, held):
        np.testing.assert_array_equal(order_keys(row_keys(part)), np.arange(len(part)))
    everyone = sorted(pd.concat([found.training, held])["person"])
    assert everyone == sorted(site.source.read(())["person"])
    assert found.opened == ["compare"]


def test_a_repeat_draws_another_holdout_only_where_the_policy_lets_it(small_sites):
    site = small_sites(1)[0]
    fixed = replace(site, policy=Policy(disclosure="open"))
    assert not site.read(1).training.equals(site.read(0).training)
    pd.testing.assert_frame_equal(fixed.read(1).training, fixed.read(0).training)


def test_a_table_that_breaks_a_rule_is_not_read_and_every_rule_is_found(small_sites):
    site = small_sites(1, change=lambda _, t: t.assign(x1=-1.0, flag="Canary-7731"))[0]
    with pytest.raises(TableError, match="column 'x1' is outside the schema's range 0 to 100 mm in 60 rows"):
        site.read()
    _, findings, _ = site.inspect()
    assert [(f.column, len(f.rows)) for f in findings] == [("x1", 60), ("flag", 60)]
    assert not any("Canary" in str(f.error()) for f in findings)


def test_an_empty_table_is_a_finding(small_sites):
    site = small_sites(1)[0]
    empty = replace(site, source=Frame(site.source.read(())[:0]))
    with pytest.raises(TableError, match="has no rows: the table is empty"):
        empty.read()


def test_making_a_site_reads_nothing(tmp_path):
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple) -> None:
        if watching and event == "open" and str(tmp_path) in str(arguments[0]):
            opened.append(str(arguments[0]))

    (tmp_path / "t.csv").write_text("a\n1\n")
    sys.addaudithook(hook)
    site = Site(name="a", dataset="small", source=Csv(str(tmp_path / "t.csv")), folder=tmp_path)
    assert opened == []
    site.source.read(())
    watching = False
    assert opened == [str(tmp_path / "t.csv")]


def test_a_sites_rows_are_those_of_its_source_in_number(small_sites):
    sizes = [len(s.read().training) + len(s.read().holdout("x")) for s in small_sites(3, rows=40)]
    np.testing.assert_array_equal(sizes, [40, 50, 60])


BROKEN = {
    "site = Site(": r"SyntaxError: '\(' was never closed \(__init__.py, line 1\)",
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    "raise KeyError('Jane Roe')": r"\(KeyError in line 1 of __init__.py\)$",
    "\nfloat('Jane Roe')": r"\(ValueError in line 2 of __init__.py\)$",
    "from flfed import Csv\n\nCsv('t.csv', seperator=';')": r"\(TypeError in line 3 of __init__.py\)$",
    "from flfed import Holdout\nHoldout(\n share='a')": r"\(TypeError in line 2 of __init__.py\)$",
    "from flfed.errors import UsageError\nraise UsageError('set CLINIC_URL')": "^set CLINIC_URL$",
    "site = 3": "must end with `site = Site",
}


@pytest.mark.parametrize(("text", "why"), BROKEN.items())
def test_a_package_that_cannot_be_imported_ends_only_what_asks_for_it(small_sites, tmp_path, caplog, text, why):
    table = small_sites(1)[0].source.read(())
    table.to_csv(package(tmp_path / "root" / "sites" / "whole", "whole") / "table.csv", index=False)
    folder = package(tmp_path / "root" / "sites" / "broken", "broken")
    (folder / "__init__.py").write_text(text)
    with pytest.raises(UsageError, match=why) as said:
        listing.load("broken")
    assert "Jane" not in str(said.value)
    assert said.value.__suppress_context__ or said.value.__context__ is None
    assert "_flfed_sites.broken" not in sys.modules or "site = 3" in text
    assert [site.name for site in listing.of_dataset("small")] == ["whole"]
    assert caplog.messages == [f"site broken is left out: {said.value}"]
    # Once it is mended, it is there.
    (folder / "__init__.py").write_text(PACKAGE.format(name="broken"))
    assert [site.name for site in listing.of_dataset("small")] == ["broken", "whole"]


def test_a_folder_whose_file_has_another_name_is_told_so(small_sites, tmp_path):
    small_sites(1)
    folder = tmp_path / "root" / "sites" / "my_clinic"
    folder.mkdir(parents=True)
    (folder / "site.py").write_text("")
    with pytest.raises(UsageError, match=r"site 'my-clinic': .*/my_clinic has no file __init__.py with a Site in it"):
        listing.load("my-clinic")


def test_a_site_of_the_dataset_with_a_wrong_policy_is_not_left_out_in_silence(small_sites, tmp_path):
    small_sites(1)
    package(tmp_path / "root" / "sites" / "strict", "strict", "cell_min = 3")
    with pytest.raises(UsageError, match="cell_min"):
        listing.of_dataset("small")
    assert "strict" not in [site.name for site in listing.of_dataset("wine")]


def test_a_broken_package_elsewhere_says_what_it_lacks(small_sites, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / "our_broken_package"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder.parent))
    (folder / "__init__.py").write_text("import no_such_module")
    with pytest.raises(UsageError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        listing.load("our_broken_package:site")


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Site("here", "small", "rows.csv"), "must be a Csv, Parquet, Excel, Sql or Frame"),
    (lambda: Site("here", "small", Csv("rows.csv"), holdout=0.3), "must be a Holdout or HoldoutByTime"),
    (lambda: Site("here", "small", Csv("rows.csv"), mapping={"x1": 5}), "mapping['x1'] must be a column's name"),
    (lambda: Site("here", "small", Csv("rows.csv", missing="NA")), "must be a tuple of codes, such as ('NA',)"),
    (lambda: Field("x", missing="NA"), "must be a tuple of codes"),
    (lambda: Field("x", multiply=float("nan")), "multiply=nan must be a finite number"),
    (lambda: Field("x", multiply="38.67"), "multiply='38.67' must be a finite number"),
    (lambda: Field("x", multiply=0), "would make every cell the same"),
    (lambda: Field("x", values=["a", "b"]), "values must map own codes"),
])  # fmt: skip
def test_a_site_written_wrongly_is_told_so_before_it_reads_anything(make, says):
    with pytest.raises(UsageError) as refused:
        make()
    assert says in str(refused.value)
