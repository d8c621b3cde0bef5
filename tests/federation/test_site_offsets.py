"""Each site's own intercept, adjusted by how far sites differ: whole runs, who is asked, and what is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message

from flfed import run
from flfed.errors import RunStopped
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording import pooled_figures
from flfed.federation.recording.pooled_figures import SCORE_BINS
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server import comparison
from flfed.federation.server.run import resume
from flfed.federation.server.server import FederatedRun
from flfed.federation.server.site_arrays import SITE_OFFSETS, offset_deviation
from flfed.records.reports.narrative import comparison_rows, unadjusted_in_words
from flfed.records.reports.report import arms_shown
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.own_parts import own_offset
from flfed.study.study import Study
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.train import EVALUATE, Offset, TrainReply, TrainRequest
from tests.conftest import small_table
from tests.small_runs import request_of

AUC, LOSS = "roc_auc_score", "log_loss"


def lawful(rows: int, seed: list[int], off: float = 0.0) -> pd.DataFrame:
    """Rows of "small" whose outcome follows one law, but for the intercept."""
    rng = np.random.default_rng(seed)
    table = small_table(rows, seed=seed[-1]).fillna({"x2": 0.0})
    odds = (table["x1"] - 50) / 10 + table["x2"] + (table["colour"] == "red") - 1 / 3 + off
    return table.assign(y=np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no"))


@pytest.fixture
def told(small_sites: Callable[..., Any], small_study: str) -> Callable[..., dict[str, Any]]:
    """A function that runs a study over sites of given tables; the report, with what is known of their offsets."""

    def go(tables: list[pd.DataFrame], **changes: Any) -> dict[str, Any]:
        study = Study.parse(small_study).replace({"strategy.rounds": 20, "plan.lr": 1.0, **changes})
        sites = small_sites(len(tables), rows=1)
        found = run(study, sites=[replace(s, source=Frame(t)) for s, t in zip(sites, tables, strict=True)])
        with RunReader.open() as reader:
            return found.report | {SITE_OFFSETS: reader.summary(reader.runs_of(found.run)[0].run, SITE_OFFSETS)}

    return go


@pytest.mark.studies
@pytest.mark.proof
def test_186_small_sites_of_one_law_are_adjusted_to_nothing_worse(told):
    rows = np.random.default_rng(27).integers(2, 32, 186)  # of which about seven in ten are trained on: 1 to 22
    found = told([lawful(int(count), [1, place]) for place, count in enumerate(rows)])
    assert len(found["sites"]) > 170
    shared, adjusted = (found[arm][AUC]["value"] for arm in ("global", "personalised"))
    assert shared > 0.75 and adjusted >= shared - 0.005
    assert found["personalised"][LOSS]["value"] <= found["global"][LOSS]["value"] + 0.005
    assert found[SITE_OFFSETS]["sites"] > 150 and found[SITE_OFFSETS]["deviation"] < 0.25


def test_four_sites_with_offsets_of_their_own_are_adjusted_to_them(told):
    found = told([lawful(300, [2, place], off) for place, off in enumerate((1.5, -1.5, 1.5, -1.5))])
    for metric, gain in ((AUC, 0.03), (LOSS, -0.03)):
        shared, adjusted = (found[arm][metric]["value"] for arm in ("global", "personalised"))
        assert (adjusted - shared) * np.sign(gain) > abs(gain), metric
    # Fitted to four sites of ±1.5, the model's own intercept lies between; their root mean square is estimated.
    assert found[SITE_OFFSETS]["sites"] == 4 and found[SITE_OFFSETS]["deviation"] == pytest.approx(1.5, abs=0.4)


def test_where_adjusting_cannot_change_a_figure_no_column_shows_it_twice(told):
    found = told([lawful(150, [3, place], off) for place, off in enumerate((1.0, -1.0, 0.5))])
    assert arms_shown(found, AUC) == ["global", "local-only"]
    assert arms_shown(found, LOSS) == ["global", "local-only", "personalised"]
    headers, rows, lines = comparison_rows(found, AUC)
    assert "adjusted to site" not in headers and len(headers) == 6 == len(rows[0])
    (same,) = [line for line in lines if "no column shows it" in line]
    assert same.startswith("Adjusted to a site, the shared model has the same AUC there, so no column shows it. ")
    assert same.endswith("Over all test rows, ranked together, it may differ.")
    # A model that nothing adjusts, as of several classes, is the same over all rows, too.
    (same,) = unadjusted_in_words({**found, "personalised": found["global"]}, AUC)
    assert same.endswith("so no column shows it.")
    # Over all sites together it ranks rows of different sites otherwise: that figure has a line of its own.
    by_name = {row[0]: row for row in rows}
    over_all = [by_name[f"all test rows, {what}"][2] for what in ("shared model", "adjusted to each site")]
    assert float(over_all[1]) > float(over_all[0]) + 0.02
    assert all(row[-2].endswith(", shared") for row in rows[:3])
    headers, _, lines = comparison_rows(found, LOSS)
    assert "adjusted to site" in headers and not any("shown apart" in line for line in lines)
    # The JSON keeps its keys.
    assert all(
        AUC in site["personalised"] and AUC in site["difference-personalised"] for site in found["sites"].values()
    )


def test_of_fewer_than_three_sites_nothing_is_estimated(told):
    found = told([lawful(100, [4, place]) for place in range(2)])
    assert found[SITE_OFFSETS] == {"sites": 2, "deviation": None}


def offset(value: float, error: float) -> Offset:
    return Offset(value=np.array([value]), error=np.array([error]))


def test_an_offset_that_all_sites_have_in_common_counts_as_a_difference_from_the_shared_model():
    assert offset_deviation({site: offset(1.0, 1e-6) for site in "abc"}) == pytest.approx(1.0)
    assert offset_deviation({site: offset(0.1, 0.3) for site in "abc"}) == 0.0
    assert offset_deviation({}) is None


def test_of_several_outputs_the_deviation_is_that_of_each():
    rng = np.random.default_rng(8)
    drawn = rng.normal(0, 0.7, (400, 3))  # each output its own; a site's offsets are known less their mean
    said = {str(site): Offset(value=value - value.mean(), error=np.full(3, 0.01)) for site, value in enumerate(drawn)}
    assert offset_deviation(said) == pytest.approx(0.7, abs=0.03)


def evaluations(conducted: Any) -> list[TrainRequest]:
    return [
        request_of(TrainRequest, one.message.content, conducted.outcome.encoder)
        for one in conducted.sent(EVALUATE, "to-site")
    ]


def comparisons(conducted: Any) -> dict[str, CompareRequest]:
    encoder = conducted.outcome.encoder
    sent = conducted.sent(COMPARE, "to-site")
    return {one.site: request_of(CompareRequest, one.message.content, encoder) for one in sent}


def offsets(conducted: Any) -> dict[str, Offset | None]:
    sent = conducted.sent(EVALUATE, "to-server")
    return {one.site: TrainReply.from_record(one.message.content).offset for one in sent}


def test_sites_tell_what_their_training_rows_say_and_are_sent_what_follows(plain):
    told = offsets(plain)
    assert all(request.offset for request in evaluations(plain)) and None not in told.values()
    arrays, deviation = plain.outcome.arrays, offset_deviation(told)
    for session in plain.sessions():
        rows = session.training(plain.outcome.encoder)
        value, error = own_offset(rows.x @ arrays["weight"] + arrays["bias"], rows.y, "binary")
        said = told[session.site.name]
        np.testing.assert_allclose([said.value, said.error], [value, error], rtol=1e-9)
    assert {request.deviation for request in comparisons(plain).values()} == {deviation}
    assert plain.reader.summary(plain.run, SITE_OFFSETS) == {"sites": 3, "deviation": deviation}


NOT_ASKED = {"a promise": "[privacy]\nname = 'record-dp'\nsampling = 0.2\n", "no line": ""}


@pytest.mark.studies
@pytest.mark.parametrize("why", NOT_ASKED)
def test_under_a_promise_and_of_a_model_that_is_not_linear_no_offset_is_asked(conduct, small_sites, small_study, why):
    text = small_study + NOT_ASKED[why]
    if why == "a promise":
        text = text.replace("epochs = 1", "steps = 4")
    else:
        text = text.replace('name = "logistic"', 'name = "mlp"\nhidden = [3]')
    ran = conduct(small_sites(3, rows=120), text)
    assert ran.outcome.status == "completed"
    assert not any(request.offset for request in evaluations(ran)) and set(offsets(ran).values()) == {None}
    assert {request.deviation for request in comparisons(ran).values()} == {None}
    assert ran.reader.summary(ran.run, SITE_OFFSETS) is None


def test_under_a_promise_a_site_that_is_asked_all_the_same_tells_nothing(conduct, small_sites, small_study, ask):
    text = small_study.replace("epochs = 1", "steps = 4") + NOT_ASKED["a promise"]
    ran = conduct(small_sites(3, rows=120), text)
    request = replace(evaluations(ran)[0], offset=True)
    reply = ask(ran.side, "site-01", EVALUATE, request, text)
    assert TrainReply.from_record(reply.content).offset is None


@pytest.mark.studies
def test_an_institution_tells_its_offset_only_with_enough_rows_of_each_class(conduct, small_sites, small_study):
    def few_events(place: int, table: pd.DataFrame) -> pd.DataFrame:
        events = np.flatnonzero(table["y"] == "yes")
        return table.drop(index=events[9:]) if place == 0 else table

    sites = small_sites(4, rows=150, policy=Policy(), change=few_events)
    told = offsets(conduct(sites, small_study))
    assert [site for site, said in told.items() if said is None] == ["site-01"]
    # Of an open site the same few are told.
    told = offsets(conduct(small_sites(4, rows=150, change=few_events), small_study))
    assert None not in told.values()


@pytest.mark.studies
@pytest.mark.parametrize(("bad", "why"), [
    (offset(float("nan"), 0.1), "its offset is not finite"),
    (offset(0.3, 0.0), "its offset is not finite, or its standard error not above 0"),
    (Offset(value=np.zeros(2), error=np.ones(2)), "its offset is not of 1 outputs"),
])  # fmt: skip
def test_an_offset_that_cannot_be_is_a_fault_and_decides_nothing(conduct, small_sites, small_study, bad, why):
    def change(message: Message) -> Message:
        if message.metadata.message_type == EVALUATE and message.metadata.src_node_id == 1:
            reply = TrainReply.from_record(message.content)
            message.content = replace(reply, offset=bad).to_record()
        return message

    ran = conduct(small_sites(4, rows=120), small_study, change=change)
    assert ran.outcome.status == "completed"
    assert ran.reasons("fault")["site-01"].startswith(why)
    assert ran.reader.summary(ran.run, SITE_OFFSETS)["sites"] == 3


def test_a_run_that_ended_before_the_comparison_goes_on_with_the_same_deviation(small_sites, small_study, record):
    study, sites = Study.parse(small_study), small_sites(3)
    whole = run(study, sites=sites)

    def progress(stage: str, done: int, of: int) -> None:
        if stage == "compare":
            raise KeyboardInterrupt

    with pytest.raises(RunStopped):
        run(study, sites=sites, progress=progress)
    with RunReader.open() as reader:
        ended = reader.runs(limit=1)[0].run
    again = resume(ended, sites=sites)
    assert record(ended) == record(whole.run)
    assert again.report["personalised"] == whole.report["personalised"]


@pytest.mark.studies
def test_sites_hear_one_deviation_and_one_set_of_bins_in_a_run_whoever_answers_after_a_crash(
    small_sites, small_study, monkeypatch
):
    # A gate that compared by one of these refuses another: what was sent has to outlive the process that sent it.
    monkeypatch.setattr(pooled_figures, "WIDEST", 0.0)

    def differing(place: int, table: pd.DataFrame) -> pd.DataFrame:
        return lawful(120, [5, place], (1.5, -1.0, 0.5, -1.0)[place])

    study = Study.parse(small_study)
    sites = {site.name: site for site in small_sites(4, change=differing)}
    heard: list[tuple[float, ScoreBins]] = []

    class Grid(InProcessGrid):
        lost = False

        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            asked = list(messages)
            kind = asked[0].metadata.message_type
            if kind == COMPARE:
                chosen = [dict(one.content["config"].items()) for one in asked]
                heard.extend((c["offset-deviation"], ScoreBins(c["odds-centre"], c["odds-spread"])) for c in chosen)
                if not self.lost:
                    raise KeyboardInterrupt
            replies = super().send_and_receive(asked, timeout=timeout)
            return replies[1:] if self.lost and kind == EVALUATE else replies

    def conduct(writer: Any, *, lost: bool, checkpoint: Any = None) -> Any:
        grid = Grid(SiteClient(lambda name, _: sites[name]).app(), list(sites), {"study": study.text, "repeat": 0})
        grid.lost = lost
        recorder = Recorder(writer, AUC, study.rounds)
        return FederatedRun(grid, study, recorder, checkpoint=checkpoint, each_round=True).conduct()

    with RunStore.open() as store:
        facts = {"schema": datasets.load("small").schema.sha256()}
        series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
        writer = store.begin_run(series, engine="deployment", path="sites", seed=7, rounds_planned=study.rounds,
                                 primary=AUC, task="binary", hashes=facts)  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            conduct(writer, lost=False)
        writer.finish(status="failed", reason="ended")
        kept = checkpoints.newest(writer.run, study.rounds)
        assert kept.round == study.rounds and kept.facts[SITE_OFFSETS]["deviation"] == heard[0][0]
        assert ScoreBins(**kept.facts[SCORE_BINS]) == heard[0][1] != EVEN_ODDS
        again = store.resume_run(writer.run, lambda rounds: kept.round)
        monkeypatch.setattr(comparison, "score_bins", lambda *_: ScoreBins(9.0, 9.0))
        assert conduct(again, lost=True, checkpoint=kept).status == "completed"
    assert len(heard) == 8 and len(set(heard)) == 1 and heard[0][0] > 0.1
