"""What a run over nodes that are known by name makes of those that do not enrol: who refused, and who is not there."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Error, Message

from flfed.errors import UsageError
from flfed.records.reports.faults import fault_kind, refused_sites
from flfed.records.reports.report import report
from flfed.updates.messages.enrol import ENROL

REFUSED, AWAY = "the study is not approved here", "its node is not online"


def stacked_compute(reasons: dict[int, str]) -> Callable[[Message], Message]:
    """Return what has some nodes answer their enrolment with an error."""

    def change(reply: Message) -> Message:
        node = reply.metadata.src_node_id
        if reply.metadata.message_type != ENROL or node not in reasons:
            return reply
        error = Message(Error(code=1, reason=f"site-{node:02d}: {reasons[node]}"), reply_to=reply)
        error.metadata.__dict__["_src_node_id"] = node
        error.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return error

    return change


def test_a_gate_that_refuses_and_a_node_that_is_away_are_told_apart(known, small_sites, small_study, conduct):
    done = conduct(small_sites(4), small_study, change=stacked_compute({2: REFUSED, 3: AWAY}))
    assert done.outcome.status == "completed"
    found = {site.site: (site.status, site.reason) for site in done.reader.sites(done.run)}
    assert found["site-02"] == ("refused", REFUSED) and "site-03" not in found
    assert done.reasons("refused") == {"site-02": REFUSED}
    assert done.reasons("fault") == {"site-03": f"not there: {AWAY}"}
    told = report(done.reader, done.run)
    assert refused_sites(told) == ["site-02"] and "update rejected" not in map(fault_kind, told["faults"])
    assert set(told["sites"]) == {"site-01", "site-04"}


def test_where_every_gate_refuses_it_is_wrong_input_and_nobody_is_sent_to_check_a_table(
    known, small_sites, small_study, conduct
):
    done = conduct(small_sites(3), small_study, change=stacked_compute(dict.fromkeys((1, 2, 3), REFUSED)))
    assert isinstance(done.error, UsageError)
    assert str(done.error).count(REFUSED) == 3 and "flfed site check" not in str(done.error)
