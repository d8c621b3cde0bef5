"""A server that lies to real gates: hand-made messages, and what may not leave."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from flfed.paths import home
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.study_model import first_model, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import KEYS, LIST, UNMASK, KeysRequest, ListRequest, UnmaskRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.deployment.summing import Consortium, SummingGrid

FOUR = ["site-01", "site-02", "site-03", "site-04"]


class LyingServer:
    """A server that sends each gate what it likes, in one run."""

    def __init__(self, consortium: Consortium, run: str) -> None:
        self.consortium, self.study, self.run = consortium, consortium.study, run
        grid = SummingGrid(consortium, run=run)
        self.contexts = {str(one.node_config["site"]): one for one in grid._contexts.values()}
        self.schema = datasets.load("small").schema

    def ask(self, site: str, kind: str, request: Any) -> Message:
        """Return a gate's reply."""
        context: Context = self.contexts[site]
        message = Message(request.to_record(), dst_node_id=context.node_id, message_type=kind)
        return self.consortium.gates[site].answer(message, context)

    def statements(self, sites: list[str]) -> dict[str, bytes]:
        """Return what each gate signs at enrolment."""
        request = EnrolRequest(dataset=self.study.dataset.name, schema_sha256=self.schema.sha256())
        return {site: EnrolReply.from_record(self.ask(site, ENROL, request).content).statement for site in sites}

    def keys(self, sites: list[str], most_rows: int = 99) -> dict[str, Message]:
        """Give sites the keys of a cohort."""
        signed = self.statements(sites)
        request = KeysRequest(
            cohort=",".join(sites), most_rows=most_rows, statements=tuple(signed[one] for one in sites)
        )
        return {site: self.ask(site, KEYS, request) for site in sites}

    def model(self) -> dict[str, Any]:
        """Return a model and encoder of the server's choice."""
        layout = study_layout(self.study, self.schema)
        summary = merge([self.session(site).summary() for site in self.consortium.sites])
        return {
            "arrays": first_model(self.study, self.schema),
            "encoder": fit_encoder(layout, summary, self.study.encode.scaler),
        }

    def session(self, site: str) -> Any:
        from flfed.rows.session import SiteSession

        return SiteSession(self.consortium.sites[site], self.study)

    def train(self, site: str, round: int = 1, **changes: Any) -> Message:
        """Ask a site to train."""
        given = {"round": round, "rounds": self.study.rounds, "settings": {}, "score": False, **self.model()}
        return self.ask(site, TRAIN, TrainRequest(**{**given, **changes}))


