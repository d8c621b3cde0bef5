"""A person opts out after a study had sums: the gate answers again, and nobody can tell who it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from flfed.cli.site.rows import refresh_rows
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_state.freeze import refresh
from flfed.errors import UsageError
from flfed.federation.client.released.sets import RowSets
from flfed.paths import SiteFolder
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots.differencing import RowSet
from flfed.rows.snapshots.opt_outs import Resting
from flfed.rows.snapshots.snapshot import freeze, load
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from tests.rows.drawn import difference

PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(name="site-01", dataset="small", source=Csv("table.csv"), holdout=Holdout(salt="salt-0"))
"""


def opt_out(folder: SiteFolder, *persons: str) -> None:
    folder.excluded.write_text("\n".join(("person", *persons, "")))
    folder.excluded.chmod(0o600)


@pytest.fixture
def released(gated: Callable[..., Any]) -> Any:
    """An institution of 160 rows behind its gate, whose sums left in run r1."""
    site = gated(policy=Policy())
    table = site.site.source.table
    more = table.assign(person=[f"Q{at}" for at in range(len(table))], x1=table["x1"] * 0.9)
    site.open(source=replace(site.site.source, table=pd.concat([table, more], ignore_index=True)))
    site.freeze()
    site.approve()
    assert asked(site, "r1") == ""
    return site


def asked(site: Any, run: str) -> str:
    """Return what the gate says against sums in a run, or nothing."""
    reply = site.answer(site.message(SUMMARISE, SummariseRequest()), run=run)
    return str(reply.error.reason) if reply.has_error() else ""


def test_a_late_opt_out_passes_with_nine_others_and_alone_it_does_not(released):
    site = released
    training = load(site.site, site.folder.frozen).read().training["person"]
    opt_out(site.folder, training[5])
    assert "people who opted out changed" in asked(site, "r2")
    refresh(site.folder, site.site).write()
    site.approve()
    assert asked(site, "r2") == ""
    (_, first), (_, second) = [
        pair for pair in reversed(RowSets(site.folder, "small").released()[0]) if pair[0].part == "training"
    ]
    assert difference(first, second) == (10, 0)
    # Frozen without the measure the same rows are refused, at enrolment too, in a sentence that may leave.
    served = load(site.site, site.folder.frozen)
    rows, leaving = served.source.table, served.read().training["person"].iloc[0]  # one who does not rest
    opt_out(site.folder, training[5], leaving)
    freeze(replace(site.site, source=Frame(rows[rows["person"] != leaving])), site.folder.frozen, None)
    site.folder.excluded.unlink()
    site.approve()
    said = asked(site, "r3")
    assert said.startswith("its rows differ by fewer than 10 people from rows whose sums left before")
    reply = site.answer(
        site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=site.approve().schema_sha256)), run="r3"
    )
    assert said in str(reply.content["config"]["reason"] if reply.has_content() else reply.error.reason)
    assert [line.kind for line in site.lines()].count("released") == 4  # two parts, two runs


def test_who_rests_stays_at_rest_while_more_people_leave_one_by_one(released):
    site, gone = released, []
    sets, resting = [], []
    for run in ("r2", "r3", "r4"):
        served = load(site.site, site.folder.frozen).read().training["person"]
        gone.append(served[3])
        opt_out(site.folder, *gone)
        found = refresh(site.folder, site.site).write()
        resting.append(found.resting.persons)
        site.approve()
        assert asked(site, run) == ""
        key = RowSets(site.folder, "small").key()
        own = load(site.site, site.folder.frozen)
        sets.append(RowSet.of(own.read().training, own.inspect()[2], key))
    # Each costs nine more, for it must be hidden from each of the releases before.
    assert resting == [9, 18, 27]
    for later, one in enumerate(sets):
        for earlier in sets[:later]:
            only_before, only_now = difference(earlier, one)
            assert only_now == 0 and only_before >= 10


def test_a_person_at_the_site_is_told_how_many_rest_and_nobody_who(released, tmp_path):
    site = released
    opt_out(site.folder, load(site.site, site.folder.frozen).read().training["person"][0])
    package = tmp_path / "root" / "sites" / "site_01"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    site.site.source.table.to_csv(package / "table.csv", index=False)
    app = typer.Typer()
    app.command()(refresh_rows)
    said = json.loads(CliRunner().invoke(app, [site.site.name, "--json"]).stdout)
    assert (said["withheld"], said["removed"], said["written"]) == ({"persons": "9", "rows": "9"}, "10", False)
    told = CliRunner().invoke(app, [site.site.name, "--yes"]).stdout
    assert (
        "Rows of 9 other people are withheld against differencing: earlier sums then do not show who opted out" in told
    )
    assert status_of(site.folder, site.site, last=1)["snapshots"][0]["withheld"] == "9"
    assert refresh(site.folder, site.site).prepared.resting == Resting(9, 9)
    written = (site.folder.frozen / "small" / "frozen.json").read_text()
    rest = load(site.site, site.folder.frozen).source.table["person"]
    at_rest = set(site.site.source.table["person"]) - set(rest)
    assert len(at_rest) == 10
    assert not any(person in told + written for person in at_rest)


def test_rows_that_rest_take_part_under_noise_and_the_one_who_opted_out_does_not(released):
    site = released
    whole = load(site.site, site.folder.frozen).inspect()[0]
    gone = load(site.site, site.folder.frozen).read().training["person"][5]
    opt_out(site.folder, gone)
    refresh(site.folder, site.site).write()
    served = load(site.site, site.folder.frozen)
    assert served.snapshot.resting == Resting(9, 9)
    assert served.with_withheld().with_withheld().withheld is None
    # Of an analysis one person moves, and not ten.
    under_noise = served.with_withheld().inspect()[0]
    assert set(whole["person"]) - set(under_noise["person"]) == {gone}
    assert len(whole) - len(served.inspect()[0]) == 10
    # The file is the owner's, and one that was changed is not served.
    (file,) = (site.folder.frozen / "small").glob("withheld-*.parquet")
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="is damaged"):
        load(site.site, site.folder.frozen)
    # Once nobody rests, the file is gone.
    site.folder.excluded.unlink()
    freeze(site.site, site.folder.frozen, None)
    assert not list((site.folder.frozen / "small").glob("withheld-*.parquet"))
