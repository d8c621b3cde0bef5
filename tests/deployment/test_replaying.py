"""Replaying: the frozen rows give again, to the bit, what the ledger says left; anything else is said to differ."""

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from flfed.cli.site.ledger import replay_round
from flfed.deployment.operator.replay import Replayed, replay
from flfed.deployment.site_state.request_archive import content_sha256, list_rounds
from flfed.errors import FlfedError, UsageError
from flfed.records.ledger import LedgerError, ledger_of
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots import snapshot
from flfed.updates.messages.train import TRAIN

RUN = "20261120-abcd"
VARIANTS = {
    "plain": [], "fedprox": [('name = "fedavg"', 'name = "fedprox"\nmu = 0.1')],
    "validation": [("l2 = 0.01", "l2 = 0.01\nvalidation = 0.3\nschedule = 'plateau'\nplateau-patience = 1")],
    "float32 mlp": [('name = "logistic"', 'name = "mlp"\nhidden = [4, 3]'), ("l2 = 0.01", "precision = 'float32'")],
}  # fmt: skip


def trained(site, rounds: int = 1) -> list[str]:
    """Have the gate answer rounds of a real strategy's messages; return the hashes of the replies."""
    replies = [site.answer(site.trained(round=round)) for round in range(1, rounds + 1)]
    return [content_sha256(reply.content) for reply in replies]


def refrozen(site, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Site:
    """Freeze the site's rows anew, changed."""
    changed = replace(site.site, source=Frame(change(site.site.source.table.copy())))
    snapshot.freeze(changed, site.folder.frozen, None)
    return changed


@pytest.mark.studies
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("disclosure", ["open", "institution"])
def test_every_round_of_a_real_run_comes_again_to_the_bit(gated, conducted_through, small_study, variant, disclosure):
    text = small_study
    for before, after in VARIANTS[variant]:
        text = text.replace(before, after)
    site = gated(text, policy=Policy(disclosure=disclosure))
    outcome, grid = conducted_through(site)
    left = [r for m, r in zip(grid.asked, grid.replied, strict=True) if m.metadata.message_type == TRAIN]
    assert list_rounds(site.folder, RUN) == list(range(1, len(left) + 1))
    assert len(left) == outcome.rounds
    for round, reply in enumerate(left, start=1):
        found = replay(site.folder, site.site, RUN, round)
        assert found.ledger_hashes == found.again == (content_sha256(reply.content),)
        assert (found.matches, found.error(), found.rows_then) == (True, None, found.rows_now)


def test_the_live_table_is_not_read(gated):
    site = gated()
    trained(site)
    reads = len(site.site.source.reads)
    assert replay(site.folder, site.site, RUN, 1).matches
    assert len(site.site.source.reads) == reads


def test_one_changed_training_row_gives_another_update(gated):
    site = gated()
    trained(site)
    person = site.site.read().training["person"][4]

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["person"] == person, "x1"] += 1e-9
        return table

    found = replay(site.folder, refrozen(site, change), RUN, 1)
    assert set(found.ledger_hashes).isdisjoint(found.again)
    assert not found.matches
    assert f"the rows are not those of then (SHA-256 {found.rows_then}, now {found.rows_now})" in str(found.error())
    assert found.error().exit_code == 1


def test_one_changed_holdout_row_fails_though_the_update_is_the_same(gated):
    site = gated()
    trained(site)
    person = site.site.read().holdout("test")["person"][4]

    def change(table: pd.DataFrame) -> pd.DataFrame:
        # The split of ungrouped rows is by their content: take a change that leaves the row on its side.
        for step in range(1, 50):
            changed = table.copy()
            changed.loc[changed["person"] == person, "x1"] += step / 7
            moved = replace(site.site, source=Frame(changed)).read()
            if person in set(moved.holdout("test")["person"]):
                return changed
        raise AssertionError

    found = replay(site.folder, refrozen(site, change), RUN, 1)
    assert found.ledger_hashes == found.again
    assert not found.matches
    assert "the update is the same for all that" in str(found.error())


