"""What every strategy keeps, whatever it does with the updates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message

from flfed.flower_names import TaskIdentity
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.testing.rules import LISTED, Rule, RuleBroken, Subject, are_same, check, hold, largest_gap
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.arrays import Arrays, Shapes, arrays_defect, shapes_of
from flfed.updates.extra import LocalUpdate, SiteArrays, client_terms
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from flfed.words import render

NODES = {"alpha": 41, "beta": 7, "gamma": 99, "delta": 3, "epsilon": 12}
"""Sites and their nodes: ids do not follow names, so that nothing can lean on them."""
ROWS = {"alpha": 10.0, "beta": 40.0, "gamma": 25.0, "delta": 300.0, "epsilon": 7.0}
ENCODER = Encoder(
    center=np.zeros(2), scale=np.ones(2), frequency=np.ones(2) / 2, spread=np.ones(2), class_weight=np.ones(2)
)
PLAN = Plan(steps=3)
"""Every site takes the steps that are asked for: a strategy that goes by them refuses an update of others."""
NEVER = (
    "pandas", "sklearn", "streamlit", "sqlalchemy",
    "flfed.rows", "flfed.records", "flfed.federation", "flfed.deployment",
)  # fmt: skip
"""What a strategy sees is updates: none of these comes along with it."""


def check_strategy(strategy: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a strategy against its contract.

    Parameters
    ----------
    strategy : class
        A subclass of `flfed.updates.strategies.fedavg.FedAvg`.
    settings : mapping of parameter to value, optional
        For its constructor; set noise to 0 here, where there is some.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.updates.strategies.fedavg import FedAvg
    >>> check_strategy(FedAvg)
    """
    check(STRATEGY_RULES, Subject(strategy, settings))


def it_builds_on_fedavg(subject: Subject) -> None:
    """Sampling, guard, quorum, deadline and checkpoint are FedAvg's.

    A run relies on them.
    """
    hold(issubclass(subject.kind, FedAvg), "base", base="flfed.updates.strategies.fedavg.FedAvg")


def importing_it_brings_no_tables(subject: Subject) -> None:
    """It sees updates, never rows: in a fresh interpreter no table library comes along."""
    hold(not (along := _brought_along(subject.kind.__module__)), "loads", modules=along[:200])


