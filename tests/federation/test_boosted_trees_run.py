"""Runs of boosted trees: the same trees whatever the sites are, and whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message

from flfed import Study
from flfed.errors import RunStopped, UsageError
from flfed.federation.engines.engine import find_sites
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.server.preflight import check
from flfed.federation.server.row_sums import cells_defect
from flfed.federation.server.run import resume, run
from flfed.records.reports.report import report
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.features.encode import joined, plain_inputs
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import Level
from flfed.rows.site_trees import grown as grown_level
from flfed.rows.statistics.boosted_trees import cell_counts
from flfed.rows.study_model import first_model, study_layout
from flfed.rows.training.answer import run_client
from flfed.summaries.summary import arrays_sha256
from flfed.trees.cut_points import cell_shapes, chosen_cuts, codes_in, widths_of
from flfed.trees.forest import TreeSettings, forest_of, margins, round_of, tree_arrays, trees_of, with_round
from flfed.updates.messages.in_memory import is_in_memory
from flfed.updates.messages.summarise import BINS, BinsReply
from flfed.updates.messages.train import EVALUATE, SUMS, TRAIN, TREES_MISSING, TrainReply
from tests.boosting import Boosting, Forest, arrays_of, trees_study
from tests.federation.test_resume import killer, newest
from tests.small_runs import Conducted

Conduct = Callable[..., Conducted]
SETTINGS = TreeSettings(depth=3, learning_rate=0.3)


@pytest.fixture
def trees(small_study: str) -> Callable[..., str]:
    """A function that returns the small study with trees, and further keys as `Study.replace` takes them."""
    return partial(trees_study, small_study)


def one_table(
    sessions: Sequence[SiteSession], most: int = 16, least: int = 0
) -> tuple[Boosting, dict[str, np.ndarray]]:
    """Return the rows that sites trained on as one table's codes, and the cut points of that table."""
    rows = [session.fitted_columns() for session in sessions]
    layout, whole = sessions[0].layout, joined(rows)
    arrays = chosen_cuts(layout, cell_counts(whole, layout, least), most, least)
    site = np.repeat(np.arange(len(rows)), [part.rows for part in rows])
    x, y = plain_inputs(whole, layout), whole.codes[layout.target.name].astype(int)
    training, outputs = np.ones(len(y), dtype=bool), 1 if layout.task == "binary" else len(layout.target.cells) - 1
    return Boosting(layout.task, codes_in(x, arrays), widths_of(arrays), y, site, training, outputs), arrays


def forest_arrays(forest: Forest, like: dict[str, np.ndarray], cuts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return trees as a model's arrays."""
    found = {name: np.full_like(value, -1.0 if name == "column" else 0.0) for name, value in like.items()} | cuts
    for number, grown in enumerate(forest):
        found = with_round(found, number, tree_arrays(grown, like["value"].shape[2]))
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("least", [0, 10])
def test_a_run_grows_the_trees_of_one_table(least: int, conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=150), trees(**{"strategy.min-rows": least}))
    assert done.outcome.status == "completed" and done.reasons("fault") == {}
    rows, cuts = one_table(done.sessions(), least=least)
    forest = rows.pooled().grown(replace(SETTINGS, least_rows=least), 8)
    assert same(done.outcome.arrays, forest_arrays(forest, done.outcome.arrays, cuts))
    assert [arrays_of([trees]).keys() for trees in forest_of(done.outcome.arrays)]
    wrong = replace(rows, y=1 - rows.y).pooled().grown(replace(SETTINGS, least_rows=least), 8)
    assert not same(done.outcome.arrays, forest_arrays(wrong, done.outcome.arrays, cuts))
    counted = [BinsReply.from_record(heard.message.content).counts for heard in done.sent(BINS, "to-server")]
    assert {tuple(counts) for counts in counted} == {("x1", "x2", "flag", "colour") if least else ("x1", "x2")}


