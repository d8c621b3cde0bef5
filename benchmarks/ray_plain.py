"""W2 as a user of Flower would write it, on Flower's simulation with Ray: `python -m benchmarks.ray_plain JOB`.

A plain `FedAvg`, a plain client app with a PyTorch loop, scored at every site each round; nothing
of flfed. The rows and first arrays are those of the other ways, the orders of rows are not, so
that the loss is compared. One round goes first, untimed: processes start and import torch in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import nn

from benchmarks.bare import Job, evaluate, module, read_job, train
from benchmarks.processes import watching

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
LOSS = nn.BCEWithLogitsLoss()


@cache
def job_of(path: str) -> Job:
    """Return the job; each process reads it once."""
    torch.set_num_threads(1)
    return read_job(Path(path))


def client_app(path: str):
    """Return the client app: partition i is the i-th site."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def at_site(message: Message, context: Context):
        job = job_of(path)
        site = sorted(job.x)[int(context.node_config["partition-id"])]
        net = module(job.start)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        return job, site, net, torch.from_numpy(job.x[site]), torch.from_numpy(job.y[site])

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        job, site, net, x, y = at_site(message, context)
        train(net, LOSS, x, y, job.order(site, int(message.content["config"]["server-round"])), job)
        metrics = MetricRecord({"num-examples": len(y)})
        return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def judge(message: Message, context: Context) -> Message:
        _, site, net, x, y = at_site(message, context)
        loss = evaluate(net, LOSS, {site: x}, {site: y}, [site])[site]
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": len(y), "loss": loss})}), reply_to=message)

    return app


def simulate(path: Path, rounds: int) -> dict[str, float]:
    """Return wall and CPU seconds, memory of all processes, and the loss after the last round."""
    from flwr.app import ArrayRecord, Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    job, server, found = job_of(str(path)), ServerApp(), dict[str, float]()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord(module(job.start).state_dict())
        sites = len(job.x)
        strategy = FedAvg(min_available_nodes=sites, min_train_nodes=sites, min_evaluate_nodes=sites)
        strategy.start(grid, start, num_rounds=1, timeout=300)
        found["began"] = time.time()
        result = strategy.start(grid, start, num_rounds=rounds, timeout=300)
        found["ended"] = time.time()
        found["loss"] = float(result.evaluate_metrics_clientapp[rounds]["loss"])

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"include_dashboard": False}}
    with watching(os.getpid()) as watched:
        run_simulation(server, client_app(str(path)), len(job.x), backend_config=resources)
    return {
        "wall-seconds": found["ended"] - found["began"],
        "cpu-seconds": watched.cpu_between(found["began"], found["ended"]),
        "peak-mb": round(watched.peak_mb(), 1),
        "loss": found["loss"],
        "rounds": rounds,
    }


@contextmanager
def quietly() -> Iterator[None]:
    """Report to nobody, and let Ray's processes import what this one can."""
    os.environ.update(QUIET, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Print what the simulation took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    with quietly():
        found = simulate(given.job, given.rounds or job_of(str(given.job)).rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    # Under its own name, since Ray's processes cannot import from "__main__".
    from benchmarks import ray_plain

    ray_plain.main()
