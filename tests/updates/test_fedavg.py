"""Federated averaging: the mean of the sites' models, with its cohort, quorum and deadline."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from sklearn.linear_model import Ridge

from flfed.errors import UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.redaction import redact
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.features.encode import pooled_rows
from flfed.rows.session import SiteSession
from flfed.rows.training.fit import fit
from flfed.rows.training.requests import FitRequest
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

START = {"weight": np.array([[1.0], [2.0]]), "bias": np.array([0.5])}


def distance(a, b) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


class Federation:
    """Real sites on the real client app, a strategy at work on them, and their rows for comparison."""

    def __init__(self, study: Study, sites) -> None:
        self.study, self.side = study, SiteClient(lambda name, _: next(s for s in sites if s.name == name))
        self.names = [site.name for site in sites]
        self.grid = InProcessGrid(self.side.app(), self.names, {"study": study.text, "repeat": 0})
        self.places = [SiteSession(site, study) for site in sites]
        self.encoder: Encoder = fit_encoder(self.places[0].layout, merge([p.summary() for p in self.places]))
        self.rows = [place.training(self.encoder) for place in self.places]

    def run(self, start, rounds: int, **settings):
        strategy = FedAvg(**settings)
        participants = {name: Participant(node_id=n, rows_high=9999) for n, name in enumerate(self.names, start=1)}
        strategy.assign(
            RunContext(
                participants=participants, encoder=self.encoder, plan=self.study.plan, rounds=rounds,
                seed=self.study.seed,
            )
        )  # fmt: skip
        return to_arrays(strategy.start(self.grid, to_record(start), rounds).arrays)

    def trained(self, rows, arrays, number: int = 1, site: str = ""):
        rng = generator(self.study.seed, site=site, purpose="fit", number=number)
        plan, place = self.study.plan, self.places[0]
        lr = plan.lr * plan.factor(number, self.study.rounds)
        request = FitRequest(model=place.model, task=place.task, arrays=arrays, rows=rows, plan=plan, lr=lr, rng=rng)
        return fit(request).arrays


def first(inputs: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"weight": rng.normal(size=(inputs, 1)), "bias": rng.normal(size=1)}


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_full_batch_round_over_unequal_sites_is_the_pooled_step(small_sites, small_study, weights):
    study = Study.parse(small_study).replace(
        {"plan.batch": 0, "plan.l2": 0.05, "plan.lr": 0.4, "plan.class-weight": weights}
    )
    federation = Federation(study, small_sites(4, rows=30, change=lambda n, t: t if n != 2 else t[:13]))
    sizes = [len(rows) for rows in federation.rows]
    assert len(set(sizes)) == 4 and max(sizes) > 3 * min(sizes)
    start = first(federation.rows[0].x.shape[1])
    pooled = federation.trained(pooled_rows(federation.rows), start)
    assert distance(federation.run(start, 1), pooled) < 1e-12
    # A mistake in the weights would be seen in this comparison.
    assert distance(federation.run(start, 1, weights="equal"), pooled) > 1e-3
    assert distance(federation.run(start, 1, weights="capped", cap=20), pooled) > 1e-3
    parts = [federation.trained(rows, start) for rows in federation.rows]
    for wrong in (np.square(sizes), np.array(sizes) * (np.arange(4) != 1)):
        mean = {name: sum(w * p[name] for w, p in zip(wrong, parts, strict=True)) / wrong.sum() for name in start}
        assert distance(mean, pooled) > 1e-3


def test_two_hundred_federated_rounds_reach_the_ridge_optimum_of_scikit_learn(line_sites, small_study):
    text = small_study.replace('"small"', '"line"').replace("logistic", "linear")
    l2 = 0.05
    study = Study.parse(text).replace({"plan.batch": 0, "plan.epochs": 1, "plan.l2": l2})
    rows = pooled_rows(Federation(study, line_sites).rows)
    # The step of gradient descent is 1 / L, L the largest eigenvalue of the loss's second derivative.
    design = np.column_stack([rows.x, np.ones(len(rows))])
    lr = 1 / float(np.linalg.eigvalsh(design.T @ design / len(rows)).max() + l2)
    federation = Federation(study.replace({"plan.lr": lr}), line_sites)
    found = federation.run(first(2), 200)
    ridge = Ridge(alpha=l2 * len(rows), tol=1e-12).fit(rows.x, rows.y)
    np.testing.assert_allclose(found["weight"][:, 0], ridge.coef_, atol=1e-6)
    np.testing.assert_allclose(found["bias"], ridge.intercept_, atol=1e-6)
    assert distance(federation.run(found, 20, weights="equal"), found) > 1e-3  # which is no fixed point of this
    assert distance(federation.run(found, 1), found) < 1e-7


def test_a_federation_of_one_site_is_plain_training(small_sites, small_study):
    study = Study.parse(small_study).replace({"plan.momentum": 0.5, "plan.batch": 16, "plan.schedule": "cosine"})
    federation = Federation(study, small_sites(1, rows=80))
    arrays = start = first(federation.rows[0].x.shape[1])
    for number in range(1, study.rounds + 1):
        arrays = federation.trained(federation.rows[0], arrays, number, federation.names[0])
    assert distance(federation.run(start, study.rounds), arrays) < 1e-12
    assert distance(start, arrays) > 0.1


def test_a_weight_that_l1_made_zero_at_every_site_is_exactly_zero(small_sites, small_study):
    study = Study.parse(small_study).replace({"plan.l1": 0.1, "plan.lr": 0.3, "plan.l2": 0.0, "plan.batch": 0})
    federation = Federation(study, small_sites(3, rows=90))
    weight = federation.run(first(federation.rows[0].x.shape[1]), 30)["weight"]
    assert 1 <= (weight == 0).sum() < len(weight)
    assert np.abs(weight[weight != 0]).min() > 1e-6  # and none is a rounding error


# The arithmetic.


def aggregated(bench, reply_of, sites: int = 3, start=START, **settings):
    """One round of a strategy whose site number n answers `reply_of(n)`; returns the new arrays."""
    made = bench(FedAvg(**settings), sites)
    messages = list(made.strategy.configure_train(1, to_record(start), ConfigRecord({}), None))
    replies = made.answers(messages, {name: reply_of(n) for n, name in enumerate(made.names)})
    updated, metrics = made.strategy.aggregate_train(1, replies)
    return to_arrays(updated), metrics


@pytest.mark.parametrize(("settings", "shares"), [
    ({}, [10, 20, 70]), ({"weights": "equal"}, [1, 1, 1]), ({"weights": "capped", "cap": 20}, [10, 20, 20]),
    ({"server_lr": 0.5}, [10, 20, 70]),
])  # fmt: skip
def test_the_new_model_is_the_old_plus_the_weighted_mean_of_deltas(bench, reply, settings, shares):
    replies = [reply(n, like=START, rows=rows) for n, rows in enumerate((10, 20, 70))]
    found, metrics = aggregated(bench, lambda n: replace(replies[n], loss=float(n)), **settings)
    shares = np.array(shares) / np.sum(shares)
    for name in START:
        mean = sum(share * r.delta[name] for share, r in zip(shares, replies, strict=True))
        np.testing.assert_allclose(found[name], START[name] + settings.get("server_lr", 1.0) * mean, atol=1e-15)
    assert metrics["loss"] == pytest.approx(shares @ [0, 1, 2])


def test_where_all_sites_agree_the_model_is_theirs_to_the_last_bit(bench, reply):
    # Shares such as 3/7 + 3/7 + 1/7 do not add up to 1 in floating point.
    for seed in range(20):
        same = reply(seed, like=START)
        found, _ = aggregated(bench, lambda n, same=same: replace(same, num_examples=(3, 3, 1)[n]))
        for name in START:
            np.testing.assert_array_equal(found[name], START[name] + same.delta[name])


def test_float32_arrays_are_summed_in_float64_and_stay_float32(bench, reply):
    start = {"w": np.zeros(1, dtype=np.float32)}
    values = [np.float32(16777216.0), np.float32(1.0), np.float32(-16777216.0)]
    made = bench(FedAvg(weights="equal", refuse_norm=1e12, flag_norm=1e12), 3)
    messages = list(made.strategy.configure_train(1, to_record(start), ConfigRecord({}), None))
    answers = {
        name: TrainReply(delta={"w": np.array([v])}, num_examples=1, loss=0.0, steps=1)
        for name, v in zip(made.names, values, strict=True)
    }
    updated, _ = made.strategy.aggregate_train(1, made.answers(messages, answers))
    found = to_arrays(updated)["w"]
    assert found.dtype == np.float32
    # In float32 16777216 + 1 is 16777216, and the mean would be 0.
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


def test_each_site_gets_a_record_of_its_own_and_the_global_model(bench):
    made = bench(FedAvg(), 3)
    messages = list(made.strategy.configure_train(2, to_record(START), ConfigRecord({}), None))
    messages[0].content["config"]["round"] = 99
    messages[0].content["arrays"].clear()
    requests = [TrainRequest.from_record(message.content) for message in messages[1:]]
    assert [request.round for request in requests] == [2, 2]
    assert all(distance(request.arrays, START) == 0 for request in requests)


# The cohort.


def test_a_cohort_is_drawn_by_name_from_the_seed(bench):
    made = bench(FedAvg(fraction=0.4), 10)
    drawn = [made.strategy.cohort(number) for number in range(1, 41)]
    assert all(len(set(cohort)) == 4 and cohort == sorted(cohort) for cohort in drawn)
    assert drawn == [bench(FedAvg(fraction=0.4), 10).strategy.cohort(number) for number in range(1, 41)]
    # Each site is asked about 40 * 0.4 = 16 times; 3 deviations of a binomial are 9.3.
    counts = [sum(name in cohort for cohort in drawn) for name in made.names]
    assert max(abs(count - 16) for count in counts) < 10 and len({tuple(cohort) for cohort in drawn}) > 30


@pytest.mark.parametrize(("fraction", "sites", "size"), [(1.0, 5, 5), (0.01, 5, 1), (0.5, 4, 2), (0.34, 3, 1)])
def test_a_cohort_is_never_empty(bench, fraction, sites, size):
    assert len(bench(FedAvg(fraction=fraction), sites).strategy.cohort(1)) == size


# Quorum, deadline, faults.


@pytest.mark.parametrize(
    ("quorum", "asked", "needed"),
    [(0.75, 4, 3), (0.75, 10, 8), (1.0, 3, 3), (0.01, 4, 1), (0.55, 20, 11), (0.7, 10, 7), (0.07, 100, 7)],
)
def test_a_quorum_is_a_share_rounded_up_and_not_by_rounding_errors(quorum, asked, needed):
    assert FedAvg(quorum=quorum).needed(asked) == needed


def test_a_round_below_the_quorum_is_asked_once_more_and_its_record_has_both(bench, sites, reply):
    strategy = FedAvg()
    made, calls = bench(strategy, 4), []

    def answer(site, number, arrays):
        calls.append((site, number))
        dead = number == 2 and calls.count((site, 2)) == 1 and site in made.names[:2]
        return None if dead else reply(1, like=START)

    grid = sites(made, answer)
    strategy.start(grid, to_record(START), 3)
    assert [number for _, number in grid.asked] == [1] * 4 + [2] * 8 + [3] * 4
    assert not strategy.stopped and strategy.rounds_done == 3
    second = made.records[1]
    assert second.refused == dict.fromkeys(made.names[:2], "no reply before the deadline (first attempt)")
    assert set(second.losses) == set(made.names)
    # Bytes of both attempts; the dead sites sent once. The first round brings the encoder besides.
    once = made.records[2]
    assert second.bytes_to_site == {name: 2 * size for name, size in once.bytes_to_site.items()}
    assert [second.bytes_to_server[n] / once.bytes_to_server[n] for n in made.names] == [1, 1, 2, 2]


def test_a_quorum_missed_twice_stops_the_run_with_the_last_good_model(bench, sites, reply):
    strategy = FedAvg(quorum=0.75)
    made = bench(strategy, 4)
    honest = reply(1, like=START)
    silent = sites(made, lambda site, number, _: None if number == 3 and site in made.names[:2] else honest)
    result = strategy.start(silent, to_record(START), 5)
    assert (strategy.rounds_done, strategy.best_round) == (2, 2)
    assert strategy.stopped == (
        "round 3 had 2 good updates of 4 asked, 3 are needed "
        "(site-01: no reply before the deadline; site-02: no reply before the deadline)"
    )
    found = to_arrays(result.arrays)
    for name in START:
        np.testing.assert_allclose(found[name], START[name] + 2 * honest.delta[name], atol=1e-14)


def test_a_second_reply_of_a_site_and_one_of_a_stranger_are_ignored(bench, reply):
    made = bench(FedAvg(), 2)
    messages = list(made.strategy.configure_train(1, to_record(START), ConfigRecord({}), None))
    honest = {name: reply(n, like=START) for n, name in enumerate(made.names)}
    replies = made.answers(messages, honest)
    twice = made.answers(messages, {made.names[0]: reply(7, like=START, rows=990)})
    stranger = made.answers([Message(messages[0].content, dst_node_id=made.nodes[made.names[1]], message_type=TRAIN)],
                            {made.names[1]: reply(8, like=START)})[0]  # fmt: skip
    stranger.metadata.__dict__["_src_node_id"] = 123456
    found = to_arrays(made.strategy.aggregate_train(1, [*replies, *twice, stranger])[0])
    assert distance(found, to_arrays(made.strategy.aggregate_train(1, replies)[0])) == 0


def test_an_error_is_a_fault_with_its_reason_also_without_one(bench, reply):
    made = bench(FedAvg(quorum=0.5), 3)
    messages = list(made.strategy.configure_train(1, to_record(START), ConfigRecord({}), None))
    replies = made.answers(messages, {name: reply(0, like=START) for name in made.names})
    replies[0] = Message(Error(code=1, reason="ValueError: see the site's log"), reply_to=messages[0])
    replies[1] = Message(Error(code=7), reply_to=messages[1])
    assert made.strategy.aggregate_train(1, replies)[0] is None  # one of three, two are needed
    made.strategy._observe(1, to_record(START))
    assert made.records[0].refused == {"site-01": "ValueError: see the site's log", "site-02": "error code 7"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def slow_app(side: SiteClient, clock: Clock, seconds: dict[str, float], late_from: int = 1) -> ClientApp:
    """Our client app, on sites that take their time to train."""
    ours, app = side.app(), ClientApp(mods=[redact])

    def answer(message: Message, context: Context) -> Message:
        reply = ours(message, context)
        if message.metadata.message_type == TRAIN and int(message.content["config"]["round"]) >= late_from:
            clock.now += seconds.get(str(context.node_config["site"]), 1.0)
        return reply

    for kind in ("enrol", "summarise", "compare"):
        app.query(kind)(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


def conducted(study: Study, sites, seconds, late_from=1):
    clock, side = Clock(), SiteClient(lambda name, _: next(site for site in sites if site.name == name))
    names = [site.name for site in sites]
    app = slow_app(side, clock, seconds, late_from)
    grid = InProcessGrid(app, names, {"study": study.text, "repeat": 0}, clock=clock)
    with RunStore.open() as store:
        series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
        writer = store.begin_run(series, engine="inprocess", path="one-by-one", seed=7, rounds_planned=study.rounds,
                                 primary="roc_auc_score", task="binary")  # fmt: skip
        outcome = FederatedRun(grid, study, Recorder(writer, "roc_auc_score", study.rounds)).conduct()
        writer.finish(status=outcome.status, reason=outcome.reason, arrays_sha256=outcome.arrays_sha256())
    with RunReader.open() as reader:
        return outcome, reader.runs_of(series)[0], [e for e in reader.events([series]) if e.kind == "fault"]


def test_a_site_slower_than_the_deadline_is_left_out_and_named_and_the_run_goes_on(small_sites, small_study):
    study = Study.parse(small_study).replace({"strategy.deadline": 30.0})
    sites = small_sites(4, rows=40)
    outcome, run, faults = conducted(study, sites, {"site-03": 31.0, "site-02": 29.0})
    assert (outcome.status, run.status, run.rounds) == ("completed", "completed", 5)
    assert [(f.round, f.site, f.reason) for f in faults] == [
        (number, "site-03", "no reply before the deadline") for number in range(1, 6)
    ]
    # The model is that of the other three: their encoder, and their rounds.
    federation = Federation(study, sites)
    start = {name: np.zeros_like(value) for name, value in outcome.arrays.items()}
    alone = Federation(study, [site for site in sites if site.name != "site-03"])
    alone.encoder = federation.encoder
    assert distance(alone.run(start, 5), outcome.arrays) < 1e-12


def test_a_run_that_misses_its_quorum_twice_is_recorded_as_stopped_with_its_last_good_model(small_sites, small_study):
    study = Study.parse(small_study).replace({"strategy.deadline": 30.0})
    sites = small_sites(4, rows=40)
    outcome, run, faults = conducted(study, sites, {"site-01": 31.0, "site-03": 31.0}, late_from=3)
    assert (outcome.status, run.status, outcome.rounds, run.rounds) == ("stopped", "stopped", 2, 2)
    assert run.reason.startswith("round 3 had 2 good updates of 4 asked, 3 are needed (site-01: no reply")
    assert {(fault.round, fault.site) for fault in faults} == {(3, "site-01"), (3, "site-03")}
    start = {name: np.zeros_like(value) for name, value in outcome.arrays.items()}
    assert distance(Federation(study, sites).run(start, 2), outcome.arrays) == 0


@pytest.mark.parametrize("given", [
    {"fraction": 0.0}, {"fraction": 1.1}, {"cap": 0}, {"server_lr": 0.0}, {"server_lr": float("nan")},
    {"quorum": 0.0}, {"quorum": 1.5}, {"deadline": 0.0}, {"patience": -1}, {"refuse_norm": 2.0}, {"flag_norm": 0.0},
])  # fmt: skip
def test_a_setting_out_of_its_range_is_refused_by_name(given):
    key = next(iter(given)).replace("_", "-").replace("flag-norm", "refuse-norm")
    with pytest.raises(UsageError, match=rf"\[strategy\]: {key}="):
        FedAvg(**given)
