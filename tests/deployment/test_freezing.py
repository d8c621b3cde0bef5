"""Freezing, freezing again, and the commands: what a person is told, and that nothing changes unless they agree."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from flfed.cli.site.rows import refresh_rows, snapshot_rows
from flfed.deployment.site_state.approval import Approval, approve, withdraw
from flfed.deployment.site_state.freeze import Difference, describe_frozen, freeze_first, list_changed, refresh
from flfed.deployment.site_state.used_people import use
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data.site import Mapped, Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots.opt_outs import Exclusion
from flfed.rows.snapshots.snapshot import Frozen, freeze, load
from flfed.study.study import Study
from tests.conftest import SMALL_STUDY

FOLDER = "site-01"


@pytest.fixture
def folder(home: Path) -> SiteFolder:
    return SiteFolder(FOLDER)


@pytest.fixture
def site(small_sites) -> Site:
    return small_sites(1)[0]


def with_table(site: Site, table: pd.DataFrame) -> Site:
    return replace(site, source=Frame(table))


def out(folder: SiteFolder, text: str, name: str = "excluded.csv") -> None:
    folder.make()
    path = folder.excluded.with_name(name)
    path.write_text(text)
    path.chmod(0o600)


def approved(folder: SiteFolder, text: str, frozen: Frozen, name: str = "small") -> Approval:
    study = Study.parse(text.replace('name = "small"\npurpose', f'name = "{name}"\npurpose'))
    rows, schema = frozen.sha256, frozen.schema_sha256
    return approve(folder, study, by="dpo", co_sites=(), rows_sha256=rows, schema_sha256=schema)


def test_freezing_reads_the_list_of_those_who_opted_out(folder, site):
    out(folder, "person\nP0-0003\nP0-0004\nP1-0004\n")
    frozen = freeze_first(folder, site)
    assert (frozen.rows, frozen.excluded) == (58, Exclusion(3, 2, 2))
    assert not {"P0-0003", "P0-0004"} & set(load(site, folder.frozen).inspect()[0]["person"])


def test_a_datasets_own_list_counts_in_place_of_the_sites(folder, site):
    other = replace(site, also={"wine": Mapped()})
    out(folder, "client\n7\n")  # no column of this dataset's table
    out(folder, "person\nP0-0003\n", "excluded-small.csv")
    assert freeze_first(folder, other.serving("small")).rows == 59


def test_a_list_that_cannot_be_read_stops_freezing(folder, site):
    out(folder, "person\nP0-0003\n")
    folder.excluded.chmod(0o644)
    with pytest.raises(UsageError, match="other accounts may use it"):
        freeze_first(folder, site)
    folder.excluded.unlink()
    folder.excluded.symlink_to("nowhere")
    with pytest.raises(UsageError, match="cannot be read"):
        freeze_first(folder, site)
    assert not folder.frozen.exists()


def test_what_is_frozen_is_not_frozen_over(folder, site):
    first = freeze_first(folder, site)
    with pytest.raises(UsageError, match=f"is frozen since .*flfed site refresh {FOLDER} --dataset small"):
        freeze_first(folder, with_table(site, site.source.table[:50]))
    assert load(site, folder.frozen).snapshot == first


def test_a_difference_is_counted_by_rows_also_by_rows_that_are_alike(folder, site):
    table = site.source.table
    twins = pd.concat([table, table[:1], table[:1]], ignore_index=True)
    freeze_first(folder, with_table(site, twins))
    changed = table.drop(index=[10, 11, 12]).copy()
    changed.loc[20, "x1"] = 1.0
    changed = pd.concat([changed, table[:1]]).sample(frac=1, random_state=1)
    found = refresh(folder, with_table(site, changed))
    # Of 62 rows: three went, one was changed, and of three alike two are left.
    assert found.difference == Difference(added=1, removed=5, unchanged=57)
    assert (found.changes, found.unusable) == (True, "")
    assert load(site, folder.frozen).snapshot.rows == 62


def test_the_same_rows_in_another_order_change_nothing(folder, site):
    freeze_first(folder, site)
    found = refresh(folder, with_table(site, site.source.table.sample(frac=1, random_state=1)))
    assert (found.difference, found.changes, found.voids) == (Difference(0, 0, 60), False, ())


def test_a_person_who_opts_out_later_is_a_row_removed(folder, site):
    first = freeze_first(folder, site)
    out(folder, "person\nP0-0003\n")
    found = refresh(folder, site)
    assert found.difference == Difference(0, 1, 59)
    second = found.write()
    assert (second.rows, second.excluded, second.sha256 != first.sha256) == (59, Exclusion(1, 1, 1), True)
    assert load(site, folder.frozen).snapshot == second


def test_a_list_that_changed_shows_until_the_rows_are_frozen_again_also_where_nobody_on_it_is_found(folder, site):
    first = freeze_first(folder, site)
    assert not list_changed(folder, first)
    out(folder, "person\nnobody\n")
    assert list_changed(folder, first)
    found = refresh(folder, site, allow_unmatched=True)
    assert (found.difference, found.changes) == (Difference(0, 0, 60), True)
    second = found.write()
    assert (second.sha256, list_changed(folder, second)) == (first.sha256, False)
    out(folder, "person\n\nnobody\n")
    assert not list_changed(folder, second)
    out(folder, "person\nnobody\nP0-0003\n")
    assert list_changed(folder, second)


@pytest.mark.parametrize(("form", "more"), [("p0-{:04}", 10), ("P0-{}", 10), ("P0 - {:04}", 10), ("Q0-{}", 0)])
def test_a_list_in_another_spelling_is_refused_with_both_forms_and_no_identifier(folder, site, form, more):
    out(folder, "\n".join(["person", *map(form.format, range(3, 13))]))
    with pytest.raises(UsageError) as caught:
        freeze_first(folder, site)
    said = str(caught.value)
    assert "of 10 identifiers on the list of people, 0 are in column 'person'" in said
    assert "the table has 1 capital letter + 1 digit + '-' + 4 digits with leading zeros." in said
    assert f"Without case, blanks and leading zeros, {more} more would be found." in said
    assert "P0" not in said and "03" not in said and not folder.frozen.exists()


def test_what_a_person_allowed_of_a_list_holds_for_that_list_while_as_many_are_found(folder, site):
    out(folder, "person\nnobody\nnowhere\nP0-0003\n")
    with pytest.raises(UsageError, match="of 3 identifiers on the list of people, 1 are in"):
        freeze_first(folder, site)
    assert freeze_first(folder, site, allow_unmatched=True).excluded == Exclusion(3, 1, 1)
    assert refresh(folder, with_table(site, site.source.table[:50])).difference == Difference(0, 10, 49)
    with pytest.raises(UsageError, match="of 3 identifiers on the list of people, 0 are in"):
        refresh(folder, with_table(site, site.source.table[4:]))
    # More than half are found, and another one is in the table in another spelling.
    out(folder, "person\nP0-0003\nP0-0004\nP0-5\n")
    with pytest.raises(UsageError, match="leading zeros, 1 more would be found"):
        refresh(folder, site)


def test_people_allowed_as_gone_are_not_served_when_they_return_in_another_spelling(folder, site):
    out(folder, "\n".join(["person", *(f"0900{last}" for last in range(10))]))
    freeze_first(folder, site, allow_unmatched=True)
    table = site.source.table
    assert not refresh(folder, site).changes

    def returned(count: int) -> Site:
        names = [f"900{at}" if at < count else name for at, name in enumerate(table["person"])]
        return with_table(site, table.assign(person=names))

    with pytest.raises(UsageError, match="0 are in .* leading zeros, 10 more would be found"):
        refresh(folder, returned(10))
    # A person says that one of them is another person: it holds for that one alone.
    assert refresh(folder, returned(1), allow_unmatched=True).write().excluded == Exclusion(10, 0, 0, more=1)
    assert not refresh(folder, returned(1)).changes
    with pytest.raises(UsageError, match="leading zeros, 2 more would be found"):
        refresh(folder, returned(2))


def test_only_standing_approvals_of_this_dataset_are_voided(folder, site, small_study):
    frozen = freeze_first(folder, site)
    for name in ("b-study", "a-study", "gone"):
        approved(folder, small_study, frozen, name)
    withdraw(folder, "gone", by="dpo")
    other = approved(folder, small_study, frozen, "other")
    path = folder.approvals / f"{other.study_sha256}.json"
    path.write_text(path.read_text().replace('"dataset": "small"', '"dataset": "wine"'))
    assert refresh(folder, site).voids == ()
    assert refresh(folder, with_table(site, site.source.table[:59])).voids == ("a-study", "b-study")


def test_a_snapshot_that_cannot_be_served_is_replaced_and_nothing_frozen_is_not(folder, site, tmp_path):
    with pytest.raises(UsageError, match="there is no snapshot yet"):
        refresh(folder, site)
    first = freeze_first(folder, site)
    (folder.frozen / "small" / first.file).chmod(0o644)
    found = refresh(folder, site)
    assert "other accounts may use it" in found.unusable
    assert (found.difference, found.changes, found.before) == (Difference(60, 0, 0), True, None)
    written = found.write()
    assert load(site, folder.frozen).snapshot == written
    (folder.frozen / "small" / "frozen.json").write_text("{")
    assert refresh(folder, site).write().sha256 == first.sha256


def test_what_root_freezes_belongs_to_the_user_of_the_gate(small_sites):
    if os.geteuid():
        pytest.skip("only root can freeze for another user")
    gate, stranger = 61_001, 61_002
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        folder = Path(shared) / "gate"
        folder.mkdir(mode=0o700)
        os.chown(folder, gate, gate)
        written = freeze(small_sites(1)[0], folder / "frozen", None)
        path = folder / "frozen" / "small" / written.file
        assert {found.stat().st_uid for found in (folder / "frozen").rglob("*")} == {gate}
        read = [subprocess.run(["cat", path], user=user, group=user, capture_output=True) for user in (gate, stranger)]
        assert (len(read[0].stdout), read[1].stdout) == (path.stat().st_size, b"")
        assert b"Permission denied" in read[1].stderr


PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(name="site-01", dataset="small", source=Csv("table.csv"), holdout=Holdout(salt="s"))
"""