def test_rows_in_another_order_are_the_same_rows(gated):
    site = gated()
    trained(site)
    shuffled = refrozen(site, lambda table: table.sample(frac=1, random_state=2))
    assert replay(site.folder, shuffled, RUN, 1).matches


def test_a_round_that_is_no_longer_kept_says_so(gated):
    site = gated()
    trained(site, rounds=3)
    for path in site.folder.incoming.glob("*/round-000001-*"):
        path.unlink()
    with pytest.raises(UsageError) as raised:
        replay(site.folder, site.site, RUN, 1)
    assert str(raised.value) == (
        f"site 'site-01': what it was asked in round 1 of run {RUN} is no longer kept (or damaged), so that its update "
        "cannot be computed again; rounds 2 to 3 of it may be"
    )
    for path in site.folder.incoming.glob("*/*"):
        path.unlink()
    with pytest.raises(UsageError, match="nor is any other round of that run"):
        replay(site.folder, site.site, RUN, 2)


def test_latest_is_the_last_run_of_which_an_update_left(gated):
    site = gated()
    with pytest.raises(UsageError, match="its ledger has nothing of that run"):
        replay(site.folder, site.site, "latest", 1)
    trained(site)
    found = replay(site.folder, site.site, "latest", 1)
    assert found == replay(site.folder, site.site, RUN, 1) and (found.run, found.matches) == (RUN, True)


def test_what_the_ledger_does_not_have_cannot_be_replayed(gated):
    site = gated()
    with pytest.raises(UsageError, match="its ledger has nothing of that run"):
        replay(site.folder, site.site, RUN, 1)
    trained(site)
    with pytest.raises(UsageError, match="its ledger has no update of that round; see: flfed site ledger site-01"):
        replay(site.folder, site.site, RUN, 2)
    with pytest.raises(UsageError, match="its ledger has nothing of that run"):
        replay(site.folder, site.site, "another", 1)


def test_a_ledger_that_was_changed_is_not_believed(gated):
    site = gated()
    (sha256,) = trained(site)
    text = site.folder.ledger.read_text()
    site.folder.ledger.write_text(text.replace(sha256, "0" * 64))
    with pytest.raises(LedgerError):
        replay(site.folder, site.site, RUN, 1)


def test_an_update_that_did_not_come_from_these_rows_is_found(gated):
    site = gated()
    trained(site)
    facts = dict(site.lines()[-1].facts)
    ledger_of(site.folder).append(kind="train", **{**facts, "round": 2, "sha256": "0" * 64})
    site.answer(site.trained(round=3))
    with pytest.raises(UsageError, match="is no longer kept"):
        replay(site.folder, site.site, RUN, 2)
    ledger_of(site.folder).append(kind="train", **{**facts, "round": 3, "sha256": "0" * 64})
    found = replay(site.folder, site.site, RUN, 3)
    assert (len(found.ledger_hashes), len(found.again), found.matches) == (2, 1, False)
    assert "2 different updates left, and only 1 of their messages are kept" in str(found.error())


def test_a_round_is_answered_for_one_model_as_often_as_it_is_asked(gated):
    site = gated()
    first = site.answer(site.trained(round=1))
    request = site.trained(round=1).content.message
    moved = replace(request, arrays={name: value + 0.25 for name, value in request.arrays.items()})
    refused = site.answer(site.message(TRAIN, moved))
    assert refused.error.reason == "it was asked to train from another model in round 1 of this run"
    again = site.answer(site.trained(round=1))  # sent again from its disk: another line, no other update
    assert content_sha256(first.content) == content_sha256(again.content)
    found = replay(site.folder, site.site, RUN, 1)
    assert found.ledger_hashes == (content_sha256(first.content),)
    assert (sorted(found.again), found.matches) == (sorted(found.ledger_hashes), True)


