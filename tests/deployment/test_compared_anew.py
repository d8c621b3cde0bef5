"""Models that an institution compared count no more where at least half of the test rows' people are new."""

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest

from flfed.deployment.operator.run_budget import counted_comparisons, describe_comparisons
from flfed.deployment.site_state import comparisons
from flfed.deployment.site_state.comparisons import add_comparisons
from flfed.federation.client.released.accounts import keep_rows_key
from flfed.federation.client.released.sets import NewPeople, RowSets
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.session import SiteSession
from flfed.rows.snapshots.differencing import RowSet, SourceSet
from flfed.study.study import Study
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest
from flfed.words import render
from tests.conftest import small_table
from tests.deployment.conftest import CountingFrame
from tests.deployment.test_compared_models import figures, model

ROWS = 400
COMPLETE = '[encode]\nrows = "complete"\n'


@pytest.fixture
def institution(gated: Callable[..., Any]) -> Any:
    """A site behind its gate that compares two models of its dataset."""
    return gated(policy=Policy(compared_runs=2, runs=100, queries=100, outputs=("complete-rows",)), rows=ROWS)


def leaves(site: Any, by: float, run: str, **asked: Any) -> bool:
    """Tell whether a comparison's figures leave."""
    reply = site.answer(site.message(COMPARE, model(site, by)), run=run, **asked)
    assert not reply.has_error(), reply.error
    return figures(reply) != []


def have_figures(site: Any, models: Iterable[float], snapshot: str) -> list[bool]:
    """Tell of which models figures leave, each in a run of its own."""
    return [leaves(site, by, f"20261125-{snapshot}-{by:g}") for by in models]


def refreshed(site: Any, share: float, seed: int = 99) -> float:
    """Freeze and approve a table in which a share of the people are others; return their share of the test rows."""
    before, others = site.site.source.table, small_table(ROWS, seed=seed)
    new, was = round(share * ROWS), rows_held_out(site)
    freeze(site, pd.concat([others.iloc[:new], before.iloc[new:]], ignore_index=True))
    return float(1 - rows_held_out(site)["person"].isin(was["person"]).mean())


def freeze(site: Any, table: pd.DataFrame, *studies: Study) -> None:
    """Freeze another table, and approve studies for it."""
    site.open(source=CountingFrame(table))
    site.freeze()
    for study in studies or (site.study,):
        site.approve(study)
    site.open()


def rows_held_out(site: Any) -> pd.DataFrame:
    return SiteSession(site.site, site.study).parts()["holdout"]


def test_models_count_anew_where_half_of_the_people_are_new(institution):
    site = institution
    assert have_figures(site, (1, 2, 3), "first") == [True, True, False]
    assert refreshed(site, 0.7) > 0.5
    assert have_figures(site, (4, 5, 6), "second") == [True, True, False]
    # Nor by a gate that was started anew; and models of the first snapshot are further ones by now.
    site.open()
    assert have_figures(site, (7, 1), "later") == [False, False]
    assert have_figures(site, (4,), "again") == [True]


def test_models_count_on_where_fewer_are_new(institution):
    site = institution
    assert have_figures(site, (1, 2), "first") == [True, True]
    assert 0.1 < refreshed(site, 0.3) < 0.5
    assert have_figures(site, (3, 1), "second") == [False, True]


def test_few_people_at_a_time_count_anew_once_they_are_half(institution):
    site = institution
    assert have_figures(site, (1, 2), "first") == [True, True]
    refreshed(site, 0.3)
    assert have_figures(site, (3,), "second") == [False]
    refreshed(site, 0.65, seed=98)
    # Whose figures stayed does not count as compared.
    assert have_figures(site, (3, 4, 5), "third") == [True, True, False]


def test_people_who_come_back_are_not_new(institution):
    site, first = institution, institution.site.source
    assert have_figures(site, (1,), "first") == [True]
    refreshed(site, 1.0)
    assert have_figures(site, (2, 3, 4), "second") == [True, True, False]
    # Fewer than half are of the first snapshot, and of the second: together they are most.
    second, third = site.site.source.table, small_table(ROWS, seed=98)
    parts = [first.table.iloc[:160], second.iloc[160:320], third.iloc[320:]]
    freeze(site, pd.concat(parts, ignore_index=True))
    assert [rows_held_out(site)["person"].isin(one["person"]).mean() < 0.5 for one in parts] == [True] * 3
    assert have_figures(site, (5,), "third") == [False]


def test_a_study_of_complete_rows_opens_no_count_on_the_same_snapshot(institution, small_study: str):
    site, table = institution, institution.site.source.table
    study = Study.parse(small_study + COMPLETE)
    few = table.assign(x2=table["x2"].where(table.index >= 0.7 * ROWS))
    freeze(site, few, site.study, study)
    held = rows_held_out(site)
    assert 0 < held["x2"].notna().mean() < 0.5  # so at least half of all test rows are of people who are not in these
    assert [leaves(site, by, f"20261125-complete-{by}", study=study.text) for by in (1, 2)] == [True, True]
    assert have_figures(site, (3, 1), "all") == [False, True]


def test_a_model_that_is_compared_on_the_new_snapshot_too_counts_there(institution):
    site = institution
    assert have_figures(site, (1, 2), "first") == [True, True]
    refreshed(site, 0.7)
    assert have_figures(site, (1, 3, 2, 1), "second") == [True, True, False, True]


