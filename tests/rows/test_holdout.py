"""Which rows are never trained on, and that nothing reads them before the comparison."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed import Study, run
from flfed.errors import TableError, UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.server.server import FederatedRun
from flfed.records.store.reader import RunReader
from flfed.rows.data.holdout import Holdout, HoldoutByTime, canonical_rows, for_validation, side_keys
from flfed.rows.data.row_keys import text_keys
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from flfed.rows.training.answer import compute_one_by_one

COLUMNS = {
    "person": {"kind": "id"}, "seen": {"kind": "date"}, "x": {"kind": "number", "range": [-10, 10]},
    "colour": {"kind": "category", "values": ["red", "green", "blue"]},
    "y": {"kind": "target", "values": ["no", "yes"]},
}  # fmt: skip
SINGLE = Schema.model_validate({"name": "s", "task": "binary", "target": "y", "columns": COLUMNS})
GROUPED = Schema.model_validate({**SINGLE.model_dump(by_alias=True), "group": "person"})

people = st.lists(st.integers(0, 30), min_size=1, max_size=80)


def visits(persons: list[int], days: list[int] | None = None) -> pd.DataFrame:
    """One mapped row a visit, in the schema's columns."""
    days = days or list(range(len(persons)))
    seen = pd.Timestamp("2026-01-01") + pd.to_timedelta(days, unit="D")
    x = np.arange(len(persons), dtype=float) % 20 - 10
    return pd.DataFrame(
        {"person": [f"P{p}" for p in persons], "seen": seen, "x": x, "colour": "red", "y": "no"}
    ).astype({"person": object})


@pytest.mark.studies
@settings(max_examples=50, deadline=None)
@given(people, st.floats(0.05, 0.95), st.text(max_size=5), st.integers(0, 3))
def test_groups_never_straddle_and_every_row_is_on_one_side(persons, share, salt, repeat):
    table = visits(persons)
    train, held = Holdout(share=share, salt=salt).split(table, GROUPED, repeat)
    assert (train ^ held).all()
    assert not set(table["person"][train]) & set(table["person"][held])


@settings(max_examples=50, deadline=None)
@given(people, st.integers(0, 80), st.integers(0, 20))
def test_by_time_no_group_straddles_and_no_training_row_is_later_than_the_cut_minus_the_gap(persons, cut, gap):
    table = visits(persons)
    until, after = table["seen"].min() + pd.Timedelta(days=cut), table["seen"].min() + pd.Timedelta(days=cut + 1)
    split = HoldoutByTime("seen", str(until.date()), str(after.date()), gap_days=gap)
    for schema in (SINGLE, GROUPED):
        train, held = split.split(table, schema)
        assert not (train & held).any()
        assert (table["seen"][train] <= until - pd.Timedelta(days=gap)).all()
        assert (table["seen"][held] >= after).all()
        # Nothing that could be trained on is left out.
        assert train.sum() == (table["seen"] <= until - pd.Timedelta(days=gap)).sum()
    assert not set(table["person"][train]) & set(table["person"][held])


def test_rows_between_training_and_test_are_in_neither():
    table = visits([1, 2, 3, 4, 5], days=[0, 5, 10, 15, 20])
    split = HoldoutByTime("seen", train_until="2026-01-11", test_from="2026-01-20", gap_days=4)
    train, held = split.split(table, SINGLE)
    assert train.tolist() == [True, True, False, False, False]
    assert held.tolist() == [False, False, False, False, True]


def test_a_time_of_day_on_the_last_day_is_not_trained_on():
    table = visits([1, 2])
    table["seen"] = pd.to_datetime(["2026-01-10 00:00", "2026-01-10 09:30"])
    assert HoldoutByTime("seen", "2026-01-10", "2026-01-11").split(table, SINGLE)[0].tolist() == [True, False]


@pytest.mark.parametrize(("settings", "why"), [
    ({"train_until": "2026-01-10", "test_from": "2026-01-10"}, "must be later than train-until"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "gap_days": -1}, "gap-days=-1"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "gap_days": 0.5}, "gap-days=0.5 must be"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "gap_days": 10**9}, "must be dates"),
    ({"train_until": "in spring", "test_from": "2026-01-11"}, "must be dates"),
    ({"train_until": "2026-01-10", "test_from": ""}, "must be dates"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "test_until": "NaT"}, "must be dates"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11T00:00+02:00"}, "without a time zone"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "test_until": "soon"}, "must be dates"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "test_until": "2026-01-11"}, "test-until=2026-01-11"),
    ({"train_until": "2026-01-10", "test_from": "2026-01-11", "train_from": "2026-01-11"}, "train-from=2026-01-11"),
])  # fmt: skip
def test_a_split_by_time_that_would_leak_is_refused(settings, why):
    with pytest.raises(UsageError, match=why):
        HoldoutByTime("seen", **settings)


