"""What every strategy of the listing promises: the contract for other packages' too, and more of ours."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord

from flfed.registry import load, names
from flfed.testing import check_strategy
from flfed.testing.rules import Subject, are_same, largest_gap
from flfed.testing.strategies import (
    ENCODER,
    NODES,
    ROWS,
    _answered,
    _deltas,
    _made,
    _on_a_task,
    _request_training,
    _start,
)
from flfed.updates.extra import SiteArrays, client_terms
from flfed.updates.messages.train import TRAIN, TrainRequest
from flfed.updates.strategies.fedavg import to_arrays, to_record

STRATEGIES = [name for name in names("strategy") if name not in ("boosted-trees", "vertical")]
"""All that make a model of updates; the others' tests are test_boosted_trees_run.py and test_vertical_run.py."""
NEVER = (
    "pandas", "sklearn", "streamlit", "sqlalchemy",
    "flfed.rows", "flfed.records", "flfed.federation", "flfed.deployment",
)  # fmt: skip
"""What a strategy, a codec or a mechanism sees is updates: none of these comes along with it."""


@pytest.fixture(params=STRATEGIES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with _on_a_task():
        yield Subject(load("strategy", request.param))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_keeps_the_contract(name: str):
    check_strategy(load("strategy", name))


def test_the_callers_records_are_unchanged(subject: Subject) -> None:
    """Arrays, settings and replies belong to the caller (Flower's own FedAvg writes into its settings)."""
    strategy = _made(subject)
    arrays = to_record(_start())
    config = ConfigRecord({"mine": 1})
    messages = _request_training(strategy, arrays, config)
    list(strategy.configure_evaluate(1, arrays, config, None))
    replies = _answered(strategy, messages, _deltas(), ROWS)
    before = [_bytes(reply.content.array_records["arrays"]) for reply in replies]
    strategy.aggregate_train(1, replies)
    assert dict(config) == {"mine": 1}
    assert largest_gap(to_arrays(arrays), _start()) == 0
    assert [_bytes(reply.content.array_records["arrays"]) for reply in replies] == before


def test_every_site_is_sent_a_record_of_its_own(subject: Subject) -> None:
    """The global arrays, the encoder and the strategy's numbers.

    One client's edit must not reach the next.
    """
    strategy = _made(subject)
    messages = _request_training(strategy, to_record(_start()))
    sent = [message.metadata.dst_node_id for message in messages]
    assert sorted(sent) == sorted(NODES.values())
    assert {m.metadata.message_type for m in messages} == {TRAIN}
    for message in messages:
        request = TrainRequest.from_record(message.content)
        assert request.encoder.sha256() == ENCODER.sha256()
        assert (request.round, request.rounds) == (1, 3)
        assert dict(request.settings) == dict(strategy.client_settings())
        assert largest_gap(request.arrays, _start()) == 0
        assert are_same(request.extra, strategy.client_arrays())
        message.content.clear()


def _bytes(record: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in record.items()}


def test_a_client_term_takes_one_site_or_a_stack_of_them(subject: Subject) -> None:
    """An engine may train many sites at once: a gradient works on any leading dimension."""
    strategy = _made(subject)
    _request_training(strategy, to_record(_start()))
    rng = np.random.default_rng(6)
    w, anchor = (torch.from_numpy(rng.normal(size=(3, 4, 2))) for _ in range(2))
    arrays = SiteArrays(received=strategy.client_arrays())
    for term in client_terms(type(strategy), dict(strategy.client_settings()), arrays)[0]:
        stacked = term(w, anchor)
        assert stacked.shape == w.shape
        gap = max(float((term(w[k], anchor[k]) - stacked[k]).abs().max()) for k in range(len(w)))
        assert gap < 1e-12


def test_importing_what_sees_updates_brings_no_tables():
    modules = {load(kind, name).__module__ for kind in ("strategy", "codec", "mechanism") for name in names(kind)}
    code = f"import importlib, sys; [importlib.import_module(one) for one in {sorted(modules)!r}]; "
    code += f"print(*[m for m in sys.modules if any(m == n or m.startswith(n + '.') for n in {NEVER!r})])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert len(modules) > 10 and done.stdout.strip() == ""


def test_a_strategy_of_ours_takes_all_that_fedavg_takes():
    shared = set(inspect.signature(load("strategy", "fedavg")).parameters)
    assert {"fedavg", "fedprox"} <= set(STRATEGIES) and len(shared) == 11
    for name in STRATEGIES:
        assert shared <= set(inspect.signature(load("strategy", name)).parameters), name
