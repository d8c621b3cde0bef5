"""The study's model as a user of Flower would write it: a bundle's only module; nothing of flfed is in it.

`benchmarks.plain` copies it beside a `pyproject.toml`. A logistic regression in numpy: a client
app that imports torch starts more slowly still, with every message.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()
SECONDS = 300.0


def fitted(
    weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, config: ConfigRecord
) -> tuple[np.ndarray, np.ndarray]:
    """Return the model after the epochs of one round: mini-batches, plain SGD."""
    order = np.random.default_rng(int(config["server-round"]))
    batch, rate, l2 = int(config["batch"]), float(config["lr"]), float(config["l2"])
    for _ in range(int(config["epochs"])):
        rows = order.permutation(len(y))
        for first in range(0, len(y), batch):
            part = rows[first : first + batch]
            residual = 1 / (1 + np.exp(-(x[part] @ weight + bias))) - y[part, None]
            weight = weight - rate * (x[part].T @ residual / len(part) + l2 * weight)
            bias = bias - rate * residual.mean(axis=0)
    return weight, bias


def log_loss(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean loss on some rows."""
    z = (x @ weight + bias)[:, 0]
    return float(np.mean(np.logaddexp(0, z) - y * z))


def at_site(message: Message, context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the model that came, and the site's rows."""
    arrays = message.content["arrays"]
    with np.load(str(context.node_config["rows"])) as rows:
        return arrays["weight"].numpy(), arrays["bias"].numpy(), rows["x"], rows["y"]


@client.train()
def fit(message: Message, context: Context) -> Message:
    """Train for a round."""
    weight, bias, x, y = at_site(message, context)
    began = time.perf_counter()
    weight, bias = fitted(weight, bias, x, y, message.content["config"])
    metrics = MetricRecord({"num-examples": len(y), "seconds": time.perf_counter() - began})
    arrays = ArrayRecord({"weight": _array(weight), "bias": _array(bias)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client.evaluate()
def judge(message: Message, context: Context) -> Message:
    """Score the model."""
    weight, bias, x, y = at_site(message, context)
    began = time.perf_counter()
    loss = log_loss(weight, bias, x, y)
    metrics = MetricRecord({"num-examples": len(y), "loss": loss, "seconds": time.perf_counter() - began})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _array(values: np.ndarray):
    from flwr.app import Array

    return Array(np.ascontiguousarray(values))


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run Flower's own FedAvg, and write down when each round was over."""
    given = context.run_config
    sites, rounds, out = int(given["sites"]), int(given["rounds"]), Path(str(given["out"]))
    start = {"weight": np.zeros((int(given["features"]), 1)), "bias": np.zeros(1)}
    config = ConfigRecord({name: given[name] for name in ("batch", "lr", "l2", "epochs")})
    marks = out.with_suffix(".marks").open("a", buffering=1)

    def mark(number: int, arrays: ArrayRecord) -> None:
        marks.write(f"{time.time()}\n" if number else "")

    strategy = FedAvg(min_available_nodes=sites, min_train_nodes=sites, min_evaluate_nodes=sites)
    record = ArrayRecord({name: _array(values) for name, values in start.items()})
    result = strategy.start(grid, record, num_rounds=rounds, timeout=SECONDS, train_config=config, evaluate_fn=mark)
    marks.close()
    found = {
        "losses": [float(result.evaluate_metrics_clientapp[number]["loss"]) for number in range(1, rounds + 1)],
        "training": [
            float(result.train_metrics_clientapp[number]["seconds"])
            + float(result.evaluate_metrics_clientapp[number]["seconds"])
            for number in range(1, rounds + 1)
        ],
        "arrays": {name: array.numpy().ravel().tolist() for name, array in result.arrays.items()},
    }
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(out)