def test_a_row_without_a_date_or_a_group_is_an_error_with_a_count():
    table = visits([1] * 12)
    table.loc[:6, "seen"] = pd.NaT
    with pytest.raises(TableError, match="column 'seen' has no date in 7 rows"):
        HoldoutByTime("seen", "2026-01-10", "2026-01-11").split(table, SINGLE)
    table.loc[:2, "person"] = None
    with pytest.raises(TableError, match="column 'person' has no value.*fewer than 5 rows"):
        Holdout().split(table, GROUPED)
    with pytest.raises(UsageError, match="has no date column 'x'"):
        HoldoutByTime("x", "2026-01-10", "2026-01-11").split(table, SINGLE)


def test_periods_have_a_first_and_a_last_day_and_may_meet_where_there_is_a_gap():
    table = visits([1] * 6, days=[0, 5, 10, 15, 20, 25])
    split = HoldoutByTime(
        "seen", "2026-01-16", "2026-01-16", gap_days=4, train_from="2026-01-06", test_until="2026-01-26"
    )
    train, held = split.split(table, SINGLE)
    assert train.tolist() == [False, True, True, False, False, False]
    assert held.tolist() == [False, False, False, True, True, False]


def test_a_known_customer_is_in_both_periods_only_where_the_holdout_says_so():
    table = visits([1, 1, 2, 2], days=[0, 20, 0, 1])
    apart = HoldoutByTime("seen", "2026-01-10", "2026-01-11")
    both = HoldoutByTime("seen", "2026-01-10", "2026-01-11", same_groups=True)
    assert apart.split(table, GROUPED)[1].sum() == 0
    assert both.split(table, GROUPED)[1].tolist() == [False, True, False, False]


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_that_leaves_no_training_rows_is_refused(share):
    with pytest.raises(UsageError, match=r"must be in \[0, 1\)"):
        Holdout(share=share)


def test_a_share_of_0_holds_nothing_out():
    table = visits([number % 20 for number in range(50)])
    training, held = Holdout(share=0.0, salt="any").split(table, GROUPED)
    assert training.all() and not held.any()


def test_the_share_is_kept_and_salt_and_repeat_draw_other_rows():
    # 20,000 groups: the deviation of a share of 0.3 is 0.0032; five of them are never reached.
    table = visits(list(range(20_000)), days=[0] * 20_000)
    drawn = {key: Holdout(0.3, key[0]).split(table, GROUPED, key[1])[1] for key in (("a", 0), ("b", 0), ("a", 1))}
    for held in drawn.values():
        assert abs(held.mean() - 0.3) < 0.0163
    first = drawn[("a", 0)]
    for key in (("b", 0), ("a", 1)):
        # Independent draws agree on 0.3² + 0.7² = 0.58 of the rows.
        assert abs((first == drawn[key]).mean() - 0.58) < 0.02
    assert (Holdout(0.3, "a").split(table, GROUPED)[1] == first).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=60, unique=True), st.integers(1, 59))
def test_rows_that_come_later_move_no_other_row(persons, first):
    table = visits(persons)
    for schema in (SINGLE, GROUPED):
        whole = Holdout(salt="s").split(table, schema)[1]
        assert (Holdout(salt="s").split(table[:first], schema)[1] == whole[:first]).all()


def test_equal_rows_stay_together_and_a_negative_zero_is_a_zero():
    table = pd.concat([visits([1, 2, 3])] * 5, ignore_index=True)
    held = Holdout(0.5, "t").split(table, SINGLE)[1]
    assert (held[:3] == held[3:6]).all() and (held[:3] == held[12:]).all()
    signed = table.assign(x=-0.0)
    assert canonical_rows(signed) == canonical_rows(table.assign(x=0.0))


# --- nothing before the comparison reads a holdout row ---

STUDY = """
format = 1
name = "visits"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "visits"
[model]
name = "logistic"
[plan]
lr = 0.3
[strategy]
name = "fedavg"
rounds = 6
[compare]
resamples = 200
"""
KEPT = ("training", "validation", "fit")
SELECTING = {
    "plan.lr": 5.0, "plan.validation": 0.3, "plan.schedule": "plateau", "plan.plateau-patience": 1,
    "strategy.select": "best", "strategy.patience": 3,
}  # fmt: skip
MakeSites = Callable[..., list[Site]]