def test_added_comparisons_are_added_to_each_count(institution):
    site = institution
    add_comparisons(site.folder, site.study, 1, by="Dr Kim")
    assert have_figures(site, (1, 2, 3, 4), "first") == [True, True, True, False]
    (words,) = describe_comparisons(counted_comparisons(site.folder, site.site, site.study), site.site, "small")
    assert "may be released for 0 more models, of 3." in words and render("budget.comparisons.anew") in words
    refreshed(site, 0.7)
    assert have_figures(site, (5, 6, 7, 8), "second") == [True, True, True, False]


def test_what_was_compared_anew_is_attacked_and_no_other(institution):
    site = institution
    assert have_figures(site, (1, 2), "first") == [True, True]
    refreshed(site, 0.7)
    for by, left in ((3, True), (4, True), (5, False)):
        assert have_figures(site, (by,), "second") == [left]
        sent = model(site, by)
        attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
        reply = site.answer(site.message(AUDIT, attack), run=f"20261125-second-{by:g}")
        said = reply.error.reason if reply.has_error() else ""
        assert said == ("" if left else Refusal("too-many-compared", most=2, had=2))


@pytest.mark.parametrize("facts", [{"rows_sha256": "ab" * 32}, {}])
def test_what_names_no_test_rows_or_no_snapshot_counts(institution, facts: dict[str, str]):
    site = institution
    for sha256 in ("cd" * 32, "ef" * 32):
        ledger_of(site.folder).append(kind="compare", dataset="small", asked_sha256=sha256, run="another", **facts)
    refreshed(site, 1.0)
    assert have_figures(site, (1,), "second") == [False]


def test_what_names_a_run_and_no_snapshot_counts(institution):
    site = institution
    assert have_figures(site, (1,), "first") == [True]
    (line,) = [line for line in site.lines() if line.kind == "compare"]
    run = {name: line.facts[name] for name in ("study-sha256", "run", "repeat", "dataset")}
    for sha256 in ("cd" * 32, "ef" * 32):
        ledger_of(site.folder).append(kind="compare", **run, asked_sha256=sha256)
    refreshed(site, 1.0)
    assert have_figures(site, (3,), "second") == [False]


def test_for_a_run_that_had_two_snapshots_nothing_counts_anew(institution):
    site = institution
    assert have_figures(site, (1, 2), "first") == [True, True]
    refreshed(site, 0.7)
    # The same model again, as before.
    assert leaves(site, 1, "20261125-first-1")
    assert have_figures(site, (3,), "second") == [False]


def test_sets_of_people_are_read_only_where_the_count_is_used_up(institution, monkeypatch):
    site, reads = institution, list[str]()
    monkeypatch.setattr(comparisons, "NewPeople", lambda kept, asked: reads.append(asked) or NewPeople(kept, asked))
    assert have_figures(site, (1, 2), "first") == [True, True] and reads == []
    assert have_figures(site, (3,), "first") == [False] and len(reads) == 1


def kept_sets() -> tuple[RowSets, bytes]:
    """Return the released sets of a site that has none yet, and its key."""
    folder = SiteFolder("site-01")
    folder.make()
    kept = RowSets(folder, "small")
    return kept, keep_rows_key(folder.gate, kept.key(make=True))


def people(*numbers: int) -> list[bytes]:
    return [number.to_bytes(16) for number in numbers]


@pytest.mark.parametrize(("rows", "identifiers", "new"), [
    ((1, 2, 13, 14), (), True), ((1, 2, 3, 14), (), False), ((11, 12, 13, 14), (), True),
    # Rows that drift make nobody new, and neither do identifiers that are made anew.
    ((11, 12, 13, 14), (51, 52, 53, 64), False),
    ((1, 2, 3, 14), (61, 62, 63, 64), False),
    ((11, 12, 13, 14), (51, 52, 63, 64), True),
])  # fmt: skip
def test_people_are_told_by_rows_and_by_identifiers(home, rows, identifiers, new: bool):
    kept, key = kept_sets()
    beside = (51, 52, 53, 54) if identifiers else ()
    before = RowSet.made("small", people(1, 2, 3, 4), key, people=people(*beside))
    now = RowSet.made("small", people(*rows), key, people=people(*identifiers))
    for one in (before, now):
        kept.write(one)
    assert NewPeople(kept, now.id).are_half_without([before.id]) == new
    # Nor is anybody known to be new beside a set of other hashes, no set, or one that is gone.
    unlike = RowSet.made("small", people(7), key, people=() if identifiers else people(57))
    kept.write(unlike)
    for ids in ([unlike.id], [], ["ab" * 32]):
        assert not NewPeople(kept, now.id).are_half_without(ids)


def test_people_are_told_by_their_source_where_the_mapping_changed(home):
    (kept, key), columns = kept_sets(), b"\x07" * 32
    before, now = (RowSet.made("small", people(*rows), key) for rows in ((1, 2, 3, 4), (11, 12, 13, 14)))
    for one, source in ((before, (1, 2, 3, 4)), (now, (1, 2, 3, 14))):
        kept.write(one, SourceSet._made(columns, b"".join(people(*source)), key))
    assert not NewPeople(kept, now.id).are_half_without([before.id])
