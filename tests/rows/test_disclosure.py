"""Under disclosure "institution" no count below the minimum leaves, nor follows from what leaves.

The adversary knows the rule. For small tables it lists every table there is, keeps those that
give the very reply it saw, and looks for a sum of cells that is the same in all of them. For
tables of real size a second table shows that a small cell could have been another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.data.site import Policy
from flfed.rows.features.summarise import disclose, grouped, summarise
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.summaries.summary import ColumnLayout, Layout, Summary, fit_encoder, leak_warnings, merge
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.summarise import SummariseReply


def number(name: str, bins: int) -> ColumnLayout:
    cells = (*(f"bin {i}" for i in range(bins)), "missing")
    return ColumnLayout(name=name, kind="number", cells=cells, edges=tuple(float(edge) for edge in range(bins + 1)))


def category(name: str, values: int) -> ColumnLayout:
    return ColumnLayout(name=name, kind="category", cells=(*(f"v{i}" for i in range(values)), "missing"))


FLAG = ColumnLayout(name="x", kind="flag", cells=("0", "1", "missing"))
YES_NO = category("y", 2)


def cell_of(column: ColumnLayout, place: int) -> object:
    """Return a cell's value for the table: the middle of a bin, a flag, a category, or none."""
    if place == len(column.cells) - 1:
        return None if column.kind == "category" else np.nan
    return column.cells[place] if column.kind == "category" else place + (0.5 if column.kind == "number" else 0.0)


def table_of(layout: Layout, joint: np.ndarray) -> pd.DataFrame:
    """Return rows with `joint[cell of the feature, class]` of each kind."""
    (feature,) = layout.features
    rows = [
        (cell_of(feature, cell), cell_of(layout.target, outcome))
        for cell, outcome in np.ndindex(joint.shape)
        for _ in range(int(joint[cell, outcome]))
    ]
    table = pd.DataFrame(rows, columns=[feature.name, layout.target.name])
    return table.astype({c.name: object if c.kind == "category" else float for c in layout.columns})