def test_what_a_site_is_told_of_the_model_is_of_its_trees(conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=150), trees(), tables=True)
    shared = forest_of(done.outcome.arrays)
    told = report(done.reader, done.run)["sites"]
    for session in done.sessions():
        table = session.table.holdout("test")
        x = session.encode(table, done.outcome.encoder).x
        score = margins(shared, codes_in(x, done.outcome.arrays), widths_of(done.outcome.arrays) - 1)[:, 0]
        expected = session.metrics["roc_auc_score"].value(session.target(table), score)
        assert told[session.site.name]["global"]["roc_auc_score"]["value"] == pytest.approx(expected, abs=1e-12)
        assert expected > 0.6


def scores_by_round(done: Conducted) -> dict[tuple[str, int, str], float]:
    return {
        (row.site, number, row.metric): row.value
        for number in range(9)
        for row in done.reader.metrics(done.run, number)
        if row.arm == "validation"
    }


def test_a_rounds_scores_are_of_the_trees_before_it(conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=150), trees())
    told, forest = scores_by_round(done), forest_of(done.outcome.arrays)
    for session in done.sessions():
        _, held = session.round_rows(done.outcome.encoder)
        codes, missing = codes_in(held.x, done.outcome.arrays), widths_of(done.outcome.arrays) - 1
        for number in range(1, 9):
            score = margins(forest[:number], codes, missing)[:, 0]
            loss = np.logaddexp(0, np.where(held.y == 1, -score, score)).mean()
            assert told[session.site.name, number, "loss"] == pytest.approx(loss, abs=1e-9)


def lost(site: str, round: int, level: int, *, once: bool) -> Callable[[Any], Callable[[Message], Message | None]]:
    """Return what drops a site's replies from a level of a round on, or that reply alone."""

    def change(reply: Message) -> Message | None:
        if reply.metadata.message_type not in (TRAIN, EVALUATE) or reply.has_error():
            return reply
        asked = round_and_level(reply)
        gone = asked == (round, level) if once else asked >= (round, level)
        return None if gone and name_of(reply) == site else reply

    return change


REQUESTS: dict[str, tuple[int, int]] = {}
"""Round and level of each message to a site, by its id."""


def round_and_level(reply: Message) -> tuple[int, int]:
    return REQUESTS[reply.metadata.reply_to_message_id]


