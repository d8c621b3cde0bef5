"""What is written down of a run equals what the sites' rows say, and names what went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from flfed.federation.recording.recorder import Recorder, from_replies, sites_mean
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Policy
from flfed.rows.training.functional import loss_of_rows
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.messages.compare import COMPARE, CompareReply, Figure
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.train import TRAIN, Scores

Conduct = Callable[..., Any]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder of a run of five rounds, into a real store."""
    with RunStore.open() as store:
        series = store.begin_series(study="small", study_sha256="0" * 64, study_text="", repeats=1)
        writer = store.begin_run(
            series, engine="inprocess", path="one-by-one", seed=7, rounds_planned=5, primary="roc_auc_score",
            task="binary",
        )  # fmt: skip
        yield Recorder(writer, "roc_auc_score", 5)


def record_of(number: int, **fields: Any) -> RoundRecord:
    """Return the record of a round at sites a and b, both good unless `fields` say otherwise."""
    given: dict[str, Any] = {
        "round": number, "model_round": number - 1, "arrays": {},
        "scores": {site: scores("training", 10, loss=0.5) for site in "ab"}, "losses": {"a": 0.6, "b": 0.4},
        "refused": {}, "flagged": {}, "sampled_sites": ("a", "b"), "bytes_to_site": {"a": 100, "b": 100},
        "bytes_to_server": {"a": 70, "b": 71}, "seconds": 0.5,
    }  # fmt: skip
    return RoundRecord(**(given | fields))


def scores(rows: str, num_examples: int, **metrics: float) -> Scores:
    return Scores(rows=rows, num_examples=num_examples, metrics=metrics)


def overall(reader: RunReader, run: str, number: int) -> dict[tuple[str, str], float | None]:
    """Return the figures over all sites of one round by arm and metric."""
    return {(row.arm, row.metric): row.value for row in reader.metrics(run, number) if row.site is None}


def compare_reply(rows: int, **values: float) -> CompareReply:
    """Return a comparison with figures of the global arm."""
    unknown = {"low": math.nan, "high": math.nan, "extra": math.nan, "method": ""}
    arms = tuple(Figure(metric=name, arm="global", value=value, **unknown) for name, value in values.items())
    return CompareReply(num_examples=100, holdout_rows=rows, arms=arms, differences=())


def test_the_global_loss_curve_is_the_pooled_loss_of_each_rounds_model(plain):
    done, sessions = plain, plain.sessions()
    curve = {p.round: p.value for p in done.reader.curves([done.run], arm="training", metric="loss") if not p.site}
    assert sorted(curve) == [0, 1, 2, 3, 4, 5]
    encoded = [w.training(done.outcome.encoder) for w in sessions]
    x, y = np.concatenate([e.x for e in encoded]), np.concatenate([e.y for e in encoded])
    models = [ndarrays(h.message.content, "arrays") for h in done.sent(TRAIN, "to-site")[::3]]
    for number, arrays in enumerate([*models, done.outcome.arrays]):
        pooled = loss_of_rows("binary", x @ arrays["weight"] + arrays["bias"], y)
        assert curve[number] == pytest.approx(pooled, abs=1e-12)
    assert curve[0] == pytest.approx(math.log(2), abs=1e-12)
    assert curve[5] < curve[0] - 0.03


def test_the_global_auc_curve_is_within_half_a_percent_of_the_pooled_one(plain):
    done = plain
    encoded = [w.training(done.outcome.encoder) for w in done.sessions()]
    x, y = np.concatenate([e.x for e in encoded]), np.concatenate([e.y for e in encoded])
    arrays = done.outcome.arrays
    exact = roc_auc_score(y, (x @ arrays["weight"] + arrays["bias"])[:, 0])
    assert overall(done.reader, done.run, 5)["training", "roc_auc_score"] == pytest.approx(exact, abs=0.005)


def test_a_sites_curve_is_its_own_rows(plain):
    done = plain
    work = done.sessions()[1]
    rows, arrays = work.training(done.outcome.encoder), done.outcome.arrays
    outputs = rows.x @ arrays["weight"] + arrays["bias"]
    own = {row.metric: row for row in done.reader.metrics(done.run, 5) if row.site == "site-02"}
    assert own["loss"].value == pytest.approx(loss_of_rows("binary", outputs, rows.y), abs=1e-12)
    assert own["roc_auc_score"].value == pytest.approx(roc_auc_score(rows.y, outputs[:, 0]), abs=1e-12)
    assert own["loss"].n == len(rows)
    assert own["roc_auc_score"].variance > 0