@cache
def _brought_along(module: str) -> str:
    """Return what of `NEVER` a fresh interpreter has loaded after importing a module."""
    code = (
        f"import importlib, sys; importlib.import_module({module!r}); "
        f"print(*[m for m in sys.modules if any(m == n or m.startswith(n + '.') for n in {NEVER!r})])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment)
    error_lines = done.stderr.strip().splitlines()
    why = error_lines[-1] if error_lines else "no reason given"
    hold(done.returncode == 0, "unimportable", why=why)
    return done.stdout.strip()


def replies_equal_to_what_was_sent_change_nothing(subject: Subject) -> None:
    """Where no site learned anything the model stays, to the bit and in its precision."""
    for dtype in ("float64", "float32"):
        arrays = _start(dtype)
        zeros = {name: np.zeros_like(value) for name, value in arrays.items()}
        aggregate = _after_a_round(subject, dict.fromkeys(NODES, zeros), ROWS, arrays=arrays)
        gap = largest_gap(aggregate, arrays)
        hold(gap == 0, "moved", dtype=dtype, gap=gap)
        for value in aggregate.values():
            hold(value.dtype == dtype, "dtype", expected=dtype, dtype=value.dtype)


def updates_change_the_model(subject: Subject) -> None:
    """What the sites learned reaches the model."""
    gap = largest_gap(_after_a_round(subject, _deltas(), ROWS), _start())
    hold(gap > 1e-6, "unmoved")


def the_order_of_replies_does_not_change_a_bit(subject: Subject) -> None:
    """Replies come as the network has them.

    A run must not depend on it.
    """
    expected = _after_a_round(subject, _deltas(), ROWS)
    for order in ((4, 3, 2, 1, 0), (2, 0, 4, 1, 3)):
        gap = largest_gap(_after_a_round(subject, _deltas(), ROWS, order), expected)
        hold(gap == 0, "order", order=order, gap=gap)


def only_the_ratio_of_weights_counts(subject: Subject) -> None:
    """Three times as many rows everywhere say nothing new."""
    expected = _after_a_round(subject, _deltas(), ROWS)
    aggregate = _after_a_round(subject, _deltas(), {site: 3 * rows for site, rows in ROWS.items()})
    scale = max(float(np.abs(value).max()) for value in expected.values())
    gap = largest_gap(aggregate, expected)
    hold(gap <= 1e-12 * scale, "rows-scaled", gap=gap)


def no_replies_give_no_update(subject: Subject) -> None:
    """A silent round is no round: it is asked again or stops the run."""
    with _on_a_task():
        strategy = _made(subject)
        _request_training(strategy, to_record(_start()))
        updated, _ = strategy.aggregate_train(1, [])
        hold(updated is None, "model-of-nothing")
        hold(strategy.aggregate_evaluate(2, []) is None, "evaluation-of-nothing")


def the_callers_records_are_unchanged(subject: Subject) -> None:
    """Arrays, settings and replies belong to the caller (Flower's own FedAvg writes into its settings)."""
    with _on_a_task():
        strategy = _made(subject)
        arrays = to_record(_start())
        config = ConfigRecord({"mine": 1})
        messages = _request_training(strategy, arrays, config)
        list(strategy.configure_evaluate(1, arrays, config, None))
        replies = _answered(strategy, messages, _deltas(), ROWS)
        before = [_bytes(reply.content.array_records["arrays"]) for reply in replies]
        strategy.aggregate_train(1, replies)
        hold(dict(config) == {"mine": 1}, "settings-changed", settings=dict(config))
        hold(largest_gap(to_arrays(arrays), _start()) == 0, "wrote", argument="the global arrays")
        hold(
            [_bytes(reply.content.array_records["arrays"]) for reply in replies] == before, "wrote", argument="a reply"
        )


def every_site_is_sent_a_record_of_its_own(subject: Subject) -> None:
    """The global arrays, the encoder and the strategy's numbers.

    One client's edit must not reach the next.
    """
    with _on_a_task():
        strategy = _made(subject)
        messages = _request_training(strategy, to_record(_start()))
        sent = [message.metadata.dst_node_id for message in messages]
        hold(sorted(sent) == sorted(NODES.values()), "nodes", nodes=sent, expected=sorted(NODES.values()))
        hold({m.metadata.message_type for m in messages} == {TRAIN}, "message-type")
        for message in messages:
            request = TrainRequest.from_record(message.content)
            hold(request.encoder.sha256() == ENCODER.sha256(), "encoder")
            hold((request.round, request.rounds) == (1, 3), "round", round=request.round, rounds=request.rounds)
            hold(dict(request.settings) == dict(strategy.client_settings()), "settings")
            hold(largest_gap(request.arrays, _start()) == 0, "global-arrays")
            hold(are_same(request.extra, strategy.client_arrays()), "extra-arrays")
            message.content.clear()


def a_client_term_takes_one_site_or_a_stack_of_them(subject: Subject) -> None:
    """An engine may train many sites at once: a gradient works on any leading dimension."""
    strategy = _begun(subject)
    rng = np.random.default_rng(6)
    w, anchor = (torch.from_numpy(rng.normal(size=(3, 4, 2))) for _ in range(2))
    arrays = SiteArrays(received=strategy.client_arrays())
    for term in client_terms(type(strategy), dict(strategy.client_settings()), arrays)[0]:
        stacked = term(w, anchor)
        hold(stacked.shape == w.shape, "gradient-shape", shape=tuple(stacked.shape), expected=tuple(w.shape))
        gap = max(float((term(w[k], anchor[k]) - stacked[k]).abs().max()) for k in range(len(w)))
        hold(gap < 1e-12, "stacked-gradient", gap=gap)


def arrays_beside_the_model_are_as_declared(subject: Subject) -> None:
    """A gate knows their shapes before a message comes: they are those of `extra_shapes`."""
    strategy = _begun(subject)
    model = shapes_of(_start())
    kind = type(strategy)
    declared = kind.extra_shapes(model)
    settings = dict(strategy.client_settings())
    received = strategy.client_arrays()
    state = Arrays()
    # A site's first round, its second, and one after what it kept was lost.
    for has_state in (True, True, False):
        _hold_like("client_arrays()", received, declared.sent)
        arrays_before = _unwritable(state) if has_state else {}
        arrays = SiteArrays(received=_unwritable(received), kept=arrays_before)
        _, constant = client_terms(kind, settings, arrays)
        _hold_like("constant gradient", _start() | constant, model)
        update = LocalUpdate(delta=_unwritable(_deltas()["beta"]), steps=3, lr=0.1, plan=strategy.run.plan)
        made = kind.client_extra(settings, arrays, update)
        _hold_like("client_extra().returned", made.returned, declared.returned)
        _hold_like("client_extra().kept", made.kept, declared.kept)
        state = made.kept
    is_documented = "Reveals: " in (kind.__doc__ or "")
    hold(is_documented or not declared.returned, "returned-arrays")


def a_resumed_run_goes_on_as_if_nothing_had_happened(subject: Subject) -> None:
    """What a later round depends on is in `state`, as arrays and plain facts, and `restore` takes it back."""
    with _on_a_task():
        whole = _made(subject)
        first = _round(whole, 1, to_record(_start()))
        arrays, facts = whole.state()
        expected = to_arrays(_round(whole, 2, first))
        sent = whole.client_arrays()
        resumed = _made(subject)
        resumed.restore(1, arrays, json.loads(json.dumps(facts)))
        gap = largest_gap(to_arrays(_round(resumed, 2, first)), expected)
        hold(gap == 0, "resumed", gap=gap)
        hold(are_same(resumed.client_arrays(), sent), "resumed-arrays")


STRATEGY_RULES: tuple[Rule, ...] = (
    it_builds_on_fedavg,
    *LISTED,
    importing_it_brings_no_tables,
    replies_equal_to_what_was_sent_change_nothing,
    updates_change_the_model,
    the_order_of_replies_does_not_change_a_bit,
    only_the_ratio_of_weights_counts,
    no_replies_give_no_update,
    the_callers_records_are_unchanged,
    every_site_is_sent_a_record_of_its_own,
    a_client_term_takes_one_site_or_a_stack_of_them,
    arrays_beside_the_model_are_as_declared,
    a_resumed_run_goes_on_as_if_nothing_had_happened,
)


@contextmanager
def _on_a_task() -> Iterator[None]:
    """Let Flower build messages: only where these are set it does.

    A SuperLink does it for its processes.
    """
    names = ("run_id", "task_id", "node_id")
    before = {name: vars(TaskIdentity).get(name) for name in names}
    TaskIdentity.run_id = 1
    TaskIdentity.task_id = 1
    TaskIdentity.node_id = 0
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def _start(dtype: str = "float64") -> Arrays:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in (("weight", (4, 2)), ("bias", (2,)))}


