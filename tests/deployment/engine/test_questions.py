"""Which nodes are waited for, and what is said meanwhile: by a clock that the tests set."""

import re

import httpx
import pytest
from flwr.supercore.retry import make_simple_http_retry_invoker

from flfed.deployment.flower.grid import RESTART_SECONDS, Presence, WaitReporter, make_patient
from flfed.errors import FlfedError


def test_a_node_that_went_lately_is_waited_for_and_one_that_was_never_there_is_not():
    now, nodes = [0.0], {1: "9:00", 2: "9:00", 3: ""}
    presence = Presence(lambda: dict(nodes), lambda: now[0])
    assert [presence.since(node) for node in (1, 3, 7)] == ["9:00", "", ""]
    assert [presence.may_return(node) for node in (1, 2, 3)] == [True, True, False]
    now[0] = RESTART_SECONDS - 1
    assert presence.may_return(1)
    now[0] = RESTART_SECONDS
    assert not presence.may_return(1)
    # Back, and gone again: its time begins anew.
    nodes[1] = "9:31"
    assert presence.look()
    assert (presence.since(1), presence.may_return(1)) == ("9:31", True)
    del nodes[2]
    now[0] += 5
    assert presence.look() and not presence.look()
    assert [presence.may_return(node, wait=True) for node in (1, 2)] == [True, False]


def test_what_the_server_said_last_holds_while_it_does_not_answer():
    now, answers = [0.0], [{1: "9:00"}]

    def online() -> dict[int, str]:
        if not answers:
            raise FlfedError("the coordinator does not serve")
        return answers.pop()

    presence = Presence(online, lambda: now[0])
    now[0] = 60
    assert presence.look()
    assert presence.since(1) == "9:00"


def test_who_is_waited_for_is_said_after_a_while_when_it_changes_and_every_half_minute():
    now, said = [0.0], list[str]()
    telling = WaitReporter(said.append, lambda: now[0])
    for second in range(200):
        now[0] = second
        why = "its node is not online" if second >= 100 else ""
        telling.waiting({"b": why}, ["a"], 200.0 - second)
        if not said:
            assert second < 5
    telling.over()
    plain = "Waiting for an answer from b. Answered so far: a."
    away = "Waiting for an answer from b (its node is not online). Answered so far: a."
    assert [re.sub(r", until \d\d:\d\d:\d\d\.$", "", line) for line in said] == [
        *(f"{plain} The coordinator waits {left} s more" for left in (195, 165, 135, 105)),
        *(f"{away} The coordinator waits {left} s more" for left in (100, 70, 40, 10)), "",
    ]  # fmt: skip


def test_nothing_is_said_of_questions_that_are_soon_answered():
    now, said = [0.0], list[str]()
    telling = WaitReporter(said.append, lambda: now[0])
    for now[0] in (1, 2, 4.9):
        telling.waiting({"b": ""}, [], 10)
    telling.over()
    assert len(said) == 0


def test_a_server_that_is_away_is_asked_again_and_one_that_refuses_is_not():
    codes = [502, 503, 200, 403, 200]

    def ask() -> int:
        answer = httpx.Response(codes.pop(0), request=httpx.Request("POST", "https://fl.example.org"))
        return answer.raise_for_status().status_code

    patient = make_simple_http_retry_invoker()
    make_patient(patient)
    assert patient.invoke(ask) == 200
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        patient.invoke(ask)
    assert codes == [200]
    failed = ["Connection refused", "certificate verify failed", "never asked"]

    def connect() -> None:
        raise httpx.ConnectError(failed.pop(0))

    with pytest.raises(httpx.ConnectError, match="certificate"):
        patient.invoke(connect)
    assert failed == ["never asked"]
