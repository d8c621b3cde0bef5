"""A server that lies about a sum of figures, before real gates: other lists, other models, masks used twice."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.deployment.gate.local_results import results_of
from flfed.federation.client.summed_replies import forget_compared
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.secure_sum import UNMASK, Masked, UnmaskRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from tests.deployment.summing import Consortium, sharing_in_sums
from tests.deployment.test_lying_server import LyingServer, kept_folder, said

ROUNDS = 2
USED = "left before, and it is not here any more"


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites of which the first so many share figures in sums only."""
    study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": ROUNDS})
    return partial(sharing_in_sums, small_sites, study)


def compared(server: LyingServer, sites: list[str], **changes: Any) -> dict[str, Masked]:
    """Ask sites to compare a model, and return the masked figures that come."""
    request = CompareRequest(**{**server.model(), **changes})
    replies = {site: server.ask(site, COMPARE, request) for site in sites}
    read = {site: CompareReply.from_record(one.content) for site, one in replies.items() if not one.has_error()}
    return {site: reply.masked for site, reply in read.items() if reply.masked is not None}


def opened_by(server: LyingServer, answered: Mapping[str, Masked], listed: list[str]) -> dict[str, str]:
    """Ask the sites of a list to open the sum of figures, and return what each says instead; "" where it does."""
    among, said_by = sorted(answered), dict[str, str]()
    for site in listed:
        place = among.index(site) if site in among else 0
        shares = np.stack([answered[one if one in answered else among[0]].shares[place] for one in listed])
        codes = np.zeros((len(listed), 32), np.uint8)
        request = UnmaskRequest(kind=COMPARE, round=0, listed=",".join(listed), shares=shares, codes=codes)
        said_by[site] = said(server.ask(site, UNMASK, request))
    return said_by


def test_a_lying_server_has_the_sum_opened_for_no_list_but_that_of_all_such_sites(consortium):
    found = consortium(5, 4)
    server, sites = LyingServer(found, "20261120-101500-aaaa"), sorted(found.sites)
    assert not any(map(said, server.keys(sites).values()))
    answered = compared(server, sites)
    assert sorted(answered) == sites[:4]
    small, outside = "sum of 3 sites is asked for, 4 are needed", "with a site outside the run"
    for listed, why in ((sites[:3], small), (sites, outside), ([*sites[:3], sites[4]], outside)):
        assert all(why in text for site, text in opened_by(server, answered, listed).items() if site in answered)
    # Asked again they are the same; another model, encoder or spread is not compared.
    again = compared(server, sites[:4])
    assert all(np.array_equal(again[site].sums, answered[site].sums) for site in answered)
    assert compared(server, sites[:4], arrays={k: v + 1 for k, v in server.model()["arrays"].items()}) == {}
    assert set(opened_by(server, answered, sites[:4]).values()) == {""}
    # A later run with one such site fewer: whoever opened the list of four opens none of three.
    later = LyingServer(found, "20261120-111500-bbbb")
    three = [*sites[:3], sites[4]]
    assert not any(map(said, later.keys(three).values()))
    answered = compared(later, three)
    assert sorted(answered) == sites[:3]
    assert all("with another list of sites before" in text for text in opened_by(later, answered, sites[:3]).values())


def test_masks_that_were_used_are_not_used_for_other_numbers(consortium: Callable[..., Consortium]):
    found = consortium(4, 3)
    server, sites = LyingServer(found, "20261120-101500-aaaa"), sorted(found.sites)
    server.keys(sites)
    folder = kept_folder(sites[0], server.run)
    server.ask(sites[0], SUMMARISE, SummariseRequest())
    # After the next round the links of the sums over rows are still there.
    assert "masked" in server.train(sites[0]).content
    # What was kept does not count for other rows, or under another policy.
    (folder / "masked-summary.safetensors").unlink()
    assert USED in said(server.ask(sites[0], SUMMARISE, SummariseRequest()))
    assert sorted(compared(server, sites[:1])) == sites[:1]
    server.train(sites[0], round=ROUNDS)
    (folder / "masked-figures.safetensors").unlink()
    assert compared(server, sites[:1]) == {}
    # The figures stay; its own people have them.
    assert results_of(found.folders[sites[0]])[0][0].run == server.run


def test_a_request_that_was_masked_is_not_masked_otherwise_where_the_gate_died_before_its_line(consortium):
    found = consortium(4, 3)
    server, sites = LyingServer(found, "20261120-101500-aaaa"), sorted(found.sites)
    server.keys(sites)
    context, gate, model = server.contexts[sites[0]], found.gates[sites[0]], server.model()
    message = Message(CompareRequest(**model).to_record(), dst_node_id=context.node_id, message_type=COMPARE)
    assert "masked" in gate._side(context).app()(message, context).content
    found.restart(sites[0])
    other = {name: value + 1.0 for name, value in model["arrays"].items()}
    assert compared(server, sites[:1], arrays=other) == {}


def among(found: Consortium, sites: Sequence[str], run: str) -> LyingServer:
    """Return the server of a run of some sites, which pin each other and have each other's keys."""
    for site in sites:
        found.approve(site, pins={other: found.pins[other] for other in sites}, co_sites=list(sites))
    server = LyingServer(found, run)
    for context in server.contexts.values():
        context.run_config["sites"] = ",".join(sites)
    assert not any(map(said, server.keys(list(sites)).values()))
    return server


def test_with_other_pinned_sites_the_figures_stay_and_the_sites_own_people_have_them(consortium):
    found = consortium(6, 3)
    sites = sorted(found.sites)
    assert sorted(compared(among(found, sites[:4], "20261120-101500-aaaa"), sites[:4])) == sites[:3]
    # Lists of these and of those need no honest site in common.
    others = [*sites[:3], *sites[4:]]
    later = among(found, others, "20261120-111500-bbbb")
    assert compared(later, others) == {}
    assert results_of(found.folders["site-01"])[0][0].run == later.run
    # No line says that the question was answered with these.
    lines = [line.facts for line in found.lines("site-01") if line.kind == "compare"]
    assert ["question-sha256" in facts for facts in lines] == [True, False]


def test_a_run_is_forgotten_when_it_is_over_and_not_before_it_is_compared(consortium: Callable[..., Consortium]):
    found = consortium(4, 3)
    server, sites = LyingServer(found, "20261120-101500-aaaa"), sorted(found.sites)
    server.keys(sites)
    forget_compared(sites[0], server.run)
    assert kept_folder(sites[0], server.run).is_dir()
    compared(server, sites)
    # Who shares figures of its own has nothing left to open.
    assert [kept_folder(site, server.run).is_dir() for site in sites] == [True, True, True, False]
    forget_compared(sites[0], server.run)
    assert not kept_folder(sites[0], server.run).is_dir()
