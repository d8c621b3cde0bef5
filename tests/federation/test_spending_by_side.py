"""Accounts of people trained on and of people held out: charged apart, and never too little."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.deployment.operator.budget import Accounts
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.privacy_budget import shown as shown_budget
from flfed.federation.client.protection import holdout_hash, side_charged
from flfed.federation.client.released.accounts import BOTH, SIDES, Side, Tally, side_of
from flfed.federation.client.released.accounts import SPENT as LINE
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.ledger_line import START, Line, new_line
from flfed.refusals import NotSpent
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout, HoldoutByOrder, HoldoutByTime, SortedRows
from flfed.rows.data.origin import Origin
from flfed.rows.data.policy import Policy
from flfed.rows.data.row_keys import draw_fractions, row_keys
from flfed.rows.data.schema import Schema
from flfed.study.study import Study
from flfed.study.tables import OrderedHoldout
from flfed.updates.accounting import Release, epsilon
from tests.conftest import small_table
from tests.federation.races import race

DELTA = 1e-5
ANSWER = Release(1.391, 1, 1)
"""A Gaussian query of ε = 3 at δ = 1e-5."""
BY_TIME = HoldoutByTime("day", "2024-12-31", "2025-01-01")
RUN = {"study": "heart", "run": "r", "round": 1, "unit": "person", "delta": DELTA, "given_encoder": False}


def gaussian(queries: int) -> float:
    """Return ε of that many such queries by the closed form of Balle and Wang 2018, theorem 8.

    δ = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ) with μ = √queries / σ: 2.99 of one, 4.45 of two, 5.63 of three.
    """
    if not queries:
        return 0.0
    mu, low, high = math.sqrt(queries) / ANSWER.noise, 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        delta = phi(mu / 2 - middle / mu) - math.exp(middle) * phi(-mu / 2 - middle / mu)
        low, high = (middle, high) if delta > DELTA else (low, middle)
    return high


def phi(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def of(queries: int) -> Any:
    """Return what an ε of that many queries must be: never below the closed form, and at most 0.02 above."""
    return pytest.approx(gaussian(queries) + 0.01, abs=0.0101)


def ledger(**clock: Any) -> Ledger:
    return ledger_of(SiteFolder("site-01"), **clock)


def account(
    budget: float | None = None, dataset: str = "small", rows: str = "a table", known: bool = True, **policy: Any
) -> PrivacyAccount:
    origin = Origin(rows, (), "", "") if known else None
    make = SiteFolder("site-01").make
    return PrivacyAccount(ledger(), dataset, Policy(epsilon=budget, **policy), prepare=make, origin=origin)


def spent_lines() -> list[Line]:
    return [line for line in ledger().lines() if line.kind == LINE]


def test_two_answers_on_different_sides_are_as_much_as_one_and_on_both_they_compose():
    spending = account()
    spending.reserve(ANSWER, side="training", **RUN)
    spending.reserve(ANSWER, side="holdout", **RUN)
    assert spending.spent() == of(1) and shown_budget(spending.spent()) == "3"
    assert [line.facts.get("side") for line in spent_lines()] == ["training", "holdout"]
    spending.reserve(ANSWER, **RUN)  # of both: on each side there are two now
    assert spending.spent() == of(2)
    assert "side" not in spent_lines()[-1].facts
    spending.reserve(ANSWER, side="holdout", **RUN)
    assert account().spent() == spending.spent() == of(3)
    # Were the sides added up, these lines would be four queries of ε 6.67.
    assert spending.spent() < gaussian(4) - 0.9


@pytest.mark.parametrize("side", [None, "both", "", "validation", "Training", 1, ["training"]])
def test_a_line_that_names_no_side_or_one_that_is_not_known_counts_on_both(side: Any):
    spending = account()
    spending.reserve(ANSWER, **RUN)
    cost = {"noise": ANSWER.noise, "sampling": 1, "steps": 1}
    ledger().append(kind=LINE, dataset="small", **cost, **({} if side is None else {"side": side}))
    for one in SIDES:
        spending.reserve(ANSWER, side=one, **RUN)
    # Three on each side; counted on no side it would be two.
    assert spending.spent() == of(3)


def test_under_another_rule_of_the_holdout_people_may_have_changed_sides():
    spending = account(5.0)
    spending.reserve(ANSWER, side="training", **RUN, holdout_sha256="one")
    spending.reserve(ANSWER, side="holdout", **RUN, holdout_sha256="one")
    assert spending.spent() == of(1)
    # Who was trained on may be held out now: what is charged is added to both answers, before it is written.
    assert spending.refusal([("holdout", ANSWER)], "another", rule="one") is None
    assert spending.refusal([("holdout", ANSWER)], "another", rule="two") is not None
    with pytest.raises(NotSpent):
        spending.reserve(ANSWER, side="holdout", **RUN, holdout_sha256="two")
    free = account()
    free.reserve(ANSWER, side="holdout", **RUN, holdout_sha256="two")
    assert free.spent() == account().spent() == of(3)
    told = Accounts.of(ledger().lines()).account("small", None)
    assert told.spent("small", DELTA) == pytest.approx(free.spent())


def test_a_freeze_may_have_moved_people_whose_side_follows_from_what_their_row_holds(small_sites: Any, monkeypatch):
    (site,) = small_sites(1)
    first, later = (SimpleNamespace(at=f"2026-11-{day}T00:00:00+00:00") for day in (24, 25))
    schema = datasets.load("small").schema
    for group, moves in ((None, True), ("person", False)):
        loaded = SimpleNamespace(schema=schema.model_copy(update={"group": group}))
        monkeypatch.setattr(datasets, "load", lambda name, loaded=loaded: loaded)
        hashes: list[Any] = [holdout_hash(site, one) for one in (first, later, first)]  # type: ignore[arg-type]
        assert (hashes[0] != hashes[1]) == moves and hashes[0] == hashes[2]


def line(side: str = "") -> Line:
    facts = {"dataset": "small", "noise": ANSWER.noise, "sampling": 1, "steps": 1, **({"side": side} if side else {})}
    return new_line(1, START, "2026-11-24T00:00:00.000Z", LINE, facts)


class AddedUp(Tally):
    """Planted: both sides in one sum, as before there were sides."""

    def releases(self, side: Side) -> tuple[Release, ...]:
        return tuple(Release(*kind[1:], steps) for kind, steps in self.kinds.items())


class OneSideOnly(Tally):
    """Planted: what was spent of both is charged to people trained on alone."""

    def releases(self, side: Side) -> tuple[Release, ...]:
        return tuple(
            Release(*kind[1:], steps)
            for kind, steps in self.kinds.items()
            if kind[0] == side or (side == "training" and kind[0] == "both")
        )


def test_a_sum_over_both_sides_and_one_that_leaves_a_side_out_are_told_from_the_right_one():
    def found(tally: Tally, *sides: str) -> list[float]:
        for side in sides:
            tally.add(line(side))
        return [epsilon(tally.releases(side), DELTA) for side in SIDES]

    histories = [("training", "holdout"), ("training", ""), ("", "holdout", "holdout")]
    expected = [[1, 1], [2, 1], [1, 3]]

    def fits(tally: type[Tally]) -> list[bool]:
        return [
            found(tally(), *sides) == [of(many) for many in queries]
            for sides, queries in zip(histories, expected, strict=True)
        ]

    assert fits(Tally) == [True, True, True]
    assert fits(AddedUp) == [False, False, False]
    assert fits(OneSideOnly) == [True, False, False]


def test_a_budget_refuses_the_side_that_it_would_overdraw_and_lets_the_other_pass():
    spending = account(4.0)
    spending.reserve(ANSWER, side="training", **RUN)
    over = "privacy budget: epsilon 3 of 4 is spent at delta 1e-05, and one more round would make it 4.462"
    for side in ("training", "both"):
        with pytest.raises(NotSpent) as refused:
            spending.reserve(ANSWER, side=side, **RUN)  # type: ignore[arg-type]  # - of the loop
        assert str(refused.value) == over == spending.refusal([(side, ANSWER)], "new")
    assert len(spent_lines()) == 1
    assert spending.refusal([("training", ANSWER)], "r") is None  # it spent here before
    assert spending.refusal([("holdout", ANSWER)], "new") is None
    spending.reserve(ANSWER, side="holdout", **RUN)
    assert spending.spent() == of(1)
    for side in ("training", "holdout", "both"):
        assert account(4.0).refusal([(side, ANSWER)], "new") == over
    # Of two sides that both are overdrawn the worse one is told.
    account().reserve(ANSWER, side="holdout", **RUN)
    assert "epsilon 4.462 of 4 is spent" in str(spending.refusal([(BOTH, ANSWER)], "new"))


def rounds_ahead(release: Release) -> int:
    """How many rounds `flfed site budget` says still fit a budget of 4."""
    return Accounts.of(ledger().lines()).account("small", None).rounds_left("small", release, 4.0, DELTA)


def test_rounds_ahead_are_those_that_fit_on_both_sides():
    small = Release(20.0, 1, 1)
    spending = account(4.0)
    fresh = rounds_ahead(small)
    spending.reserve(ANSWER, side="holdout", **RUN)
    left, done = rounds_ahead(small), 0
    assert 0 < left < fresh
    while spending.refusal([(BOTH, small)], "new") is None:
        account(4.0).reserve(small, **RUN)
        done += 1
    assert abs(left - done) <= max(1, done // 50)
    assert spending.refusal([("training", small)], "new") is None


def test_the_releases_of_one_answer_are_checked_together_and_written_one_a_line():
    spending = account(4.0)
    with pytest.raises(NotSpent, match="epsilon 0 of 4 is spent .* one more round would make it 4.462"):
        spending.reserve(ANSWER, ANSWER, side="training", **RUN)  # each of them alone would fit
    assert spent_lines() == [] and spending.spent() == 0
    parts = [Release(4.0, 1, 1), Release(2.5, 1, 1), Release(4.0, 1, 1)]
    lines = spending.reserve(*parts, side="training", **RUN)
    assert [line.raw for line in spent_lines()] == [line.raw for line in lines] and ledger().problems() == []
    assert [(line.n, line.facts["noise"], line.facts["side"], line.facts["run"]) for line in lines] == [
        (1, 4.0, "training", "r"), (2, 2.5, "training", "r"), (3, 4.0, "training", "r"),
    ]  # fmt: skip
    assert len({line.facts["rows"] for line in lines}) == 1
    assert spending.spent() == account(4.0).spent() == pytest.approx(epsilon(parts, DELTA))
    # Their μ² add up to 0.285, of which ANSWER's is 0.514: ε is less than its.
    assert spending.spent() < gaussian(1)
    spending.reserve(ANSWER, side="holdout", **RUN)
    assert len(spent_lines()) == 4 and spending.reserve(side="holdout", **RUN) == []
    account(0.1, disclosure="open").reserve(ANSWER, ANSWER, **RUN)  # which counts, and refuses nothing
    assert len(spent_lines()) == 6 and ledger().problems() == []


def test_rows_under_another_name_are_on_one_account_and_its_sides_are_not_this_ones():
    # Side follows from a row's hash, and a schema of fewer columns has other hashes: with a share of 0.3 held out,
    # 0.7 * 0.3 = 0.21 of the rows are trained on under one name and held out under the other.
    table = small_table(2000, seed=5)
    held = [draw_fractions(row_keys(table[columns]), "salt") < 0.3 for columns in (list(table), list(table)[1:])]
    assert np.mean(~held[0] & held[1]) == pytest.approx(0.21, abs=0.03)
    account(dataset="small").reserve(ANSWER, side="training", **RUN)
    own, other = account(4.0, dataset="small"), account(4.0, dataset="slim")
    assert own.spent() == other.spent() == of(1)
    assert own.refusal([("holdout", ANSWER)], "new") is None
    for side in SIDES:
        assert str(other.refusal([(side, ANSWER)], "new")).startswith("privacy budget: epsilon 3 of 4 is spent")
    # Of other rows there is an account apart; of rows that nobody knows all lines count, its own name's by side.
    assert account(4.0, "third", "another").refusal([(BOTH, ANSWER)], "new") is None
    assert account(4.0, known=False).refusal([("holdout", ANSWER)], "new") is None
    assert account(4.0, "third", known=False).refusal([("holdout", ANSWER)], "new") is not None
    account(known=False).reserve(ANSWER, side="holdout", **RUN)  # which does not say of which rows
    assert account().spent() == of(1)
    assert account(dataset="slim").spent() == of(2) and account(dataset="third", rows="another").spent() == of(1)


KILLED = """
import os, signal, sys
from flfed.callbacks import now_utc
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release