def test_only_the_comparison_opens_the_holdout(small_sites, small_study, conduct: Conduct):
    done = conduct(small_sites(2), small_study)
    names = ["site-01", "site-02"]
    assert {w.site.name: set(w.table.opened) for w in done.sessions()} == dict.fromkeys(names, {"compare"})
    assert done.reasons("holdout-opened") == dict.fromkeys(names, "compare")


def test_validation_curves_are_of_validation_rows_alone(small_sites, small_study, conduct: Conduct):
    done = conduct(small_sites(2), small_study.replace("epochs = 1", "epochs = 1\nvalidation = 0.3"))
    rows = {row.site: (row.arm, row.n) for row in done.reader.metrics(done.run, 5) if row.metric == "loss"}
    held = {w.site.name: int(w._validation.sum()) for w in done.sessions()}
    assert rows["site-01"] == ("validation", held["site-01"])
    assert rows[None] == ("validation", sum(held.values()))
    trained = {
        h.site: h.message.content.metric_records["metrics"]["num-examples"] for h in done.sent(TRAIN, "to-server")
    }
    for work in done.sessions():
        assert trained[work.site.name] + held[work.site.name] == len(work.table.training)


def test_a_site_without_validation_rows_is_never_mixed_with_the_others(recorder: Recorder):
    mixed = {"a": scores("training", 5, loss=9.0), "b": scores("validation", 10, loss=0.2)}
    mixed["c"] = scores("validation", 30, loss=0.6)
    recorder.round(record_of(1, scores=mixed), trained=True)
    with RunReader.open() as reader:
        figures = overall(reader, recorder.writer.run, 0)
    assert figures == {("training", "loss"): 9.0, ("validation", "loss"): pytest.approx((10 * 0.2 + 30 * 0.6) / 40)}


def test_a_figure_of_no_rows_divides_nothing(recorder: Recorder):
    recorder.round(record_of(1, scores={"a": scores("training", 0, loss=1.0)}), trained=True)
    with RunReader.open() as reader:
        assert overall(reader, recorder.writer.run, 0) == {}


def test_a_metric_that_is_no_mean_over_rows_has_no_global_figure_without_histograms(recorder: Recorder):
    both = {site: scores("training", 10, loss=0.5, roc_auc_score=0.8) for site in "ab"}
    recorder.round(record_of(1, scores=both), trained=True)
    with RunReader.open() as reader:
        figures = overall(reader, recorder.writer.run, 0)
    assert figures == {("training", "loss"): 0.5}


def test_only_rounds_that_gave_a_model_are_counted(recorder: Recorder):
    seen: list[tuple[str, int, int]] = []
    recorder.progress = lambda *step: seen.append(step)
    recorder.round(record_of(1), trained=True)
    # One of two sites was good and two were needed: the run stops here with the model of round 1.
    stopped = record_of(2, losses={"a": 0.5}, refused={"b": "no reply before the deadline"})
    recorder.round(stopped, trained=False)
    with RunReader.open() as reader:
        run = recorder.writer.run
        assert reader.runs_of(run)[0].rounds == 1
        assert [row.value for row in reader.metrics(run, 1) if row.arm == "training" and not row.site] == [0.5]
        assert [(e.round, e.site, e.reason) for e in reader.events([run])] == [(2, "b", "no reply before the deadline")]
        assert reader.bytes_sent([run]) == {"to-site": 400, "to-server": 282}
    assert seen == [("rounds", 1, 5)]


def test_a_round_in_which_every_site_failed_is_written_down_and_not_counted(recorder: Recorder):
    faults = dict.fromkeys("ab", "ValueError: see the site's log")
    nothing = record_of(1, scores={}, losses={}, refused=faults, bytes_to_server={})
    recorder.round(nothing, trained=False)
    with RunReader.open() as reader:
        run = recorder.writer.run
        assert reader.runs_of(run)[0].rounds == 0
        assert {e.site: e.reason for e in reader.events([run]) if e.kind == "fault"} == faults
        assert reader.bytes_sent([run]) == {"to-site": 200}


def test_the_last_evaluation_is_a_figure_of_the_last_model_and_no_round(recorder: Recorder):
    recorder.round(record_of(1), trained=True)
    last = record_of(2, losses={}, fit=False, scores={"a": scores("training", 10, loss=0.3)})
    recorder.round(last, trained=False)
    recorder.crossed("query.compare", {"a": 5}, {"a": 6})
    with RunReader.open() as reader:
        run = recorder.writer.run
        assert overall(reader, run, 1)["training", "loss"] == 0.3
        assert reader.runs_of(run)[0].rounds == 1
    assert kinds(recorder) == [(1, "train"), (2, "evaluate"), (2, "query.compare")]


