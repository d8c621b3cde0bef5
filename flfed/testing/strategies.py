"""What every strategy keeps, whatever it does with the updates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from flfed.flower_names import TaskIdentity
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.testing.rules import RuleBroken, Subject, are_same, check, hold, largest_gap
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.arrays import Arrays, Shapes, arrays_defect, shapes_of
from flfed.updates.extra import LocalUpdate, SiteArrays, client_terms
from flfed.updates.messages.train import TrainReply
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

NODES = {"alpha": 41, "beta": 7, "gamma": 99, "delta": 3, "epsilon": 12}
"""Sites and their nodes: ids do not follow names, so that nothing can lean on them."""
ORDER = (0, 1, 2, 3, 4)
ROWS = {"alpha": 10.0, "beta": 40.0, "gamma": 25.0, "delta": 300.0, "epsilon": 7.0}
ENCODER = Encoder(
    center=np.zeros(2), scale=np.ones(2), frequency=np.ones(2) / 2, spread=np.ones(2), class_weight=np.ones(2)
)
PLAN = Plan(steps=3)
"""Every site takes the steps that are asked for: a strategy that goes by them refuses an update of others."""


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
    with _on_a_task():
        check(globals(), Subject(strategy, settings))


def it_builds_on_fedavg(subject: Subject) -> None:
    """Sampling, guard, quorum, deadline and checkpoint are FedAvg's.

    A run relies on them.
    """
    hold(issubclass(subject.kind, FedAvg), "it is not a subclass of flfed.updates.strategies.fedavg.FedAvg")


def replies_equal_to_what_was_sent_change_nothing(subject: Subject) -> None:
    """Where no site learned anything the model stays, to the bit and in its precision."""
    for dtype in ("float64", "float32"):
        arrays = _start(dtype)
        zeros = {name: np.zeros_like(value) for name, value in arrays.items()}
        aggregate = _after_a_round(subject, dict.fromkeys(NODES, zeros), ROWS, arrays=arrays)
        gap = largest_gap(aggregate, arrays)
        hold(gap == 0, f"in {dtype} an array changed by {gap:g}")
        hold({value.dtype.name for value in aggregate.values()} == {dtype}, f"{dtype} arrays were returned as others")


def updates_change_the_model(subject: Subject) -> None:
    """What the sites learned reaches the model."""
    gap = largest_gap(_after_a_round(subject, _deltas(), ROWS), _start())
    hold(gap > 1e-6, "five updates of size 1 changed nothing")


def the_order_of_replies_does_not_change_a_bit(subject: Subject) -> None:
    """Replies come as the network has them.

    A run must not depend on it.
    """
    expected = _after_a_round(subject, _deltas(), ROWS)
    for order in ((4, 3, 2, 1, 0), (2, 0, 4, 1, 3)):
        gap = largest_gap(_after_a_round(subject, _deltas(), ROWS, order), expected)
        hold(gap == 0, f"in the order {order} an array differs by {gap:g}")


def only_the_ratio_of_weights_counts(subject: Subject) -> None:
    """Three times as many rows everywhere say nothing new."""
    expected = _after_a_round(subject, _deltas(), ROWS)
    aggregate = _after_a_round(subject, _deltas(), {site: 3 * rows for site, rows in ROWS.items()})
    gap = largest_gap(aggregate, expected) / max(float(np.abs(value).max()) for value in expected.values())
    hold(gap <= 1e-12, f"with three times the rows at every site an array differs by {gap:g} of the largest entry")


def no_replies_give_no_update(subject: Subject) -> None:
    """A silent round is no round: it is asked again or stops the run."""
    strategy = _made(subject)
    _request_training(strategy, to_record(_start()))
    updated, _ = strategy.aggregate_train(1, [])
    hold(updated is None, "it returned a model without replies")
    hold(strategy.aggregate_evaluate(2, []) is None, "it returned an evaluation without replies")


def arrays_beside_the_model_are_as_declared(subject: Subject) -> None:
    """A gate knows their shapes before a message comes: they are those of `extra_shapes`."""
    strategy = _made(subject)
    _request_training(strategy, to_record(_start()))
    model = shapes_of(_start())
    kind = type(strategy)
    declared = kind.extra_shapes(model)
    settings = dict(strategy.client_settings())
    received = strategy.client_arrays()
    state = Arrays()
    # A site's first round, its second, and one after what it kept was lost.
    for has_state in (True, True, False):
        _hold_like("client_arrays()", received, declared.sent)
        arrays = SiteArrays(received=_unwritable(received), kept=_unwritable(state) if has_state else {})
        _, constant = client_terms(kind, settings, arrays)
        _hold_like("constant gradient", _start() | constant, model)
        update = LocalUpdate(delta=_unwritable(_deltas()["beta"]), steps=3, lr=0.1, plan=strategy.run.plan)
        made = kind.client_extra(settings, arrays, update)
        _hold_like("client_extra().returned", made.returned, declared.returned)
        _hold_like("client_extra().kept", made.kept, declared.kept)
        state = made.kept
    hold(
        "Reveals: " in (kind.__doc__ or "") or not declared.returned,
        "its docstring has no paragraph 'Reveals:' for the arrays it returns",
    )


def a_resumed_run_goes_on_as_if_nothing_had_happened(subject: Subject) -> None:
    """What a later round depends on is in `state`, as arrays and plain facts, and `restore` takes it back."""
    whole = _made(subject)
    first = _round(whole, 1, to_record(_start()))
    arrays, facts = whole.state()
    expected = to_arrays(_round(whole, 2, first))
    sent = whole.client_arrays()
    resumed = _made(subject)
    resumed.restore(1, arrays, json.loads(json.dumps(facts)))
    gap = largest_gap(to_arrays(_round(resumed, 2, first)), expected)
    hold(gap == 0, f"the round after a resumption differs by {gap:g}")
    hold(are_same(resumed.client_arrays(), sent), "client_arrays() differs after a resumption")


@contextmanager
def _on_a_task() -> Iterator[None]:
    """Let Flower build messages, which it does only where these are set, as a SuperLink does for its processes."""
    before = {name: vars(TaskIdentity).get(name) for name in ("run_id", "task_id", "node_id")}
    try:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def _start(dtype: str = "float64") -> Arrays:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in (("weight", (4, 2)), ("bias", (2,)))}


def _deltas() -> dict[str, Arrays]:
    """Return an update a site, each another one."""
    rngs = {site: np.random.default_rng(seed) for seed, site in enumerate(NODES)}
    return {site: {name: rng.normal(size=of.shape) for name, of in _start().items()} for site, rng in rngs.items()}


def _made(subject: Subject) -> Any:
    """Return the strategy at the start of a run."""
    strategy = subject.make()
    participants = {site: Participant(node_id=node, rows_high=9999) for site, node in NODES.items()}
    strategy.assign(RunContext(participants=participants, encoder=ENCODER, plan=PLAN, rounds=3, seed=5))
    return strategy


def _request_training(strategy: Any, arrays: ArrayRecord, config: Any = None, number: int = 1) -> list[Message]:
    messages = list(strategy.configure_train(number, arrays, config or ConfigRecord({}), None))
    for message in messages:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    return messages


def _answered(strategy: Any, messages: list[Message], deltas: Any, rows: Any) -> list[Message]:
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


def _round(
    strategy: Any, number: int, arrays: ArrayRecord, deltas: Any = None, rows: Any = ROWS, order: Sequence[int] = ORDER
) -> ArrayRecord:
    messages = _request_training(strategy, arrays, number=number)
    replies = _answered(strategy, messages, deltas or _deltas(), rows)
    updated, _ = strategy.aggregate_train(number, [replies[place] for place in order])
    if updated is None:
        raise RuleBroken("five replies without a defect gave no model")
    return cast(ArrayRecord, updated)


def _after_a_round(
    subject: Subject, deltas: Any, rows: Any, order: Sequence[int] = ORDER, arrays: Arrays | None = None
) -> Arrays:
    """Return the global arrays after one round whose replies come in this order."""
    return to_arrays(_round(_made(subject), 1, to_record(arrays or _start()), deltas, rows, order))


def _hold_like(what: str, arrays: Arrays, shapes: Shapes) -> None:
    """Hold that arrays have the names, shapes and types that were declared, and are finite."""
    defect = arrays_defect(arrays, shapes)
    hold(defect is None, f"{what}: {defect} (declared: {', '.join(shapes) or 'none'})")


def _unwritable(arrays: Arrays) -> Arrays:
    """Return copies that raise where somebody writes into them."""
    copies = {name: value.copy() for name, value in arrays.items()}
    for value in copies.values():
        value.setflags(write=False)
    return copies