@pytest.fixture
def command(tmp_path: Path, site: Site) -> Callable[..., Result]:
    """A function that calls a command on a site that is found by name; its table is tmp_path/table.csv."""
    package = tmp_path / "root" / "sites" / "site_01"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    site.source.table.to_csv(package / "table.csv", index=False)
    app = typer.Typer()
    app.command("snapshot")(snapshot_rows)
    app.command("refresh")(refresh_rows)

    def call(*words: str, input: str = "") -> Result:
        return CliRunner().invoke(app, words, input=input)

    return call


def lines_less(tmp_path: Path, many: int) -> None:
    path = tmp_path / "root" / "sites" / "site_01" / "table.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-many]))


def test_freeze_says_counts_only(command, folder):
    out(folder, "person\nP0-0003\nP1-0003\n")
    said = command("snapshot", FOLDER)
    frozen = json.loads((folder.frozen / "small" / "frozen.json").read_text())
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "People who opted out: 2 identifiers listed, 1 found; rows removed: fewer than 5.",
        "site-01: snapshot of 59 rows of 'small' written.", f"SHA-256 of the rows: {frozen['sha256']}",
    ]  # fmt: skip
    assert "P0-0003" not in said.output
    again = command("snapshot", FOLDER)
    assert isinstance(again.exception, UsageError)


