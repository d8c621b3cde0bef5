"""Outcomes of single rows that the sums of trees tell, counted where the rows are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from flfed.records.reports.privacy_tables import describe_outcome_disclosure
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import count_determined_at_start, find_determined_rows
from flfed.study.study import Study
from flfed.trees.cut_points import codes_in, widths_of
from flfed.trees.forest import forest_of
from tests.boosting import trees_study
from tests.small_runs import Conducted

Conduct = Callable[..., Conducted]


def brute_told(codes: np.ndarray, y: np.ndarray, node: np.ndarray) -> set[int]:
    """Return the rows whose outcome is that of all rows beside it in a cell, one row after the other."""
    found = set()
    for row in range(len(y)):
        beside = [(codes[:, row] == codes[:, other]) & (node[row] == node[other]) for other in range(len(y))]
        for column in range(len(codes)):
            alike = {float(y[other]) for other in range(len(y)) if beside[other][column]}
            found |= {row} if len(alike) == 1 else set()
    return found


@pytest.mark.studies
@pytest.mark.parametrize("least", [0, 10])
def test_the_record_counts_the_outcomes_that_the_first_tree_tells(least, conduct, small_sites, small_study):
    text = trees_study(small_study, **{"strategy.rounds": 2, "strategy.min-rows": least})
    done = conduct(small_sites(3, rows=60), text, tables=True)
    told = done.reader.summary(done.run, "revealed-outcomes")
    missing, parts = widths_of(done.outcome.arrays) - 1, []
    for session in done.sessions():
        fitted = session.round_rows(done.outcome.encoder)[0]
        parts.append((codes_in(fitted.x, done.outcome.arrays), fitted.y))
    tree = forest_of(done.outcome.arrays)[0][0]

    def counted(codes: np.ndarray, y: np.ndarray) -> dict[str, int]:
        node = np.zeros(len(y), dtype=int)
        root = whole = brute_told(codes, y, node)
        for _ in range(2):
            node = tree.step(node, codes, missing)
            whole = whole | brute_told(codes, y, node)
        return {"rows": len(y), "root": len(root), "tree": len(whole)}

    assert told["sites"] == {session.site.name: counted(*part) for session, part in zip(done.sessions(), parts)}
    codes, y = np.concatenate([part[0] for part in parts], axis=1), np.concatenate([part[1] for part in parts])
    assert told["together"] == counted(codes, y)
    # At the root of all sites ten rows and two outcomes a cell tell none; below it, they do.
    assert (told["together"]["root"] == 0) == (least == 10) and told["together"]["tree"] > told["together"]["root"]
    assert told["sites"]["site-01"]["root"] > 0


@pytest.mark.studies
def test_sums_of_trees_that_validation_rows_did_not_choose_have_told_as_much(conduct, small_sites, small_study):
    def drawn(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(y=np.random.default_rng(10 + number).permutation(np.resize(["yes", "no"], len(table))))

    told = {}
    for select in ("best", "last"):
        changes = {"strategy.rounds": 2, "strategy.learning-rate": 1.0, "strategy.select": select}
        done = conduct(small_sites(3, rows=60, change=drawn), trees_study(small_study, **changes), tables=True)
        told[select] = done.reader.summary(done.run, "revealed-outcomes")
        assert (len(forest_of(done.outcome.arrays)) == 0) == (select == "best")
    assert told["best"] == told["last"] and told["best"]["together"]["tree"] > told["best"]["together"]["root"]


def test_what_is_told_is_said(conduct: Conduct, small_sites, small_study: str):
    done = conduct(small_sites(3, rows=60), trees_study(small_study, **{"strategy.rounds": 2}), tables=True)
    told = done.reader.summary(done.run, "revealed-outcomes")
    over_all, each = describe_outcome_disclosure(told)
    assert f"the outcomes of {told['together']['tree']} of {told['together']['rows']} training rows" in over_all
    assert all(f"{site} {of['tree']} of {of['rows']}" in each for site, of in told["sites"].items())
    assert describe_outcome_disclosure({}) == []


@pytest.mark.parametrize("least", [0, 10])
def test_before_a_run_a_site_counts_its_own_first_sums(least: int, small_sites, small_study: str):
    (site,) = small_sites(1, rows=90)
    session = SiteSession(site, Study.parse(trees_study(small_study, **{"strategy.min-rows": least})))
    told, rows = count_determined_at_start(session, least)
    # A number of 1,024 bins tells nearly all of 90 rows, one of 16 codes few.
    assert 0.5 * 90 < rows < 90
    assert (told > 0.9 * rows) == (least == 10)


def test_rows_of_two_outcomes_in_each_cell_are_not_told():
    codes = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    assert not find_determined_rows(codes, np.array([0, 1, 1, 0])).any()
    assert find_determined_rows(codes, np.array([0, 1, 1, 0]), node=np.array([0, 1, 0, 1])).tolist() == [True] * 4
    assert find_determined_rows(codes, np.array([0, 0, 1, 1])).all()