def clock():  # asked for each line: the third is never written
    clock.lines += 1
    if clock.lines == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return now_utc()

clock.lines = 0
folder = SiteFolder("site-01")
spending = PrivacyAccount(ledger_of(folder, clock=clock), "small", Policy(epsilon=20.0), prepare=folder.make)
spending.reserve(*[Release(1.391, 1, 1)] * 4, side="training", run="r", round=1)
"""


@pytest.mark.servers
def test_a_kill_amid_an_answer_never_lowers_the_sum():
    account().reserve(ANSWER, side="training", **RUN)
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    # Two of four lines are on the disk, of an answer that nobody got.
    assert len(spent_lines()) == 3 and ledger().problems() == []
    assert account().spent() == of(3)


@pytest.mark.servers
def test_two_processes_at_once_overdraw_neither_side_and_write_each_answer_whole():
    account(2.0).reserve(side="training")  # so that there is a ledger for both
    reserved = "*[Release(10.0, 1, 1), Release(14.0, 1, 1)], side=sys.argv[1], run=sys.argv[1], round=done"
    training, both = race(reserved, epsilon=2.0, names=("training", "both"))
    lines = spent_lines()
    assert [(side_of(line), line.facts["noise"]) for line in lines[1::2]] == [
        (side_of(line), 14.0) for line in lines[::2]
    ]
    assert len(lines) == 2 * (training + both) and ledger().problems() == []
    parts = [Release(10.0, 1, 1), Release(14.0, 1, 1)]
    # Both stopped for people trained on, on whose account all is.
    assert epsilon(parts * (training + both), DELTA) <= 2.0 < epsilon(parts * (training + both + 1), DELTA)
    assert account(2.0).refusal([("holdout", parts[0])], "new") is None or training == 0


def site_by(holdout: Any, **policy: Any) -> Any:
    return SimpleNamespace(holdout=holdout, policy=Policy(disclosure="open", **policy))


def test_a_side_is_charged_alone_only_where_nobody_can_be_on_the_other():
    wine = Study.load("wine")
    published = Study.load("fed-heart-flamby")
    by_order = HoldoutByOrder(OrderedHoldout(by="day", train_share=0.7))
    complete = wine.replace({"encode.rows": "complete"})
    for side in ("training", "holdout"):
        for rule in (Holdout(), Holdout(salt="s"), BY_TIME):
            assert side_charged(side, wine, site_by(rule)) == side
        assert side_charged(side, complete, site_by(Holdout())) == side
        assert side_charged(side, wine, site_by(Holdout(), resplit=True)) == "both"
        assert side_charged(side, published, site_by(Holdout())) == "both"
        for rule in (replace(BY_TIME, same_groups=True), by_order):
            assert side_charged(side, wine, site_by(rule)) == "both"
        assert side_charged(side, complete, site_by(BY_TIME)) == "both"
    assert side_charged("both", wine, site_by(Holdout())) == "both"


def test_of_complete_rows_a_person_may_be_held_out_who_is_trained_on_in_another_study():
    columns = {"person": {"kind": "id"}, "day": {"kind": "date"}, "x": {"kind": "number", "range": [0, 9]}}
    columns |= {"y": {"kind": "target", "values": ["no", "yes"]}}
    named = {"name": "s", "task": "binary", "target": "y", "group": "person"}
    schema = Schema.model_validate({**named, "columns": columns})
    days = pd.to_datetime(["2024-06-01", "2025-06-01"] * 2)
    rows = pd.DataFrame({"person": [*"PPQQ"], "day": days, "x": [math.nan, 1.0, 2.0, 3.0], "y": "no"})
    whole, complete = (SortedRows.of(rows, schema, named) for named in ((), ("x",)))
    found = [["".join(own.source["person"][side]) for side in own.sides(BY_TIME, 0)] for own in (whole, complete)]
    assert found == [["PQ", ""], ["Q", "P"]]