@pytest.fixture
def grouped_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSites:
    """A function that makes two sites whose rows are grouped by person, so that the person alone decides the side."""
    folder = tmp_path / "root" / "datasets" / "visits"
    folder.mkdir(parents=True)
    lines = ["format = 1", 'name = "visits"', 'task = "binary"', 'target = "y"', 'group = "person"']
    for name, column in COLUMNS.items():
        lines += [f"[columns.{name}]", *(f"{key} = {value!r}" for key, value in column.items())]
    (folder / "schema.toml").write_text("\n".join(lines))
    (folder / "source.toml").write_text('licence = "none"\ncitation = "made for tests"\n')
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))

    def make(spoil: str = "") -> list[Site]:
        return [site_of(number, spoil) for number in range(2)]

    return make


def site_of(number: int, spoil: str) -> Site:
    """Return one site; with `spoil` every cell of its "training" or "holdout" rows but the person is another."""
    rng = np.random.default_rng(number)
    rows = 90 + 20 * number
    x = rng.normal(0, 2, rows).clip(-10, 10)
    y = np.where(rng.random(rows) < 1 / (1 + np.exp(-x)), "yes", "no")
    table = visits(rng.integers(0, 40, rows).tolist()).assign(
        x=x, colour=rng.choice(["red", "green", "blue"], rows), y=y
    )
    holdout = Holdout(salt=f"salt-{number}")
    side = dict(zip(("training", "holdout"), holdout.split(table, GROUPED), strict=True))
    if spoil:
        other = table.assign(
            x=np.where(table["x"] > 0, -9.5, 9.5) + rng.random(rows) / 4, y=table["y"].map({"yes": "no", "no": "yes"}),
            colour=table["colour"].map({"red": None, "green": "red", "blue": "green"}),
            seen=table["seen"] + pd.Timedelta(days=1000),
        )  # fmt: skip
        table = table.where(~pd.Series(side[spoil]), other).assign(person=table["person"])
    policy = Policy(disclosure="open", resplit=True)
    return Site(name=f"site-{number}", dataset="visits", source=Frame(table), holdout=holdout, policy=policy)


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], tuple[tuple, list, list]]:
    """What runs came to that more than one test looks at."""
    return {}


@pytest.fixture
def outcome(grouped_sites: MakeSites, known) -> Callable[..., tuple[tuple, list, list]]:
    """A function that returns what a run over sites, spoilt or not, comes to."""

    def of(study: Study, spoil: str = "") -> tuple[tuple, list, list]:
        if (study.text, spoil) not in known:
            known[study.text, spoil] = came_to(study, grouped_sites(spoil))
        return known[study.text, spoil]

    return of


def came_to(study: Study, sites: list[Site]) -> tuple[tuple, list, list]:
    """Return (hash of the arrays, best round), every round's figures but the holdout's, and the comparison's."""
    report = run(study, sites=sites).report
    with RunReader.open() as reader:
        rounds = [m for n in range(study.rounds + 2) for m in reader.metrics(report["run"], n) if m.arm in KEPT]
        best = reader.runs_of(report["run"])[0].best_round
        return (report["arrays-sha256"], best), rounds, reader.figures(report["run"])


@pytest.mark.studies
@pytest.mark.parametrize("changes", [{}, SELECTING], ids=["last round", "selected by validation rows"])
def test_no_cell_of_a_holdout_row_changes_the_model_or_a_figure_of_any_round(outcome, changes):
    study = Study.parse(STUDY).replace(changes)
    arrays, rounds, compared = outcome(study)
    other_arrays, other_rounds, other_compared = outcome(study, "holdout")
    assert arrays == other_arrays
    if changes:
        assert arrays[1] < study.rounds  # a round before the last was selected
    assert len(rounds) > 20 and rounds == other_rounds
    # The comparison does read them: they are other rows.
    assert compared != other_compared


def test_every_figure_depends_on_the_training_rows(outcome):
    # The test above can fail: the same spoiling of the other side moves everything.
    study = Study.parse(STUDY).replace(SELECTING)
    plain, spoilt = outcome(study), outcome(study, "training")
    assert all(one != other for one, other in zip(plain, spoilt, strict=True))


class Watched(InProcessGrid):
    """The in-process grid, which notes after each exchange what the sites' holdouts were opened for."""

    def watch(self, side: SiteClient) -> list[tuple[str, set[str]]]:
        self.side, self.seen = side, []
        return self.seen

    def send_and_receive(self, messages, *, timeout=None):
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        opened = {purpose for place in self.side.sessions.values() for purpose in place.table.opened}
        self.seen.append((asked[0].metadata.message_type, opened))
        return replies


