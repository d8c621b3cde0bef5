"""What a site released while texts of rows chose the sides: its ledger, sets and snapshot hold under row keys, too.

`site_of_texts` was written by the version before row keys, for the 200 rows of `site`: a snapshot, and two runs, one of
them with validation rows.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flfed.deployment.site_state.freeze import refresh
from flfed.federation.client.released.accounts import Tally, holdout_hash
from flfed.federation.client.released.sets import RowSets
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data.holdout import HoldoutByTime, SortedRows
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.differencing import RowSet
from flfed.rows.snapshots.withholding import ROW_KEYS, SIDES_BY, Chosen
from tests.federation.test_released import CLOSE, answer, lines_of, opt_out, site, training_rows, without

EARLIER = Path(__file__).parent / "site_of_texts"
WITH_VALIDATION = "l2 = 0.01\nvalidation = 0.3"
__all__ = ["answer", "site"]


@pytest.fixture
def earlier(site) -> Site:
    """The institution of 200 rows, with what it had written before."""
    gate = SiteFolder(site.name).gate
    shutil.copytree(EARLIER, gate)
    for path in (gate, *gate.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return site


def released(site: Site) -> list[tuple[Chosen, RowSet]]:
    return RowSets(SiteFolder(site.name), "small").released()[0]


def test_the_parts_of_before_are_chosen_as_before_and_those_of_now_are_others(earlier, answer):
    table, _, schema = earlier.inspect()
    before, key = RowSets(SiteFolder(earlier.name), "small").released()
    assert [chosen.part for chosen, _ in before] == [
        "validation", "fitted", "holdout", "training", "holdout", "training",
    ]  # fmt: skip
    for chosen, rows in before:
        assert chosen.by_texts and 20 < len(rows) < 160
        assert RowSet.of(table.iloc[chosen.rows(earlier, table)], schema, key).id == rows.id
    assert ledger_of(SiteFolder(earlier.name)).problems() == []
    # By row keys other people are held out, about 0.42 of all on another side.
    assert answer(earlier, "r3") == ""
    now = [one for one in released(earlier) if not one[0].by_texts]
    assert {chosen.part for chosen, _ in now} == {"training", "holdout"}
    sides = SortedRows.of(table, schema).sides(earlier.holdout, 0)[1]
    was = np.isin(np.arange(200), next(one for one, _ in before if one.part == "holdout").rows(earlier, table))
    assert 0.3 < (sides != was).mean() < 0.5
    assert all(line["chosen"][SIDES_BY] == ROW_KEYS for line in lines_of(earlier)[6:])


@pytest.mark.parametrize("validation", [False, True])
def test_a_pair_that_differs_by_few_people_across_the_change_is_refused(earlier, answer, small_study, validation):
    text = small_study.replace("l2 = 0.01", WITH_VALIDATION) if validation else small_study
    people = training_rows(earlier, 10)
    for many in (1, 9):
        assert answer(without(earlier, *people[:many]), f"r-{many}", text) == CLOSE
    assert len(lines_of(earlier)) == 6
    if not validation:
        assert answer(without(earlier, *people), "r-10", text) == ""
        assert answer(without(earlier, people[0]), "r-11", text) == CLOSE


def test_who_opts_out_after_the_change_is_hidden_in_what_was_released_before_it(earlier, answer):
    folder = SiteFolder(earlier.name)
    served = snapshot.load(earlier, folder.frozen)
    assert len(served.inspect()[0]) == 200
    gone = training_rows(earlier, 5)[4]
    opt_out(earlier, earlier.source.table.loc[gone, "person"])
    written = refresh(folder, earlier).write()
    assert written.resting is not None and written.resting.rows >= 9
    again = snapshot.load(earlier, folder.frozen)
    assert answer(again, "r3") == ""
    left = again.inspect()[0]
    # Of each part of before, nobody or ten are missing, by the sides of then.
    gaps = []
    key = RowSets(SiteFolder(earlier.name), "small").key()
    for chosen, rows in released(earlier):
        present = RowSet.of(left.iloc[chosen.rows(earlier, left)], again.inspect()[2], key)
        gaps.append(len(rows) - present.common(rows))
    assert all(gap == 0 or gap >= 10 for gap in gaps) and max(gaps) >= 10


def test_budgets_by_side_add_up_over_the_change(site):
    # Of two rules in a ledger's lines, both sides pay for each line.
    rule_by_texts = hashlib.sha256(f"{site.holdout!r} ".encode()).hexdigest()[:16]
    tally = Tally(rules={rule_by_texts})
    assert not tally.moved
    tally.rules.add(holdout_hash(site))
    assert tally.moved
    by_time = replace(site, holdout=HoldoutByTime("seen", "2026-01-01", "2026-01-02"))
    assert holdout_hash(by_time) == hashlib.sha256(f"{by_time.holdout!r} ".encode()).hexdigest()[:16]
