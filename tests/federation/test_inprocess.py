"""The in-process grid: each message reaches its node alone, replies name what they answer, deadlines hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flfed.federation.engines.inprocess import InProcessGrid


class Ticking:
    """A clock that a node moves on by the seconds it takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def echo(takes: dict[str, float], clock: Ticking) -> Callable[[Message, Context], Message]:
    """Return an app that answers with its site's name after so many seconds."""

    def app(message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        clock.now += takes.get(site, 0.0)
        return Message(RecordDict({"config": ConfigRecord({"site": site})}), reply_to=message)

    return app


def question(node: int) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"a": 1})}), dst_node_id=node, message_type="query.enrol")


def said(reply: Message) -> str:
    return str(reply.content.config_records["config"]["site"])


def test_each_site_is_one_node_and_answers_as_itself():
    grid = InProcessGrid(echo({}, Ticking()), ["b", "a", "c"], {})
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive([question(node) for node in reversed(nodes)])
    assert nodes == [1, 2, 3]
    assert [said(reply) for reply in replies] == ["c", "a", "b"]
    assert [reply.metadata.src_node_id for reply in replies] == [3, 2, 1]


def test_a_reply_names_the_message_it_answers_and_no_two_messages_share_a_name():
    grid = InProcessGrid(echo({}, Ticking()), ["a", "b"], {})
    asked = [question(1), question(2), question(1)]
    replies = grid.send_and_receive(asked)
    ids = [message.metadata.message_id for message in asked]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids
    assert len(set(ids)) == 3


def test_a_late_reply_is_not_used_and_each_site_has_the_whole_deadline():
    # Sites take 3, 5 and 4 seconds one after the other; with a deadline of 4 only the second is late.
    clock = Ticking()
    grid = InProcessGrid(echo({"a": 3.0, "b": 5.0, "c": 4.0}, clock), ["a", "b", "c"], {}, clock=clock)
    replies = grid.send_and_receive([question(node) for node in (1, 2, 3)], timeout=4.0)
    assert [said(reply) for reply in replies] == ["a", "c"]
    assert clock.now == 12.0


def test_without_a_deadline_every_reply_counts():
    clock = Ticking()
    grid = InProcessGrid(echo({"a": 1e9}, clock), ["a"], {}, clock=clock)
    assert len(grid.send_and_receive([question(1)])) == 1


def test_nodes_do_not_share_their_state_or_settings():
    seen: list[Context] = []

    def app(message: Message, context: Context) -> Message:
        seen.append(context)
        context.run_config["study"] = "changed by " + str(context.node_config["site"])
        return Message(RecordDict({}), reply_to=message)

    grid = InProcessGrid(app, ["a", "b"], {"study": "text"})
    grid.send_and_receive([question(1)])
    assert grid._contexts[2].run_config["study"] == "text"
    assert seen[0].state is not grid._contexts[2].state


@pytest.mark.parametrize("use", [
    lambda grid: grid.run, lambda grid: grid.set_run(None), lambda grid: grid.push_messages([]),
    lambda grid: grid.pull_messages([]),
], ids=["run", "set_run", "push_messages", "pull_messages"])  # fmt: skip
def test_what_only_a_superlink_has_is_refused(use: Callable[[InProcessGrid], object]):
    with pytest.raises(RuntimeError, match="in-process grid"):
        use(InProcessGrid(echo({}, Ticking()), ["a"], {}))


def test_a_message_can_be_made_by_the_grid_as_flowers_strategies_do():
    grid = InProcessGrid(echo({}, Ticking()), ["a"], {})
    message = grid.create_message(RecordDict({}), "train", 1, "7")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (1, "7")
    assert said(grid.send_and_receive([message])[0]) == "a"