def kinds(recorder: Recorder) -> list[tuple[int, str]]:
    """Return the rounds and kinds of bytes in the record, read by plain SQL."""
    from sqlalchemy import text

    with recorder.writer._engine.connect() as connection:
        rows = connection.execute(text("SELECT DISTINCT round, kind FROM sent ORDER BY round, kind"))
        return [(row.round, row.kind) for row in rows]


def test_flags_and_refusals_of_a_round_are_events_with_its_number(recorder: Recorder):
    recorder.round(record_of(1, flagged={"a": "norm"}, refused={"b": "not finite"}), trained=True)
    with RunReader.open() as reader:
        events = [(e.round, e.site, e.kind, e.reason) for e in reader.events([recorder.writer.run])]
    assert events == [(1, "b", "fault", "not finite"), (1, "a", "flag", "norm")]


def test_means_over_rows_of_all_sites_are_weighted_by_rows_and_the_mean_of_sites_is_not():
    # log loss 0.2 over 10 rows and 0.6 over 30: together (2 + 18) / 40 = 0.5, mean of sites 0.4
    replies = {"a": compare_reply(10, log_loss=0.2), "b": compare_reply(30, log_loss=0.6)}
    [union] = from_replies(replies)
    [mean] = sites_mean(replies, len(replies))
    assert (union.value, union.n, union.method) == (pytest.approx(0.5), 40, "mean over sites weighted by rows")
    assert (mean.value, mean.method) == (pytest.approx(0.4), "mean of 2 sites")


def test_the_mean_of_sites_leaves_a_site_without_the_figure_out_and_says_so():
    replies = {"a": compare_reply(10, roc_auc_score=0.9), "b": compare_reply(10, roc_auc_score=math.nan)}
    [mean] = sites_mean(replies, len(replies))
    [union] = from_replies(replies)
    assert (mean.value, mean.method) == (0.9, "mean of 1 site; 1 without this figure left out")
    assert (union.value, union.method) == (None, "not every site's policy lets it be computed over all sites")
    [alone] = sites_mean({"a": replies["a"]}, 1)
    assert alone.method == "mean of 1 site"


def test_figures_over_all_holdouts_from_replies_agree_with_all_rows_in_one_place(plain):
    done = plain
    replies = {h.site: CompareReply.from_record(h.message.content) for h in done.sent(COMPARE, "to-server")}
    figures = {figure.metric: figure for figure in from_replies(replies)}
    y, p = [], []
    for work in done.sessions():
        table = work.table.holdout("test")
        x = work.encode(table, done.outcome.encoder).x
        outputs = x @ done.outcome.arrays["weight"] + done.outcome.arrays["bias"]
        y.append(work.target(table))
        p.append(1 / (1 + np.exp(-outputs[:, 0])))
    y, p = np.concatenate(y), np.concatenate(p)
    assert figures["log_loss"].value == pytest.approx(log_loss(y, p), abs=1e-12)
    assert figures["brier_score_loss"].value == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    assert figures["accuracy_score"].value == pytest.approx(np.mean((p > 0.5) == y), abs=1e-12)
    assert figures["roc_auc_score"].value == pytest.approx(roc_auc_score(y, p), abs=0.005)
    assert figures["roc_auc_score"].method == "merged score histograms"


def test_what_an_institution_withholds_is_noted_under_its_name(small_sites, small_study, conduct: Conduct):
    def rare(number: int, table: Any) -> Any:
        if number == 1:
            table["y"] = "no"
            table.loc[:14, "y"] = "yes"  # about 5 of the holdout
        return table

    done = conduct(small_sites(2, rows=90, policy=Policy(), change=rare), small_study)
    assert done.reasons("note")["site-02"] == "withheld by the site's policy: fewer than 10 rows of a class"
    of_site = [f for f in done.reader.figures(done.run) if f.site == "site-02"]
    assert {f.value for f in of_site} == {None}
    assert {f.method for f in of_site} == {"withheld: fewer than 10 rows of a class"}
    assert {d.value for d in done.reader.differences(done.run) if d.site == "site-02"} == {None}


def test_table_one_counts_training_and_holdout_rows_together(plain):
    rows = plain.reader.summary(plain.run, "table-1")["rows"]
    sizes = {"All sites": "630", "site-01": "200", "site-02": "210", "site-03": "220"}
    assert rows[0] == {"Characteristic": "Rows"} | sizes
    red = next(row for row in rows if row["Characteristic"] == "colour: red")
    counted = [int((work.site.source.table["colour"] == "red").sum()) for work in plain.sessions()]
    assert [int(red[name].split()[0]) for name in sizes] == [sum(counted), *counted]