def test_a_study_that_expired_since_is_replayed_as_of_then(gated, small_study):
    today = datetime.datetime.now(datetime.UTC).date()
    site = gated(small_study.replace("seed = 7", f"seed = 7\nexpires = {today.isoformat()}"))
    site.today = today
    trained(site)
    found = replay(site.folder, site.site, RUN, 1)
    assert found.matches
    site.today = today + datetime.timedelta(days=1)
    assert "the study expired on" in site.refusal(site.trained(round=2))


def test_an_update_with_noise_cannot_be_replayed_and_that_is_said(gated):
    site = gated()
    trained(site)
    facts = dict(site.lines()[-1].facts)
    ledger_of(site.folder).append(kind="train", **{**facts, "round": 2, "epsilon": 0.5})
    with pytest.raises(UsageError, match="held noise for differential privacy"):
        replay(site.folder, site.site, RUN, 2)


def test_a_site_that_refuses_now_says_why(gated):
    site = gated(policy=Policy(disclosure="open"))
    trained(site)
    narrow = replace(site.site, policy=Policy(cell_minimum=60))
    found = replay(site.folder, narrow, RUN, 1)
    assert (found.matches, found.again) == (False, ())
    assert "the site answers now: it has fewer than 60 " in str(found.error())


def test_why_it_differs_is_told_by_what_is_known():
    same = Replayed("s", "r", 1, ("a",), ("b",), "x", "x")
    reasons = {
        "rows and version are those of then": same,
        "flfed 0.0.1 answered then": replace(same, other_versions=("0.0.1",)),
        "the rows are not those of then (SHA-256 y, now x)": replace(same, rows_then="y", other_versions=("0.0.1",)),
    }
    for reason, found in reasons.items():
        error = found.error()
        assert isinstance(error, FlfedError)
        assert reason in str(error)
        assert found.as_json()["reason"] and not found.as_json()["matches"]
    assert replace(same, again=("b", "a")).matches


def package(tmp_path: Path) -> None:
    """Install the site where it is found by name; its table is gone."""
    folder = tmp_path / "root" / "sites" / "site_01"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from flfed import Csv, Holdout, Site\n"
        "site = Site(name='site-01', dataset='small', source=Csv('gone.csv'), holdout=Holdout(salt='salt-0'))\n"
    )
    (folder / "policy.toml").write_text("format = 1\ndisclosure = 'open'\nresplit = true\n")


def test_the_command_ends_with_0_only_where_it_matches(gated, tmp_path):
    site = gated()
    (sha256,) = trained(site)
    package(tmp_path)
    app = typer.Typer()
    app.command()(replay_round)
    said = CliRunner().invoke(app, [RUN, "--round", "1", "--site", "site-01"])
    assert said.exit_code == 0
    assert (
        said.stdout == f"site-01: round 1 of run {RUN} gives, bit for bit, the update that left (SHA-256 {sha256}).\n"
    )
    found = json.loads(CliRunner().invoke(app, [RUN, "--round", "1", "--site", "site-01", "--json"]).stdout)
    assert (found["matches"], found["sha256"], found["recomputed-sha256"]) == (True, [sha256], [sha256])
    refrozen(site, lambda table: table.assign(x1=np.minimum(table["x1"] + 0.5, 100)))
    differs = CliRunner().invoke(app, [RUN, "--round", "1", "--site", "site-01", "--json"])
    assert isinstance(differs.exception, FlfedError)
    assert json.loads(differs.stdout)["matches"] is False


REPLAY = "import sys; from flfed.cli.site.ledger import replay_round; replay_round(sys.argv[1], 2, 'site-01', True)"


@pytest.mark.studies
def test_another_process_gives_the_same_bits(gated, tmp_path):
    site = gated()
    hashes = trained(site, rounds=2)
    package(tmp_path)
    said = subprocess.run([sys.executable, "-c", REPLAY, RUN], capture_output=True, check=True)
    assert json.loads(said.stdout)["recomputed-sha256"] == hashes[1:]