def test_a_list_where_none_is_read_is_named_and_a_doubtful_one_needs_a_word(command, folder):
    out(folder, "person\nnobody\n")
    for stray in (folder.root / "excluded.csv", folder.gate / "excluded-other.csv", folder.gate / "Excluded.csv"):
        stray.write_text("person\nP0-0003\n")
        refused = command("snapshot", FOLDER)
        assert isinstance(refused.exception, UsageError)
        assert f"WARNING, {stray} is not read" in refused.stderr and str(folder.excluded) in refused.stderr
        stray.unlink()
    written = command("snapshot", FOLDER, "--allow-unmatched")
    assert (written.exit_code, "is not read" in written.stderr) == (0, False)
    (facts,) = describe_frozen(folder, sites_site())
    assert facts["excluded"] == {"listed": 1, "matched": 0, "rows": "0"}


def test_freeze_gives_a_program_the_facts(command, folder):
    out(folder, "person\nP0-0003\n")
    found = json.loads(command("snapshot", FOLDER, "--json").stdout)
    assert {key: found[key] for key in ("site", "dataset", "rows")} == {"site": FOLDER, "dataset": "small", "rows": 59}
    assert found["excluded"] == {"listed": 1, "matched": 1, "rows": "fewer than 5"}
    assert found["rows-sha256"] == load(sites_site(), folder.frozen).snapshot.sha256


