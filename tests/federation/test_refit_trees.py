"""Trees that are grown anew on all training rows: those of a run without validation rows, to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message

from flfed import Study
from flfed.errors import RunStopped, UsageError
from flfed.experiments.sweep import points_of, sweep
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.server.preflight import check
from flfed.federation.server.run import resume, run
from flfed.rows.session import SiteSession
from flfed.trees.forest import forest_of
from flfed.updates.messages.in_memory import is_in_memory
from flfed.updates.messages.summarise import BINS, BinsReply
from flfed.updates.messages.train import EVALUATE, REFIT, TRAIN
from tests.boosting import trees_study
from tests.federation.test_boosted_trees_run import SETTINGS, arrays_of, forest_arrays, one_table, same
from tests.federation.test_resume import killer, newest
from tests.small_runs import Conducted

Conduct = Callable[..., Conducted]
REFITTED = {"strategy.refit": True, "strategy.select": "best", "strategy.patience": 3, "strategy.rounds": 12}
CHOSEN, BEFORE = 10, 12
"""Trees that validation rows choose on the small sites of 150 rows, and the rounds until patience ends."""


@pytest.fixture
def trees(small_study: str) -> Callable[..., str]:
    """A function that returns the small study with trees that are grown anew, and further keys."""
    return lambda **changes: trees_study(small_study, **{**REFITTED, **changes})


def losses(done: Conducted, arm: str) -> dict[int, float]:
    """Return the mean loss over the rows of all sites, by the round whose model was scored."""
    rounds = range(done.outcome.rounds + 1)
    rows = [(number, row) for number in rounds for row in done.reader.metrics(done.run, number)]
    return {n: row.value for n, row in rows if (row.site, row.arm, row.metric) == (None, arm, "loss")}


@pytest.mark.studies
@pytest.mark.parametrize("least", [0, 10])
def test_as_many_trees_as_validation_chose_are_those_of_all_rows_in_one_place(
    least: int, conduct: Conduct, small_sites, trees, small_study: str
):
    done = conduct(small_sites(3, rows=150), trees(**{"strategy.min-rows": least}))
    assert done.outcome.status == "completed" and done.reasons("fault") == {}
    validated, count = losses(done, "validation"), len(forest_of(done.outcome.arrays))
    assert count == min(validated, key=lambda number: validated[number])
    # Rounds are numbered on, and the losses of later ones are over training rows.
    assert (done.outcome.rounds, done.outcome.best_round) == (max(validated) + count,) * 2
    assert list(losses(done, "training")) == list(range(max(validated) + 1, done.outcome.rounds + 1))
    # One table of all training rows grows them.
    sessions = list(done.sessions())
    rows, cuts = one_table(sessions, least=least)
    assert len(rows.y) == sum(len(session.table.training) for session in sessions)
    forest = rows.pooled().grown(replace(SETTINGS, least_rows=least), count)
    assert same(done.outcome.arrays, forest_arrays(forest, done.outcome.arrays, cuts))
    # A run that kept no rows apart has the same trees.
    changes = {"plan.validation": 0.0, "strategy.rounds": count, "strategy.min-rows": least}
    plain = conduct(small_sites(3, rows=150), trees_study(small_study, **changes))
    pairs = zip(forest_of(done.outcome.arrays), forest_of(plain.outcome.arrays), strict=True)
    assert all(same(arrays_of([one]), arrays_of([other])) for one, other in pairs)
    assert np.array_equal(done.outcome.arrays["cuts"], plain.outcome.arrays["cuts"])
    # Without validation rows in them they are others.
    fewer = one_table(sessions, least=least, columns=lambda session: session.fitted_columns())[0]
    wrong = fewer.pooled().grown(replace(SETTINGS, least_rows=least), count)
    assert not same(done.outcome.arrays, forest_arrays(wrong, done.outcome.arrays, cuts))


def test_sites_count_and_answer_all_their_training_rows(conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=150), trees())
    rows = {session.site.name: len(session.table.training) for session in done.sessions()}
    counted = [BinsReply.from_record(heard.message.content).counts for heard in done.sent(BINS, "to-server")]
    assert sorted(int(counts["x1"].sum()) for counts in counted) == sorted(rows.values())
    asked = {one.message.metadata.message_id: one.message.content["config"]["round"]
             for one in done.sent(TRAIN, "to-site")}  # fmt: skip
    told: dict[int, set[float]] = {}
    for heard in done.sent(TRAIN, "to-server"):
        number = int(asked[heard.message.metadata.reply_to_message_id])
        told.setdefault(number, set()).add(float(heard.message.content["metrics"]["num-examples"]))
    assert all(told[number] == set(map(float, rows.values())) for number in range(BEFORE + 1, BEFORE + CHOSEN + 1))
    assert not told[BEFORE] & told[BEFORE + 1]
    settings = {int(one.message.content["config"]["round"]): one.message.content["settings"][REFIT]
                for one in done.sent(TRAIN, "to-site")}  # fmt: skip
    assert settings == {n: 0.0 if n <= BEFORE else float(BEFORE) for n in range(1, BEFORE + CHOSEN + 1)}
    (last,) = {one.message.content["config"]["round"] for one in done.sent(EVALUATE, "to-site")}
    assert last == BEFORE + CHOSEN + 1


@pytest.mark.studies
@pytest.mark.parametrize("rounds", [1, 4])
def test_the_last_of_all_trees_is_chosen_too(rounds: int, conduct: Conduct, small_sites, trees):
    done = conduct(small_sites(3, rows=150), trees(**{"strategy.rounds": rounds, "strategy.patience": 0}))
    assert (len(forest_of(done.outcome.arrays)), done.outcome.rounds) == (rounds, 2 * rounds)


def drawn(number: int, frame: pd.DataFrame) -> pd.DataFrame:
    """Give a table an outcome that hangs on nothing."""
    return frame.assign(y=np.random.default_rng(number).choice(["yes", "no"], len(frame)))


def test_where_no_tree_is_better_than_none_there_is_none(conduct: Conduct, small_sites, trees):
    text = trees(**{"strategy.learning-rate": 1.0, "strategy.l2": 0.0, "strategy.min-child-weight": 0.0})
    done = conduct(small_sites(3, rows=60, change=drawn), text)
    validated = losses(done, "validation")
    assert min(validated, key=lambda number: validated[number]) == 0
    assert (done.outcome.status, forest_of(done.outcome.arrays)) == ("completed", [])
    assert done.outcome.rounds == max(validated) + 1


OTHER_STAGES = [("checkpoint", BEFORE), ("round", BEFORE), ("round", BEFORE + 3)]


@pytest.mark.studies
@pytest.mark.parametrize(("stage", "round"), [
    ("round", 4), ("checkpoint", BEFORE + 1),
    *[pytest.param(*stage, marks=pytest.mark.proof) for stage in OTHER_STAGES],
])  # fmt: skip
def test_a_run_that_was_killed_goes_on_to_the_same_trees(stage: str, round: int, small_sites, trees, monkeypatch):
    # Every round is a checkpoint.
    monkeypatch.setattr("flfed.updates.checkpoints.checkpoint.seconds_apart", lambda: 0.0)
    sites, study = small_sites(3, rows=150), Study.parse(trees())
    whole = run(study, sites=sites).report
    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=killer(stage, round))
    again = resume(newest(), sites=sites).report
    assert (again["arrays-sha256"], again["rounds"]) == (whole["arrays-sha256"], BEFORE + CHOSEN)


@pytest.mark.studies
@pytest.mark.parametrize("forgets", [False, True])
def test_a_site_follows_the_trees_by_their_hash_alone(forgets, conduct, small_sites, trees, monkeypatch):
    expected, context_of = conduct(small_sites(3, rows=150), trees()), InProcessGrid.context_of
    plainly, levels = SiteSession.training, Counter[str]()

    def written(grid: InProcessGrid, message: Message) -> Context:
        # Within a process a message brings what it only names.
        if is_in_memory(message.content):
            message.content = message.content.message.to_record()
        return context_of(grid, message)

    def forgetful(session: SiteSession, encoder: Any) -> Any:
        # Another process answers, in the first round that grows trees anew and in later ones.
        levels[session.site.name] += session.trees is not None
        if forgets and session.site.name == "site-02" and levels[session.site.name] % 5 == 0:
            session.trees = None
        return plainly(session, encoder)

    monkeypatch.setattr(InProcessGrid, "context_of", written)
    monkeypatch.setattr(SiteSession, "training", forgetful)
    done = conduct(small_sites(3, rows=150), trees())
    assert done.reasons("fault") == {} and same(done.outcome.arrays, expected.outcome.arrays)
    missing = [heard.site for heard in done.grid.heard if heard.message.has_error()]
    assert set(missing) == ({"site-02"} if forgets else set()) and (len(missing) > 2) == forgets


REFUSED = {
    "last": ({"strategy.select": "last", "strategy.patience": 0}, "set select = 'best'"),
    "validation": ({"plan.validation": 0.0}, "reads validation rows"),
    "sums": ({"privacy.secure-aggregation": "on"}, "refit grows the first trees twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_refit_is_refused_before_a_run(name: str, small_sites, trees):
    small_sites(2)
    changes, words = REFUSED[name]
    check(Study.parse(trees()))
    with pytest.raises(UsageError, match=words):
        check(Study.parse(trees(**changes)))


def test_all_that_does_not_fit_is_told_at_once_and_each_once(small_sites, trees):
    small_sites(2)
    asked = {"encode.missing-indicator": True, "strategy.refit": True, "privacy.secure-aggregation": "on"}
    study = Study.parse(trees(**asked, **{"compare.subgroups": ["nowhere"]}))
    with pytest.raises(UsageError) as error:
        check(study)
    told = str(error.value).split(". Also: ")
    assert [words.partition(":")[0] for words in told] == ["[encode]", "[strategy]", "[compare] subgroups"]
    assert ["cannot be combined with boosted-trees" in told[0], "refit" in told[1], "nowhere" in told[2]] == [True] * 3


def test_a_sweep_is_judged_on_validation_rows_and_grows_nothing_anew(small_sites, trees):
    study = Study.parse(trees(**{"strategy.rounds": 3}))
    sites = small_sites(2, rows=100)
    found = sweep(study, points_of(study, {"strategy.learning-rate": [0.1, 0.3]}), sites=sites)
    assert [point.loss is not None and point.rounds <= 3 for point in found.points] == [True, True]
    with pytest.raises(UsageError, match="cannot be swept"):
        points_of(study, {"strategy.refit": [True, False]})