@pytest.mark.studies
def test_the_holdout_is_opened_first_by_the_comparison(grouped_sites, recorder):
    study = Study.parse(STUDY).replace(SELECTING)
    sites = {site.name: site for site in grouped_sites()}
    side = SiteClient(lambda name, _: sites[name])
    grid = Watched(side.app(), list(sites), {"study": study.text, "repeat": 0})
    seen = grid.watch(side)
    FederatedRun(
        grid, study, recorder(study), tables=PooledReference(side, (study.text, 0), compute_one_by_one)
    ).conduct()
    before = [opened for kind, opened in seen if re.match("query.enrol|query.summarise", kind)]
    rounds = [opened for kind, opened in seen if kind in ("train", "evaluate")]
    assert len(before) == 2 and not set().union(*before)
    assert len(rounds) >= 4 and not set().union(*rounds)
    assert seen[-1] == ("query.compare", {"compare"})


@pytest.fixture
def recorder():
    """A function that makes a recorder of a run in the store of this test's home."""
    from flfed.federation.recording.recorder import Recorder
    from flfed.records.store.writer import RunStore

    with RunStore.open() as store:

        def make(study: Study) -> Recorder:
            series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
            writer = store.begin_run(
                series, repeat=0, engine="inprocess", path="one-by-one", seed=study.seed,
                rounds_planned=study.rounds, versions={}, hashes={}, primary="roc_auc_score", task="binary",
            )  # fmt: skip
            return Recorder(writer, "roc_auc_score", study.rounds)

        yield make


@pytest.mark.parametrize("schema", [SINGLE, GROUPED])
@pytest.mark.parametrize("holdout", [Holdout(0.4, "s"), HoldoutByTime("seen", "2026-01-20", "2026-01-21")])
def test_keys_of_rows_that_are_known_already_change_no_split(schema, holdout):
    table = visits([number // 2 for number in range(60)])
    again = holdout.split(table, schema, 2, side_keys(table, schema))
    np.testing.assert_array_equal(again, holdout.split(table, schema, 2))
    assert 0 < again[1].sum() < 60
    if isinstance(holdout, Holdout):
        # They alone decide: of equal keys all rows are on one side.
        assert len(set(holdout.split(table, schema, 2, np.ones((60, 2), np.uint64))[1])) == 1


@pytest.mark.parametrize("gap", [0, 30])
@pytest.mark.parametrize(("start", "end"), [("", ""), ("2019-12-31", "2021-02-28")])
def test_plain_days_are_what_pandas_reads_of_them(gap: int, start: str, end: str):
    made = HoldoutByTime("at", "2020-06-30", "2020-07-31", gap_days=gap, train_from=start, test_until=end)
    days, moments = made._usable_ends(), made._moments()
    assert days is not None and {type(day) for day in days} == {date}
    limits = slice(None) if start else slice(1, 4)  # without one each has its own first and last day
    assert [pd.Timestamp(day) for day in days[limits]] == list(moments[limits])
    assert days[0] < days[1] and days[3] < days[4]


@pytest.mark.parametrize("day", ["2020-6-30", "20200630", "2020-06-30T12:00", "1600-01-01", "2020-02-30"])
def test_other_dates_are_left_to_pandas(day: str):
    made = object.__new__(HoldoutByTime)
    vars(made).update(column="at", train_until=day, test_from="2021-01-01", gap_days=0, train_from="", test_until="")
    found = made._usable_ends()
    assert (found is None) == (day in ("1600-01-01", "2020-02-30"))
    assert found is None or all(isinstance(one, pd.Timestamp) for one in found)


def test_validation_rows_are_others_for_each_seed_and_site():
    keys = text_keys([f"row {number}" for number in range(2000)])
    first, again, repeat, other = (
        for_validation(keys, Holdout(), site, seed, 0.3)
        for site, seed in (("site-01", 7), ("site-01", 7), ("site-01", 8), ("site-02", 7))
    )
    assert (first == again).all()
    for apart in (repeat, other):
        # Drawn by themselves they differ in 2 · 0.3 · 0.7 of the rows.
        assert 0.36 < (first != apart).mean() < 0.48


def test_a_slightly_larger_share_for_validation_is_another_draw_and_not_a_few_more_people():
    keys = text_keys([f"person {number}" for number in range(2000)])
    first, again, more = (for_validation(keys, Holdout(salt="a"), "site", 7, share) for share in (0.3, 0.3, 0.301))
    assert (first == again).all() and abs(more.mean() - 0.301) < 0.05
    assert min((first & ~more).sum(), (more & ~first).sum()) > 300