def sites_site() -> Site:
    from flfed.rows.data import site_discovery as listing

    return listing.load(FOLDER)


def test_refresh_writes_only_with_yes(command, folder, tmp_path, small_study):
    command("snapshot", FOLDER)
    first = load(sites_site(), folder.frozen).snapshot
    approved(folder, small_study, first)
    lines_less(tmp_path, 3)
    said = command("refresh", FOLDER, input="y\n")  # from a pipe, not by a person
    words = said.stdout.split()
    assert {"added", "0", "removed", "fewer", "than", "5", "unchanged", "57"} <= set(words)
    assert "The approval of study 'small' would not be valid for the new snapshot: approve it again." in said.stdout
    assert said.stdout.splitlines()[-1] == (
        "site-01: nothing was written. To write it: flfed site refresh site-01 --yes"
    )
    assert load(sites_site(), folder.frozen).snapshot == first
    written = command("refresh", FOLDER, "--yes")
    second = load(sites_site(), folder.frozen).snapshot
    assert (second.rows, written.stdout.splitlines()[-1]) == (
        57, f"site-01: new snapshot written. SHA-256 of the rows: {second.sha256}",
    )  # fmt: skip
    assert ["removed", "fewer", "than", "5"] in [line.split() for line in written.stdout.splitlines()]


def test_refresh_gives_a_program_the_difference(command, folder, tmp_path):
    command("snapshot", FOLDER)
    first = load(sites_site(), folder.frozen).snapshot
    lines_less(tmp_path, 20)
    found = json.loads(command("refresh", FOLDER, "--json").stdout)
    assert found == {
        "site": FOLDER, "dataset": "small", "added": "0", "removed": "20", "unchanged": "40", "voids": [],
        "withheld": None, "missing": [], "written": False, "rows-sha256": first.sha256, "unusable": "",
    }  # fmt: skip
    found = json.loads(command("refresh", FOLDER, "--json", "--yes").stdout)
    assert (found["written"], found["rows-sha256"] != first.sha256) == (True, True)
    same = command("refresh", FOLDER, "--yes")
    assert same.stdout == "site-01: the rows of 'small' are those of the snapshot.\n"
    assert json.loads(command("refresh", FOLDER, "--json", "--yes").stdout)["written"] is False


def test_refresh_says_how_many_people_are_missing_and_a_program_gets_the_sides(command, folder, tmp_path):
    path = tmp_path / "root" / "sites" / "site_01" / "table.csv"
    command("snapshot", FOLDER)
    first = load(sites_site(), folder.frozen)
    assert use(folder, Study.parse(SMALL_STUDY), first, ledger_of(folder)) is None
    gone = first.read().training["person"].iloc[0]
    table = pd.read_csv(path, dtype=str)
    table[table["person"] != gone].to_csv(path, index=False)
    said = command("refresh", FOLDER, "--yes")
    assert said.stdout.splitlines()[-1] == (
        "No new snapshot is written: so few people came or left that sums over both would reveal them. The one of "
        "before is served on until as many more have come or left: 9 persons in the training rows, 9 persons in all "
        "rows."
    )
    found = json.loads(command("refresh", FOLDER, "--json", "--yes").stdout)
    assert (found["missing"], found["written"], found["rows-sha256"]) == (
        ["training", "whole"], False, first.snapshot.sha256,
    )  # fmt: skip
    out(folder, f"person\n{gone}\n")
    table.to_csv(path, index=False)
    said = command("refresh", FOLDER, "--yes")
    assert "Rows of 9 other people are withheld: earlier sums then do not show who opted out." in said.stdout
    assert load(sites_site(), folder.frozen).snapshot.rows == 50


def test_refresh_of_a_damaged_snapshot_says_why_and_replaces_it(command, folder):
    command("snapshot", FOLDER)
    (path,) = (folder.frozen / "small").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    said = command("refresh", FOLDER, "--yes")
    assert "is damaged: its file is not the one that was written" in said.stderr
    assert load(sites_site(), folder.frozen).snapshot.rows == 60


def test_a_wrong_name_is_refused(command):
    assert isinstance(command("snapshot", "site-77").exception, FlfedError)
    assert "has dataset 'small', not 'wine'" in str(command("snapshot", FOLDER, "--dataset", "wine").exception)