@pytest.fixture
def four(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns four sites."""

    def make() -> Consortium:
        study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": 3})
        return Consortium(small_sites(4, rows=80, policy=Policy(disclosure="open", resplit=True)), study)

    return make


def said(reply: Message) -> str:
    return (reply.error.reason or "") if reply.has_error() else ""


def sections(reply: Message) -> set[str]:
    return set() if reply.has_error() else set(reply.content)


FIGURES = {"scores", "scores-metrics", "holdout", "holdout-metrics", "offset", "summary", "figures", "arms"}


def test_a_server_that_skips_the_keys_gets_no_summary_and_no_figure_of_a_round(four):
    found = four()
    server = LyingServer(found, "20261120-101500")
    model = server.model()
    for site in FOUR:
        reply = server.ask(site, SUMMARISE, SummariseRequest())
        assert "summary" not in sections(reply), site
    request = TrainRequest(round=4, rounds=3, fit=False, **model)
    assert not sections(server.ask("site-04", EVALUATE, request)) & FIGURES
    assert "summary" not in sections(server.ask("site-04", COMPARE, CompareRequest(**model)))


def open_summary(server: LyingServer, sites: list[str]) -> dict[str, Message]:
    """Have the sums over rows of a whole cohort opened."""
    replies = {site: server.ask(site, SUMMARISE, SummariseRequest()) for site in sites}
    if any(map(said, replies.values())):
        return replies
    masked = {site: SummariseReply.from_record(reply.content).masked for site, reply in replies.items()}
    listed, found = ",".join(sites), {}
    for place, site in enumerate(sites):
        shares = np.stack([made.shares[place] for one in sites if (made := masked[one])])
        request = UnmaskRequest(
            kind=SUMMARISE, round=0, listed=listed, shares=shares, codes=np.zeros((len(sites), 32), np.uint8)
        )
        found[site] = server.ask(site, UNMASK, request)
    return found


def test_an_approval_with_fewer_pins_in_mid_run_lowers_no_threshold(small_sites, small_study):
    study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": 3})
    found = Consortium(small_sites(5, rows=80, policy=Policy(disclosure="open", resplit=True)), study)
    server, sites = LyingServer(found, "20261120-101500"), sorted(found.sites)
    assert not any(map(said, server.keys(sites).values()))
    assert "masked" in sections(server.train("site-02"))
    few = {site: found.pins[site] for site in sites[:3]}
    found.approve("site-01", pins=few, co_sites=sorted(few))
    # Another run of Flower has the name of the first, and says that three take part.
    server.contexts["site-01"].run_config["sites"] = ",".join(few)
    assert said(server.train("site-01")) == "the run has other sites or keys than were told at its start"


def kept_folder(site: str, run: str) -> Path:
    return home() / "sites" / site / "runs" / run


def listed(*sites: int) -> str:
    return ",".join(FOUR[one - 1] for one in sites)


def one_list(server: LyingServer, site: str, names: str, round: int = 1) -> Message:
    """Ask a site to confirm a list."""
    return server.ask(site, LIST, ListRequest(kind=TRAIN, round=round, listed=names))


OTHER_LIST = "this question was answered with another list of sites before"


def test_a_site_confirms_one_list_for_one_question_in_any_round_run_study_and_with_any_scores(four):
    found = four()
    server = LyingServer(found, "20261120-000001-aaaa")
    server.keys(FOUR)
    for site in FOUR:
        assert sections(server.train(site)) >= {"masked"}
    assert sections(one_list(server, FOUR[0], listed(1, 2, 3))) == {"config", "confirmed"}
    # The same as often as it is asked; another never: in this round, in the next from the same model, in another run.
    assert sections(one_list(server, FOUR[0], listed(1, 2, 3))) == {"config", "confirmed"}
    assert OTHER_LIST in said(one_list(server, FOUR[0], listed(1, 2, 4)))
    assert "without this site" in said(one_list(server, FOUR[0], listed(2, 3, 4)))
    assert "a sum of 2 sites" in said(one_list(server, FOUR[0], listed(1, 2)))
    server.train(FOUR[0], round=2)
    assert OTHER_LIST in said(one_list(server, FOUR[0], listed(1, 2, 4), round=2))
    again = LyingServer(found, "20261120-000002-bbbb")
    again.keys(FOUR)
    assert sections(again.train(FOUR[0], score=True)) >= {"masked", "masked-opened"}
    assert OTHER_LIST in said(one_list(again, FOUR[0], listed(1, 2, 4)))
    assert sections(one_list(again, FOUR[0], listed(1, 2, 3))) == {"config", "confirmed"}
    # Of a run that began before, no new list: the later run counts on what the site said.
    assert sections(again.train(FOUR[1])) >= {"masked"}
    assert "a later run has asked this question" in said(one_list(server, FOUR[1], listed(1, 2, 4)))


def test_a_round_is_masked_once_and_for_one_request_and_never_plain(four: Callable[..., Consortium]) -> None:
    found = four()
    server = LyingServer(found, "20261120-000001-aaaa")
    server.keys(FOUR)
    first = server.train(FOUR[0])
    vectors = first.content["masked"]["vector"].numpy()
    np.testing.assert_array_equal(server.train(FOUR[0]).content["masked"]["vector"].numpy(), vectors)
    other = {name: value + 1.0 for name, value in server.model()["arrays"].items()}
    assert said(server.train(FOUR[0], arrays=other)) != ""
    # Its state of the run taken away, it has no key any more, and nothing plain leaves in its place.
    shutil.rmtree(kept_folder(FOUR[0], server.run))
    found.restart(FOUR[0])
    assert "key of this run is not here" in said(server.train(FOUR[0]))
    assert "key of this run is not here" in said(server.train(FOUR[0], round=2))


def test_what_another_process_of_the_site_opened_meanwhile_is_not_opened_otherwise(four):
    found = four()
    server = LyingServer(found, "20261120-000001-aaaa")
    server.keys(FOUR)
    server.train(FOUR[0])
    context, gate = server.contexts[FOUR[0]], found.gates[FOUR[0]]
    request = ListRequest(kind=TRAIN, round=1, listed=listed(1, 2, 3))
    message = Message(request.to_record(), dst_node_id=context.node_id, message_type=LIST)
    assert gate.refusal(message, context) is None
    before = gate._in_sum(message, context)
    reply = gate._side(context).app()(message, context)
    found.restart(FOUR[0])  # a second gate on the same folder, which is asked for another list
    assert sections(one_list(server, FOUR[0], listed(1, 2, 4))) == {"config", "confirmed"}
    assert OTHER_LIST in said(gate.leaving(message, reply, context, before))
    assert [line.facts["listed"] for line in found.lines(FOUR[0]) if line.kind == "list"] == [listed(1, 2, 4)]


@pytest.mark.parametrize("kind", [SUMMARISE, TRAIN, LIST])
def test_what_two_processes_of_the_site_are_asked_at_once_both_answer(four, kind):
    found = four()
    server = LyingServer(found, "20261120-000001-aaaa")
    server.keys(FOUR)
    given = {"round": 1, "rounds": 3, "settings": {}, "score": False, **server.model()}
    requests: dict[str, Any] = {SUMMARISE: SummariseRequest(), TRAIN: TrainRequest(**given)}
    if kind == LIST:
        server.train(FOUR[0])
        requests[LIST] = ListRequest(kind=TRAIN, round=1, listed=listed(1, 2, 3))
    context, gate = server.contexts[FOUR[0]], found.gates[FOUR[0]]
    message = Message(requests[kind].to_record(), dst_node_id=context.node_id, message_type=kind)
    assert gate.refusal(message, context) is None
    before = gate._in_sum(message, context)
    found.restart(FOUR[0])  # a second gate on the same folder, which is asked the same meanwhile
    assert said(server.ask(FOUR[0], kind, requests[kind])) == ""
    reply = gate._side(context).app()(message, context)
    assert said(gate.leaving(message, reply, context, before)) == ""