def compositions(rows: int, cells: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to put `rows` rows into `cells` cells."""
    for bars in combinations(range(rows + cells - 1), cells - 1):
        places = (-1, *bars, rows + cells - 1)
        yield tuple(b - a - 1 for a, b in zip(places, places[1:], strict=False))


def text_of(reply: Summary, *, without: tuple[str, ...] = ()) -> bytes:
    return b"".join(values.tobytes() for name, values in reply.arrays().items() if name not in without)


def small_sums_that_follow(replies: dict[bytes, list[np.ndarray]], minimum: int) -> list[str]:
    """Return every set of cells whose rows are below the minimum and the same in all tables of one reply."""
    found = []
    for tables in replies.values():
        stacked = np.stack(tables)
        cells = stacked.shape[1]
        for size in range(1, cells):
            for chosen in combinations(range(cells), size):
                sums = stacked[:, chosen].sum(axis=1)
                if sums.min() == sums.max() < minimum:
                    found.append(f"{chosen} = {sums[0]} in {stacked.tolist()[:3]}")
    return found


SMALL_TABLES = [
    *((rows, column) for rows in (4, 7) for column in (FLAG, category("x", 3), number("x", 4), number("x", 5))),
    # From 4 times the minimum on, that a value has nearly all rows is said.
    *((rows, column) for rows in (12, 13) for column in (FLAG, category("x", 3))),
    *((rows, FLAG) for rows in (14, 17, 21)),
]


@pytest.mark.studies
@pytest.mark.parametrize(("rows", "column"), SMALL_TABLES)
def test_from_all_that_leaves_of_a_column_no_small_count_follows(rows, column):
    minimum = 3
    layout = Layout(features=(column,), target=YES_NO, task="binary")
    replies: dict[bytes, list[np.ndarray]] = defaultdict(list)
    for counts in compositions(rows, len(column.cells)):
        joint = np.array([[count, 0] for count in counts])  # one class: the outcome adds nothing here
        reply = disclose(summarise(table_of(layout, joint), layout), layout, minimum)
        replies[text_of(reply)].append(np.array(counts))
    assert sum(map(len, replies.values())) == len(list(compositions(rows, len(column.cells))))
    assert small_sums_that_follow(replies, minimum) == []
    if rows == 7:
        assert len(replies) > 3  # something does leave


@pytest.mark.studies
@pytest.mark.parametrize("totals", [(7, 7), (5, 4, 6), (7, 5, 4)])
def test_from_missingness_against_the_outcome_no_small_count_follows(totals):
    # With three classes the third follows from the other two: one small cell keeps all of them back.
    minimum, target = 5 - len(totals), category("y", len(totals))
    layout = Layout(features=(FLAG,), target=target, task="binary" if len(totals) == 2 else "multi-class")
    replies: dict[bytes, list[np.ndarray]] = defaultdict(list)
    tests = 0
    for gaps in product(*(range(total + 1) for total in totals)):
        # Present rows of each class are flagged or not, in every way: nothing but the gaps is held fixed.
        for flagged in product(*(range(total - gap + 1) for total, gap in zip(totals, gaps, strict=True))):
            joint = np.array([[t - g - f for t, g, f in zip(totals, gaps, flagged, strict=True)], flagged, gaps])
            if len(totals) == 3 and sum(flagged):
                continue  # too many to list
            reply = disclose(summarise(table_of(layout, joint), layout), layout, minimum)
            replies[text_of(reply)].append(np.concatenate([totals - np.array(gaps), gaps]))
            tests += int(reply.leaks_known[0, :, 0].any())
    assert tests > 4
    assert small_sums_that_follow(replies, minimum) == []


def test_of_a_regression_neither_the_exact_variance_nor_the_exact_difference_leaves():
    rng = np.random.default_rng(1)
    target = number("y", 20)
    layout = Layout(features=(replace(FLAG, name="x"),), target=target, task="regression")
    y = rng.integers(0, 20, 80) + 0.5
    table = pd.DataFrame({"x": np.where(np.arange(80) < 30, np.nan, 1.0), "y": y})
    exact = summarise(table, layout)
    reply = disclose(exact, layout, 10)
    u, v = reply.leaks[0, 0, :2]
    exact_u, exact_v = exact.leaks[0, 0, :2]
    assert u / np.sqrt(v) == pytest.approx(round(exact_u / np.sqrt(exact_v), 1), abs=1e-12)
    # Of V leaves the power of 2 below it.
    assert v == 2.0 ** math.floor(math.log2(exact_v)) == 8.0
    assert abs(v - exact_v) > 1e-3


def test_of_separation_one_bit_leaves():
    layout = Layout(features=(number("x", 6),), target=YES_NO, task="binary")
    found = []
    for overlap in (0, 2, 20, 30):
        joint = np.zeros((7, 2))
        joint[1], joint[4] = (60 - overlap, 0), (overlap, 60)
        reply = disclose(summarise(table_of(layout, joint), layout), layout, 10)
        found.append((reply.leaks[0, 0, 2] / reply.leaks[0, 0, 3], len(leak_warnings(layout, reply))))
    # AUC of the column alone: 1, 1 - 2/120 = 0.983, 1 - 20/120, 1 - 30/120
    assert found == [(1.0, 1), (1.0, 1), (0.5, 0), (0.5, 0)]


small = st.integers(0, 14)
large = st.integers(0, 60)


@pytest.mark.studies
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_every_small_cell_of_a_table_of_real_size_could_have_been_another(data):
    # The witness: one row moved to another cell gives the very same reply, to the last bit.
    minimum = 10
    columns = (FLAG, replace(category("c", 4), name="c"), number("n", 12))
    layout = Layout(features=columns, target=YES_NO, task="binary")
    rows = data.draw(st.integers(20, 150))
    tables = {c.name: np.array(spread(data.draw, rows, len(c.cells))) for c in columns}
    reply = disclose(exact_of(layout, tables, rows), layout, minimum)
    for column, place in zip(columns, layout.slices().values(), strict=False):
        counts, known = tables[column.name], reply.cells_known[place]
        assert (counts[known == 1] >= minimum).all()
        assert reply.cells[place][known == 0].sum() == 0
        for cell in np.flatnonzero((known == 0) & (counts < minimum)):
            moves = ((a, b) for other in np.flatnonzero(known == 0) for a, b in ((cell, other), (other, cell)))
            assert any(
                a != b
                and counts[a] > 0
                and text_of(
                    disclose(exact_of(layout, tables | {column.name: moved(counts, a, b)}, rows), layout, minimum)
                )
                == text_of(reply)
                for a, b in moves
            ), f"{column.name} {counts.tolist()}: cell {cell}"


def spread(draw, rows: int, cells: int) -> list[int]:
    """Return counts of `cells` cells that sum to `rows`, many of them small."""
    counts = [draw(small) for _ in range(cells)]
    for cell in range(cells):
        counts[cell] = min(counts[cell], rows - sum(counts[:cell]))
    counts[draw(st.integers(0, cells - 1))] += rows - sum(counts)
    return counts


def moved(counts: np.ndarray, a: int, b: int) -> np.ndarray:
    found = counts.copy()
    found[a], found[b] = found[a] - 1, found[b] + 1
    return found


def exact_of(layout: Layout, tables: dict[str, np.ndarray], rows: int) -> Summary:
    """Return exact sums of rows that have these counts, the outcome half yes and half no."""
    frame = {
        column.name: [cell_of(column, cell) for cell, count in enumerate(tables[column.name]) for _ in range(count)]
        for column in layout.features
    }
    frame["y"] = ["v0" if row % 2 else "v1" for row in range(rows)]
    kinds = {c.name: object if c.kind == "category" else float for c in layout.columns}
    return summarise(pd.DataFrame(frame).astype(kinds), layout)


INSTITUTION = Policy(disclosure="institution")


@pytest.fixture
def replies(small_sites, small_study) -> list[tuple[SiteSession, Summary]]:
    """What left of training and of holdout rows of three institutions, read out of the messages."""
    found = []
    for site in small_sites(3, rows=90, policy=INSTITUTION, change=rare):
        place = SiteSession(site, Study.parse(small_study))
        message = SummariseReply(summary=place.summary()).to_record()
        found.append((place, SummariseReply.from_record(message).summary))
        held = CompareReply(num_examples=1, holdout_rows=1, arms=(), differences=(), summary=place.holdout_summary())
        summary = CompareReply.from_record(held.to_record()).summary
        assert summary is not None
        found.append((place, summary))
    return found


def rare(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with three rows flagged, and at one site a column that is known for four rows."""
    table = table.assign(flag=0)
    table.loc[[2, 11, 17], "flag"] = 1
    if number == 1:
        table.loc[4:, "x2"] = np.nan
    return table


def test_in_the_messages_cells_are_large_or_left_out_and_add_up(replies):
    for place, reply in replies:
        for column, part in zip(place.layout.columns, place.layout.slices().values(), strict=True):
            known = reply.cells_known[part] == 1
            assert (reply.cells[part][known] >= 10).all() and (reply.cells[part][~known] == 0).all()
            left = reply.left[place.layout.columns.index(column)]
            assert reply.cells[part].sum() + left == reply.rows[0]
            assert left == 0 or (left >= 10 and (~known).sum() >= 2)


def test_three_flagged_rows_are_in_no_figure_of_any_message(replies, small_sites, small_study):
    # Site for site, with 3, 2 or 0 of its rows flagged, the messages are the same.
    for flagged in ([], [2, 11]):

        def fewer(number: int, table: pd.DataFrame, flagged: list[int] = flagged) -> pd.DataFrame:
            same = rare(number, table)
            same["flag"] = 0
            same.loc[flagged, "flag"] = 1
            return same

        sites = small_sites(3, rows=90, policy=INSTITUTION, change=fewer)
        for number, site in enumerate(sites):
            # The sides are those of the original rows: a row's own cells decide where it is.
            place, first = replies[2 * number]
            people = set(place.table.training["person"])
            table = site.inspect()[0]
            training = table[table["person"].isin(people)]
            again = disclose(summarise(training, place.layout), place.layout, 10)
            assert text_of(again) == text_of(first)


def test_under_open_everything_is_exact_and_under_institution_less_is_said(small_sites, small_study, replies):
    study = Study.parse(small_study)
    open_places = [SiteSession(site, study) for site in small_sites(3, rows=90, change=rare)]
    exact = merge([place.summary() for place in open_places])
    assert exact.cells_known.min() == 3 and exact.left.sum() == 0
    coarse = merge([reply for _, reply in replies[::2]])
    assert coarse.rows == exact.rows
    assert (coarse.cells <= exact.cells).all()
    assert 0 < (coarse.cells_known == 3).mean() < 1
    layout = open_places[0].layout
    ours, true = fit_encoder(layout, coarse), fit_encoder(layout, exact)
    numbers = [i for i, column in enumerate(layout.columns) if column.kind == "number"]
    assert (np.abs(ours.center - true.center) / true.scale)[numbers].max() < 0.3
    assert ((ours.scale / true.scale)[numbers] > 0.6).all() and ((ours.scale / true.scale)[numbers] < 1.6).all()


def test_the_test_of_missingness_leaves_where_every_cell_is_large():
    # 40 of 100 missing, 30 of 50 positives among them: (30 - 20)^2 / V, V = 50*50*40*60 / (100^2 * 99)
    layout = Layout(features=(FLAG,), target=YES_NO, task="binary")
    joint = np.array([[40, 20], [0, 0], [10, 30]])
    reply = disclose(summarise(table_of(layout, joint), layout), layout, 10)
    assert reply.leaks_known[0, 0, 0] == 1
    np.testing.assert_allclose(reply.leaks[0, 0, :2], [10, 50 * 50 * 40 * 60 / (100**2 * 99)], rtol=1e-12)
    # One such site may be chance (the exact test: p = 6e-5, its bound 2e-4), two are none.
    assert leak_warnings(layout, reply) == []
    assert [warning.column for warning in leak_warnings(layout, merge([reply, reply]))] == ["x"]
    fewer = np.array([[48, 12], [0, 0], [2, 38]])
    assert disclose(summarise(table_of(layout, fewer), layout), layout, 10).leaks_known[0, 0, 0] == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(large, min_size=3, max_size=12), st.sampled_from(["number", "flag", "category"]), st.integers(2, 12))