def _deltas() -> dict[str, Arrays]:
    """Return an update a site, each another one."""
    deltas = {}
    for seed, site in enumerate(NODES):
        rng = np.random.default_rng(seed)
        deltas[site] = {name: rng.normal(size=value.shape) for name, value in _start().items()}
    return deltas


def _made(subject: Subject) -> Any:
    """Return the strategy at the start of a run."""
    strategy = subject.make()
    participants = {site: Participant(node_id=node, rows_high=9999) for site, node in NODES.items()}
    strategy.assign(RunContext(participants=participants, encoder=ENCODER, plan=PLAN, rounds=3, seed=5))
    return strategy


def _request_training(
    strategy: Any, arrays: ArrayRecord, config: ConfigRecord | None = None, number: int = 1
) -> list[Message]:
    messages = list(strategy.configure_train(number, arrays, config or ConfigRecord({}), None))
    for message in messages:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    return messages


def _begun(subject: Subject) -> Any:
    """Return the strategy once it has asked for the first round."""
    with _on_a_task():
        strategy = _made(subject)
        _request_training(strategy, to_record(_start()))
        return strategy


def _answered(
    strategy: Any, messages: list[Message], deltas: Mapping[str, Arrays], rows: Mapping[str, float]
) -> list[Message]:
    sites = {node: site for site, node in NODES.items()}
    replies = []
    for message in messages:
        site = sites[message.metadata.dst_node_id]
        shapes = strategy.extra_shapes(shapes_of(deltas[site])).returned
        # Where a site learned nothing, what it sends back beside its update is zero too.
        size = max(float(np.abs(value).max()) for value in deltas[site].values())
        rng = np.random.default_rng(NODES[site])
        extra = {name: (size * rng.normal(size=shape)).astype(dtype) for name, (shape, dtype) in shapes.items()}
        reply = TrainReply(delta=deltas[site], num_examples=rows[site], loss=0.4, steps=PLAN.steps, extra=extra)
        replies.append(Message(reply.to_record(), reply_to=message))
    return replies


def _round(strategy: Any, number: int, arrays: ArrayRecord) -> ArrayRecord:
    messages = _request_training(strategy, arrays, number=number)
    updated, _ = strategy.aggregate_train(number, _answered(strategy, messages, _deltas(), ROWS))
    return _model(updated)


def _after_a_round(
    subject: Subject,
    deltas: Mapping[str, Arrays],
    rows: Mapping[str, float],
    order: Sequence[int] = (0, 1, 2, 3, 4),
    arrays: Arrays | None = None,
) -> Arrays:
    """Return the global arrays after one round whose replies come in this order."""
    with _on_a_task():
        strategy = _made(subject)
        replies = _answered(strategy, _request_training(strategy, to_record(arrays or _start())), deltas, rows)
        updated, _ = strategy.aggregate_train(1, [replies[place] for place in order])
        return to_arrays(_model(updated))


def _model(updated: ArrayRecord | None) -> ArrayRecord:
    if updated is None:
        raise RuleBroken(render("testing.rules.model"))
    return updated


def _bytes(record: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in record.items()}


def _hold_like(what: str, arrays: Arrays, shapes: Shapes) -> None:
    """Hold that arrays have the names, shapes and types that were declared, and are finite."""
    defect = arrays_defect(arrays, shapes)
    hold(defect is None, "declared", what=what, defect=defect, names=", ".join(shapes) or "none")


def _unwritable(arrays: Arrays) -> Arrays:
    """Return copies that raise where somebody writes into them."""
    copies = {name: value.copy() for name, value in arrays.items()}
    for value in copies.values():
        value.setflags(write=False)
    return copies