def name_of(reply: Message) -> str:
    return f"site-{reply.metadata.src_node_id:02d}"


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test know which round and level a reply is to."""
    numbered = InProcessGrid.numbered

    def noting(grid: InProcessGrid, message: Message) -> Message:
        found = numbered(grid, message)
        if found.metadata.message_type in (TRAIN, EVALUATE):
            level = found.content["settings"]["level"] if "settings" in found.content else 0
            REQUESTS[found.metadata.message_id] = (found.content["config"]["round"], int(level))
        return found

    monkeypatch.setattr(InProcessGrid, "numbered", noting)


@pytest.mark.studies
@pytest.mark.parametrize("level", [1, 2])
def test_a_site_that_is_lost_within_a_tree_has_no_part_in_it(level, conduct, small_sites, trees, noted):
    text = trees(**{"strategy.quorum": 0.6})
    within = conduct(small_sites(3, rows=150), text, change=lost("site-02", 3, level, once=False))
    before = conduct(small_sites(3, rows=150), text, change=lost("site-02", 3, 0, once=False))
    whole = conduct(small_sites(3, rows=150), text)
    assert within.outcome.status == "completed"
    assert same(within.outcome.arrays, before.outcome.arrays)
    assert not same(within.outcome.arrays, whole.outcome.arrays)
    grown = [arrays_of([trees]) for trees in forest_of(within.outcome.arrays)]
    both = [arrays_of([trees]) for trees in forest_of(whole.outcome.arrays)]
    assert [same(*pair) for pair in zip(grown, both)] == [True, True, *[False] * 6]
    # The level was asked of the others once more, for a tree of their own.
    again = [one.message.content["settings"] for one in within.sent(TRAIN, "to-site") if one.site == "site-01"]
    assert {int(one["attempt"]) for one in again} == {0, 1}


def test_a_site_that_missed_a_level_is_back_in_the_next_tree(conduct: Conduct, small_sites, trees, noted: None):
    once = conduct(small_sites(3, rows=150), trees(**{"strategy.quorum": 0.6}), change=lost("site-02", 3, 1, once=True))
    asked = [(REQUESTS[one.message.metadata.message_id], one.site) for one in once.sent(TRAIN, "to-site")]
    assert ((4, 0), "site-02") in asked and once.outcome.status == "completed"
    assert list(once.reasons("fault")) == ["site-02"]


@pytest.mark.studies
def test_below_the_quorum_all_are_asked_again_and_grow_the_same_tree(conduct: Conduct, small_sites, trees, noted: None):
    text = trees(**{"strategy.quorum": 1.0})
    seen: list[tuple[int, int]] = []

    def once(reply: Message) -> Message | None:
        if reply.metadata.message_type != TRAIN or name_of(reply) != "site-02" or round_and_level(reply) != (3, 1):
            return reply
        seen.append((3, 1))
        return reply if len(seen) > 1 else None

    again = conduct(small_sites(3, rows=150), text, change=once)
    assert seen == [(3, 1), (3, 1)]
    asked = [one.message.content for one in again.sent(TRAIN, "to-site") if one.message.content["config"]["round"] == 3]
    assert {int(content["settings"]["attempt"]) for content in asked} == {0, 1}
    assert same(again.outcome.arrays, conduct(small_sites(3, rows=150), text).outcome.arrays)


@pytest.mark.studies
def test_a_site_that_lost_the_trees_says_so_and_gets_them_whole(conduct: Conduct, small_sites, trees, monkeypatch):
    expected, plainly = conduct(small_sites(3, rows=150), trees()), SiteSession.round_rows
    context_of = InProcessGrid.context_of

    def written(grid: InProcessGrid, message: Message) -> Context:
        # Within a process a message brings what it only names.
        if is_in_memory(message.content):
            message.content = message.content.message.to_record()
        return context_of(grid, message)

    monkeypatch.setattr(InProcessGrid, "context_of", written)
    whole: list[bool] = []

    def forgetful(session: SiteSession, encoder: Any) -> Any:
        # Another process answers, which has the first rounds' trees or none.
        if session.site.name == "site-02" and session.trees is not None and len(whole) in (7, 15):
            session.trees = None
        if session.site.name == "site-02":
            whole.append(session.trees is None)
        return plainly(session, encoder)

    monkeypatch.setattr(SiteSession, "round_rows", forgetful)
    ran = conduct(small_sites(3, rows=150), trees())
    assert ran.outcome.status == "completed" and ran.reasons("fault") == {}
    assert same(ran.outcome.arrays, expected.outcome.arrays)
    errors = [str(heard.message.error.reason) for heard in ran.grid.heard if heard.message.has_error()]
    assert errors == [str(TREES_MISSING)] * 2
    brought = [("arrays" in one.message.content) for one in ran.sent(TRAIN, "to-site") if one.site == "site-02"]
    assert sum(brought) == 3 and brought[0]


def spoiled(change: Callable[[TrainReply], TrainReply]) -> Callable[[Message], Message]:
    """Return what changes the sums of site-02 in round 2."""

    def changed(reply: Message) -> Message:
        if reply.metadata.message_type != TRAIN or name_of(reply) != "site-02" or reply.has_error():
            return reply
        if round_and_level(reply)[0] == 2:
            reply.content = change(TrainReply.from_record(reply.content)).to_record()
        return reply

    return changed


def with_sums(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[TrainReply], TrainReply]:
    return lambda reply: replace(reply, extra={SUMS: change(reply.extra[SUMS].copy())})


def moved(sums: np.ndarray) -> np.ndarray:
    sums[:, 0, 1] += 1
    return sums


DEFECTS: dict[str, tuple[Callable[[TrainReply], TrainReply], str]] = {
    "float": (with_sums(lambda sums: sums.astype(float)), "not of the nodes"),
    "fewer": (with_sums(lambda sums: sums[:, 1:]), "not of the nodes"),
    "beyond": (with_sums(lambda sums: sums * 1000), "of so many rows"),
    "lowest": (with_sums(lambda sums: np.full_like(sums, np.iinfo(np.int64).min)), "of so many rows"),
    "negative": (with_sums(lambda sums: -sums), "of so many rows"),
    "uneven": (with_sums(moved), "not those of another"),
    "update": (lambda reply: replace(reply, delta={"value": np.zeros(3)}), "not of the nodes"),
    "none": (lambda reply: replace(reply, extra={}), "not of the nodes"),
    "rows": (lambda reply: replace(reply, num_examples=1e9), "above the declared band"),
}


@pytest.mark.studies
@pytest.mark.parametrize("name", DEFECTS)
def test_sums_that_cannot_be_are_refused_and_the_tree_grows_without_them(name, conduct, small_sites, trees, noted):
    change, words = DEFECTS[name]
    text = trees(**{"strategy.quorum": 0.6, "strategy.rounds": 2})
    done = conduct(small_sites(3, rows=150), text, change=spoiled(change))
    without = conduct(small_sites(3, rows=150), text, change=lost("site-02", 2, 0, once=True))
    assert words in done.reasons("fault")["site-02"]
    assert same(done.outcome.arrays, without.outcome.arrays)


@pytest.mark.studies
@pytest.mark.parametrize("stage", ["checkpoint", "round"])
def test_a_run_that_was_killed_goes_on_to_the_same_trees(stage: str, small_sites, trees, home):
    sites, study = small_sites(3, rows=150), Study.parse(trees())
    expected = run(study, sites=sites).report["arrays-sha256"]
    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=killer(stage, 4))
    assert resume(newest(), sites=sites).report["arrays-sha256"] == expected


@pytest.mark.studies
def test_a_run_that_was_killed_between_two_levels_goes_on_to_the_same_trees(small_sites, trees, noted, monkeypatch):
    sites, study = small_sites(3, rows=150), Study.parse(trees())
    expected, plainly = run(study, sites=sites).report["arrays-sha256"], InProcessGrid.context_of

    def killing(grid: InProcessGrid, message: Message) -> Context:
        if REQUESTS.get(message.metadata.message_id) == (5, 2):
            raise KeyboardInterrupt
        return plainly(grid, message)

    with monkeypatch.context() as planted:
        planted.setattr(InProcessGrid, "context_of", killing)
        with pytest.raises(RunStopped):
            run(study, sites=sites)
    assert resume(newest(), sites=sites).report["arrays-sha256"] == expected


def test_a_second_run_with_another_encoder_has_the_unit_of_its_own_outcome(home):
    study = Study(dataset="diabetes", rounds=3, partition={"by": "iid", "sites": 3}, model={"name": "boosted-trees"})
    site, _, _ = find_sites(study)
    fresh, used = SiteSession(site, study), SiteSession(site, study)
    first, second = fresh.own_encoder(), replace(fresh.own_encoder(), center=fresh.own_encoder().center + 20.0)
    layout, y = fresh.layout, fresh.fitted_columns()
    forest = first_model(study, fresh.schema) | chosen_cuts(layout, cell_counts(y, layout), 64)
    nothing = np.zeros_like(tree_arrays(trees_of(round_of(forest, 0), len(forest["cuts"])), forest["value"].shape[2]))
    roots = np.zeros(forest["value"].shape[1:])
    roots[:, 0] = 1.0
    level = Level(
        round=1, score=False, forest=forest, sha256=arrays_sha256(forest), last=nothing, tree=round_of(forest, 0),
        node_marks=roots,
    )  # fmt: skip

    def sums(session: SiteSession, encoder: Any) -> np.ndarray:
        return run_client(grown_level(session, encoder, level, counted=False)).sums

    before, after = sums(used, first), sums(used, second)
    np.testing.assert_array_equal(after, sums(fresh, second))
    assert (before[..., 0] != after[..., 0]).any()


def test_validation_rows_choose_the_number_of_trees(conduct: Conduct, small_sites, trees):
    text = trees(**{"strategy.select": "best", "strategy.rounds": 40, "strategy.patience": 10})
    done = conduct(small_sites(3, rows=150), text)
    assert 1 <= done.outcome.best_round < done.outcome.rounds <= 40
    assert len(forest_of(done.outcome.arrays)) == done.outcome.best_round


def odd(number: int, frame: pd.DataFrame) -> pd.DataFrame:
    """Give one column one value everywhere, one site one class, and one site a column without values."""
    frame = frame.assign(flag=1)
    if number == 1:
        frame["y"] = "no"
    if number == 2:
        frame["x2"] = np.nan
    return frame


@pytest.mark.parametrize("least", [0, 10])
def test_columns_and_sites_with_little_in_them_give_finite_trees(least: int, conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=90, change=odd), trees(**{"strategy.min-rows": least}))
    assert done.outcome.status == "completed"
    assert all(np.isfinite(value).all() for value in done.outcome.arrays.values())
    rows, cuts = one_table(done.sessions(), least=least)
    forest = rows.pooled().grown(replace(SETTINGS, least_rows=least), 8)
    assert same(done.outcome.arrays, forest_arrays(forest, done.outcome.arrays, cuts))


REFUSED = {
    "model": ({"model.name": "logistic", "model.depth": None, "model.max-bins": None}, "name it under both"),
    "lr": ({"plan.lr": 0.1}, "lr: trees are not trained by gradient descent"),
    "float32": ({"plan.precision": "float32"}, "float64"),
    "weights": ({"strategy.weights": "equal"}, "rows count unweighted"),
    "codec": ({"codec.name": "int8"}, "codec"),
    "sums": ({"privacy.secure-aggregation": "ckks"}, "the sums of boosted-trees are masked: set 'on'"),
    "noise": ({"privacy.name": "record-dp", "privacy.epsilon": 3.0, "privacy.delta": 1e-5}, "worse than"),
    "depth": ({"model.depth": 11}, "depth=11"), "rate": ({"strategy.learning-rate": 0.0}, "learning-rate"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_trees_is_refused_before_a_run(name: str, small_sites, trees):
    small_sites(2)
    changes, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        check(Study.parse(trees(**changes)))


@pytest.mark.proof
def test_on_ray_whose_processes_take_turns_the_trees_are_the_same(trees, home):
    text = Study(dataset="wine", rounds=5, partition={"by": "iid", "sites": 3}, model={"name": "boosted-trees"}).text
    here = run(Study.parse(text)).report["arrays-sha256"]
    for sums in ("off", "on"):
        there = run(Study.parse(text).replace({"secure-aggregation": sums}), engine="ray")
        assert (there.status, there.report["arrays-sha256"]) == ("completed", here)


def test_counts_by_cell_are_of_the_same_rows_and_of_no_more_than_the_band(small_sites, trees):
    small_sites(1)
    layout = study_layout(Study.parse(trees()), datasets.load("small").schema)
    counts = {}
    for name, shape in cell_shapes(layout, 0).items():
        counts[name] = np.zeros(shape, np.uint32)
        counts[name][0] = 99
    assert len(counts) == 2
    reply = BinsReply(counts=counts)
    assert cells_defect(reply, 99, cell_shapes(layout, 0)) is None
    assert cells_defect(reply, 98, cell_shapes(layout, 0)) == Refusal("cells-unfit")
    counts["x1"][1] = 1
    assert cells_defect(reply, 100, cell_shapes(layout, 0)) == Refusal("cells-unfit")


def test_all_that_does_not_fit_is_told_at_once_and_each_once(small_sites, trees):
    small_sites(2)
    asked = {"encode.missing-indicator": True, "codec.name": "int8", "compare.subgroups": ["nowhere"]}
    with pytest.raises(UsageError) as error:
        check(Study.parse(trees(**asked)))
    told = str(error.value).split(". Also: ")
    assert [words.partition(":")[0] for words in told] == ["[codec]", "[encode]", "[compare] subgroups"]
