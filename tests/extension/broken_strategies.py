"""Strategies that each break one rule of the contract, named after it; `tests/test_testing.py` reads them."""

from __future__ import annotations

import math

import numpy as np

from flfed.updates.strategies.fedavg import FedAvg, to_record

SOURCE = "Wrong on purpose. Source: none.\n\nParameters\n----------\nrate : float\n"


class Unbased:
    """No subclass of ours. Source: none."""


class Unsourced(FedAvg):
    """Says nothing of where it is from."""


class Loose(FedAvg):
    __doc__ = SOURCE

    def __init__(self, *, rate: float | list = 0.1) -> None:
        super().__init__()


class Drifting(FedAvg):
    __doc__ = SOURCE

    def combine(self, incoming, deltas, weights):
        return {
            name: value + value.dtype.type(1e-7) for name, value in super().combine(incoming, deltas, weights).items()
        }


class Deaf(FedAvg):
    __doc__ = SOURCE

    def combine(self, incoming, deltas, weights):
        return dict(incoming)


class Hurried(FedAvg):
    """Takes the first four that come. Source: none."""

    def aggregate_train(self, server_round, replies):
        return super().aggregate_train(server_round, list(replies)[:4])


class Logarithmic(FedAvg):
    """Weighs by the logarithm of rows. Source: none."""

    def weight(self, reply):
        return math.log1p(reply.num_examples)


class Inventive(FedAvg):
    """Makes a round of silence. Source: none."""

    def aggregate_train(self, server_round, replies):
        updated, metrics = super().aggregate_train(server_round, replies)
        return (to_record(self._incoming), metrics) if updated is None else (updated, metrics)


class Forgetful(FedAvg):
    """Has momentum, and none after a resume. Source: none."""

    def combine(self, incoming, deltas, weights):
        found = super().combine(incoming, deltas, weights)
        before = getattr(self, "_before", incoming)
        self._before = found
        return {
            name: value + 0.5 * (found[name] - before[name]) * np.any(deltas["alpha"][name])
            for name, value in found.items()
        }


class Undeclared(FedAvg):
    """Sends sites an array that no gate knows of. Source: none."""

    def client_arrays(self):
        return {"drift": np.zeros(2)}
