"""What every strategy of the listing promises, whatever it does with the updates."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.supercore.task_identity import TaskIdentity

from flfed.listing import load, names, settings
from flfed.plan import Plan
from flfed.summary import Encoder
from flfed.updates.content import Arrays
from flfed.updates.messages import TRAIN, TrainReply, TrainRequest
from flfed.updates.rounds import Assignment, Enrolled
from flfed.updates.strategies.fedavg import to_arrays, to_record

STRATEGIES = names("strategy")
SITES = ("alpha", "beta", "gamma", "delta", "epsilon")
NODES = dict(zip(SITES, (41, 7, 99, 3, 12), strict=True))
ENCODER = Encoder(
    center=np.zeros(2), scale=np.ones(2), frequency=np.ones(2) / 2, spread=np.ones(2), class_weight=np.ones(2)
)


@pytest.fixture(autouse=True)
def on_a_task() -> None:
    """Flower builds messages only where these are set; a SuperLink does it for its processes."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0


def start(dtype: str = "float64") -> Arrays:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in (("weight", (4, 2)), ("bias", (2,)))}


def delta(seed: int, like: Arrays, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=value.shape)).astype(value.dtype) for name, value in like.items()}


def made(name: str):
    """A strategy at the start of a run, with its own defaults."""
    strategy = load("strategy", name)()
    roster = {site: Enrolled(node_id=NODES[site], rows_high=9999) for site in SITES}
    strategy.assign(Assignment(roster=roster, encoder=ENCODER, plan=Plan(), rounds=3, seed=5))
    return strategy


def asked(strategy, arrays: Arrays, config: ConfigRecord | None = None) -> list[Message]:
    messages = list(strategy.configure_train(1, to_record(arrays), config or ConfigRecord({}), None))
    for message in messages:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    return messages


def answered(messages: list[Message], deltas: dict[str, Arrays], rows: dict[str, float]) -> list[Message]:
    sites = {node: site for site, node in NODES.items()}
    found = []
    for message in messages:
        site = sites[message.metadata.dst_node_id]
        reply = TrainReply(delta=deltas[site], num_examples=rows[site], loss=0.4, steps=3)
        found.append(Message(reply.to_record(), reply_to=message))
    return found


def after(name: str, deltas: dict[str, Arrays], rows: dict[str, float], order=(0, 1, 2, 3, 4), arrays=None) -> Arrays:
    """The global arrays after one round."""
    strategy = made(name)
    replies = answered(asked(strategy, arrays or start()), deltas, rows)
    updated, _ = strategy.aggregate_train(1, [replies[place] for place in order])
    return to_arrays(updated)


ROWS = dict(zip(SITES, (10.0, 40.0, 25.0, 300.0, 7.0), strict=True))
DELTAS = {site: delta(seed, start()) for seed, site in enumerate(SITES)}


def test_there_is_a_strategy():
    assert "fedavg" in STRATEGIES


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_replies_equal_to_what_was_sent_change_nothing(name, dtype):
    arrays = start(dtype)
    still = {site: delta(0, arrays, scale=0.0) for site in SITES}
    found = after(name, still, ROWS, arrays=arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype
    moved = after(name, DELTAS, ROWS)
    assert max(np.abs(moved[key] - start()[key]).max() for key in moved) > 0.01


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_order_of_replies_does_not_change_a_bit(name):
    expected = after(name, DELTAS, ROWS)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        found = after(name, DELTAS, ROWS, order)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_the_ratio_of_weights_counts(name):
    expected = after(name, DELTAS, ROWS)
    found = after(name, DELTAS, {site: 3 * rows for site, rows in ROWS.items()})
    other = after(name, DELTAS, {**ROWS, "beta": 4000.0})
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-13)
    if load("strategy", name)().weights != "equal":
        assert max(np.abs(other[key] - expected[key]).max() for key in expected) > 0.01


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_replies_give_no_update(name):
    strategy = made(name)
    asked(strategy, start())
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_evaluate(2, []) is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_callers_records_are_unchanged(name):
    strategy, arrays, config = made(name), to_record(start()), ConfigRecord({"mine": 1})
    messages = list(strategy.configure_train(1, arrays, config, None))
    evaluations = list(strategy.configure_evaluate(1, arrays, config, None))
    for message in messages:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    replies = answered(messages, DELTAS, ROWS)
    before = [{key: array.data for key, array in reply.content["arrays"].items()} for reply in replies]
    strategy.aggregate_train(1, replies)
    assert dict(config) == {"mine": 1}
    for key, value in start().items():
        np.testing.assert_array_equal(arrays[key].numpy(), value)
    assert [{key: array.data for key, array in reply.content["arrays"].items()} for reply in replies] == before
    assert {m.metadata.message_type for m in messages} == {TRAIN} and len(evaluations) == len(SITES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_site_is_sent_the_global_arrays_the_encoder_and_its_settings_as_numbers(name):
    strategy = made(name)
    for message in asked(strategy, start()):
        request = TrainRequest.from_record(message.content)
        assert request.fit and request.score and (request.round, request.rounds) == (1, 3)
        assert request.encoder.sha256() == ENCODER.sha256()
        assert request.settings == dict(strategy.client_settings())
        for key, value in start().items():
            np.testing.assert_array_equal(request.arrays[key], value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_names_its_source(name):
    assert "Source:" in inspect.getdoc(load("strategy", name))


@pytest.mark.parametrize("name", STRATEGIES)
def test_importing_a_strategy_brings_neither_tables_nor_their_metrics(name):
    """`flfed/updates` sees no rows: in a fresh interpreter pandas and scikit-learn stay away."""
    code = (
        "import sys; from flfed.listing import load; "
        f"load('strategy', {name!r}); "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & {'pandas', 'sklearn', 'streamlit', 'sqlalchemy'}),"
        " *[m for m in sys.modules if m.startswith(('flfed.rows', 'flfed.records', 'flfed.apps'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def documented(text: str) -> set[str]:
    """Return the names that a numpydoc text describes: `name : type`, or `a, b : type`."""
    heads = [line.partition(" : ")[0] for line in text.splitlines() if " : " in line]
    return {name for head in heads for name in head.split(", ")}


@pytest.mark.parametrize("kind", ["strategy", "model"])
def test_a_constructors_signature_is_its_config_schema(kind):
    for name in names(kind):
        thing = load(kind, name)
        hints, text = get_type_hints(thing.__init__), inspect.getdoc(thing)
        for parameter in inspect.signature(thing).parameters.values():
            where = f"{name}: {parameter.name}"
            hint = hints[parameter.name]
            plain = {bool, int, float, str}
            listed = get_origin(hint) is tuple and get_args(hint)[0] in plain and get_args(hint)[1] is Ellipsis
            assert hint in plain or get_origin(hint) is Literal or listed, where
            assert parameter.default is not inspect.Parameter.empty, where
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, where
            assert parameter.name in documented(text) or "parameters as for `" in text, where
            # The default is itself a value that a study may give.
            given = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            key = parameter.name.replace("_", "-")
            assert settings(thing, {key: given}, "x") == {parameter.name: parameter.default}, where
