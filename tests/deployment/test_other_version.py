"""A site of another version of flfed: it is refused when it enrols, and both versions are named."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message

import flfed
from flfed.errors import FlfedError
from flfed.updates.messages.enrol import ENROL

OTHER = "0.2.0"
SAID = f"it has flfed {OTHER}, and the coordinator has {flfed.__version__}: all sites of a run need the coordinator's"


def of_another_version(sites: set[int]) -> Callable[[Message], Message]:
    """Let the sites of some nodes say another version."""

    def change(reply: Message) -> Message:
        if reply.metadata.message_type == ENROL and reply.metadata.src_node_id in sites:
            reply.content["config"]["version"] = OTHER
        return reply

    return change


def test_it_is_refused_and_the_others_go_on(conduct: Any, small_sites: Any, small_study: str):
    ran = conduct(small_sites(3), small_study, change=of_another_version({2}))
    assert ran.outcome.status == "completed"
    assert {heard.kind for heard in ran.grid.heard if heard.site == "site-02"} == {ENROL}
    (site,) = (one for one in ran.reader.sites(ran.run) if one.site == "site-02")
    assert (site.status, site.reason) == ("refused", SAID)


def test_with_none_of_the_own_version_no_run_begins_and_the_reason_names_both(conduct, small_sites, small_study):
    ran = conduct(small_sites(2), small_study, change=of_another_version({1, 2}))
    assert ran.outcome is None and SAID in str(ran.error)


def test_a_gate_tells_its_version_and_is_asked_nothing_more_by_a_coordinator_of_another(
    gated: Any, conducted_through: Any, monkeypatch: pytest.MonkeyPatch
):
    site = gated()
    monkeypatch.setattr("flfed.federation.server.enrolment.flfed", SimpleNamespace(__version__="9.0"))
    with pytest.raises(FlfedError, match=f"it has flfed {flfed.__version__}, and the coordinator has 9.0"):
        conducted_through(site)
    assert [line.kind for line in site.lines() if line.kind != "snapshot"] == ["enrol"]
