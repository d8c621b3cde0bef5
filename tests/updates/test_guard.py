"""The update guard: what one bad site of ten can do, which is nothing, and what honest sites suffer: nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flfed.federation.client.client import SiteClient
from flfed.federation.client.redaction import redact
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.store.entries import EventEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.comparison.pooled import union_scores
from flfed.rows.data.site import Site
from flfed.rows.training.answer import compute_one_by_one, run_client
from flfed.study.study import Study
from flfed.updates.aggregation.guard import guard, guard_scores, joint_norms
from flfed.updates.messages.train import TRAIN, Scores, TrainReply
from flfed.updates.strategies.fednova import FedNova

BAD = "site-05"
LIKE = {"weight": np.zeros((3, 1)), "bias": np.zeros(1)}


class Clock:
    """Seconds, as they are told to pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Spoil = Callable[[TrainReply, Clock], TrainReply]


def bad_client(side: SiteClient, spoil: Spoil, clock: Clock) -> ClientApp:
    """Our client app, but one site's answer to a train message is spoiled."""
    ours, app = side.app(), ClientApp(mods=[redact])

    def answer(message: Message, context: Context) -> Message:
        reply = ours(message, context)
        if context.node_config["site"] != BAD or message.metadata.message_type != TRAIN or reply.has_error():
            return reply
        return Message(spoil(TrainReply.from_record(reply.content), clock).to_record(), reply_to=message)

    for kind in ("enrol", "summarise", "compare"):
        app.query(kind)(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


@dataclass(frozen=True)
class Opened:
    """Sites at work. What they answer is a function of what they are asked, so tests may share them."""

    names: list[str]
    side: SiteClient

    @classmethod
    def of(cls, sites: list[Site]) -> Opened:
        by_name = {site.name: site for site in sites}
        return cls(list(by_name), SiteClient(lambda name, _: by_name[name]))


def conducted(
    study: Study, opened: Opened, spoil: Spoil | None, *, whole: bool = False
) -> tuple[str, int, list[EventEntry], float]:
    """Run a study's rounds, or the `whole` of it; return status, rounds, events and AUC over all holdouts."""
    side = opened.side
    clock = Clock()
    app = side.app() if spoil is None else bad_client(side, spoil, clock)
    config = {"study": study.text, "repeat": 0}
    grid = InProcessGrid(app, opened.names, config, clock=clock)
    with RunStore.open() as store:
        series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
        writer = store.begin_run(
            series, engine="inprocess", path="one-by-one", seed=study.seed, rounds_planned=study.rounds,
            primary="roc_auc_score", task="binary",
        )  # fmt: skip
        conductor = FederatedRun(grid, study, Recorder(writer, "roc_auc_score", study.rounds))
        if whole:
            outcome = conductor.conduct()
            status, rounds, encoder, arrays = outcome.status, outcome.rounds, outcome.encoder, outcome.arrays
        else:
            participants, kept = conductor.begin()
            encoder = kept.encoder
            strategy, arrays = conductor.rounds(participants, kept)
            status, rounds = strategy.stopped or "completed", strategy.rounds_done
            writer.flush()
    with RunReader.open() as reader:
        events = reader.events([series])
    places = PooledReference(side, (study.text, 0), compute_one_by_one).sessions(opened.names)
    y = np.concatenate([place.target(place.table.holdout("compare")) for place in places])
    return status, rounds, events, roc_auc_score(y, run_client(union_scores(places, arrays, encoder)))


def scaled(reply: TrainReply, factor: float) -> TrainReply:
    return replace(reply, delta={name: factor * value for name, value in reply.delta.items()})


def filled(reply: TrainReply, value: float) -> TrainReply:
    """One value of one array is another."""
    weight = reply.delta["weight"].copy()
    weight[1] = value
    return replace(reply, delta={**reply.delta, "weight": weight})


def crash(reply: TrainReply, clock: Clock) -> TrainReply:
    raise RuntimeError("could not convert string to float: 'Jane Roe'")


def hang(reply: TrainReply, clock: Clock) -> TrainReply:
    clock.now += 601  # the deadline is 600 seconds
    return reply


TWELVE: dict[str, tuple[Spoil, str, str]] = {
    "NaN": (lambda r, _: filled(r, np.nan), "fault", "array 'weight' has values that are not finite"),
    "Inf": (lambda r, _: filled(r, np.inf), "fault", "array 'weight' has values that are not finite"),
    "norm times 1e6": (lambda r, _: scaled(r, 1e6), "fault", "times the cohort's median (limit 10)"),
    "wrong shape": (
        lambda r, _: replace(r, delta={**r.delta, "weight": r.delta["weight"].T.copy()}), "fault",
        "array 'weight' has shape (1, 5), not (5, 1)",
    ),
    "missing name": (
        lambda r, _: replace(r, delta={"weight": r.delta["weight"]}), "fault",
        "names of arrays differ from the model's",
    ),
    "wrong dtype": (
        lambda r, _: replace(r, delta={name: value.astype(np.float32) for name, value in r.delta.items()}),
        "fault", "has dtype float32, not float64",
    ),
    "n = 1e9": (lambda r, _: replace(r, num_examples=1e9), "fault", "above the declared band (at most 999)"),
    "n = -1": (lambda r, _: replace(r, num_examples=-1), "fault", "num-examples is not a positive whole number"),
    "n = NaN": (lambda r, _: replace(r, num_examples=np.nan), "fault", "num-examples is not a positive whole number"),
    "sign flip times 5": (lambda r, _: scaled(r, -5), "flag", "times the cohort's median"),
    "an exception": (crash, "fault", "RuntimeError: see the site's log"),
    "no reply": (hang, "fault", "no reply before the deadline"),
}  # fmt: skip
MORE: dict[str, tuple[Spoil, str, str]] = {
    "sign flip over the bound": (lambda r, _: scaled(r, -25), "fault", "times the cohort's median (limit 10)"),
    "a loss that is NaN": (lambda r, _: replace(r, loss=np.nan), "fault", "training loss is not finite"),
    "scores that are NaN": (
        lambda r, _: replace(r, scores=replace(r.scores, metrics={"loss": np.nan})), "fault", "scores are not finite",
    ),
    "scores over a billion rows": (
        lambda r, _: replace(r, scores=replace(r.scores, num_examples=10**9)), "fault",
        "scores count rows outside the declared band",
    ),
    "an empty text, which Flower cannot count": (lambda r, _: replace(r, kind=""), "fault", "kind is not 'delta'"),
}  # fmt: skip


TEN: list[Opened] = []


@pytest.fixture
def ten(small_sites) -> Opened:
    if not TEN:
        TEN.append(Opened.of(small_sites(10, rows=120)))
    return TEN[0]


@pytest.fixture
def study(small_study) -> Study:
    return Study.parse(small_study)


CLEAN: list[float] = []
"""The AUC without a bad site, once it is known."""


@pytest.fixture
def clean(study, ten) -> float:
    if not CLEAN:
        status, _, events, auc = conducted(study, ten, None, whole=True)
        assert status == "completed"
        assert {event.kind for event in events} <= {"holdout-opened", "note"}
        CLEAN.append(auc)
    return CLEAN[0]


@pytest.mark.studies
@pytest.mark.parametrize("case", [*TWELVE, *MORE])
def test_one_bad_site_of_ten_is_named_with_its_reason_and_costs_nothing(case, study, ten, clean):
    spoil, kind, reason = (TWELVE | MORE)[case]
    # What is only flagged is used: it slows the rounds down, so it is given a study's usual number of them.
    planned = 40 if kind == "flag" else 5
    long = study.replace({"rounds": planned})
    status, rounds, events, auc = conducted(long, ten, spoil, whole=case == "NaN")
    assert (status, rounds) == ("completed", planned)
    found = [event for event in events if event.kind in ("fault", "flag", "refused")]
    assert [(e.round, e.site, e.kind) for e in found] == [(n, BAD, kind) for n in range(1, planned + 1)]
    assert all(reason in event.reason and "Jane" not in event.reason for event in found)
    undisturbed = clean if planned == 5 else conducted(long, ten, None)[3]
    # A flipped update that is only flagged pulls back in every round.
    lost = 0.04 if case == "sign flip times 5" else 0.01
    assert auc >= undisturbed - lost and clean > 0.7


def test_a_sign_flip_times_five_is_refused_where_the_bound_is_lower(study, ten, clean):
    strict = study.replace({"strategy.refuse-norm": 4.0})
    _, _, events, auc = conducted(strict, ten, TWELVE["sign flip times 5"][0])
    assert [(e.site, e.kind) for e in events if "limit 4" in e.reason] == [(BAD, "fault")] * 5
    assert auc >= clean - 0.01


def test_the_twelve_cases_are_twelve():
    assert len(TWELVE) == 12


def test_without_the_guard_a_bad_update_would_be_seen_in_the_model(study, ten, clean):
    """The measure can fail: a bound that lets everything through ruins the model."""
    loose = study.replace({"strategy.refuse-norm": 1e12, "strategy.flag-norm": 1e12})
    _, _, events, auc = conducted(loose, ten, lambda r, _: scaled(r, -1e3))
    assert not [event for event in events if event.kind == "fault"]
    assert auc < clean - 0.2


def test_a_site_that_lies_about_its_steps_is_refused_where_updates_are_divided_by_them(study, ten, monkeypatch):
    nova = study.replace({"strategy.name": "fednova", "plan.epochs": 2, "plan.batch": 4, "strategy.rounds": 3})
    *_, events, clean = conducted(nova, ten, None)
    assert not [event for event in events if event.kind == "fault"]
    said = 0

    def lie(reply: TrainReply, _: Clock) -> TrainReply:
        return replace(scaled(reply, -2.0), steps=said)  # its norm alone is well within the bound

    for said in (1, 10**6):
        *_, events, auc = conducted(nova, ten, lie)
        found = [(event.site, event.reason) for event in events if event.kind == "fault"]
        assert [site for site, _ in found] == [BAD] * 3
        assert found[0][1].startswith(f"{said} step") and "by the study's plan" in found[0][1]
        assert auc >= clean - 0.01
    # Without the rule the lie decides the model.
    monkeypatch.setattr(FedNova, "by_steps", False)
    said = 1
    assert conducted(nova, ten, lie)[3] < clean - 0.1


def test_no_honest_site_is_refused_however_skewed_its_labels(study, small_sites):
    """Ten sites whose shares of the classes are drawn from Dirichlet(0.3): some have one class only."""
    rng = np.random.default_rng(8)
    shares = rng.dirichlet([0.3, 0.3], 10)[:, 0]

    def skew(number: int, table: pd.DataFrame) -> pd.DataFrame:
        keep = rng.random(len(table)) < np.where(table["y"] == "yes", shares[number], 1 - shares[number])
        return table[keep]

    sites = small_sites(10, rows=300, change=skew)
    status, _, events, _ = conducted(study, Opened.of(sites), None)
    positives = [(site.read().training["y"] == "yes").mean() for site in sites]
    assert min(positives) < 0.05 and max(positives) > 0.95  # the labels are skewed indeed
    assert status == "completed"
    assert not [event for event in events if event.kind in ("fault", "refused")]


# The rules alone.


def replies_of(reply, count: int = 5, **other) -> dict[str, TrainReply]:
    return {f"s{number}": reply(number, like=LIKE, **other) for number in range(count)}


def bands(replies) -> dict[str, int]:
    return dict.fromkeys(replies, 99)


@pytest.mark.parametrize(
    ("times", "verdict"), [(2.9, "accepted"), (3.1, "flagged"), (9.9, "flagged"), (10.1, "refused")]
)
def test_three_medians_are_flagged_and_ten_refused(reply, times, verdict):
    # Five updates of norm 1 and one of `times`: the median is 1.
    replies = replies_of(reply, 6)
    replies = {s: scaled(r, (times if s == "s5" else 1) / joint_norms([r.delta])[0]) for s, r in replies.items()}
    found = guard(replies, LIKE, bands(replies))
    assert ("s5" in found.refused, "s5" in found.flagged) == (verdict == "refused", verdict == "flagged")
    assert list(found.accepted) == [f"s{n}" for n in range(6 - (verdict == "refused"))]


def test_of_two_updates_no_norm_says_which_is_wrong(reply):
    replies = {"a": reply(0, like=LIKE), "b": scaled(reply(1, like=LIKE), 1e6)}
    found = guard(replies, LIKE, bands(replies))
    assert set(found.accepted) == {"a", "b"} and not found.flagged
    replies["c"] = reply(2, like=LIKE)
    assert set(guard(replies, LIKE, bands(replies)).refused) == {"b"}


def test_where_most_updates_are_zero_another_is_flagged_and_not_refused(reply):
    replies = {s: scaled(r, float(s == "s2")) for s, r in replies_of(reply).items()}
    found = guard(replies, LIKE, bands(replies))
    assert not found.refused and set(found.flagged) == {"s2"}
    still = {s: scaled(r, 0.0) for s, r in replies.items()}
    assert not guard(still, LIKE, bands(still)).flagged


def test_an_update_too_large_to_square_is_refused_also_where_most_are(reply):
    # Squares of 1e160 overflow; of 1.2e154 they do not, but their sum does.
    for size in (1e160, 1.2e154):
        replies = {
            s: replace(r, delta={name: np.full_like(value, size) for name, value in r.delta.items()}) if s < "s3" else r
            for s, r in replies_of(reply).items()
        }
        found = guard(replies, LIKE, bands(replies))
        assert set(found.refused) == {"s0", "s1", "s2"} and set(found.accepted) == {"s3", "s4"}


@pytest.mark.parametrize("rows", [0, -3, 0.5, 100, np.inf, -np.inf, np.nan])
def test_rows_must_be_whole_and_within_the_declared_band(reply, rows):
    replies = replies_of(reply) | {"bad": reply(9, like=LIKE, rows=rows)}
    found = guard(replies, LIKE, bands(replies))
    assert set(found.refused) == {"bad"} and "num-examples" in found.refused["bad"]


@pytest.mark.parametrize("scores", [
    Scores(rows="holdout", num_examples=5, metrics={"loss": 1.0}),
    Scores(rows="validation", num_examples=0, metrics={"loss": 1.0}),
    Scores(rows="validation", num_examples=-4, metrics={"loss": 1.0}),
    Scores(rows="validation", num_examples=100, metrics={"loss": 1.0}),
    Scores(rows="validation", num_examples=5, metrics={"loss": np.inf}),
])  # fmt: skip
def test_scores_that_could_mislead_the_selection_are_refused_in_training_and_in_evaluation(reply, scores):
    replies = replies_of(reply) | {"bad": reply(9, like=LIKE, scores=scores)}
    for found in (guard(replies, LIKE, bands(replies)), guard_scores(replies, bands(replies))):
        assert set(found.refused) == {"bad"} and len(found.accepted) == 5


def test_scores_over_no_rows_are_honest(reply):
    unknown = Scores(rows="training", num_examples=9, metrics={"loss": 1.0}, variances={"roc_auc_score": np.nan})
    empty = Scores(rows="training", num_examples=0, metrics={})
    replies = replies_of(reply) | {"odd": reply(9, like=LIKE, scores=unknown)}
    replies |= {"none": reply(8, like=LIKE, scores=empty)}
    assert not guard(replies, LIKE, bands(replies)).refused


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(1e-6, 1e6), order=st.permutations(range(6)))
def test_neither_the_scale_of_all_updates_nor_their_order_changes_a_verdict(seed, factor, order):
    rng = np.random.default_rng(seed)
    updates = {
        f"s{n}": TrainReply(
            delta={name: rng.normal(size=v.shape) * 10 ** rng.uniform(-1, 1.5) for name, v in LIKE.items()},
            num_examples=10, loss=0.1, steps=1,
        )
        for n in range(6)
    }  # fmt: skip
    first = guard(updates, LIKE, bands(updates))
    other = guard({f"s{n}": scaled(updates[f"s{n}"], factor) for n in order}, LIKE, bands(updates))
    assert (list(first.accepted), set(first.refused), set(first.flagged)) == (
        list(other.accepted), set(other.refused), set(other.flagged),
    )  # fmt: skip