def test_groups_hold_every_cell_once_and_enough_rows(counts, kind, minimum):
    found = grouped(np.array(counts), kind, minimum)
    assert sorted(cell for group in found for cell in group) == list(range(len(counts)))
    if sum(counts) >= minimum:
        assert min(sum(counts[cell] for cell in group) for group in found) >= minimum or len(found) == 1


def test_the_mean_of_whole_numbers_whose_bins_stand_apart_is_near_the_exact_one():
    layout = Layout(features=(number("n", 64),), target=YES_NO, task="binary")
    joint = np.zeros((65, 2), dtype=int)
    joint[[0, 10, 21, 32, 42, 53, 63], 0] = [900, 950, 520, 190, 55, 8, 3]
    joint[:, 1] = joint[:, 0] // 3
    exact = summarise(table_of(layout, joint), layout)
    moments = []
    for summary in (exact, disclose(exact, layout, 10)):
        rows, total, squares = summary.moments[0]
        moments.append((total / rows, math.sqrt(squares / rows - (total / rows) ** 2)))
    (mean, deviation), (about, spread) = moments
    assert abs(about - mean) < 0.05 * deviation
    assert abs(spread - deviation) < 0.1 * deviation


def test_no_bit_of_what_one_column_tells_depends_on_another_column():
    layout = Layout(features=(FLAG, replace(category("c", 4), name="c"), number("n", 12)), target=YES_NO, task="binary")
    tables = {column.name: np.zeros(len(column.cells), dtype=int) for column in layout.features}
    tables[FLAG.name][0], tables["n"][[2, -1]] = 41, [20, 21]
    replies = []
    for gaps in range(3):
        tables["c"][[0, -1]] = 41 - gaps, gaps
        replies.append(text_of(disclose(exact_of(layout, tables, 41), layout, 10)))
    assert len(set(replies)) == 1