def test_the_guard_changes_nothing_of_what_it_judges(reply):
    replies = replies_of(reply)
    before = {s: {name: value.copy() for name, value in r.delta.items()} for s, r in replies.items()}
    guard(replies, LIKE, bands(replies))
    for site, reply_ in replies.items():
        for name, value in reply_.delta.items():
            np.testing.assert_array_equal(value, before[site][name])


EXTRA = {"c": ((2,), np.dtype(np.float64))}


@pytest.mark.parametrize(("sent", "said"), [
    ({"c": np.array([1.0, np.nan])}, "array 'c' has values that are not finite"),
    ({"c": np.array([1.0, 1e200])}, "norm of the update is not finite"),
    ({"c": np.ones(3)}, "array 'c' has shape (3,), not (2,)"),
    ({"c": np.ones(2, np.float32)}, "array 'c' has dtype float32, not float64"),
    ({}, "names of arrays differ from the model's"),
    ({"c": np.ones(2), "d": np.ones(2)}, "names of arrays differ from the model's"),
    ({"c": np.full(2, 11.0)}, "norm of the update is 11.0 times the cohort's median (limit 10)"),
])  # fmt: skip
def test_what_a_strategy_has_sent_back_is_judged_as_updates_are(sent: dict[str, np.ndarray], said: str):
    delta = {name: np.ones_like(value) for name, value in LIKE.items()}
    replies = {
        f"s{number}": TrainReply(delta=delta, num_examples=9, loss=0.5, steps=3, extra={"c": np.ones(2)})
        for number in range(4)
    }
    bands = dict.fromkeys(replies, 99)
    assert not guard(replies, LIKE, bands, extra=EXTRA).refused
    found = guard({**replies, "s2": replace(replies["s2"], extra=sent)}, LIKE, bands, extra=EXTRA)
    assert {site: str(why) for site, why in found.refused.items()} == {
        "s2": f"its strategy's arrays, judged as an update is: {said}"
    }
    assert list(found.accepted) == ["s0", "s1", "s3"] and not found.flagged
    # A strategy that has no such arrays takes none.
    assert set(guard(replies, LIKE, bands).refused) == set(replies)
    four = guard({**replies, "s2": replace(replies["s2"], extra={"c": np.full(2, 4.0)})}, LIKE, bands, extra=EXTRA)
    assert not four.refused and str(four.flagged["s2"]).endswith("4.0 times the cohort's median")
